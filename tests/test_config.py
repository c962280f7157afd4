"""Settings, profiles and run folders."""

import json

import pytest

from lggseg_utils import config
from lggseg_utils.config import UserError


@pytest.mark.parametrize("profile", config.profile_names())
def test_every_profile_is_valid(profile):
    assert config.load_experiment(profile).profile == profile


def test_profiles_follow_their_sources():
    report64, report128, paper = (config.load_experiment(name) for name in ("report64", "report128", "paper"))
    assert (report64.size, report64.batch_size, report64.epochs, report64.dropout, report64.split) == (
        64,
        16,
        100,
        0.2,
        "slice",
    )
    assert (report128.size, report128.batch_size, report128.epochs, report128.dropout) == (128, 16, 128, 0.0)
    assert (paper.dropout, paper.batch_size, paper.epochs, paper.loss) == (0.1, 1, 235, "categorical_crossentropy")
    assert {report64.weights, report128.weights} == {"last"} and report128.early_stopping == 0
    assert {profile.filters for profile in (report64, report128, paper)} == {32}


@pytest.mark.parametrize(
    ("profile", "overrides", "message"),
    [
        ("demmo", {}, "unknown profile 'demmo'. Did you mean 'demo'?"),
        ("smoke", {"splitt": "patient"}, "unknown setting 'splitt'. Did you mean 'split'?"),
        ("smoke", {"seed": 3}, "unknown setting 'seed'."),
        (
            "smoke",
            {"split": "patients"},
            "setting split: unknown value 'patients'. Did you mean 'patient'? Known: slice, patient.",
        ),
        ("smoke", {"augmentation": "flipp"}, "unknown augmentation 'flipp'. Did you mean 'flip'?"),
        ("smoke", {"ablation_conditions": ["alll"]}, "unknown augmentation 'alll'. Did you mean 'all'?"),
        ("smoke", {"augmentation": "flip+noise+flip"}, "augmentation flip+noise+flip: name each one once."),
        ("smoke", {"epochs": 0}, "setting epochs: input should be greater than or equal to 1, got 0."),
        ("smoke", {"dropout": "much"}, "setting dropout: input should be a valid number"),
        ("smoke", {"size": 50, "depth": 5}, "setting size: 50 can't be halved 4 times; use a multiple of 16."),
        ("smoke", {"output": "softmax"}, "loss categorical_crossentropy and output softmax belong together"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_hint(profile, overrides, message):
    with pytest.raises(UserError) as error:
        config.load_experiment(profile, overrides=overrides)
    assert str(error.value).startswith(message)


def test_a_profile_of_ones_own(tmp_path):
    own = tmp_path / "mine.yml"
    own.write_text("epochs: 7\n")
    assert config.load_experiment(str(own)).epochs == 7
    own.write_text("- a list\n")
    with pytest.raises(UserError, match="must be a list of 'setting: value' lines"):
        config.load_experiment(str(own))
    own.write_text("epochs: [")
    with pytest.raises(UserError, match="is not valid YAML"):
        config.load_experiment(str(own))


def test_a_run_folder_belongs_to_one_experiment(tmp_path):
    config.open_run("smoke", run_dir=tmp_path, overrides={"filters": 8})
    # As long as no data were read, nothing was made with the first settings.
    config.open_run("smoke", run_dir=tmp_path).note(data={"kind": "own data"})
    config.open_run("smoke", run_dir=tmp_path)
    with pytest.raises(
        UserError, match=r"was made with filters 4, not 8; choose another run folder, or remove this one"
    ):
        config.open_run("smoke", run_dir=tmp_path, overrides={"filters": 8})
    with pytest.raises(UserError, match="was made with seed 0, not 1"):
        config.open_run("smoke", run_dir=tmp_path, seed=1)


@pytest.mark.parametrize("name", ["cohort", "notebooks", "ablation.csv"])
def test_a_folder_that_holds_something_else_is_not_written_over(name, tmp_path):
    tmp_path.joinpath(name).mkdir()
    with pytest.raises(
        UserError, match=f"is no run folder, since it has no run.json, but holds {name}, which a run would"
    ):
        config.open_run("smoke", run_dir=tmp_path)
    with pytest.raises(UserError, match="but holds notebooks"):
        config.open_run("smoke", run_dir=config.REPOSITORY)
    with pytest.raises(UserError, match="run folder /dev/null is a file; name a folder"):
        config.open_run("smoke", run_dir="/dev/null")


@pytest.mark.parametrize("path", ["~nosuchuser/x", "x\udcff", "a\0b"])
def test_what_is_no_path_gets_one_line(path):
    with pytest.raises(UserError, match="can't be used as a path"):
        config.place(path)


@pytest.mark.parametrize(
    "text", ["2020-99-99", "0x_", "9" * 5000, "!!int abc", "!!bool abc", "[" * 3000, "!!timestamp x"]
)
def test_text_that_yaml_fails_on_is_a_value_error(text):
    with pytest.raises(ValueError):
        config.read_yaml(text)


def test_a_huge_value_is_shown_in_short():
    with pytest.raises(UserError) as error:
        config.load_experiment("smoke", overrides={"epochs": ["x" * 10**6] * 100})
    assert len(str(error.value)) < 300


def test_a_damaged_table_gets_one_line(tmp_path):
    (tmp_path / "split.csv").write_text("")
    with pytest.raises(UserError, match=r"split.csv is damaged \(No columns to parse from file\); remove it"):
        config.read_csv(tmp_path / "split.csv")


def test_default_folders_differ_where_anything_differs():
    plain = config.default_folder("demo", 0, {}, "")
    others = [
        config.default_folder("demo", 1, {}, ""),
        config.default_folder("demo", 0, {"epochs": 2}, ""),
        config.default_folder("demo", 0, {}, "lgg"),
    ]
    assert plain.name == "demo" and len({plain, *others}) == 4


def test_the_record_names_no_place_on_this_machine(tmp_path):
    run = config.open_run("smoke", str(tmp_path / "data"), tmp_path / "run", overrides={"epochs": 3})
    record = run.record()
    assert str(tmp_path) not in json.dumps(record)
    assert record["command"] == "lggseg run --profile smoke --seed 0 --data DATA_FOLDER --set epochs=3"
    assert record["versions"]["tensorflow"] and record["experiment"]["epochs"] == 3


def test_write_whole_leaves_nothing_after_an_error(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("before")
    with pytest.raises(RuntimeError), config.write_whole(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "before" and list(tmp_path.iterdir()) == [target]


def test_a_user_error_shows_one_line_in_jupyter():
    assert UserError("what to do")._render_traceback_() == ["Error: what to do"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"experiment": 3}'])
def test_a_damaged_record_gets_one_line(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run.json is damaged; remove .* or choose another run folder\."):
        config.recorded_experiment(tmp_path)


def test_a_record_that_is_missing_or_from_elsewhere_gets_one_line(tmp_path):
    with pytest.raises(UserError, match=r"is no run folder: run.json is missing\."):
        config.recorded_experiment(tmp_path)
    (tmp_path / "run.json").write_text(
        '{"experiment": {"profile": "demo", "seed": 0, "size": "large"}, "command": "lggseg run"}'
    )
    with pytest.raises(UserError, match=r"run.json: setting size: input should be a valid integer"):
        config.recorded_experiment(tmp_path)
