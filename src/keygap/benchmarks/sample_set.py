"""A benchmark, and the samples that a seed chose from it.

Extraction, answers and probes must read the same samples. The choice is therefore made once, here,
and passed on as one object. A benchmark declares what the rest of keygap needs to know about it
(its closed set of answers, its scoring rule, its language, where its data are) as attributes with
defaults, so that no caller has to test whether they exist.
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from keygap.arguments import distinct, seed_of, whole
from keygap.benchmarks.choosing import choose, with_copies
from keygap.benchmarks.sample import BadSample, Entry, Sample, with_caption
from keygap.defaults import SAMPLES
from keygap.errors import UserError, unknown

logger = logging.getLogger("keygap")


class Unset(Enum):
    """Type of the default of an argument for which None has a meaning of its own."""

    UNSET = "unset"


UNSET = Unset.UNSET


class Benchmark(ABC):
    """A source of samples with a light index.

    Attributes:
        name: as the user writes it, such as ``mmmu`` or ``jsonl:PATH``.
        split: the split that was opened.
        data: absolute path of local data; None for the publisher's own. Runs on different files
            are different runs.
        language: language of the user's own questions; None where the publisher defines it.
        scoring: name of the accuracy rule, in ``keygap.benchmarks.scoring.RULES``.
    """

    name: str
    split: str
    data: str | None = None
    language: str | None = None
    scoring: str = "plain"

    @property
    def answers(self) -> tuple[str, ...]:
        """The closed set of answers that every question shares; empty if there is none."""
        return ()

    @abstractmethod
    def index(self) -> Sequence[Entry]:
        """List every item, in the publisher's order."""

    @abstractmethod
    def sample(self, number: int) -> Sample:
        """Open the item at this position of the index.

        Args:
            number: position in the index, counted from 0.

        Raises:
            BadSample: the item cannot be used; the message gives the reason.
        """

    def choose(
        self,
        samples: int | None = SAMPLES,
        seed: int = 0,
        subjects: Sequence[str] | None = None,
    ) -> SampleSet:
        """Choose samples by a seed, stratified by subject.

        Args:
            samples: how many; None, or more than there are, means all.
            seed: a whole number of at least 0 and less than 2^32.
            subjects: of these subjects; None means all.

        Raises:
            UserError: fewer than one sample was asked for, the benchmark has none, it has no such
                subject, or two of its items have the same id.
        """
        if samples is not None:
            samples = whole(samples, "samples", 1)
        seed = seed_of(seed)
        index = self.index()
        _refuse_repeated(self.name, index)
        kept = list(range(len(index))) if subjects is None else self._of(subjects)
        places = [kept[number] for number in choose([index[k] for k in kept], samples, seed)]
        if not places:
            raise UserError(f"benchmark {self.name}, split {self.split}, has no samples")
        return SampleSet(self, tuple(places), samples, seed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, split {self.split!r})"

    def _of(self, subjects: Sequence[str]) -> list[int]:
        """The positions in the index of the items of some subjects."""
        index = self.index()
        known = sorted({entry.subject for entry in index})
        wanted = distinct(subjects, "subjects", next(iter(known), "art"))
        for name in wanted:
            if name not in known:
                raise unknown("subject", name, known, f"of {self.name}")
        return [number for number, entry in enumerate(index) if entry.subject in wanted]


def _refuse_repeated(name: str, index: Sequence[Entry]) -> None:
    """Refuse items that a store could not tell apart.

    Raises:
        UserError: two have the same id.
    """
    ((repeated, count),) = Counter(entry.id for entry in index).most_common(1) or [("", 0)]
    if count > 1:
        raise UserError(f"benchmark {name}: {count} items have the id {repeated!r}; make it unique")


@dataclass(frozen=True)
class SampleSet:
    """The samples that a seed chose from a benchmark, in the order in which they are run.

    Attributes:
        benchmark: where the samples come from.
        places: their positions in the benchmark's index.
        asked: how many samples were asked for; None means all.
        seed: seed of the choice.
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
        """Index entry of every chosen sample."""
        index = self.benchmark.index()
        return tuple(index[place] for place in self.places)

    @property
    def digest(self) -> str:
        """A digest of the ids in order: a slice has the count and seed of the whole set."""
        ids = "\x1f".join(entry.id for entry in self.entries)
        return hashlib.sha256(ids.encode()).hexdigest()[:16]

    def sample(self, number: int) -> Sample:
        """Open the chosen sample of this number.

        Args:
            number: counted from 0, in the order in which samples are run.

        Raises:
            BadSample: the item cannot be used.
            UserError: the benchmark gives it another id than its index does.
            Exception: of the benchmark's own code, with a note that names the item.
        """
        expected = self.entries[number].id
        try:
            found = self.benchmark.sample(self.places[number])
        except (BadSample, UserError):
            raise
        except Exception as error:
            error.add_note(f"while item {expected!r} of benchmark {self.name} was opened")
            raise
        if found.id != expected:
            raise UserError(
                f"benchmark {self.name}: sample() returns the id {found.id!r} for the item that "
                f"index() calls {expected!r}; they must be the same"
            )
        return found

    def first_readable(self) -> Sample:
        """Open the first sample that can be used, before a model is loaded for none.

        Raises:
            UserError: none can be used; gives the reason of the first.
        """
        reasons = []
        for number in range(len(self)):
            try:
                return self.sample(number)
            except BadSample as reason:
                reasons.append(f"{self.entries[number].id}: {reason}")
        raise UserError(f"no sample of {self.name} can be used; the first is {reasons[0]}")

    def with_copies(self) -> SampleSet:
        """Return the set with every row of each question, for circular evaluation.

        The set is the same where each question has one row.
        """
        return replace(self, places=tuple(with_copies(self.benchmark.index(), self.places)))

    def with_captions(self) -> SampleSet:
        """Return the samples that have a caption, with it in their prompts, after the images.

        An extraction of this set is another run than one of the set without captions.

        Raises:
            UserError: no sample has a caption.
        """
        captioned = Captioned(self.benchmark)
        places = tuple(place for place in self.places if captioned.has(place))
        if not places:
            raise UserError(f"no sample of {self.name} has a caption")
        if missing := len(self) - len(places):
            logger.info("%s: %d of %d samples have no caption", self.name, missing, len(self))
        return replace(self, benchmark=captioned, places=places)

    def apart(self, count: int) -> tuple[SampleSet, SampleSet]:
        """Divide the set in two that share no image: at most ``count`` samples, and others.

        Images are taken in the order of the set, each with all of its samples. Those of the last
        one that do not fit into ``count`` are in neither set.

        Args:
            count: samples of the first set.
        """
        numbers: dict[str, list[int]] = {}
        for number, entry in enumerate(self.entries):
            numbers.setdefault(entry.image_key or entry.id, []).append(number)
        first: list[int] = []
        rest: list[int] = []
        for own in numbers.values():
            if len(first) < count:
                first += own
            else:
                rest += own
        parts = (sorted(first[:count]), sorted(rest))
        one, other = (replace(self, places=tuple(self.places[n] for n in own)) for own in parts)
        return one, other

    def batches(self, size: int) -> list[SampleSet]:
        """Divide the set into consecutive sets.

        Args:
            size: samples of each set; the last one may have fewer.

        Raises:
            UserError: ``size`` is less than one.
        """
        size = whole(size, "batch_size", 1)
        return [self[start : start + size] for start in range(0, len(self), size)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, wanted: slice) -> SampleSet:
        if not isinstance(wanted, slice):
            raise TypeError("a SampleSet takes slices; one sample is sample(number)")
        return replace(self, places=self.places[wanted])

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
    """Return the sample set of an argument that may be a benchmark or a sample set.

    Args:
        source: a benchmark to choose samples from, or a sample set.
        samples: how many to choose; None means all. Default: 200.
        seed: seed of the choice. Default: 0.

    Raises:
        UserError: ``samples`` or ``seed`` was given together with a sample set.
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
class Captioned(Benchmark):
    """A benchmark whose prompts say in words what the images show.

    Attributes:
        plain: the benchmark without captions.
    """

    plain: Benchmark

    def __post_init__(self) -> None:
        """Take over what the plain benchmark declares, under another name."""
        object.__setattr__(self, "name", f"{self.plain.name}+captions")
        for declared in ("split", "data", "language", "scoring"):
            object.__setattr__(self, declared, getattr(self.plain, declared))

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers of the plain benchmark."""
        return self.plain.answers

    def index(self) -> Sequence[Entry]:
        """List every item of the plain benchmark."""
        return self.plain.index()

    def sample(self, number: int) -> Sample:
        """Open an item, with its caption in the prompt.

        Raises:
            BadSample: the item cannot be used, or has no caption.
        """
        return with_caption(self.plain.sample(number))

    def has(self, number: int) -> bool:
        """Whether the item at this position has a caption; true for one that cannot be opened."""
        try:
            return bool(self.plain.sample(number).caption)
        except BadSample:  # the run records it with its reason
            return True


@dataclass(frozen=True)
class InMemory(Benchmark):
    """A benchmark of samples that the caller already has.

    Attributes:
        name: names the benchmark in runs and reports.
        samples: the samples.
        split: names the split.
    """

    name: str
    samples: Sequence[Sample]
    split: str = "memory"

    def index(self) -> list[Entry]:
        """List the samples' ids and subjects."""
        return [Entry(item.id, item.subject) for item in self.samples]

    def sample(self, number: int) -> Sample:
        """Return the sample at this position.

        Args:
            number: position, counted from 0.
        """
        return self.samples[number]
