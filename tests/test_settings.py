"""Settings and profiles: what fits, and what is refused with a hint."""

import pytest
from pydantic import ValidationError

from lggseg_utils import settings
from lggseg_utils.settings import UserError, load_experiment


@pytest.mark.parametrize("profile", settings.profile_names())
def test_every_profile_is_valid(profile):
    assert load_experiment(profile).profile == profile


def test_the_profiles_of_the_contract_are_there():
    known = "smoke demo patient64 report64 report128 paper crossval64 ablation64 recipe ensemble"
    assert settings.profile_names() == sorted(known.split())


def test_profiles_follow_their_sources():
    report64, report128, paper = (
        load_experiment(name) for name in ("report64", "report128", "paper")
    )
    assert (report64.size, report64.batch_size, report64.epochs, report64.dropout) == (
        64,
        16,
        100,
        0.2,
    )
    assert (report128.size, report128.batch_size, report128.epochs, report128.dropout) == (
        128,
        16,
        128,
        0.0,
    )
    assert (paper.dropout, paper.batch_size, paper.epochs, paper.weights) == (0.1, 1, 235, "best")
    for profile in (report64, report128):
        assert (profile.weights, profile.early_stopping, profile.split) == ("last", 0, "slice")
        assert (profile.augmentation, profile.filters) == ("report", 32)


@pytest.mark.parametrize(
    ("profile", "overrides", "message"),
    [
        ("demmo", {}, "unknown profile 'demmo'. Did you mean 'demo'?"),
        ("smoke", {"splitt": "patient"}, "unknown setting 'splitt'. Did you mean 'split'?"),
        (
            "smoke",
            {"seed": 3},
            "seed is not a setting; use --seed or, in a notebook, the parameter seed.",
        ),
        (
            "smoke",
            {"split": "patients"},
            "setting split: unknown value 'patients'. Did you mean 'patient'?",
        ),
        ("smoke", {"augmentation": "flipp"}, "unknown augmentation 'flipp'. Did you mean 'flip'?"),
        (
            "smoke",
            {"ablation_conditions": ["alll"]},
            "unknown augmentation 'alll'. Did you mean 'all'?",
        ),
        (
            "smoke",
            {"ablation_conditions": ["none", "none"]},
            "setting ablation_conditions: name at least two",
        ),
        (
            "smoke",
            {"ablation_conditions": ["none"]},
            "setting ablation_conditions: name at least two",
        ),
        (
            "smoke",
            {"augmentation": "flip+noise+flip"},
            "augmentation flip+noise+flip: name each one once.",
        ),
        (
            "smoke",
            {"epochs": 0},
            "setting epochs: input should be greater than or equal to 1, got 0.",
        ),
        (
            "smoke",
            {"dropout": "much"},
            "setting dropout: input should be a valid number, got 'much'.",
        ),
        ("smoke", {"epochs": 1.5}, "setting epochs: input should be a valid integer, got 1.5."),
        (
            "smoke",
            {"size": 40, "depth": 5},
            "setting size: 40 can't be halved 4 times; use a multiple of 16.",
        ),
        (
            "smoke",
            {"early_stopping": True},
            "setting early_stopping: input should be a number, got true.",
        ),
        ("smoke", {"dropout": False}, "setting dropout: input should be a number, got false."),
        (
            "smoke",
            {"kept_epochs": 5},
            "setting kept_epochs: input should be a list, such as [5], got 5.",
        ),
        (
            "smoke",
            {"augmentation": "none+flip"},
            "augmentation none+flip: 'none' stands alone; joined by + are: rotation, flip",
        ),
        ("nosuch.yml", {}, "profile nosuch.yml does not exist; name a YAML file, or one of: "),
        ("smoke", "epochs", "overrides: expected settings and their values, got 'epochs'."),
    ],
)
def test_what_does_not_fit_is_refused_with_a_hint(profile, overrides, message):
    with pytest.raises(UserError) as error:
        load_experiment(profile, overrides=overrides)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("+5", 5),
        ("-3", -3),
        ("[010, 2]", [10, 2]),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("0.5", 0.5),
        ("true", True),
        ("flip", "flip"),
    ],
)
def test_a_number_is_what_it_looks_like(text, value):
    assert settings.read_yaml(text) == value


def test_a_profile_reads_numbers_as_the_command_line_does(tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: 010\n")
    assert load_experiment(str(tmp_path / "mine.yaml")).epochs == 10


def test_a_profile_of_remarks_alone_has_the_defaults_of_a_plain_training(tmp_path):
    (tmp_path / "mine.yml").write_text("# nothing yet\n")
    plain = load_experiment(str(tmp_path / "mine.yml"), seed=3)
    assert (plain.seed, plain.learning_rate, plain.schedule) == (3, 0.001, "constant")
    assert (plain.loss, plain.weights) == ("binary_crossentropy", "last")


def test_an_experiment_does_not_change():
    experiment = load_experiment("smoke")
    with pytest.raises(ValidationError):
        experiment.epochs = 5


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("none", ()),
        ("report", ("flip", "rotate_90")),
        ("all", settings.AUGMENTATIONS),
        ("noise+flair_only", ("noise", "flair_only")),
    ],
)
def test_an_augmentation_is_a_composition_or_names_in_their_order(text, names):
    assert settings.parse_augmentation(text) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list\n", "must be a list of 'setting: value' lines"),
        ("epochs: [", "is not valid YAML"),
    ],
)
def test_a_profile_of_ones_own(tmp_path, text, message):
    own = tmp_path / "mine.yml"
    own.write_text("epochs: 7\n")
    assert (load_experiment(str(own)).epochs, load_experiment(str(own)).profile) == (7, "mine.yml")
    own.write_text(text)
    with pytest.raises(UserError, match=message):
        load_experiment(str(own))


def test_a_user_error_shows_one_line_in_jupyter():
    assert UserError("what to do")._render_traceback_() == ["Error: what to do"]
