"""Batches never change a sample: where they would, samples are read one by one."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import keygap as kg
from keygap.capture.hooks import Capture
from keygap.models.load import wrap
from keygap.selfcheck.batches import batches_of, left_padding, read_size
from keygap.selfcheck.samples import check_samples, sample_of_two_images
from made import bench_of, made_sample
from models.zoo import BY_FAMILY


def vlm_of(family: str) -> kg.VLM:
    return wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")


@pytest.fixture(scope="module")
def mllama() -> kg.VLM:
    return vlm_of("mllama")


def test_one_image_that_meets_two_changes_in_mllama(mllama):
    """The reason for the decision, found without the self-check's own code."""
    one, two = check_samples()[0], sample_of_two_images()
    with Capture(mllama, ["hidden"], [0, 2]) as capture:
        alone = capture(mllama.prompter([one]))["hidden", 2][0]
        together = capture(mllama.prompter([one, two]))["hidden", 2][0, : len(alone)]
    assert float((alone - together).abs().max()) > 1e-4


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("mllama", "image features depend on the other images of their batch"),
        ("hunyuan_vl", "the model counts positions of its rotary embedding on through a batch"),
    ],
)
def test_what_differs_in_batches_is_read_one_by_one(family, reason):
    vlm = vlm_of(family)
    found = batches_of(vlm)
    assert (found.result, found.passed) == ("one by one", None)
    assert reason in found.detail
    assert read_size(vlm, 8) == 1


def test_rounding_that_copies_of_a_sample_show_is_no_reason_to_read_one_by_one():
    """Noise by batch size, which the device's arithmetic makes; and the same from other samples."""

    def noisy(module, arguments, output):
        return output * (1 + 4e-4 * (len(output) > 1))

    def mixing(module, arguments, output):
        return output + 4e-4 * output.abs().max() * (output.std(0, unbiased=False).sum() > 0)

    for hook, result in ((noisy, "pass"), (mixing, "one by one")):
        changed = vlm_of("llava")
        projection: Any = changed.layers[0].attention.k_proj
        handle = projection.register_forward_hook(hook)
        found = batches_of(changed)
        handle.remove()
        assert found.result == result, found


def test_a_massive_dimension_hides_no_difference_in_the_others():
    """Keys of Qwen2 have biases in the hundreds; noise in all others is small beside them."""

    def mixing(module, arguments, output):
        noise = 0.01 * torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
        mixed = output + noise * (output.std(0, unbiased=False).sum() > 0)
        mixed[..., 0] = 300.0
        return mixed

    changed = vlm_of("llava")
    projection: Any = changed.layers[0].attention.k_proj
    handle = projection.register_forward_hook(mixing)
    found = batches_of(changed)
    handle.remove()
    assert found.result == "one by one", found


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "idefics3"])
def test_what_does_not_differ_is_read_in_batches(family):
    vlm = vlm_of(family)
    assert batches_of(vlm).result == "pass"
    assert read_size(vlm, 8) == 8


def test_the_decision_is_about_the_model_without_its_interventions(mllama):
    llava = vlm_of("llava")
    with kg.mask(llava, "image"):
        assert batches_of(llava).result == "pass"
    assert batches_of(llava) is batches_of(llava)
    assert batches_of(llava) is not batches_of(mllama)


def test_padding_on_the_left_is_tried():
    llava = vlm_of("llava")
    assert left_padding(llava, llava.prompter(check_samples()))[0] == "pass"


def test_extraction_reads_them_one_by_one_and_says_so(mllama, tmp_path):
    samples = [made_sample(f"s{n}", f"is it number {n}? " * (n + 1)) for n in range(4)]
    kept = {}
    for size in (1, 4):
        folder = tmp_path / str(size)
        kg.extract(mllama, bench_of(samples), folder, layers=[2, 3], batch_size=size)
        tables = sorted(folder.rglob("*.parquet"))
        kept[size] = {path.relative_to(folder): pq.read_table(path) for path in tables}
        manifest = json.loads((folder / "manifest.json").read_text())
        notes = [note for note in manifest["notes"] if "read one by one" in note]
        assert len(notes) == (size > 1)
        (found,) = (f for f in manifest["self_check"] if f["check"] == "batched equals single")
        assert found["result"] == ("one by one" if size > 1 else "does not apply")
    assert kept[1].keys() == kept[4].keys()
    assert all(kept[1][name].equals(table) for name, table in kept[4].items())


def test_answers_are_given_one_by_one_too(mllama, monkeypatch):
    sizes = []
    forward = mllama.model.forward

    def counted(*args, **keywords):
        sizes.append(len(keywords["input_ids"]))
        return forward(*args, **keywords)

    samples = [made_sample(f"s{n}", f"is it {n}?") for n in range(3)]
    batches_of(mllama)
    monkeypatch.setattr(type(mllama.model), "forward", lambda self, *a, **k: counted(*a, **k))
    kg.answer(mllama, bench_of(samples), batch_size=3)
    assert set(sizes) <= {1}


def test_a_model_that_is_not_finite_is_not_said_to_depend_on_batches():
    model, processor = BY_FAMILY["llava"].build()
    vlm = wrap(model, processor, "broken")
    mlp: Any = vlm.layers[0].block.mlp
    with torch.no_grad():
        mlp.down_proj.weight.fill_(float("inf"))
    assert batches_of(vlm).result == "FAIL"
