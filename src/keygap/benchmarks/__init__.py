"""Where samples come from: one file per benchmark, one registry line each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

from keygap.benchmarks.sample import (
    BadSample,
    Entry,
    Piece,
    Sample,
    as_rgb,
    image_then_question,
)
from keygap.benchmarks.sample_set import (
    UNSET,
    Benchmark,
    InMemory,
    SampleSet,
    Unset,
    as_sample_set,
    choose,
    with_copies,
)
from keygap.benchmarks.sources.easy_vqa import EasyVQA
from keygap.benchmarks.sources.lmms import LmmsTask
from keygap.benchmarks.sources.local import ImageFolder, JsonLines
from keygap.benchmarks.sources.mmbench import MMBench
from keygap.benchmarks.sources.mmmu import MMMU
from keygap.benchmarks.sources.mmmu_pro import MMMUPro
from keygap.errors import UserError, unknown

REGISTRY: dict[str, Callable[..., Benchmark]] = {
    "easy-vqa": EasyVQA,
    "mmmu": MMMU,
    "mmmu-pro": partial(MMMUPro, "10"),
    "mmmu-pro-4": partial(MMMUPro, "4"),
    "mmmu-pro-vision": partial(MMMUPro, "vision"),
    "mmbench": partial(MMBench, "en", False),
    "mmbench-cn": partial(MMBench, "cn", False),
    "mmbench-circular": partial(MMBench, "en", True),
    "mmbench-cn-circular": partial(MMBench, "cn", True),
}
# names with a part of the user's own after a colon
PREFIXES: dict[str, tuple[str, Callable[..., Benchmark]]] = {
    "jsonl": ("jsonl:PATH", JsonLines),
    "folder": ("folder:PATH", ImageFolder),
    "lmms": ("lmms:NAME", LmmsTask),
}


def benchmark(
    name: str,
    split: str | None = None,
    data: str | Path | None = None,
    language: str | None = None,
) -> Benchmark:
    """Open a benchmark by its name; nothing is decoded yet.

    Args:
        name: one of ``REGISTRY``, ``jsonl:PATH``, ``folder:PATH`` or ``lmms:NAME``.
        split: one of the benchmark's; None means the one that is usually reported.
        data: a parquet or TSV file, or a folder of them, in the publisher's columns; None means the
            Hub, at a pinned revision.
        language: "en" or "zh", for questions of the user's own.

    Raises:
        UserError: no benchmark, split or data of that name, or a setting that it does not have.
    """
    prefix, colon, rest = name.partition(":")
    if colon and rest and prefix in PREFIXES:
        factory: Callable[..., Benchmark] = partial(PREFIXES[prefix][1], rest)
    elif name in REGISTRY:
        factory = REGISTRY[name]
    else:
        raise unknown("benchmark", name, [*REGISTRY, *(shown for shown, _ in PREFIXES.values())])
    settings = {"split": split, "data": data, "language": language}
    given = {key: value for key, value in settings.items() if value is not None}
    for key in given:
        if key not in inspect.signature(factory).parameters:
            raise UserError(f"benchmark {name!r} has no {key} to choose; leave it out")
    return factory(**given)


__all__ = [
    "PREFIXES",
    "REGISTRY",
    "UNSET",
    "BadSample",
    "Benchmark",
    "Entry",
    "InMemory",
    "Piece",
    "Sample",
    "SampleSet",
    "Unset",
    "as_rgb",
    "as_sample_set",
    "benchmark",
    "choose",
    "image_then_question",
    "with_copies",
]
