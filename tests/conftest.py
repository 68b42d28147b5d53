"""What tests share: the embedded model with its real weights, and one small extraction of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

import keygap as kg
from keygap.benchmarks import Sample
from keygap.workers import REGISTRY
from keygap.workers.here import Here
from made import SAMPLES, made_sample

# A shared machine may pause any test; what hypothesis calls slow then says nothing about the test.
settings.register_profile(
    "keygap",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("keygap")


class Scheduling(LoadScopeScheduling):
    """Tests of a file run in one process, for its fixtures; those of some folders, for a run."""

    def _split_scope(self, nodeid: str) -> str:
        path = PurePosixPath(nodeid.split("::", 1)[0])
        return str(path.parent if path.parent.name in ("measurement", "reporting") else path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Groups by marks (``--dist loadgroup``) are ignored by pytest 9.2 with pytest-xdist 3.8."""
    return Scheduling(config, log)


# A new default of a checkpoint's processor is announced in other words, and is no removal.
REMOVAL = re.compile(r"\bdeprecated\b", re.IGNORECASE)


@pytest.fixture(autouse=True)
def no_removal_is_announced() -> Iterator[None]:
    """transformers announces removals in its log, where no filter of warnings sees them."""
    announced: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: announced.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert not [line for line in announced if REMOVAL.search(line)]


@pytest.fixture(scope="session")
def vlm() -> kg.VLM:
    return kg.load("micro:linear")


@pytest.fixture(scope="session")
def easy_vqa():
    return kg.benchmark("easy-vqa", split="test")


@pytest.fixture(scope="session")
def store(vlm, easy_vqa, tmp_path_factory) -> kg.Store:
    out = tmp_path_factory.mktemp("runs") / "store"
    return kg.extract(
        vlm, easy_vqa, out, layers=["first", "middle", "last"], samples=SAMPLES, batch_size=8
    )


@pytest.fixture(scope="session")
def table(store) -> kg.GapTable:
    return kg.measure(store, n_permutations=200, n_bootstraps=200)


@pytest.fixture
def good_samples() -> list[Sample]:
    colours = ("red", "blue", "green", "black", "yellow", "gray", "teal", "brown")
    return [made_sample(f"s{n}", f"is it {c}?", c) for n, c in enumerate(colours)]


@pytest.fixture
def in_turn() -> Iterator[str]:
    """An engine whose only worker is this process."""
    REGISTRY.register("in-turn", Here)
    yield "in-turn"
    REGISTRY.unregister("in-turn")
