"""Progress: log lines without a terminal, bars on one, and one output in a notebook."""

from __future__ import annotations

import logging
import re
import sys
import time
import types
import warnings

import pytest
from rich.console import Console

from keygap import progress
from keygap.progress import step, track
from keygap.terminal import LineFormatter, StderrHandler, library_warnings


@pytest.fixture
def lines(caplog, monkeypatch):
    monkeypatch.setattr(progress, "_told", time.monotonic())
    caplog.set_level(logging.INFO, "keygap")
    return lambda: list(caplog.messages)


@pytest.fixture
def terminal(monkeypatch, capsys):
    """What was written to stderr since the last call, for which a terminal of 80 columns stands."""

    def console(**_):
        return Console(stderr=True, force_terminal=True, width=80)

    monkeypatch.setattr(progress, "Console", console)
    return lambda: capsys.readouterr().err


def test_a_short_loop_logs_its_end_only(lines):
    assert list(track("abc", 3, "letters")) == ["a", "b", "c"]
    (line,) = lines()
    assert re.fullmatch(r"letters: 3/3 in \d\.\d s", line)


def test_a_loop_that_is_left_early_logs_no_end(lines):
    for item in track("abc", 3, "letters"):
        if item == "b":
            break
    assert lines() == []
    assert progress._display is None


def test_lines_come_by_time_also_while_one_item_takes_long(lines, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.1)
    for _ in track("ab", 4, "letters", done=2):
        time.sleep(0.35)
    *during, last = lines()
    assert last.startswith("letters: 4/4 in ")
    first = [line for line in during if line.startswith("letters: 2/4 after ")]
    second = [line for line in during if re.match(r"letters: 3/4, \d.* s left", line)]
    assert len(first) >= 2
    assert len(second) >= 2


def test_much_short_work_is_not_silent_either(lines, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.3)
    for _ in range(5):
        with step("short"):
            time.sleep(0.1)
    assert 1 <= len(lines()) < 5


def test_a_step_says_what_it_does_now(lines, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.1)
    with step("loading") as say:
        say("shard\n2")
        time.sleep(0.25)
    *during, last = lines()
    assert re.fullmatch(r"loading: \d\.\d s \(shard 2\)", during[0])
    assert last.startswith("loading: ")
    assert last.endswith(", done")


def test_a_short_step_and_one_that_fails_log_nothing(lines):
    with step("short"):
        pass
    with pytest.raises(ZeroDivisionError), step("fails"):
        raise ZeroDivisionError
    assert lines() == []


def test_work_in_work_is_one_line(lines, monkeypatch):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.1)
    for _ in track("a", 1, "outer"):
        for _ in track("b", 1, "inner"):
            time.sleep(0.15)
    assert re.fullmatch(r"outer: 0/1 after 0\.\d s; inner: 0/1 after 0\.\d s", lines()[0])
    assert sum(line.startswith("inner: 1/1") for line in lines()) == 1  # it took long


def test_remaining_time_by_hand(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    work = progress.Work("x", 10, 2)
    now[0] = 130.0
    work.advance(3)  # 10 s each, 5 left
    assert work.status() == "5/10, 10 s each, 50 s left"
    now[0] = 134.0
    assert work.status() == "5/10, 10 s each, 46 s left"
    now[0] = 200.0  # the item takes longer than the others did, and there are four after it
    assert work.status() == "5/10, 10 s each, the next takes 70 s so far, 40 s for the others"
    work.advance(4)  # in 100 s
    now[0] = 220.0
    assert work.status() == "9/10, 14 s each, the next takes 20 s so far"
    now[0] = 100.0 + 30
    work = progress.Work("x", 100)
    now[0] += 10
    work.advance(20)
    assert work.status() == "20/100, 2.0/s, 40 s left"


def test_durations():
    found = [progress._duration(seconds) for seconds in (-1, 3.14, 59.6, 600, 86400)]
    assert found == ["0.0 s", "3.1 s", "60 s", "10 min", "24.0 h"]


def test_a_terminal_gets_bars_and_no_lines(lines, terminal):
    assert list(track("ab", 2, "letters [bold]")) == ["a", "b"]
    assert lines() == []
    (line,) = screen(terminal())
    assert re.fullmatch(r"letters \[bold\] ━{20} 2/2 in 0\.\d s", line)


def screen(written: str) -> list[str]:
    """What a terminal shows after these writes, line by line (only what rich uses)."""
    shown, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            shown += [""] * (row + 1 - len(shown))
        elif part.endswith("A"):
            row = max(0, row - int(part[2:-1] or 1))
        elif part.endswith("K"):
            shown[row] = "" if part[2:-1] == "2" else shown[row][:column]
        elif not part.startswith("\x1b"):
            shown[row] = shown[row][:column].ljust(column) + part + shown[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in shown if line.strip()]


@pytest.mark.filterwarnings("default::FutureWarning")
def test_warnings_log_lines_and_nested_work_leave_the_bars_whole(terminal):
    handler = StderrHandler()
    handler.setFormatter(LineFormatter())
    for name in ("of a library", "py.warnings"):
        logging.getLogger(name).addHandler(handler)
    try:
        with library_warnings():
            for _ in track("ab", 2, "outer"):
                with step("inner"):
                    logging.getLogger("of a library").warning("a log line")
                    warnings.warn(f"a warning\n{len(terminal.__name__)}", stacklevel=1)
                    warnings.warn("another warning", FutureWarning, stacklevel=1)
                    time.sleep(0.15)
    finally:
        for name in ("of a library", "py.warnings"):
            logging.getLogger(name).removeHandler(handler)
    shown = screen(terminal())
    assert sum("outer" in line for line in shown) == 1
    assert sum("inner" in line for line in shown) == 0
    assert sum(line == "a log line" for line in shown) == 2
    assert (
        sum("UserWarning: a warning 8 (test_progress.py" in line for line in shown) == 1
    )  # once for a place
    assert sum("FutureWarning: another warning (" in line for line in shown) == 1
    assert shown[-1].startswith("outer")


def test_silence_hides_bars(terminal):
    progress.silence()
    try:
        assert list(track("ab", 2, "letters")) == ["a", "b"]
    finally:
        progress.silence(False)
    assert terminal() == ""


def test_a_notebook_gets_one_output_that_is_updated(monkeypatch, lines):
    shown: list[dict[str, str]] = []
    handle = types.SimpleNamespace(update=lambda content, raw: shown.append(content))

    def display(content, raw, display_id):
        assert raw
        assert display_id
        return handle

    module = types.ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(progress, "Console", lambda **_: Console(force_jupyter=True))
    monkeypatch.setattr(progress, "NOTEBOOK_SECONDS", 0.05)
    for _ in track("ab", 2, "<b>letters"):
        time.sleep(0.12)
    assert lines() == []
    assert 'value="0" max="2"' in shown[0]["text/html"]
    assert "&lt;b&gt;letters: 0/2" in shown[0]["text/html"]
    assert shown[-1]["text/plain"].startswith("<b>letters: 2/2 in 0.")
    with step("reading"):
        time.sleep(0.12)
    assert "<progress></progress> reading: 0." in shown[-2]["text/html"]
    assert '<progress value="1" max="1"></progress> reading: 0.' in shown[-1]["text/html"]
