"""Options that several commands share, each written once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from keygap import defaults
from keygap.arguments import MOST, MOST_RESAMPLINGS, MOST_SEEDS
from keygap.defaults import AUTO
from keygap.errors import UserError


def benchmark_names(incomplete: str) -> list[str]:
    """Names of benchmarks that begin so, for the shell. Those that take a path end in a colon."""
    from keygap.benchmarks import REGISTRY

    names = [name.partition(":")[0] + ":" * (":" in name) for name in REGISTRY]
    return [name for name in names if name.startswith(incomplete)]


def probe_names(incomplete: str) -> list[str]:
    """Lists of probes, whose last name begins so, for the shell."""
    from keygap.bias.probes import PROBES as known

    return last_of_list(incomplete, known)


def map_names(incomplete: str) -> list[str]:
    """Lists of maps, whose last name begins so, for the shell."""
    from keygap.align.maps import MAPS as known

    return last_of_list(incomplete, known)


def last_of_list(incomplete: str, names: Iterable[str]) -> list[str]:
    """Lists with commas that end in one of the names.

    Args:
        incomplete: what was typed.
        names: what the last item may be.
    """
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


LAYERS, SITES, TEXT, PROBES = (
    ",".join(names)
    for names in (defaults.LAYERS, defaults.SITES, defaults.TEXT_ROLES, defaults.PROBES)
)
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEEDS - 1, help="Seed of every random choice.")]
TextRoles = Annotated[
    str,
    typer.Option(
        help="Roles that count as text: question, option, hint, answer, template, system."
    ),
]
BenchmarkName = Annotated[
    str, typer.Option(help="See keygap benchmarks.", autocompletion=benchmark_names)
]
Split = Annotated[str | None, typer.Option(help="Default: the split usually reported.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="Local data: parquet or TSV files with the publisher's columns, or what a benchmark "
        "of your own reads."
    ),
]
Language = Annotated[str | None, typer.Option(help="Language of your own questions.")]
Samples = Annotated[int, typer.Option(min=1, max=MOST, help="Number of samples.")]
Thumbnails = Annotated[
    bool,
    typer.Option(help="Keep a copy of each image of at most 96 pixels, for the report."),
]
BatchSize = Annotated[int, typer.Option(min=1, max=MOST, help="Samples in one forward pass.")]
Bootstraps = Annotated[
    int, typer.Option(min=1, max=MOST_RESAMPLINGS, help="Resamplings behind an interval.")
]
Engine = Annotated[
    str,
    typer.Option(help="local, or ray: worker processes on this machine or a Ray cluster."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, max=MOST, help="Processes of the engine ray. Default: one for each GPU or node."
    ),
]
GpusPerWorker = Annotated[
    int | None,
    typer.Option(min=0, max=MOST, help="GPUs of each worker. Default: as many as the model is on."),
]
# Paths are text until they are checked: Path("") is the current folder.
Out = Annotated[str, typer.Option(help="Folder for the results.")]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="A run folder.")]
Connector = Annotated[str, typer.Option(help="linear, mlp or qformer.")]


def listed(text: str) -> list[str]:
    """The items of a list that is written with commas."""
    return [item.strip() for item in text.split(",")]


def tokens_of(given: str | int) -> int | str:
    """How many image tokens to keep: a number, which the default is already, or ``all``."""
    return _number_or(str(given), "all", "--tokens")


def tokens_per_sample_of(given: str | int) -> int | None:
    """Most tokens of a sample: a number of at least 2, or None for ``all``."""
    found = _number_or(str(given), "all", "--tokens-per-sample", least=2)
    return found if isinstance(found, int) else None


TokensPerSample = Annotated[
    Any,
    typer.Option(
        parser=tokens_per_sample_of,
        metavar="N|all",
        help="Most tokens of a sample on each side of a contrast; fewer if a side is very large.",
    ),
]


def batch_size_of(given: str) -> int | str:
    """How many samples are in one forward pass: a number or ``auto``."""
    return _number_or(given, AUTO, "--batch-size")


def _number_or(text: str, word: str, option: str, least: int = 1) -> int | str:
    """A number of at least ``least``, or a word that may be in its place.

    Raises:
        UserError: the text is neither.
    """
    if text == word:
        return text
    if not (text.isascii() and text.isdecimal()) or not least <= int(text[:10]) <= MOST:
        raise UserError(f"{option} {text!r} is neither a number from {least} to {MOST} nor {word}")
    return int(text)


def numbers(text: str, option: str) -> list[float]:
    """The numbers of a list that is written with commas.

    Args:
        text: the list.
        option: whose value it is, for the message.

    Raises:
        UserError: an item is not a number.
    """
    try:
        return [float(item) for item in listed(text)]
    except ValueError as error:
        raise UserError(f"{option} is {text!r}: give numbers, such as -1,0.5,1") from error
