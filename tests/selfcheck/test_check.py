"""The self-check finds what is wrong, and does not call it something else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import keygap as kg
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.check import cheap_check, check
from keygap.selfcheck.finding import relative_error, vector_error
from keygap.selfcheck.samples import check_samples
from models.zoo import BY_FAMILY


@pytest.fixture
def llava() -> kg.VLM:
    return wrap(*BY_FAMILY["llava"].build(), name="tiny llava")


def when_two_images(vlm: kg.VLM, fail) -> None:
    """Let the vision tower fail where one prompt has two images, after the batch of two went."""
    passes = []

    def hook(module, arguments, keywords):
        passes.append(module)
        if len(passes) == 4:  # the first pass, twice for the labels, then the two images
            fail()

    vlm.model.model.vision_tower.register_forward_pre_hook(hook, with_kwargs=True)


def test_no_memory_on_a_gpu_is_said_as_such(llava):
    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    when_two_images(llava, fail)
    with pytest.raises(UserError, match=r"out of memory on cpu .* device_map") as error:
        check(llava)
    assert "\n" not in str(error.value)
    assert isinstance(error.value.__cause__, torch.OutOfMemoryError)


def test_no_memory_on_a_cpu_is_said_as_such(llava):
    when_two_images(llava, lambda: torch.empty(1 << 59, dtype=torch.uint8))
    with pytest.raises(UserError, match="out of memory on cpu"):
        check(llava)


def test_what_a_model_cannot_do_is_not_a_failure(llava):
    def fail():
        raise ValueError("one image only\nand more")

    when_two_images(llava, fail)
    found = {finding.check: finding for finding in check(llava)}["several images in one prompt"]
    assert found.passed is None
    assert found.detail == "not for this model: ValueError: one image only"


def test_it_is_about_the_model_without_its_interventions(llava):
    batch = llava.prompter(check_samples())
    with torch.no_grad():
        plain = llava.forward(batch).logits
    with kg.mask(llava, "image"):
        assert all(finding.passed is not False for finding in check(llava))
        assert len(llava.interventions.identity) == 1
        with torch.no_grad():
            assert not torch.equal(llava.forward(batch).logits, plain)


def test_shifted_labels_are_found(llava):
    batch = llava.prompter(check_samples())
    labels = batch.labels[0]
    moved = replace(labels, modality=np.roll(labels.modality, 1))
    wrong = replace(batch, labels=(moved, batch.labels[1]))
    with pytest.raises(UserError, match=r"labelled wrongly: 2 positions differ"):
        cheap_check(llava, wrong)
    cheap_check(llava, batch)


def test_exchanged_numbers_of_images_are_found(llava, monkeypatch):
    kind: Any = type(llava.prompter)
    call = kind.__call__

    def exchanged(self, *arguments, **options):
        batch = call(self, *arguments, **options)
        labels = tuple(
            replace(own, image=np.where(own.image >= 0, own.image.max() - own.image, -1))
            for own in batch.labels
        )
        return replace(batch, labels=labels)

    name = "several images in one prompt"
    assert {finding.check: finding for finding in check(llava)}[name].passed
    monkeypatch.setattr(kind, "__call__", exchanged)
    found = {finding.check: finding for finding in check(llava)}[name]
    assert found.passed is False
    assert "of image 1 do not change with the second picture" in found.detail


def test_a_hook_that_stays_is_found(llava):
    block = llava.layers[0].block

    def leave_another(module, arguments, output):
        block.register_forward_hook(lambda *_: None)

    block.register_forward_hook(leave_another)
    found = [finding.check for finding in check(llava) if finding.passed is False]
    assert found == ["no hook left"]


def test_an_error_that_is_not_a_number_is_infinite():
    one = torch.tensor([1.0, 2.0])
    assert relative_error(one, one) == 0
    assert relative_error(one * 1.5, one) == 0.5
    assert relative_error(one / 0 * 0, one) == float("inf")


def test_the_error_of_vectors_is_that_of_their_worst_dimension():
    vectors = torch.tensor([[1.0, 300.0, 1e-6, 2.0], [-1.0, 299.0, 0.0, -2.0]])[:, None]
    assert vector_error(vectors, vectors) == 0
    changes = {0: 0.5, 1: 3.0, 2: 0.01, 3: 1.0}  # and over the largest value: 0.0033 at most
    expected = {0: 0.5, 1: 0.01, 2: 0.01, 3: 0.5}  # dimension 2 counts in units of dimension 0
    for place, change in changes.items():
        moved = vectors.clone()
        moved[0, 0, place] += change
        assert vector_error(moved, vectors) == pytest.approx(expected[place], rel=1e-4)
    assert vector_error(vectors / 0 * 0, vectors) == float("inf")


@pytest.mark.parametrize("passes", [2, 6, 9])
def test_no_memory_in_any_step_is_one_line(llava, passes):
    """The labels, recomputed attention and the changed key have no line of their own for it."""
    begun = []

    def hook(module, arguments, keywords):
        begun.append(module)
        if len(begun) == passes:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")

    llava.decoder.register_forward_pre_hook(hook, with_kwargs=True)
    with pytest.raises(UserError, match="out of memory on cpu during the self-check"):
        check(llava)


def test_no_memory_in_the_check_of_an_extraction_is_one_line(llava):
    batch = llava.prompter(check_samples())

    def hook(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    llava.decoder.register_forward_pre_hook(hook)
    with pytest.raises(UserError, match="out of memory on cpu during the self-check"):
        cheap_check(llava, batch)
