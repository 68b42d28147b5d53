"""The server of ``keygap view`` answers its own page on this machine, and nobody else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from keygap.errors import UserError
from keygap.reporting.view import ViewServer, atlas
from keygap.reporting.view.explored import Explored
from keygap.store import Store
from made import as_of_keygap_0_1, made_vectors
from store.made import run_of

from .viewed import large_store, served

HOSTILE = "</script><script>alert(1)</script>\u202e\x00\"'&"


def halved(store: Store) -> Store:
    """The same store with a layer that has image tokens alone, without checksums."""
    for path in (store.root / "vectors").rglob("part-*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.filter(pc.equal(table["modality"].cast("string"), "image")), path)
    as_of_keygap_0_1(store.root)
    return Store(store.root)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    vectors = made_vectors(gap=1.0)
    vectors.labels.loc[vectors.labels["role"] == "question", "token"] = HOSTILE
    names = {"s000": HOSTILE, "s001": "../../etc/passwd"}
    vectors.labels["sample_id"] = vectors.labels["sample_id"].replace(names)
    root = tmp_path_factory.mktemp("hostile") / "run"
    run_of(vectors, root, [0])
    with served(Store(root)) as found:
        found.ask("points", place=0)
        yield found


def test_it_listens_on_the_loopback_interface_alone(client):
    host, port = client.server.socket.getsockname()
    assert host == "127.0.0.1"
    own = [
        str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    ]
    for address in set(own) - {"127.0.0.1"}:
        if not address.startswith("127."):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((str(address), port), timeout=2)


@pytest.mark.parametrize("path", ["/", "/api/points?place=0", "/api/sample?sample=0", "/nothing"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "127.0.0.1:{port}.evil.example"},
        {"Host": "user@127.0.0.1:{port}"},
        {"Host": "127.0.0.1:{port}", "Origin": "http://evil.example"},
        {"Host": "127.0.0.1:{port}", "Origin": "null"},
        {"Host": "127.0.0.1:{port}", "Origin": "https://127.0.0.1:{port}"},
        {"Host": "127.0.0.1:{port}", "Origin": "http://127.0.0.1:{port}.evil.example"},
        {"Host": "127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site"},
        {"Host": "127.0.0.1:{port}", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_requests_of_another_name_or_page_are_refused(client, path, headers):
    port = client.server.server_port
    status, body, _ = client.raw(path, headers={k: v.format(port=port) for k, v in headers.items()})
    assert status == 403
    assert set(json.loads(body)) == {"error"}


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}"])
def test_its_own_page_is_answered(client, host):
    host = host.format(port=client.server.server_port)
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert client.raw("/api/sample?sample=0", headers=headers)[0] == 200


def test_two_hosts_in_one_request_are_refused(client):
    port = client.server.server_port
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sent:
        sent.sendall(request.encode())
        assert sent.recv(100).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "X"]
)
def test_nothing_but_get_is_answered(client, method):
    status, body, headers = client.raw("/api/points?place=0", method)
    assert status == 405
    assert headers["Allow"] == "GET"
    assert b"points" not in body
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/api/../manifest.json",
        "/manifest.json",
        "/samples.parquet",
        "/api/points/../../manifest.json",
        "/api/sample/",
        "/favicon.ico",
        "file:///etc/passwd",
        "/api/points%00",
        "/\\..\\manifest.json",
    ],
)
def test_no_path_leads_to_a_file(client, path):
    status, body, _ = client.raw(path)
    assert status == 404
    assert json.loads(body) == {"error": "there is nothing here"}


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("points", "place is no whole number"),
        ("points?place=1", "place is no whole number"),
        ("points?place=-1", "place is no whole number"),
        ("points?place=../../etc", "place is no whole number"),
        ("points?place=%C2%B2", "place is no whole number"),
        ("points?place=" + "9" * 5000, "place is no whole number"),
        ("points?place=0&place=0", "a parameter is given twice"),
        ("points?place=0&left=nan", "left is no number"),
        ("inside?place=0", "corners is no list of three corners or more"),
        ("inside?place=0&corners=0,0,1,1", "corners is no list of three corners or more"),
        ("inside?place=0&corners=0,0,1,1,2", "corners is no list of three corners or more"),
        ("inside?place=0&corners=0,0,1,1,2,nan", "corners is no list of three corners or more"),
        ("inside?place=0&corners=0,0,1,1,2,x", "corners is no list of three corners or more"),
        (f"inside?place=0&corners={'0,' * 401}0", "corners has more than 200 corners"),
        ("points?place=0&left=inf", "left is no number"),
        ("points?place=0&left=1e999", "left is no number"),
        ("points?place=0&method=umap", "method is none of"),
        ("points?place=0&role=%3Cscript%3E", "role is none of"),
        ("points?place=0&keep=1,x", "keep is no list"),
        ("points?place=0&keep=99999999", "keep has a token that there is not"),
        ("points?place=0&keep=" + "1," * 6000 + "1", "keep has more than"),
        ("points?place=0&word=" + "x" * 501, "word is longer than"),
        ("points?place=0&word=%FF", "this is no query"),
        ("points?" + "&".join(f"a{n}=1" for n in range(50)), "this is no query"),
        ("sample?sample=24", "sample is no whole number"),
        ("sample?sample=../../etc/passwd", "sample is no whole number"),
        ("words", "word is empty"),
        ("elsewhere?token=1e3&first=0", "token is no whole number"),
    ],
)
def test_a_question_that_means_nothing_is_refused(client, query, why):
    status, body, _ = client.raw(f"/api/{query}")
    assert status == 400
    assert why in json.loads(body)["error"]


@pytest.mark.parametrize(
    "request_",
    [b"\x00\xff\xfe\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 70_000],
)
def test_what_is_no_request_ends_its_connection_and_not_the_server(client, request_):
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=10) as sent:
        sent.sendall(request_)
        sent.shutdown(socket.SHUT_WR)
        received = sent.recv(10_000)
    assert b" 200 " not in received.splitlines()[0] if received else True
    assert client.raw("/")[0] == 200


def test_each_answer_forbids_what_it_need_not_have(client):
    for path in ("/", "/api/sample?sample=0", "/nothing"):
        _, _, headers = client.raw(path)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; img-src data:; ")
        assert "connect-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        scripts = policy.partition("script-src ")[2].split(";")[0].split()
        assert len(scripts) == 2
        assert all(one.startswith("'sha256-") for one in scripts)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Server"].strip() == "keygap"


def test_hostile_text_is_text_in_json(client):
    answer = client.ask("sample", sample=0)
    assert HOSTILE in answer["words"].values()
    assert answer["samples"] == {"0": HOSTILE}
    _, body, headers = client.raw("/api/sample?sample=0")
    assert b"<" not in body
    assert headers["Content-Type"] == "application/json"
    _, page, _ = client.raw("/")
    assert b"alert(1)" not in page
    answer = client.ask("points", place=0, word="</SCRIPT>")
    assert answer["found"] == 24 * 6


def test_a_failure_is_said_and_logged(client, monkeypatch, caplog):
    def broken(query):
        raise ZeroDivisionError("here")

    monkeypatch.setitem(client.server.answers, "/api/words", broken)
    status, body, _ = client.raw("/api/words?word=a")
    assert status == 500
    assert json.loads(body)["error"] == "keygap view failed; its terminal says why"
    assert "ZeroDivisionError: here" in caplog.text


def test_a_port_that_is_taken_is_one_line(client, tmp_path):
    store = large_store(tmp_path / "run", 2, 2)
    with pytest.raises(UserError, match=r"port \d+ cannot be used .*name another with --port"):
        ViewServer(Explored(store), client.server.server_port)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_the_command_serves_until_it_is_interrupted(tmp_path, number, status):
    large_store(tmp_path / "run", 2, 2)
    process = subprocess.Popen(
        [sys.executable, "-m", "keygap", "view", str(tmp_path / "run"), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "src"},
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    url = process.stdout.readline().split()[0]
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url, timeout=60) as page:
        assert page.status == 200
    process.send_signal(number)
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode == status
    assert said.count("\n") == 1
    assert "interrupted by SIG" in said


def test_without_embedding_atlas_one_line_says_what_to_install(client, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "embedding_atlas", None)
    with pytest.raises(UserError) as error:
        atlas.open_atlas(large_store(tmp_path / "run", 2, 2))
    assert str(error.value) == (
        "keygap view --atlas needs the package embedding-atlas: pip install 'keygap[atlas]'"
    )


def test_embedding_atlas_is_given_one_layer_on_the_loopback_interface(explored, monkeypatch):
    ran: list[tuple[list[str], pd.DataFrame]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        ran.append((command, pd.read_parquet(command[3])))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(atlas, "require", lambda *names: None)
    monkeypatch.setattr(atlas.subprocess, "run", run)
    atlas.open_atlas(Store(explored), 7000)
    ((command, table),) = ran
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "7000"
    projection = pd.read_parquet(explored / "projection.parquet")
    site, layer = projection.iloc[0][["site", "layer"]]
    here = projection[(projection["site"] == site) & (projection["layer"] == layer)]
    assert np.array_equal(table[["x", "y"]], here[["x", "y"]])
    assert not Path(command[3]).exists()


def test_a_projection_that_there_is_not_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(atlas, "require", lambda *names: None)
    with pytest.raises(UserError, match="has no projection: run keygap project"):
        atlas.open_atlas(large_store(tmp_path / "run", 2, 2))
