"""Every bad input of the table gives one line and exit status 2, before any work, and no file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from keygap import cli
from keygap.micro import checkpoint
from made import files_of

from . import table

COMMANDS = [
    *((cause, command, {}, line) for cause, command, line in table.COMMANDS),
    *(
        (f"experiment: {cause}", "run {here}/bad.yaml --out {out}", {"bad.yaml": text}, line)
        for cause, text, line in table.EXPERIMENTS
    ),
    *(
        (
            f"questions: {cause}",
            "extract micro:linear --benchmark jsonl:{here}/bad.jsonl --out {out}",
            {"bad.jsonl": text},
            line,
        )
        for cause, text, line in table.QUESTIONS
    ),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with the files of the table."""
    folder = tmp_path_factory.mktemp("bad")
    for name, data in table.FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "cycle").symlink_to(folder / "cycle")
    (folder / "broken").symlink_to(folder / "none")
    return folder


def one_line(monkeypatch, capfd, arguments: list[str]) -> str:
    """Run a command that must fail; the line that it says."""

    def loaded(connector: str) -> Path:
        raise AssertionError(f"micro:{connector} was loaded")

    if "check" not in arguments:
        monkeypatch.setattr(checkpoint, "build", loaded)
    monkeypatch.setattr(sys, "argv", ["keygap", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capfd.readouterr()
    assert exit_.value.code == 2, said
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert said.err.startswith("keygap: ")
    assert len(said.err) < 1200
    assert said.err.removesuffix("\n").isprintable()
    return said.err


def test_the_table_is_long_enough() -> None:
    assert len(COMMANDS) >= 200
    assert len({cause for cause, *_ in COMMANDS}) == len(COMMANDS)


@pytest.mark.parametrize(("cause", "command", "files", "line"), COMMANDS, ids=lambda x: str(x)[:40])
def test_a_bad_input_is_one_line(monkeypatch, capfd, tmp_path, here, cause, command, files, line):
    for name, content in files.items():
        (here / name).write_bytes(content.encode() if isinstance(content, str) else content)
    before = files_of(here)
    monkeypatch.chdir(tmp_path)
    arguments = [
        part.format(here=here, out=tmp_path / "out") if "{" in part else part
        for part in shlex.split(command)
    ]
    said = one_line(monkeypatch, capfd, arguments)
    assert line in said
    assert files_of(here) == before
    assert not list(tmp_path.iterdir())
