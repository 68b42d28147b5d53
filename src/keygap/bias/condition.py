"""What a probe is: conditions, each of which turns a sample into a variant of it.

A condition says how a variant is made, whether the model gets its images, and which conditions give
the answers to the image alone and to the text alone that its own answers are compared with. It does
not say how answers are scored: that is the same for all probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from keygap import random_streams
from keygap.benchmarks import BadSample, Sample, SampleSet
from keygap.benchmarks.sample import as_rgb
from keygap.benchmarks.scoring import accepted, normalised
from keygap.tokens import Pictures

AS_IS = "as_is"  # the name of the condition without a change, which every probe has


class Unfit(ValueError):
    """A condition does not exist for a sample; the message is the reason, and is counted."""


@dataclass(frozen=True)
class Variant:
    """A sample under one condition.

    Attributes:
        sample: what the model is given; its id is that of the original.
        suggested: the answer that the added text suggests; None if it suggests none.
    """

    sample: Sample
    suggested: str | None = None


@dataclass(frozen=True)
class Condition:
    """One condition of a probe.

    Attributes:
        name: such as ``conflict``.
        make: turns a sample into its variant; raises ``Unfit`` where it cannot.
        variant: which of several wordings or strengths this is; empty where there is one. Results
            are given for each and for all together.
        pictures: whether the model gets the images: ``shown``, ``absent`` (no image and no marker)
            or ``marker`` (the placeholder tokens without an image).
        image_only: the condition whose answers are those to the image alone; empty if there is
            none.
        text_only: the condition whose answers are those to the text alone; empty if there is none.
    """

    name: str
    make: Callable[[Sample, Samples], Variant]
    variant: str = ""
    pictures: Pictures = "shown"
    image_only: str = ""
    text_only: str = ""


@dataclass(frozen=True)
class Probe:
    """A behavioural test: every sample under several conditions.

    Attributes:
        name: its name in tables.
        conditions: the first one is ``as_is``, the sample as the benchmark has it.
        settings: plain values that tell this probe from another of the same name.
        analyse: computes something from all answers of the probe, as plain values with a line
            ``summary``; None if conditions say everything. Its arguments are the rows of
            ``BiasTable.samples``, the probe, the number of resamplings and the seed.
    """

    name: str
    conditions: tuple[Condition, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    analyse: Callable[[pd.DataFrame, Probe, int, int], dict[str, Any]] | None = None


def as_is(sample: Sample, samples: Samples) -> Variant:
    """The sample without a change."""
    return Variant(sample)


UNCHANGED = Condition(AS_IS, as_is)


@dataclass(frozen=True)
class Samples:
    """The other samples, which a condition may take an answer or an image from.

    Every choice depends on the seed, the sample and a purpose alone, so a sample gets the same
    variant in any batch.

    Attributes:
        sample_set: the samples of the probe.
        seed: of every choice.
    """

    sample_set: SampleSet
    seed: int

    def wrong_answer(self, sample: Sample, purpose: str) -> str:
        """A wrong answer of the same kind as the right one.

        It is another option where there are options. Otherwise it is the answer to another sample
        of the same subject, so that a question about a colour gets a colour.

        Args:
            sample: the sample.
            purpose: what the draw is for; another purpose draws anew.

        Raises:
            Unfit: there is none, or the right answer is not published.
        """
        if sample.answer is None:
            raise Unfit("the right answer is not published")
        right = {normalised(answer) for answer in right_answers(sample)}
        known = sample.letters or self._answers.get(sample.subject, ())
        wrong = [answer for answer in known if normalised(answer) not in right]
        if not wrong:
            raise Unfit("there is no wrong answer of the same kind")
        return wrong[int(self.rng(sample.id, purpose).integers(len(wrong)))]

    def partner(self, sample: Sample, purpose: str) -> Sample:
        """Another sample, which shows another image.

        Args:
            sample: the sample.
            purpose: what the draw is for; another purpose draws anew.

        Raises:
            Unfit: no other sample can be read, or all show the same image.
            BadSample: an image of the sample cannot be decoded.
        """
        for other in self.partners(sample, purpose):
            return other
        raise Unfit("no other sample shows another image")

    def partners(self, sample: Sample, purpose: str) -> Iterator[Sample]:
        """All samples that show another image, in a random order.

        Args:
            sample: the sample.
            purpose: what the order is for; another purpose has another order.

        Raises:
            BadSample: an image of the sample cannot be decoded.
        """
        images = [as_rgb(image) for image in sample.images]
        for other in self._others(sample, purpose):
            if len(other.images) >= len(images) and _shows_others(other, images):
                yield other

    def other_question(self, sample: Sample, purpose: str) -> str:
        """The words of another sample's question, which asks something else.

        Images are not compared. Only a sample that has this one's ``image_key`` is left out, so
        without keys the other question may be about the same image.

        Args:
            sample: the sample.
            purpose: what the draw is for; another purpose draws anew.

        Raises:
            Unfit: no other sample can be read, or all ask the same.
        """
        own = asked_by(sample)
        for other in self._others(sample, purpose):
            if (question := asked_by(other)) not in ("", own):
                return question
        raise Unfit("no other sample asks another question")

    def _others(self, sample: Sample, purpose: str) -> Iterator[Sample]:
        """The other samples that can be read, in a random order, without those of its image."""
        own = self._numbers[sample.id]
        key = self.sample_set.entries[own].image_key
        for number in self.rng(sample.id, purpose).permutation(len(self.sample_set)).tolist():
            entry = self.sample_set.entries[number]
            if number == own or (key and entry.image_key == key):
                continue
            try:
                yield self.sample_set.sample(number)
            except BadSample:
                continue

    def rng(self, *purpose: object) -> np.random.Generator:
        """The random generator of a purpose.

        Args:
            purpose: what the draws are for.
        """
        return random_streams.generator(self.seed, "probe", *purpose)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {entry.id: number for number, entry in enumerate(self.sample_set.entries)}

    @cached_property
    def _answers(self) -> dict[str, tuple[str, ...]]:
        """The answers that occur, by subject."""
        found: dict[str, dict[str, None]] = {}
        for number in range(len(self.sample_set)):
            try:
                sample = self.sample_set.sample(number)
            except BadSample:
                continue
            if sample.answer is not None and not sample.options:
                found.setdefault(sample.subject, {})[right_answers(sample)[0]] = None
        return {subject: tuple(sorted(answers)) for subject, answers in found.items()}


def right_answers(sample: Sample) -> tuple[str, ...]:
    """The answers to a sample that count as right, at least one; its answer is published."""
    answer = str(sample.answer)
    return (answer,) if sample.options else accepted(answer)


def asked_by(sample: Sample) -> str:
    """The words of a sample's question in its prompt, which have no markers of images."""
    pieces = (piece for piece in sample.prompt if piece.kind == "text")
    return "".join(piece.text for piece in pieces if piece.role == "question").strip()


def _shows_others(sample: Sample, images: Sequence[Image.Image]) -> bool:
    """Whether a sample shows other images than these, all of which can be decoded.

    Args:
        sample: the sample, with at least as many images.
        images: decoded and upright.
    """
    try:
        shown = [as_rgb(image) for image in sample.images[: len(images)]]
    except BadSample:
        return False
    pairs = zip(shown, images, strict=True)
    return any(a.size != b.size or a.tobytes() != b.tobytes() for a, b in pairs)
