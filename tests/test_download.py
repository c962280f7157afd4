"""The download, against a server that stalls, cuts, lies and refuses: tried again, taken up again, or one clear line."""

import errno
import io
import json
import os
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kagglehub
import pytest
from kagglesdk import kaggle_env

from lggseg_utils import download, phantom
from lggseg_utils.config import UserError

TOKEN = "KGAT_0123456789abcdef-planted"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A zip of three patients with two slices, as Kaggle would send it; kagglehub keeps what arrived by the MiB, so it has several."""
    folder = tmp_path_factory.mktemp("cohort")
    phantom.write_cohort(folder, patients=3, slices=2)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        for path in sorted(folder.rglob("*.tif")):
            opened.write(path, f"kaggle_3m/{path.relative_to(folder)}")
        opened.writestr("kaggle_3m/data.csv", bytes(6 * 2**20))
    return content.getvalue()


class Kaggle(BaseHTTPRequestHandler):
    """As much of Kaggle as kagglehub asks for; `faults` says what happens to one download after the other."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("GetDataset"):
            self.answer(200, json.dumps({"currentVersionNumber": 2}).encode(), "application/json")
        else:
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/archive.zip")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def do_GET(self):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        fault = self.server.faults.pop(0) if self.server.faults else None
        self.server.asked.append((start, fault))
        whole = self.server.archive[start:]
        if isinstance(fault, int):
            self.answer(fault, b"<html>no</html>", "text/html")
        elif fault == "page":
            self.answer(200, b"<html>Please sign in.</html>" * 20, "text/html")
        elif fault == "half":
            self.answer(200, whole[: len(whole) // 2], "application/zip")
        else:
            self.answer(206 if asked else 200, whole, "application/zip", fault)

    def answer(self, status, body, kind, fault=None):
        """Send a body, or half of it and then cut the connection or say nothing any more."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault else body)
        self.wfile.flush()
        if fault == "stall":
            self.server.released.wait(30)
        if fault:
            self.connection.close()


@pytest.fixture
def server(archive, monkeypatch):
    """The server, with kagglehub pointed at it, a cohort of this size and no time lost."""
    running = ThreadingHTTPServer(("127.0.0.1", 0), Kaggle)
    running.handle_error = lambda *_: None  # a client that has given up cuts the connection
    running.archive, running.faults, running.asked, running.released = archive, [], [], threading.Event()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setitem(
        kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, f"http://127.0.0.1:{running.server_port}"
    )
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    monkeypatch.setenv("KAGGLEHUB_CACHE", os.devnull)
    monkeypatch.setattr(download, "LGG_COHORT", (3, 6))
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setattr(download, "PATIENCE", 1)
    yield running
    running.released.set()
    running.shutdown()
    running.server_close()


def left(folder):
    """Names of what stands in a folder, hidden things too."""
    return sorted(path.name for path in folder.iterdir())


def test_the_cohort_arrives_whole_and_a_second_call_asks_nobody(server, tmp_path):
    assert download.fetch(tmp_path / "new" / "lgg") == tmp_path / "new" / "lgg"
    assert len(list((tmp_path / "new" / "lgg").rglob("*.tif"))) == 12 and left(tmp_path / "new") == ["lgg"]
    download.fetch(tmp_path / "new" / "lgg")
    assert len(server.asked) == 1


@pytest.mark.parametrize("faults", [[500, 503], [429], ["cut"], ["cut", "cut", "cut"], ["stall"]], ids=str)
def test_what_passes_is_tried_again_from_where_it_stopped(server, tmp_path, faults):
    server.faults = list(faults)
    download.fetch(tmp_path / "lgg")
    assert len(list((tmp_path / "lgg").rglob("*.tif"))) == 12 and left(tmp_path) == ["lgg"]
    resumed = [start for start, _ in server.asked if start]
    assert bool(resumed) == (faults[0] in ("cut", "stall")) and resumed == sorted(resumed)


@pytest.mark.parametrize(
    ("faults", "reason", "asked"),
    [
        ([403] * 9, "HTTP status 403", 1),
        ([500] * 9, "HTTP status 500", download.ATTEMPTS),
        (["page"] * 9, "ValueError", 1),
        (["half"] * 9, "ValueError|BadZipFile", 1),
    ],
)
def test_what_does_not_pass_gets_one_line_and_leaves_nothing_that_is_in_the_way(
    server, tmp_path, faults, reason, asked
):
    server.faults = list(faults)
    with pytest.raises(UserError, match=rf"could not be downloaded \(({reason})\)\. Check the network") as error:
        download.fetch(tmp_path / "lgg")
    assert "\n" not in str(error.value) and TOKEN not in str(error.value)
    assert len(server.asked) == asked and not (tmp_path / "lgg").exists()
    server.faults = []
    download.fetch(tmp_path / "lgg")
    assert left(tmp_path) == ["lgg"]


def test_a_server_that_only_stalls_is_given_up_and_the_next_call_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.faults = ["stall"]
    with pytest.raises(UserError, match=r"could not be downloaded \(TimeoutError\)"):
        download.fetch(tmp_path / "lgg")
    download.fetch(tmp_path / "lgg")
    assert server.asked[-1][0] > 0 and left(tmp_path) == ["lgg"]


def test_nobody_answers(tmp_path, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"could not be downloaded \(ConnectionError\)"):
        download.fetch(tmp_path / "lgg")
    assert left(tmp_path) in ([], [".lgg-download"])


def test_a_full_disk_is_not_called_a_fault_of_the_network(tmp_path, server, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kagglehub, "dataset_download", full)
    with pytest.raises(OSError, match="No space left"):
        download.fetch(tmp_path / "lgg")


def test_another_cohort_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LGG_COHORT", (110, 3929))
    with pytest.raises(UserError, match="what came from Kaggle holds 3 patients and 6 slices, expected 110 and 3929"):
        download.fetch(tmp_path / "lgg")
    assert left(tmp_path) == []
    (tmp_path / "lgg").mkdir()
    (tmp_path / "lgg" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="lgg holds 0 patients and 0 slices, expected 110 and 3929: remove it"):
        download.fetch(tmp_path / "lgg")
    assert left(tmp_path / "lgg") == ["letter.txt"]
