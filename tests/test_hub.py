"""The Hub, asked once: a server of this machine stands in for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
from huggingface_hub import constants

import keygap as kg
from keygap.benchmarks.formats.files import HubFiles, hub_files
from keygap.errors import UserError
from keygap.hub import located, refuse_unreachable

FAULTS = {  # revision -> status and the header by which the Hub says what is wrong
    "none": (404, "RevisionNotFound"),
    "private": (401, "RepoNotFound"),
    "gated": (403, "GatedRepo"),
    "broken": (503, ""),
}


class Hub(BaseHTTPRequestHandler):
    """Answers with the fault that the revision names."""

    def do_GET(self) -> None:
        status, code = FAULTS[self.path.split("/revision/")[-1].partition("?")[0]]
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def hub(monkeypatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize(
    ("revision", "line"),
    [
        ("none", "has no revision 'none' on the Hub"),
        ("private", "or it is private"),
        ("gated", "is restricted: accept its terms"),
        ("broken", "the Hub cannot be reached"),
    ],
)
def test_what_the_hub_lacks_is_one_line(kind, revision, line) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=line):
        located("owner/name", kind, revision)
    assert time.monotonic() - started < 10


def test_a_hub_that_does_not_answer_is_one_line_at_once(monkeypatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    started = time.monotonic()
    for call in (
        lambda: kg.load("owner/name"),
        lambda: kg.benchmark("mmmu"),
        lambda: refuse_unreachable("lmms:pets"),
    ):
        with pytest.raises(UserError, match="cannot be reached") as error:
            call()
        assert str(error.value).isprintable()
    assert time.monotonic() - started < 10


def test_what_the_cache_has_is_used_without_the_hub(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    assert located("owner/name", "model") == {"local_files_only": True}


def test_a_part_of_a_repository_that_the_cache_has_is_used(monkeypatch, tmp_path) -> None:
    commit, held = "0" * 40, "en/dev-00000-of-00001.parquet"
    repository = tmp_path / "datasets--owner--name"
    snapshot = repository / "snapshots" / commit
    (snapshot / held).parent.mkdir(parents=True)
    (snapshot / held).touch()
    # by this list newer versions of the client know which files of the commit are missing
    listed = {name: {"size": 0, "blob_id": "0" * 40} for name in (held, "en/test-0.parquet")}
    trees = repository / "trees" / f"{commit}.json"
    trees.parent.mkdir()
    trees.write_text(json.dumps({"format_version": 1, "files": listed}))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert located("owner/name", "dataset", commit, "en/dev-*.parquet") == {
        "local_files_only": True
    }
    assert hub_files(HubFiles("owner/name", commit, "en/dev-*.parquet")) == [snapshot / held]
    with pytest.raises(
        UserError, match=r"does not have the dataset|en/test-\*\.parquet missing in"
    ):
        hub_files(HubFiles("owner/name", commit, "en/test-*.parquet"))


def test_offline_mode_asks_nothing(monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refuse_unreachable("lmms:pets")
