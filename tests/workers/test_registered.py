"""An engine of another package: registering it is all that is needed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Self

import pytest

import keygap as kg
from keygap.workers import REGISTRY
from made import made_store, made_vectors
from store.made import run_of

asked: list[int] = []  # the GPUs of a worker


class Backwards:
    """Does the items in reverse, and yields the results in order."""

    def __init__(self, workers: int | None = None, gpus_per_worker: int | None = None) -> None:
        self.workers = workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def map(self, make, items, what, gpus=0):
        asked.append(gpus)
        do = make()
        yield from [do(item) for item in reversed(items)][::-1]


class Elsewhere(Backwards):
    """Does the items on a machine that does not see the run folder."""

    def map(self, make, items, what, gpus=0):
        sent = pickle.dumps(make)
        folders[0].rename(folders[0].with_name("moved"))
        yield from map(pickle.loads(sent)(), items)  # noqa: S301


folders: list[Path] = []


@pytest.fixture
def elsewhere(tmp_path):
    run_of(made_vectors(), tmp_path / "run")
    folders[:] = [tmp_path / "run"]
    REGISTRY.register("elsewhere", Elsewhere)
    yield tmp_path / "run"
    REGISTRY.unregister("elsewhere")


def test_a_machine_without_the_run_folder_is_one_line(elsewhere):
    with pytest.raises(kg.UserError, match=r"/run is not on .*: to measure on several machines"):
        kg.measure(kg.Store(elsewhere), engine="elsewhere")


@pytest.fixture
def backwards():
    REGISTRY.register("backwards", Backwards)
    yield
    REGISTRY.unregister("backwards")


def test_a_registered_engine_measures_the_same(backwards):
    store = made_store(made_vectors(), layers=(0, 3))
    options = {"contrasts": ["image_text"], "n_permutations": 19, "n_bootstraps": 20}
    here, there = (
        kg.measure(store, engine=engine, **options).frame  # type: ignore[arg-type]
        for engine in ("local", "backwards")
    )
    assert here.equals(there)
    assert sorted(set(there["layer"])) in ([0, 3], ["0", "3"])


@pytest.mark.parametrize(("present", "expected"), [(0, 0), (1, 1), (8, 1)])
def test_each_worker_that_measures_takes_one_gpu_if_there_are_some(
    monkeypatch, backwards, present, expected
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: present)
    asked.clear()
    few = {"contrasts": ["image_text"], "n_permutations": 1, "n_bootstraps": 1}
    kg.measure(made_store(made_vectors()), engine="backwards", **few)  # type: ignore[arg-type]
    assert asked == [expected]
