"""Where samples come from.

To add a benchmark, write a subclass of ``Benchmark`` in one file and register it: with a line in
``REGISTRY`` here, an entry point of the group ``keygap.benchmarks`` in another package, or
``REGISTRY.register`` in a script. Its constructor takes those of ``split``, ``data`` and
``language`` that a user may choose, and its docstring begins with the line that
``keygap benchmarks`` shows.

Importing this package loads neither the benchmarks nor the libraries that they read files with.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

from keygap.arguments import name_of
from keygap.benchmarks.formats.options import hinted_prompt
from keygap.benchmarks.sample import (
    BadSample,
    Entry,
    Piece,
    Sample,
    as_rgb,
    image_then_question,
)
from keygap.benchmarks.sample_set import Benchmark, InMemory, SampleSet
from keygap.errors import UserError
from keygap.registry import Registry

SOURCES = "keygap.benchmarks.sources"
# A name with a colon ends in a placeholder: what the user writes there is the first argument.
REGISTRY: Registry[Callable[..., Benchmark]] = Registry(
    "benchmark",
    "keygap.benchmarks",
    {
        "easy-vqa": f"{SOURCES}.easy_vqa:EasyVQA",
        "mmmu": f"{SOURCES}.mmmu:MMMU",
        "mmmu-pro": f"{SOURCES}.mmmu_pro:MMMUPro",
        "mmmu-pro-4": f"{SOURCES}.mmmu_pro:MMMUPro4",
        "mmmu-pro-vision": f"{SOURCES}.mmmu_pro:MMMUProVision",
        "mmbench": f"{SOURCES}.mmbench:MMBench",
        "mmbench-cn": f"{SOURCES}.mmbench:MMBenchCN",
        "mmbench-circular": f"{SOURCES}.mmbench:MMBenchCircular",
        "mmbench-cn-circular": f"{SOURCES}.mmbench:MMBenchCNCircular",
        "jsonl:PATH": f"{SOURCES}.local:JsonLines",
        "folder:PATH": f"{SOURCES}.local:ImageFolder",
        "lmms:NAME": f"{SOURCES}.lmms:LmmsTask",
    },
)


def benchmark(
    name: str,
    split: str | None = None,
    data: str | Path | None = None,
    language: str | None = None,
) -> Benchmark:
    """Open a benchmark by its name. No image is decoded yet.

    Args:
        name: a name in ``REGISTRY``, such as ``mmmu``, ``jsonl:PATH``, ``folder:PATH`` or
            ``lmms:NAME``.
        split: one of the benchmark's splits; None means the one that is usually reported.
        data: a parquet or TSV file with the publisher's columns, or a folder of such files; None
            means the Hub, at a pinned revision.
        language: "en" or "zh", for the user's own questions.

    Returns:
        The benchmark, whose entries are known and whose images are not yet read.

    Raises:
        UserError: there is no such benchmark, split or data, or the benchmark does not take one of
            the arguments, or needs one that is not given.
    """
    factory = _factory(name_of(name, "benchmark"))
    settings = {"split": split, "data": data, "language": language}
    given = {key: value for key, value in settings.items() if value is not None}
    taken = inspect.signature(factory).parameters
    for key, value in given.items():
        if not isinstance(value, Path):
            name_of(value, key)
        if key not in taken:
            raise UserError(f"benchmark {name!r} has no {key} to choose; leave it out")
    for key in settings:
        if key in taken and key not in given and taken[key].default is inspect.Parameter.empty:
            raise UserError(f"benchmark {name!r} needs {key}: give --{key} (in Python, {key}=)")
    return factory(**given)


def described() -> list[tuple[str, str]]:
    """List every benchmark's name and what it is, without importing it.

    Returns:
        Pairs of a name and what it is, in the order of ``REGISTRY``.
    """
    return REGISTRY.described()


def _factory(name: str) -> Callable[..., Benchmark]:
    """Find what opens the benchmark of this name.

    Raises:
        UserError: there is no such benchmark, or its module cannot be imported.
    """
    prefix, colon, rest = name.partition(":")
    for known in REGISTRY:
        if rest and known.startswith(prefix + colon):
            return partial(REGISTRY[known], rest)
    return REGISTRY[name]


__all__ = [
    "REGISTRY",
    "BadSample",
    "Benchmark",
    "Entry",
    "InMemory",
    "Piece",
    "Sample",
    "SampleSet",
    "as_rgb",
    "benchmark",
    "described",
    "hinted_prompt",
    "image_then_question",
]
