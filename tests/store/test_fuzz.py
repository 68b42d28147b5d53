"""Random damage to a run is never a traceback, and never passes as another result."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keygap as kg
from keygap.errors import UserError
from keygap.reporting import read_run
from made import as_of_keygap_0_1, files_of

from .conftest import VECTORS
from .made import run_of

KINDS = ("flip", "cut", "delete", "insert", "overwrite", "append", "copy", "swap", "zero")
# the kind of damage, the file, another file, a share of the file, and bytes
STEP = st.tuples(
    st.sampled_from(KINDS),
    st.integers(0, 99),
    st.integers(0, 99),
    st.floats(0, 1),
    st.binary(min_size=1, max_size=16),
)
STEPS = st.lists(STEP, min_size=1, max_size=3)
Steps = Sequence[tuple[str, int, int, float, bytes]]


def damaged(root: Path, steps: Steps) -> None:
    for kind, one, other, share, extra in steps:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        path, second = files[one % len(files)], files[other % len(files)]
        data = path.read_bytes()
        at = int(share * max(0, len(data) - 1))
        if kind == "delete":
            path.unlink()
        elif kind == "copy":
            second.with_name(f"part-{other:05d}.parquet").write_bytes(data)
        elif kind == "swap":
            path.write_bytes(second.read_bytes())
            second.write_bytes(data)
        else:
            path.write_bytes(
                {
                    "flip": data[:at] + bytes([data[at] ^ (1 << extra[0] % 8)]) + data[at + 1 :]
                    if data
                    else b"",
                    "cut": data[:at],
                    "insert": data[:at] + extra + data[at:],
                    "overwrite": data[:at] + extra + data[at + len(extra) :],
                    "append": data + extra,
                    "zero": bytes(len(data)),
                }[kind]
            )


def everything(root: Path) -> dict[str, Any]:
    """All that commands read of a run."""
    store = kg.Store(root)
    run = read_run(root, verify=True)
    vectors = store.vectors("k_proj", 0)
    return {
        "identity": store.identity, "manifest": run.manifest, "samples": store.samples,
        "tokens": store.tokens, "thumbnails": store.thumbnails,
        "array": pd.DataFrame(vectors.array.reshape(len(vectors), -1)),
        "labels": vectors.labels, "statistics": run.table.statistics, "gap": run.table.frame,
        "profile": run.table.profile, "notes": run.table.notes, "settings": run.table.settings,
        "shape": run.table.shape.frame, "dimensions": run.table.shape.dimensions,
        "projection": run.projection, "accuracy": run.accuracy,
    }  # fmt: skip


def same(one: Any, other: Any) -> bool:
    return one.equals(other) if isinstance(one, pd.DataFrame) else one == other


def attempt(root: Path) -> dict[str, Any] | str:
    """Everything, or the line that refuses it."""
    try:
        return everything(root)
    except UserError as error:
        return str(error)


def check(whole: Path, expected: dict[str, Any], steps: Steps) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        shutil.copytree(whole, root)
        damaged(root, steps)
        found = attempt(root)
        if isinstance(found, str):
            assert "\n" not in found
        else:
            assert [key for key in found if not same(found[key], expected[key])] == []
        try:
            run_of(VECTORS, root, [0])
        except UserError as error:  # neither its identity nor the checksum of that is there
            assert "another" in str(error)  # noqa: PT017
            return
        store = kg.Store(root)
        store.verify()
        assert same(store.vectors("k_proj", 0).labels, expected["labels"])
        assert same(store.samples, expected["samples"])


def check_without_checksums(whole: Path, steps: Steps) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        shutil.copytree(whole, root)
        as_of_keygap_0_1(root)
        damaged(root, steps)
        found = attempt(root)
        assert not isinstance(found, str) or "\n" not in found


@pytest.fixture(scope="module")
def expected(whole) -> dict[str, Any]:
    return everything(whole / "run")


FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))


def test_the_run_that_is_damaged_is_whole(whole, expected):
    assert (whole / "run/accuracy.csv").is_file()
    assert len(files_of(whole / "run")) == 20
    found = everything(whole / "run")
    assert all(same(found[key], value) for key, value in expected.items())


@FEW
@given(steps=STEPS)
def test_random_damage(whole, expected, steps):
    check(whole / "run", expected, steps)


@FEW
@given(steps=STEPS)
def test_random_damage_without_checksums(whole, steps):
    check_without_checksums(whole / "run", steps)


@pytest.mark.slow
@MANY
@given(steps=STEPS)
def test_much_random_damage(whole, expected, steps):
    check(whole / "run", expected, steps)


@pytest.mark.slow
@MANY
@given(steps=STEPS)
def test_much_random_damage_without_checksums(whole, steps):
    check_without_checksums(whole / "run", steps)
