"""The samples that cannot be used are left out of a batch, each with its reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from keygap.benchmarks import BadSample, InMemory
from keygap.capture.batches import first_usable, labelled, opened
from keygap.errors import UserError
from made import bench_of, made_sample


class Broken(InMemory):
    """A benchmark whose second row cannot be made into a sample."""

    def sample(self, number):
        if self.samples[number].id == "s1":
            raise BadSample("the row is broken")
        return self.samples[number]


def without_images(count: int) -> list:
    return [replace(made_sample(f"s{n}"), images=()) for n in range(count)]


def test_rows_that_are_no_samples_are_left_out_with_their_reason():
    chosen = replace(Broken("made", without_images(4)).choose(None), places=(3, 1, 0))
    samples, bad = opened(chosen)
    assert [sample.id for sample in samples] == ["s3", "s0"]
    assert bad == {"s1": "the row is broken"}


def test_samples_that_the_model_refuses_are_left_out_with_their_reason(vlm, good_samples):
    bad = replace(good_samples[1], images=(Image.new("RGB", (8, 8)),), prompt=())
    mixed = [good_samples[0], bad, good_samples[2]]
    usable, batch, reasons = labelled(vlm, mixed)
    assert usable == [good_samples[0], good_samples[2]]
    assert reasons == {bad.id: "the sample has no text"}
    for sample, labels in zip(usable, batch.labels, strict=True):
        np.testing.assert_array_equal(labels.token_id, vlm.prompter([sample]).labels[0].token_id)


def test_no_batch_is_made_of_nothing(vlm):
    assert labelled(vlm, []) == ([], None, {})
    samples = without_images(2)
    reason = "the sample has no image"
    assert labelled(vlm, samples) == ([], None, dict.fromkeys(("s0", "s1"), reason))


def test_the_first_usable_sample_is_found_behind_bad_ones(vlm):
    samples = [*without_images(2), made_sample("s2", "is it red?")]
    chosen = replace(Broken("made", samples).choose(None), places=(0, 1, 2))
    batch = first_usable(vlm, chosen)
    expected = vlm.prompter([samples[2]])
    assert batch.inputs["input_ids"].tolist() == expected.inputs["input_ids"].tolist()
    assert first_usable(vlm, bench_of(samples[:2]).choose(None)) is None


def test_samples_that_are_refused_only_together_are_one_line(vlm, good_samples, monkeypatch):
    real = type(vlm.prompter).__call__

    def alone(self, samples, **options):
        if len(samples) > 1:
            raise BadSample("pixels of different sizes")
        return real(self, samples, **options)

    monkeypatch.setattr(type(vlm.prompter), "__call__", alone)
    with pytest.raises(UserError, match=r"takes samples such as 's0' alone .* batch size of 1"):
        labelled(vlm, good_samples)
