"""A benchmark, and the samples that a seed chose from it.

Extraction, answers and probes must read the same samples, so the choice is made once, here, and
handed on as one object. A benchmark declares what the rest of keygap asks of it (its closed set of
answers, its scoring rule, its language, where its data are) as attributes with defaults, so that
nobody has to probe for them.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from keygap.benchmarks.sample import Entry, Sample
from keygap.defaults import SAMPLES
from keygap.errors import UserError


class Unset(Enum):
    """The type of an argument that the caller left out, where None means something."""

    UNSET = "unset"


UNSET = Unset.UNSET


class Benchmark(ABC):
    """A source of samples with a light index.

    Attributes:
        name: as the user writes it, such as ``mmmu`` or ``jsonl:PATH``.
        split: the split that was opened.
        data: where the files lie, in full; None for the publisher's own. Runs on different files
            are different runs.
        language: of the user's own questions; None where the publisher decides.
        scoring: name of the accuracy rule (``keygap.benchmarks.scoring.RULES``).
        has_copies: whether a question has several rows (circular evaluation), all of which are
            scored together.
    """

    name: str
    split: str
    data: str | None = None
    language: str | None = None
    scoring: str = "plain"
    has_copies: bool = False

    @property
    def answers(self) -> tuple[str, ...]:
        """The closed set of answers that every question shares; empty where there is none."""
        return ()

    @abstractmethod
    def index(self) -> Sequence[Entry]:
        """Every item, in the publisher's order."""

    @abstractmethod
    def sample(self, number: int) -> Sample:
        """The item at a place of the index, its images opened.

        Raises:
            BadSample: the row cannot be made into a sample; the message says what is wrong.
        """

    def choose(self, samples: int | None = SAMPLES, seed: int = 0) -> SampleSet:
        """Choose samples by a seed, stratified by subject.

        Args:
            samples: how many; None, or more than there are, means all.
            seed: any integer of at least 0.

        Raises:
            UserError: fewer than one sample asked for, or the benchmark has none.
        """
        if samples is not None and samples < 1:
            raise UserError(f"samples is {samples}: at least 1 is needed")
        places = choose(self.index(), samples, seed)
        if not places:
            raise UserError(f"benchmark {self.name}, split {self.split}, has no samples")
        return SampleSet(self, tuple(places), samples, seed)


@dataclass(frozen=True)
class SampleSet:
    """The samples that a seed chose from a benchmark, in the order in which they are run.

    Attributes:
        benchmark: where the samples come from.
        places: places in the benchmark's index.
        asked: how many samples were asked for; None means all.
        seed: of the choice.
    """

    benchmark: Benchmark
    places: tuple[int, ...]
    asked: int | None
    seed: int

    @property
    def name(self) -> str:
        """The benchmark's name."""
        return self.benchmark.name

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Id, subject and image key of every chosen sample."""
        index = self.benchmark.index()
        return tuple(index[place] for place in self.places)

    def sample(self, number: int) -> Sample:
        """The chosen sample of this number, counted from 0.

        Raises:
            BadSample: the row cannot be made into a sample.
        """
        return self.benchmark.sample(self.places[number])

    def with_copies(self) -> SampleSet:
        """The same set, each sample followed by the other rows of its question.

        The set itself where the benchmark has no copies.
        """
        if not self.benchmark.has_copies:
            return self
        places = with_copies(self.benchmark.index(), self.places)
        return SampleSet(self.benchmark, tuple(places), self.asked, self.seed)

    def batches(self, size: int) -> Iterator[SampleSet]:
        """Consecutive sets of at most ``size`` samples."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, wanted: slice) -> SampleSet:
        return SampleSet(self.benchmark, self.places[wanted], self.asked, self.seed)

    def __repr__(self) -> str:
        return (
            f"SampleSet({len(self)} of {len(self.benchmark.index())} samples of {self.name}, "
            f"split {self.benchmark.split}, seed {self.seed})"
        )


def as_sample_set(
    source: Benchmark | SampleSet,
    samples: int | Unset | None = UNSET,
    seed: int | Unset = UNSET,
) -> SampleSet:
    """The sample set of an argument that may be a benchmark or a set that was chosen already.

    Args:
        source: a benchmark, from which samples are chosen, or a sample set.
        samples: how many; None means all. By default 200.
        seed: of the choice. By default 0.

    Raises:
        UserError: a number of samples or a seed beside a set that was chosen already.
    """
    if isinstance(source, SampleSet):
        if samples is not UNSET or seed is not UNSET:
            raise UserError(
                "the samples were chosen already: leave samples and seed out, or pass the benchmark"
            )
        return source
    return source.choose(
        SAMPLES if isinstance(samples, Unset) else samples,
        0 if isinstance(seed, Unset) else seed,
    )


@dataclass(frozen=True)
class InMemory(Benchmark):
    """A benchmark out of samples that the caller already has."""

    name: str
    samples: Sequence[Sample]
    split: str = "memory"

    def index(self) -> list[Entry]:
        return [Entry(item.id, item.subject) for item in self.samples]

    def sample(self, number: int) -> Sample:
        return self.samples[number]


def with_copies(entries: Sequence[Entry], chosen: Sequence[int]) -> list[int]:
    """The chosen items, each followed by the others of its image.

    Circular evaluation needs every copy of a question, and ``choose`` takes one of each first.

    Args:
        entries: the benchmark's index.
        chosen: places in it, as ``choose`` gave them.
    """
    family: dict[str, list[int]] = defaultdict(list)
    for number, entry in enumerate(entries):
        family[entry.image_key or entry.id].append(number)
    whole = [n for place in chosen for n in family[entries[place].image_key or entries[place].id]]
    return list(dict.fromkeys(whole))


def choose(entries: Sequence[Entry], samples: int | None, seed: int) -> list[int]:
    """Which items to use: seeded, stratified by subject, the same everywhere.

    The order is that of a hash of seed and id, so it depends on neither the machine, the Python
    version nor the model. Subjects take turns in proportion to their size. Items of one image are
    not independent samples: a second item of an image comes only after every image had one.

    Args:
        entries: the benchmark's index.
        samples: how many; None or more than there are means all.
        seed: any integer.

    Returns:
        Places in ``entries``, in the order in which to run them.
    """

    def rank(number: int) -> bytes:
        return hashlib.sha256(f"{seed}:{entries[number].id}".encode()).digest()

    seen: dict[str, int] = defaultdict(int)
    turn = {}
    for number in sorted(range(len(entries)), key=rank):
        key = entries[number].image_key or entries[number].id
        turn[number] = seen[key]
        seen[key] += 1
    by_turn: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number in turn:
        by_turn[turn[number]][entries[number].subject].append(number)
    chosen: list[int] = []
    for level in sorted(by_turn):
        # the k-th of n items of a subject stands at (k + 1/2) / n: proportional at every length
        places = [
            ((k + 0.5) / len(numbers), subject, number)
            for subject, numbers in by_turn[level].items()
            for k, number in enumerate(numbers)
        ]
        chosen += [number for _, _, number in sorted(places)]
    return chosen if samples is None else chosen[:samples]
