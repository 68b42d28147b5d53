"""Commands that list what exists: benchmarks, probes, maps and models."""

from __future__ import annotations

from collections.abc import Iterable

from keygap.cli_output import Output, with_output
from keygap.terminal import print_list


@with_output
def benchmarks(say: Output) -> None:
    """List the benchmarks, and what each is."""
    from keygap.benchmarks import described

    _print(say, described(), "keygap extract MODEL --benchmark NAME --out DIR")


@with_output
def probes(say: Output) -> None:
    """List the probes of text bias, and what each asks."""
    from keygap.bias.probes import PROBES as known

    _print(say, known.described(), "keygap bias MODEL --probes NAME,... --out DIR")


@with_output
def maps(say: Output) -> None:
    """List the maps that steer vectors, and their controls."""
    from keygap.align.maps import MAPS as known

    _print(say, known.described(), "keygap align MODEL --map NAME --out FILE.safetensors")


@with_output
def models(say: Output) -> None:
    """List what can be named as MODEL, and what each is."""
    from keygap.micro.described import MODELS

    _print(say, MODELS.items(), "keygap check MODEL")


def _print(say: Output, entries: Iterable[tuple[str, str]], then: str) -> None:
    found = [{"name": name, "what": what} for name, what in entries]
    if not say.as_json:
        print_list((row["name"], row["what"]) for row in found)
    say.result(rows=found, then=then)
