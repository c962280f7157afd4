"""Run folders: one experiment each, written whole; and the records kept of them."""

import json

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
    others = [
        runs.run_folder("demo", **other)
        for other in ({"seed": 1}, {"overrides": {"epochs": 2}}, {"data_dir": "lgg"})
    ]
    assert plain == runs.REPOSITORY / "runs" / "demo" and len({plain, *others}) == 4


def test_the_record_repeats_the_run_and_names_no_place_on_this_machine(tmp_path):
    run = runs.open_run("smoke", str(tmp_path / "data"), tmp_path / "run", overrides={"epochs": 3})
    record = run.record()
    assert str(tmp_path) not in run.path("run.json").read_text()
    assert (
        record["command"] == "lggseg run --profile smoke --seed 0 --data DATA_FOLDER --set epochs=3"
    )
    assert record["versions"]["tensorflow"] and record["experiment"]["epochs"] == 3


def test_write_whole_leaves_nothing_after_an_error(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("before")
    with pytest.raises(RuntimeError), runs.write_whole(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "before" and list(tmp_path.iterdir()) == [target]


def test_names_of_patients_stay_text(tmp_path):
    import pandas as pd

    runs.write_csv(tmp_path / "t.csv", pd.DataFrame({"patient": ["01", "NA"], "dice": [0.5, None]}))
    assert runs.read_csv(tmp_path / "t.csv")["patient"].tolist() == ["01", "NA"]
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
    with pytest.raises(UserError, match=r"contains no finished run: metrics.json is missing\."):
        records.record(tmp_path, "name")


def test_settings_that_are_gone_do_not_hinder_an_old_record():
    assert "context" in records.load_record("recipe-cv").run["experiment"]
    assert runs.recorded_experiment(records.RECORDS / "recipe-cv").size == 80


def test_a_record_holds_numbers_alone_and_is_not_written_over(tmp_path, monkeypatch):
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    for name in ("metrics.json", "history.csv", "per_slice.csv", "model.keras"):
        rows = 9_000 if name == "per_slice.csv" else 1
        run.path(name).write_text("{}" if name.endswith("json") else "patient\n" + rows * "A\n")
    monkeypatch.setattr(runs, "RECORDS", tmp_path)
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


def test_a_locked_folder_is_refused_and_leftovers_are_removed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".part-old.csv").touch()
    with (
        runs.lock(tmp_path / "run"),
        pytest.raises(UserError, match="is in use by another run; wait for it"),
    ):
        runs.lock(tmp_path / "run")
    assert not (tmp_path / "run" / ".part-old.csv").exists()


def test_stderr_goes_into_a_file_and_comes_back(tmp_path, capfd):
    import os

    with runs.stderr_into(tmp_path / "log") as terminal:
        os.write(2, b"chatter")
        terminal.write("progress")
    os.write(2, b" after")
    assert (
        tmp_path / "log"
    ).read_text() == "chatter" and capfd.readouterr().err == "progress after"


def test_notes_add_to_the_record(tmp_path):
    run = runs.open_run("smoke", run_dir=tmp_path / "run")
    run.note(training={"epochs": 3})
    stored = json.loads(run.path("run.json").read_text())
    assert (
        stored["training"] == {"epochs": 3} and stored["experiment"] == run.record()["experiment"]
    )
