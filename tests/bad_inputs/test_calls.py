"""Arguments of the Python API that mean nothing are refused before a model or a run is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keygap as kg
from keygap.arguments import folder_name_of, folder_of, seed_of, whole
from keygap.benchmarks import SampleSet
from keygap.errors import UserError
from made import bench_of, made_sample

NOTHING: Any = None  # in place of a model or a run, which no call may reach


def bench() -> Any:
    return bench_of([made_sample("a"), made_sample("b")])


def extract(**given: Any) -> None:
    kg.extract(NOTHING, bench(), given.pop("out", "runs/none"), **given)


def choose(*given: Any) -> SampleSet:
    return bench().choose(*given)


# cause, call, line
CALLS: list[tuple[str, Callable[[], object], str]] = [
    ("no site", lambda: extract(sites=[]), "sites is empty"),
    ("sites are a text", lambda: extract(sites="key"), "sites is 'key': give a list"),
    ("sites are None", lambda: extract(sites=None), "sites is None: give a list"),
    ("a site is a number", lambda: extract(sites=[3]), "unknown site '3'"),
    ("a site is a list", lambda: extract(sites=[["key"]]), r"sites has \['key'\]"),
    ("a site twice", lambda: extract(sites=["key", "key"]), "twice"),
    ("no layer", lambda: extract(layers=[]), "layers is empty"),
    ("a layer is a fraction", lambda: extract(layers=[0.5]), "a layer is 0.5: a whole number"),
    ("a layer is true", lambda: extract(layers=[True]), "layers has True"),
    ("a layer is None", lambda: extract(layers=[None]), "a layer is None: a whole number"),
    ("a layer below 0", lambda: extract(layers=[np.int64(-1)]), "a layer is -1: at least 0"),
    ("no batch", lambda: extract(batch_size=0), "batch_size is 0: at least 1"),
    ("a batch is a fraction", lambda: extract(batch_size=1.5), "batch_size is 1.5: a whole"),
    ("a batch is true", lambda: extract(batch_size=True), "batch_size is True: a whole"),
    ("a batch is a text", lambda: extract(batch_size="8"), "batch_size is '8': a whole"),
    ("a huge batch", lambda: extract(batch_size=10**5000), "a number of 16,610 bits"),
    ("out is empty", lambda: extract(out=""), "out is empty"),
    ("out is None", lambda: extract(out=None), "out is None: the path of a folder"),
    ("out is a number", lambda: extract(out=3), "out is 3: the path of a folder"),
    ("no sample", lambda: extract(samples=0), "samples is 0: at least 1"),
    ("a seed below 0", lambda: extract(seed=-1), "seed is -1: at least 0"),
    ("a seed of 33 bits", lambda: choose(2, 2**32), "at most 4,294,967,295"),
    ("a seed is a fraction", lambda: choose(2, 0.5), "seed is 0.5: a whole number"),
    ("a seed is NaN", lambda: choose(2, float("nan")), "seed is nan: a whole number"),
    ("samples are true", lambda: choose(True), "samples is True: a whole number"),
    ("a batch of none", lambda: choose(2).batches(0), "batch_size is 0"),
    ("answers in no batch", lambda: kg.answer(NOTHING, bench(), batch_size=-1), "batch_size is -1"),
    ("no contrast", lambda: kg.measure(NOTHING, contrasts=[]), "contrasts is empty"),
    ("contrasts are a text", lambda: kg.measure(NOTHING, contrasts="image_text"), "give a list"),
    ("no role", lambda: kg.measure(NOTHING, text_roles=[]), "no role"),
    ("a role twice", lambda: kg.measure(NOTHING, text_roles=["hint", "hint"]), "twice"),
    ("a token", lambda: kg.measure(NOTHING, tokens_per_sample=1), "tokens_per_sample is 1"),
    ("no permutation", lambda: kg.measure(NOTHING, n_permutations=0), "n_permutations is 0"),
    ("no bootstrap", lambda: kg.measure(NOTHING, n_bootstraps=0), "n_bootstraps is 0"),
    ("many bootstraps", lambda: kg.measure(NOTHING, n_bootstraps=10**9), "at most 1,000,000"),
    ("a bad seed of a measure", lambda: kg.measure(NOTHING, seed=-1), "seed is -1"),
    ("few tokens", lambda: kg.project(NOTHING, tokens=3), "tokens is 3: at least 10"),
    ("an infinite perplexity", lambda: kg.project(NOTHING, perplexity=np.inf), "perplexity is inf"),
    ("a perplexity of NaN", lambda: kg.project(NOTHING, perplexity=np.nan), "perplexity is nan"),
    ("a perplexity of 0", lambda: kg.project(NOTHING, perplexity=0), "perplexity is 0"),
    ("a perplexity as text", lambda: kg.project(NOTHING, perplexity="5"), "perplexity is '5'"),  # type: ignore[arg-type]
    ("no run", lambda: kg.report(), "at least one run folder"),
    ("a benchmark is a number", lambda: kg.benchmark(3), "the benchmark is 3"),  # type: ignore[arg-type]
    ("a benchmark is empty", lambda: kg.benchmark(""), "the benchmark is empty"),
    ("a split is a list", lambda: kg.benchmark("mmmu", split=["a"]), "the split is"),  # type: ignore[arg-type]
    ("data are empty", lambda: kg.benchmark("mmmu", data=""), "the data is empty"),
    ("a model is empty", lambda: kg.load(""), "the model is empty"),
    ("a device is unknown", lambda: kg.load("micro:mlp", device="gpu"), "unknown device 'gpu'"),
    ("a device is a number", lambda: kg.load("micro:mlp", device=1.5), "unknown device"),  # type: ignore[arg-type]
    ("device and map", lambda: kg.load("micro:mlp", device="cpu", device_map="auto"), "both given"),
    ("a seed is a text", lambda: seed_of("1"), "seed is '1': a whole number"),
    ("a path has NUL", lambda: folder_of("a\0b", "out"), r"the character \\x00"),
    ("an object store", lambda: extract(out="s3://bucket/run"), "address of an object store"),
    ("the same as a path", lambda: extract(out=Path("gs://b/run")), "address of an object store"),
    ("a name of bytes", lambda: folder_name_of(b"x", "name"), "its name as text"),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize(("cause", "call", "line"), CALLS, ids=[cause for cause, *_ in CALLS])
def test_a_bad_argument_is_one_line(tmp_path, monkeypatch, cause, call, line) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=line) as error:
        call()
    assert str(error.value).isprintable()
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_are_numbers() -> None:
    assert whole(np.int32(3), "n", 1) == 3
    assert len(choose(np.int64(1), np.uint32(7))) == 1
