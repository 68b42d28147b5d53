"""Writes the pages of the reference from the code, for the documentation site.

It needs keygap's own environment: names of the API are imported to learn where they are defined,
and the command line and the columns of tables are read from the objects that make them. The
texts of the API are put into these pages by mkdocstrings, when the site is built. The pages are
not kept in the repository, so they cannot be out of date.

    python -m tools.reference [--out build/reference]
"""

from __future__ import annotations

import argparse
import html
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import typer.main
from tools.reference_experiment import experiment_page
from tools.reference_files import files_page

from keygap.registry import Registry

# Page -> the module whose public names it has, and how they are written in Python.
MODULES = {
    "api": ("keygap", "kg"),
    "benchmarks": ("keygap.benchmarks", "kg.benchmarks"),
    "gap": ("keygap.gap", "kg.gap"),
    "align": ("keygap.align", "kg.align"),
    "bias": ("keygap.bias", "kg.bias"),
    "choices": ("keygap.choices", "kg.choices"),
}
SECTIONS = ("Functions", "Classes", "Names that can be given", "Modules")
NO_LIMIT = "2147483647"  # the largest of a number of samples, which says nothing to a reader


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/reference"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (out / f"{name}.md").write_text(text)


def pages() -> dict[str, str]:
    """Every page of the reference, by the name of its file without ``.md``."""
    seen: dict[str, str] = {}
    api = {name: api_page(name, seen) for name in MODULES}
    return {**api, "cli": command_page(), "files": files_page(), "experiment": experiment_page()}


def api_page(page: str, seen: dict[str, str]) -> str:
    """The public names of one module.

    An object that two modules have is described where it comes first.

    Args:
        page: a key of ``MODULES``.
        seen: the page of every object that was described before, by its place; it is added to.
    """
    name, short = MODULES[page]
    module = import_module(name)
    parts: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for public in module.__all__:
        section, text = _entry(f"{short}.{public}", getattr(module, public), page, seen)
        parts[section].append(text)
    bodies = [f"## {section}\n\n" + "\n".join(texts) for section, texts in parts.items() if texts]
    imported = f"```python\nimport {name.partition('.')[0]} as kg\n```"
    return "\n\n".join([f"# {short}", inspect.getdoc(module) or "", imported, *bodies]) + "\n"


def _entry(public: str, found: Any, page: str, seen: dict[str, str]) -> tuple[str, str]:
    """The section that a public name belongs to, and what the page says about it."""
    if isinstance(found, ModuleType):
        own = next(key for key, (name, _) in MODULES.items() if name == found.__name__)
        first = (inspect.getdoc(found) or "").partition("\n")[0]
        return "Modules", f"- [`{public}`]({own}.md): {first}"
    if isinstance(found, Registry):
        rows = [f"| `{name}` | {_cell(what)} |" for name, what in found.described()]
        table = "\n".join([f"| {found.kind} | what it is |", "|---|---|", *rows])
        return "Names that can be given", f"### {public} {{ #{public} }}\n\n{table}\n"
    section = "Classes" if inspect.isclass(found) else "Functions"
    place = f"{found.__module__}.{found.__qualname__}"
    if place in seen:
        return section, f"### {public} {{ #{public} }}\n\nSee [`{found.__name__}`][{place}].\n"
    seen[place] = page
    options = f"    options:\n      heading: {public}\n      toc_label: {public}\n"
    return section, f"::: {place}\n{options}"


def command_page() -> str:
    """Every command of the command line with its arguments and options."""
    from keygap.cli import app

    root: Any = typer.main.get_command(app)
    context = root.make_context("keygap", [], resilient_parsing=True)
    intro = f"{root.help} Options that every command has stand at the end of each table."
    parts = ["# Command line", intro, _options(root, context)]
    parts += _commands(root, context)
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, context: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        own = command.make_context(name, [], parent=context, resilient_parsing=True)
        yield f"## {own.command_path}"
        yield _escaped(inspect.cleandoc(command.help or ""))
        yield f"```text\n{own.get_usage().removeprefix('Usage: ')}\n```"
        yield _options(command, own)
        if hasattr(command, "commands"):
            yield from _commands(command, own)


def _options(command: Any, context: Any) -> str:
    """A table of the arguments and options, as ``--help`` has them."""
    rows = ["| option | what it is | default |", "|---|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:  # hidden
            continue
        names, text = record
        what, default = _help(text)
        shown = "<br>".join(f"`{name}`" for name in names.replace("|", "\\|").split(" / "))
        value = f"`{default}`" if default and default != "required" else default
        rows.append(f"| {shown} | {_cell(what)} | {value} |")
    return "\n".join(rows)


def _help(text: str) -> tuple[str, str]:
    """What an option is, with the range of its numbers, and its default."""
    found = re.fullmatch(r"(.*?)(?:\s*\[([^\]]*)\])?", text, re.DOTALL)
    assert found is not None
    what, default = found[1], ""
    for part in (found[2] or "").split("; "):
        ends = re.fullmatch(r"(\d+)<=x(?:<=(\d+))?", part)
        if part.startswith("default: "):
            default = part.removeprefix("default: ")
        elif part == "required":
            default = "required"
        elif ends and ends[2] in (None, NO_LIMIT):
            what += f" At least {ends[1]}."
        elif ends:
            what += f" From {ends[1]} to {ends[2]}."
        elif part:
            what += f" [{part}]"
    return what, default


def _cell(text: str) -> str:
    """Text of a cell of a table."""
    return _escaped(" ".join(text.split())).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Plain text as Markdown that shows it as it is; ``code`` stays code."""
    parts = re.split(r"(`+[^`]+`+)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_\[\]])", r"\\\1", html.escape(part, False))
        for part in parts
    )


if __name__ == "__main__":
    main()
