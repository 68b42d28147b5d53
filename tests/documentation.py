"""Code blocks of the documentation, as a reader would copy them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
_COMMAND_ENDS = {"&&", "||", ";", "|", "&", ">", "2>"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its title if it is a file, and its lines."""

    page: Path
    language: str
    title: str
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page in some languages, in order."""
    found = [Block(page, *parts) for parts in _BLOCK.findall(page.read_text())]
    return [block for block in found if block.language in languages]


def commands(block: Block) -> Iterator[list[str]]:
    """Every call of keygap in a block of shell commands, as arguments without ``keygap``."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        call: list[str] | None = None
        for word in [*words, ";"]:
            if word in _COMMAND_ENDS or word.endswith(";"):
                if call is not None:
                    yield call
                call = None
            elif call is not None:
                call.append(word)
            elif word == "keygap":
                call = []
