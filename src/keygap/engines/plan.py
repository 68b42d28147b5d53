"""The plan of an extraction, and what an engine must do with it.

A plan divides the chosen samples into parts, always in the same way. A part depends on the plan
alone, so parts can be extracted in any process and in any order, and a run that was killed
continues with those that are missing.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa

from keygap.benchmarks import SampleSet
from keygap.capture.keeping import Draw
from keygap.capture.sites import SITES
from keygap.defaults import AUTO
from keygap.engines.ahead import BatchLimit
from keygap.models.vlm import VLM
from keygap.store import StoreWriter
from keygap.store.journal import Commit
from keygap.store.run import part_number

PART_SAMPLES = 64  # the most samples of a part; a killed run loses at most two parts
LARGEST_BATCH = 32  # of an automatic batch size: several batches are in memory at once
PART_BYTES = 2**30  # what a part of several batches may hold in memory, roughly
TEXT_TOKENS, IMAGE_TOKENS = 64, 1024  # of a prompt, roughly


@dataclass(frozen=True)
class Plan:
    """Everything that is needed to extract any part.

    Attributes:
        vlm: the model.
        samples: the chosen samples, in the order of the run.
        sites: names of ``keygap.capture.sites.SITES``.
        layers: absolute indices.
        batch_size: samples in one forward pass, at the beginning of the run.
        part_size: samples in one part, a multiple of ``batch_size``.
        alone: whether each sample has a forward pass of its own, whatever ``batch_size`` says.
        thumbnails: whether small copies of the images are kept.
        image_tokens: most image tokens of a sample whose vectors are kept; None keeps all.
        largest_batch: what ``batch_size`` may grow to while memory is left; 0 keeps it as it is.
    """

    vlm: VLM
    samples: SampleSet
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    batch_size: int
    part_size: int
    alone: bool = False
    thumbnails: bool = True
    image_tokens: int | None = None
    largest_batch: int = 0

    def __len__(self) -> int:
        """The number of parts."""
        return -(-len(self.samples) // self.part_size)

    def part(self, number: int) -> SampleSet:
        """The samples of a part, counted from 0."""
        start = number * self.part_size
        return self.samples[start : start + self.part_size]

    @property
    def draw(self) -> Draw:
        """Which image tokens of a sample are kept, by the seed of the samples."""
        return Draw(self.image_tokens, self.samples.seed)

    def limit(self) -> BatchLimit:
        """The size of its batches, until one does not fit into memory."""
        return BatchLimit(1) if self.alone else BatchLimit(self.batch_size, self.largest_batch)

    def missing(self, done: Collection[str], damaged: Collection[int] = ()) -> list[int]:
        """The parts to extract, ascending.

        Args:
            done: ids of the samples that were read. A part with any other sample is missing.
            damaged: numbers of parts whose files were damaged since.
        """
        entries = self.samples.entries
        late = {place // self.part_size for place, e in enumerate(entries) if e.id not in done}
        return sorted(late | {number for number in damaged if number < len(self)})


@dataclass(frozen=True)
class WrittenPart:
    """A part whose files are on disk and that is not committed yet.

    Attributes:
        number: of the part.
        samples: the rows of its samples (``keygap.store.schema.SAMPLES_SCHEMA``).
        checksums: the SHA-256 of each file, by its path in the run folder.
    """

    number: int
    samples: pa.Table
    checksums: Mapping[str, str]


class Engine(Protocol):
    """A way to extract the parts of a plan: in this process, or on other machines."""

    def run(self, plan: Plan, numbers: Sequence[int], root: Path) -> Generator[WrittenPart]:
        """Extract parts and write their files.

        Args:
            plan: of the extraction.
            numbers: the parts to extract.
            root: the run folder. Only the files of these parts are written there.

        Yields:
            The parts in the order of ``numbers``, each once its files are whole on disk.
        """
        ...


def commits_of(plan: Plan, writer: StoreWriter) -> dict[int, Commit]:
    """What is committed of each part that is whole, by its number.

    Args:
        plan: of the extraction.
        writer: that has opened its folder.
    """
    late = set(plan.missing(writer.done, writer.damaged))
    checksums: dict[int, dict[str, str]] = {}
    for name, digest in writer.checksums.items():
        number = part_number(name)
        if number is not None:
            checksums.setdefault(number, {})[name] = digest
    samples = writer.samples
    places = {name: place for place, name in enumerate(samples["sample_id"].to_pylist())}
    return {
        number: Commit(
            samples.take([places[entry.id] for entry in plan.part(number).entries]),
            checksums.get(number, {}),
        )
        for number in range(len(plan))
        if number not in late
    }


def largest_batch(vlm: VLM, batch_size: int | Literal["auto"]) -> int:
    """What the batch size may grow to while memory is left; 0 keeps it as it is.

    It grows on a GPU if it was not given. On a CPU, a larger batch is no faster.

    Args:
        vlm: the model.
        batch_size: what was asked for.
    """
    return LARGEST_BATCH if batch_size == AUTO and vlm.device.type == "cuda" else 0


def part_size(
    vlm: VLM,
    sites: Sequence[str],
    layers: Sequence[int],
    batch_size: int,
    image_tokens: int | None = None,
) -> int:
    """How many samples a part has: whole batches, within ``PART_SAMPLES`` and ``PART_BYTES``.

    At least one batch. It depends on no sample, because one that can be read now may not be
    readable when the run continues, and the parts of a run must all have one size.

    Args:
        vlm: the model.
        sites: names of sites.
        layers: absolute indices.
        batch_size: samples in one forward pass.
        image_tokens: most image tokens of a sample that are kept; None keeps all.
    """
    numbers = sum(
        (layer.key_heads if SITES[site].of_keys else layer.heads) * layer.head_dim
        for site in sites
        for layer in (vlm.layers[index] for index in layers)
    )
    tokens = TEXT_TOKENS + (IMAGE_TOKENS if image_tokens is None else image_tokens)
    batch_bytes = max(1, 4 * numbers * tokens * batch_size)
    return batch_size * max(1, min(PART_BYTES // batch_bytes, PART_SAMPLES // batch_size))
