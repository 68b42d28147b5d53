"""Batches of a sample set, and the samples that cannot be used, with the reason for each.

Extraction and answers both come through here, so they skip the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence

from keygap.benchmarks import BadSample, Sample, SampleSet
from keygap.errors import UserError
from keygap.models.batch import Batch
from keygap.models.vlm import VLM
from keygap.tokens import Pictures

Reasons = dict[str, str]  # sample id -> why it cannot be used


def opened(sample_set: SampleSet) -> tuple[list[Sample], Reasons]:
    """Read the samples of a set.

    Returns:
        The good samples, and the reason for each bad one.
    """
    samples: list[Sample] = []
    bad: Reasons = {}
    for number in range(len(sample_set)):
        try:
            samples.append(sample_set.sample(number))
        except BadSample as reason:
            bad[sample_set.entries[number].id] = str(reason)
    return samples, bad


def labelled(
    vlm: VLM, samples: Sequence[Sample], pictures: Pictures = "shown"
) -> tuple[list[Sample], Batch | None, Reasons]:
    """Make one batch of the samples that the model accepts.

    Bad samples are rare, so all are tried together first; only if that fails is each tried alone.

    Args:
        vlm: the model.
        samples: the samples.
        pictures: how prompts show their images (see ``Prompter``).

    Returns:
        The samples in the batch, the batch (None if there are none), and the reason for each sample
        left out.

    Raises:
        UserError: the model accepts samples alone and not together.
    """
    if not samples:
        return [], None, {}
    try:
        return list(samples), vlm.prompter(samples, pictures=pictures), {}
    except BadSample:
        bad: Reasons = {}
        for sample in samples:
            try:
                vlm.prompter([sample], pictures=pictures)
            except BadSample as reason:
                bad[sample.id] = str(reason)
    good = [sample for sample in samples if sample.id not in bad]
    try:
        return good, vlm.prompter(good, pictures=pictures) if good else None, bad
    except BadSample as reason:
        raise UserError(
            f"{vlm.name}: its processor takes samples such as {good[0].id!r} alone and not in a "
            f"batch ({reason}): use a batch size of 1"
        ) from reason


def first_usable(vlm: VLM, sample_set: SampleSet) -> Batch | None:
    """The first sample of a set that the model accepts, as a batch; None if there is none."""
    for number in range(len(sample_set)):
        try:
            return vlm.prompter([sample_set.sample(number)])
        except BadSample:
            continue
    return None
