"""Run folders: one experiment each, written whole; and the records kept of them."""

import json
import os
import shlex
import subprocess
import time

import pandas as pd
import pytest

from lggseg_utils import records, runs
from lggseg_utils.settings import UserError


def test_a_run_folder_belongs_to_one_experiment(tmp_path):
    runs.open_run("smoke", run_dir=tmp_path / "run", overrides={"filters": 8})
    # Before data are accepted, nothing depends on the first settings.
    runs.open_run("smoke", run_dir=tmp_path / "run").note(data={})
    with pytest.raises(
        UserError,
        match=r"was made with filters 4, not 8; choose another run folder, or remove this one",
    ):
        runs.open_run("smoke", run_dir=tmp_path / "run", overrides={"filters": 8})
    with pytest.raises(UserError, match="was made with seed 0, not 1"):
        runs.open_run("smoke", run_dir=tmp_path / "run", seed=1)
    with pytest.raises(
        UserError, match="was made by 'lggseg run --profile smoke --seed 0'; choose another"
    ):
        runs.open_run("smoke", run_dir=tmp_path / "run", command="crossval")


def test_run_and_train_go_on_with_each_others_folders(tmp_path):
    trained = runs.open_run("smoke", run_dir=tmp_path / "run", command="train")
    trained.note(data={})
    assert runs.open_run("smoke", run_dir=tmp_path / "run").folder == trained.folder
    assert runs.made_by(trained.folder) == "train"
    assert runs.run_folder("smoke", command="train") == runs.run_folder("smoke")
    assert runs.run_folder("smoke", command="crossval") != runs.run_folder("smoke")
    for other in ("crossval", "ablate"):
        with pytest.raises(UserError, match="was made by 'lggseg train"):
            runs.open_run("smoke", run_dir=tmp_path / "run", command=other)


@pytest.mark.parametrize("number", [7, 0])
def test_a_run_folder_may_be_a_number_and_so_may_data(tmp_path, monkeypatch, number):
    """papermill turns `-p run_dir 7` into an integer."""
    monkeypatch.chdir(tmp_path)
    run = runs.open_run("smoke", number, number)
    assert run.folder == tmp_path / str(number) and run.data_dir == str(number)


def test_without_a_clone_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "REPOSITORY", tmp_path / "site-packages")
    with pytest.raises(UserError, match="to run without --out, lggseg needs a clone"):
        runs.open_run("smoke")
    assert runs.open_run("smoke", run_dir=tmp_path / "run").folder.is_dir()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A clone with one commit, as the repository of the package; returns that commit."""
    git = ["git", "-C", tmp_path, "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "One"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(runs, "REPOSITORY", tmp_path)
    short = [*git, "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(short, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_known_in_a_clone_that_another_user_owns(checkout, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way to test that
    assert runs.git_commit() == checkout


def test_a_change_that_is_not_committed_is_said(checkout, tmp_path):
    (tmp_path / "new.py").touch()
    subprocess.run(["git", "-C", tmp_path, "add", "new.py"], check=True)
    assert runs.git_commit() == f"{checkout}-dirty"


def test_without_git_or_a_checkout_there_is_no_commit(checkout, monkeypatch, tmp_path):
    (tmp_path / ".git").rename(tmp_path / "no longer")
    assert runs.git_commit() == ""
    monkeypatch.setenv("PATH", "")
    assert runs.git_commit() == ""


def test_a_folder_that_is_no_run_folder_is_not_written_into(tmp_path):
    (tmp_path / "photos.zip").touch()
    with pytest.raises(
        UserError, match=r"is not a run folder but contains photos.zip; choose another folder\."
    ):
        runs.open_run("smoke", run_dir=tmp_path)
    with pytest.raises(UserError, match=r"photos.zip is a file; name a folder\."):
        runs.open_run("smoke", run_dir=tmp_path / "photos.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["photos.zip"]


def test_default_folders_differ_where_anything_differs():
    plain = runs.run_folder("demo")
    different = ({"seed": 1}, {"seed": 2}, {"overrides": {"epochs": 2}}, {"data_dir": "lgg"})
    others = [runs.run_folder("demo", **other) for other in different]
    assert plain == runs.REPOSITORY / "runs" / "demo"
    assert len({plain, *others}) == 5


def test_the_record_repeats_the_run_and_names_no_place_on_this_machine(tmp_path):
    kept = {"kept_epochs": [1, 2]}
    run = runs.open_run("smoke", str(tmp_path / "data"), tmp_path / "run", 4, kept)
    record = run.record()
    assert str(tmp_path) not in run.path("run.json").read_text()
    command, _, setting = record["command"].partition(" --set ")
    assert command == "lggseg run --profile smoke --seed 4 --data DATA_FOLDER"
    assert shlex.split(setting) == ["kept_epochs=[1, 2]"]
    assert record["versions"]["tensorflow"]
    assert record["experiment"]["kept_epochs"] == [1, 2]


def test_write_whole_leaves_nothing_after_an_error(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("before")
    with pytest.raises(RuntimeError), runs.write_whole(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "before" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("names", [["01", "02"], ["NA", "A"]])
def test_a_table_is_read_as_it_was_written_and_names_of_patients_stay_text(tmp_path, names):
    table = pd.DataFrame({"patient": names, "dice": [0.123456789, None]})
    runs.write_csv(tmp_path / "t.csv", table)
    assert runs.read_csv(tmp_path / "t.csv").equals(table)
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(
        UserError, match=r"t.csv is damaged \(No columns to parse from file\); delete it"
    ):
        runs.read_csv(tmp_path / "t.csv")


@pytest.mark.parametrize("content", ["", "{"])
def test_a_damaged_run_json_gets_one_line(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(
        UserError, match=r"run.json is damaged; remove .* or choose another run folder\."
    ):
        runs.read_record(tmp_path)


def test_a_folder_without_a_run_gets_one_line(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: run.json is missing\."):
        runs.recorded_experiment(tmp_path)
    with pytest.raises(UserError, match=r"is not a run folder: run.json is missing\."):
        records.record(tmp_path, "name")
    runs.write_json(tmp_path / "run.json", {})
    with pytest.raises(UserError, match=r"is not finished; the command that began it resumes it\."):
        records.record(tmp_path, "name")


def test_settings_that_are_gone_do_not_hinder_an_old_record():
    assert "context" in records.load_record("recipe-cv").run["experiment"]
    assert runs.recorded_experiment(records.RECORDS / "recipe-cv").size == 80


def test_a_record_holds_numbers_alone_and_is_not_written_over(tmp_path, monkeypatch):
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    for name in ("metrics.json", "history.csv", "per_slice.csv", "model.keras"):
        rows = 9_000 if name == "per_slice.csv" else 1
        run.path(name).write_text("{}" if name.endswith("json") else "patient\n" + rows * "A\n")
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    kept = records.record(run.folder, "kept")
    assert sorted(path.name for path in kept.iterdir()) == [
        "history.csv",
        "metrics.json",
        "per_slice.csv.gz",
        "run.json",
    ]
    assert records.load_record(kept).per_slice["patient"].tolist() == 9_000 * ["A"]
    with pytest.raises(
        UserError, match=r"kept is there already; remove it first, or choose another name\."
    ):
        records.record(run.folder, "records/kept")
    with pytest.raises(UserError, match=r"'\.\./bad name' names no record; use letters, digits"):
        records.record(run.folder, "../bad name")


def test_a_locked_folder_is_refused_and_leftovers_are_removed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".part-old.csv").touch()
    with (
        runs.lock(tmp_path / "run"),
        pytest.raises(UserError, match="is in use by another run; wait for it"),
    ):
        assert not (tmp_path / "run" / ".part-old.csv").exists()
        (tmp_path / "run" / ".part-new.csv").touch()
        runs.lock(tmp_path / "run")
    assert (tmp_path / "run" / ".part-new.csv").exists(), "it is being written"


def test_stderr_goes_into_a_file_and_comes_back(tmp_path, capfd):
    with runs.stderr_into(tmp_path / "log") as terminal:
        os.write(2, b"chatter")
        terminal.write("progress")
    os.write(2, b" after")
    assert (
        tmp_path / "log"
    ).read_text() == "chatter" and capfd.readouterr().err == "progress after"


def test_notes_add_to_the_record_and_what_is_known_is_not_written_again(tmp_path, monkeypatch):
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    before = run.record()
    run.note_end(training={"epochs": 3})
    stored = json.loads(run.path("run.json").read_text())
    ended = stored.pop("ended")
    assert stored == {**before, "training": {"epochs": 3}}
    assert ended["time"] >= before["created"]
    assert ended["git_commit"] == runs.git_commit()
    monkeypatch.setattr(runs, "write_json", lambda *_: pytest.fail("written again"))
    run.note(training={"epochs": 3})


def test_networks_and_hold_out_are_refused_in_an_ablation(tmp_path):
    for wrong in ({"networks": 2}, {"hold_out": False}):
        with pytest.raises(UserError, match="settings networks and hold_out: an ablation trains"):
            runs.open_run("smoke", "", tmp_path / "run", 0, wrong, "ablate")
    assert not (tmp_path / "run").exists(), "the folder is not taken"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert runs.run_folder(run_dir="~/run") == tmp_path / "run"


def test_the_order_of_settings_names_no_other_folder():
    one, other = ({"epochs": 2, "filters": 4}, {"filters": 4, "epochs": 2})
    assert runs.run_folder(overrides=one) == runs.run_folder(overrides=other)


def test_times_are_in_utc(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert runs._now().endswith("+00:00") and runs._now()[:13] == time.strftime(
            "%Y-%m-%dT%H", time.gmtime()
        )
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_tagged_commit_is_recorded_as_a_commit(checkout, tmp_path):
    git = ["git", "-C", tmp_path, "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "tag", "-a", "v1", "-m", "x"], check=True)
    assert runs.git_commit() == checkout


def test_a_command_can_be_pasted_though_a_name_has_a_space(tmp_path):
    (tmp_path / "my profile.yml").write_text("epochs: 1\n")
    run = runs.open_run(str(tmp_path / "my profile.yml"), run_dir=tmp_path / "run")
    assert shlex.split(run.record()["command"])[2:4] == ["--profile", "my profile.yml"]


def test_a_log_is_added_to(tmp_path):
    for text in (b"one ", b"two"):
        with runs.stderr_into(tmp_path / "log"):
            os.write(2, text)
    assert (tmp_path / "log").read_text() == "one two"


def test_a_fold_is_found_from_within_its_folder(tmp_path, monkeypatch):
    run = runs.open_run("smoke", "", tmp_path / "run", 0, {}, "crossval")
    run.path("folds", "1").mkdir(parents=True)
    run.path("folds", "1", "model.keras").touch()
    monkeypatch.chdir(run.path("folds"))
    assert runs.find_network("1").experiment == run.experiment


def test_another_profile_is_refused_though_its_settings_are_the_same(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yml").write_text("epochs: 1\n")
    runs.open_run(str(tmp_path / "one.yml"), run_dir=tmp_path / "run").note(data={})
    with pytest.raises(UserError, match="was made with profile 'one.yml', not 'two.yml'"):
        runs.open_run(str(tmp_path / "two.yml"), run_dir=tmp_path / "run")
