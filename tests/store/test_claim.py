"""A claim on an address is renewed, waited for and not taken back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from keygap.store import claim, objects
from store.unsteady import ADDRESS, Unsteady, claim_of, copied


@pytest.fixture(autouse=True)
def address() -> Iterator[None]:
    yield
    Unsteady.store.clear()
    Unsteady.pseudo_dirs[:] = [""]
    Unsteady.writes.clear()


def wait_for(condition) -> None:
    """Wait until it holds, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_claim_is_renewed_while_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "RENEWED", 0.05)
    own = objects.Objects.at(ADDRESS, "mirror")
    with claim.Claim(own, tmp_path) as held:
        first = json.loads(copied()[".lock"])["time"]
        wait_for(lambda: json.loads(copied()[".lock"])["time"] > first)
        assert held.is_held()
        Unsteady().pipe_file("/bucket/run/.lock", claim_of())
        assert not held.is_held()
        time.sleep(0.2)
        assert json.loads(copied()[".lock"])["host"] == "elsewhere"  # not taken back
    assert ".lock" in copied()


def test_what_is_no_claim_does_not_hold_anybody_up(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "HALF", 0.01)
    monkeypatch.setattr(claim, "RENEWED", 0.01)
    monkeypatch.setattr(claim, "HELD", 0.01)
    for text in (b"", b"[1]", b'{"time": null, "token": 3}', b"\xff"):
        Unsteady().pipe_file("/bucket/run/.lock", text)
        own = objects.Objects.at(ADDRESS, "mirror")
        with claim.Claim(own, tmp_path) as held:
            assert held.is_held()


def test_a_claim_is_waited_for_whatever_the_clocks_say(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "RENEWED", 0.1)
    monkeypatch.setattr(claim, "HELD", 0.1)
    for seconds in (time.time() - 3600, time.time() + 3600, None):
        Unsteady().pipe_file("/bucket/run/.lock", claim_of(time=seconds))
        began = time.monotonic()
        with claim.Claim(objects.Objects.at(ADDRESS, "mirror"), tmp_path):
            assert time.monotonic() - began > 0.2
