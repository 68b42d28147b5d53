"""Progress: log lines without a terminal, at most one for each interval and one at the end."""

from __future__ import annotations

import logging

import pytest

from keygap import progress
from keygap.progress import track


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "keygap")
    return lambda: [message.split(",")[0] for message in caplog.messages]


def test_a_short_loop_logs_its_end_only(lines):
    assert list(track("abc", 3, "letters")) == ["a", "b", "c"]
    assert lines() == ["letters: 3/3"]


def test_a_long_loop_logs_after_every_interval(lines, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    list(track("abc", 5, "letters", done=2))
    assert lines() == ["letters: 3/5", "letters: 4/5", "letters: 5/5"]


def test_a_terminal_gets_a_bar(lines, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes stderr for a terminal
    assert list(track("ab", 2, "letters")) == ["a", "b"]
    assert lines() == []
    assert "letters" in capsys.readouterr().err
