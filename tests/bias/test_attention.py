"""Attention measured over groups of keys: masses, numbers of keys, sinks, generated tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AttentionInterface

import keygap as kg
from bias.eager import eager_weights
from keygap.benchmarks import Piece
from keygap.bias.attention import measure_attention
from keygap.bias.attention_pass import PromptReader
from keygap.bias.attention_table import COLUMNS, AttentionTable
from keygap.bias.indices import attention_indices
from keygap.capture.attention import QueryGroups
from keygap.errors import UserError
from keygap.models.interventions import Intervention
from keygap.models.load import wrap
from keygap.selfcheck.samples import (
    check_samples,
    sample_of_a_long_text,
    sample_of_a_video,
    sample_of_two_images,
)
from made import bench_of, made_sample
from models.made_models import with_own_attention
from models.zoo import BY_FAMILY

PLACE = ["sample_id", "layer", "head", "queries"]


def vlm_of(family: str) -> kg.VLM:
    return wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")


class NoQueries(Intervention):
    """Makes every logit 0, so that attention is even over what is seen."""

    name = "no queries"
    sites = ("query",)

    def __init__(self, layers):
        self.layers = list(layers)

    def change(self, vectors, site, layer, tokens):
        return torch.zeros_like(vectors)


@pytest.fixture(scope="module")
def llava() -> kg.VLM:
    return vlm_of("llava")


@pytest.mark.parametrize("family", ["llava", "gemma3", "mllama", "florence2", "inkling2"])
def test_masses_of_all_groups_sum_to_one(family):
    vlm = vlm_of(family)
    found = measure_attention(vlm, bench_of(check_samples()), samples=None)
    mass = found.frame.groupby(PLACE)["mass"].sum()
    if family == "inkling2":  # a learned sink takes the rest
        assert mass.between(0, 1, inclusive="neither").all()
    else:
        np.testing.assert_allclose(mass, 1, atol=1e-5)
    assert list(found.frame.columns) == list(COLUMNS)
    assert found.left_out == {}
    assert set(found.frame["layer"]) == set(vlm.indices("self")) | set(vlm.indices("cross"))


def test_mass_is_what_eager_attention_gives_the_group(llava):
    samples = check_samples()
    frame = measure_attention(llava, bench_of(samples), samples=None).frame
    vlm = vlm_of("llava")
    batch = vlm.prompter(samples)
    weights = eager_weights(vlm, batch)
    for row, labels in enumerate(batch.labels):
        asked = np.flatnonzero(labels.role == "question")
        own = frame[(frame["sample_id"] == samples[row].id) & (frame["queries"] == "question")]
        for layer, head in ((0, 1), (2, 3)):
            at_head = own[(own["layer"] == layer) & (own["head"] == head)]
            probabilities = weights[layer][row, head, asked, : len(labels)].numpy()
            image = labels.modality == "image"
            share = at_head[at_head["modality"] == "image"]["mass"].sum()
            assert share == pytest.approx(probabilities[:, image].sum(1).mean(), abs=1e-5)
            logs = np.log(np.where(probabilities > 0, probabilities, 1))
            entropy = -(probabilities * logs).sum(1).mean()
            assert at_head["entropy"].sum() == pytest.approx(entropy, abs=1e-5)
            visible = (asked + 1).mean()  # causal: a query sees itself and what is before it
            assert at_head["n_keys"].sum() == pytest.approx(visible, rel=1e-5)


def test_logit_is_the_mean_of_query_times_key(llava):
    samples = check_samples()[:1]
    frame = measure_attention(llava, bench_of(samples), samples=None, queries=["last"]).frame
    found: dict[int, Any] = {}

    def see(module, query, key, value, mask, scaling, **keywords):
        if not hasattr(module, "layer_idx"):  # of the vision tower
            return before(module, query, key, value, mask, scaling=scaling, **keywords)
        found[module.layer_idx] = query[0, :, -1], key[0], scaling
        return torch.zeros(1, query.shape[2], query.shape[1], query.shape[3]), None

    batch = llava.prompter(samples)
    functions = AttentionInterface._global_mapping
    before = functions["sdpa"]
    functions["sdpa"] = see
    try:
        llava.forward(batch)
    finally:
        functions["sdpa"] = before
    query, key, scaling = found[0]  # the later layers got zeros
    image = torch.from_numpy(batch.labels[0].modality == "image")
    for head in range(4):
        expected = (key[head // 2][image] @ query[head]).mean() * scaling
        row = frame[(frame["layer"] == 0) & (frame["head"] == head)]
        own = row[row["modality"] == "image"]
        mean = (own["logit"] * own["n_keys"]).sum() / own["n_keys"].sum()
        assert mean == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize("family", ["llava", "gemma3", "qwen2_5_vl"])
def test_even_attention_has_indices_of_one(family):
    vlm = vlm_of(family)
    samples = [*check_samples(), sample_of_two_images()]
    samples[2] = replace(samples[2], id="two")
    uniform = NoQueries(vlm.layer_indices(["all"]))
    with vlm.interventions.applied(uniform):
        found = measure_attention(vlm, bench_of(samples), samples=None, generated=2)
    frame = found.frame
    if family != "gemma3":  # whose window is shorter than the prompt
        np.testing.assert_allclose(frame["relative"], frame["n_keys"], rtol=1e-4)
    indices = attention_indices(frame, n_bootstraps=20)
    seen = indices[indices["n_samples"] > 0]
    assert len(seen) > 0.5 * len(indices)
    np.testing.assert_allclose(seen[["mdi", "aei"]], 1, rtol=1e-4)
    assert set(seen["queries"]) == {"question", "last", "generated"}


def test_a_masked_image_gets_nothing(llava):
    with kg.mask(llava, "image"):
        frame = measure_attention(llava, bench_of(check_samples()), samples=None, generated=2).frame
    image = frame[frame["modality"] == "image"]
    assert len(image)
    assert (image[["mass", "n_keys", "relative", "entropy"]] == 0).all(axis=None)
    assert image["logit"].isna().all()
    np.testing.assert_allclose(frame.groupby(PLACE)["mass"].sum(), 1, atol=1e-5)


def test_a_batch_gives_what_each_sample_gives_alone(llava):
    bench = bench_of([*check_samples(), replace(sample_of_a_long_text(), id="long")])
    together = measure_attention(llava, bench, samples=None, batch_size=3, generated=2).frame
    alone = measure_attention(llava, bench, samples=None, batch_size=1, generated=2).frame
    order = [*PLACE, "modality", "role", "image", "sink", "first"]
    one, other = (frame.sort_values(order).reset_index(drop=True) for frame in (together, alone))
    assert (one[order] == other[order]).all(axis=None)
    np.testing.assert_allclose(one["mass"], other["mass"], atol=1e-5)
    np.testing.assert_allclose(one["logit"], other["logit"], atol=1e-4)


def test_prompts_padded_on_the_left(llava):
    batch = llava.prompter(check_samples())
    moved = {}
    width = batch.inputs["input_ids"].shape[1]
    starts = [width - len(labels) for labels in batch.labels]
    assert any(starts)
    for name, values in batch.inputs.items():
        rolled = values.shape[:2] == batch.inputs["input_ids"].shape
        moved[name] = (
            torch.stack(
                [torch.roll(row, start, 0) for row, start in zip(values, starts, strict=True)]
            )
            if rolled
            else values
        )
    left = replace(batch, inputs=type(batch.inputs)(moved))
    sums = []
    for each, offsets in ((batch, (0, 0)), (left, starts)):
        last = [offset + len(own) - 1 for offset, own in zip(offsets, each.labels, strict=True)]
        groups = [[np.asarray([place]), np.asarray([place])] for place in last]
        reader = PromptReader(llava, each, QueryGroups.of(groups))
        reader.run([0, 1, 2])
        sums.append(reader.found[1].sums)
    torch.testing.assert_close(*sums, atol=1e-4, rtol=1e-4)


def test_several_images_and_frames_are_apart():
    vlm = vlm_of("qwen2_5_vl")
    samples = [replace(sample_of_two_images(), id="two"), replace(sample_of_a_video(), id="film")]
    frame = measure_attention(vlm, bench_of(samples), samples=None).frame
    two = frame[(frame["sample_id"] == "two") & (frame["modality"] == "image")]
    assert set(two["image"]) == {0, 1}
    film = frame[(frame["sample_id"] == "film") & (frame["modality"] == "video")]
    assert set(film["frame"]) == {0, 1}  # the model joins two pictures


def test_generated_tokens_attend_to_each_other(llava):
    samples = check_samples()
    found = measure_attention(llava, bench_of(samples), samples=None, queries=[], generated=3).frame
    assert set(found["queries"]) == {"generated"}
    np.testing.assert_allclose(found.groupby(PLACE)["mass"].sum(), 1, atol=1e-5)
    answers = found[found["role"] == "answer"]
    assert len(answers) == 2 * 3 * 4  # samples, layers, heads
    np.testing.assert_allclose(answers["n_keys"], 2)  # the mean of 1, 2 and 3


def test_generated_tokens_get_the_weights_of_a_pass_without_a_cache(llava):
    (sample,) = check_samples()[:1]
    found = measure_attention(
        llava, bench_of([sample]), samples=None, queries=[], generated=2
    ).frame
    batch = llava.prompter([sample])
    written = llava.generate(batch, max_new_tokens=2, do_sample=False)
    vlm = vlm_of("llava")
    inputs = dict(batch.inputs) | {
        "input_ids": written[:, : len(batch.labels[0]) + 2],
        "attention_mask": torch.ones_like(written),
    }
    weights = eager_weights(vlm, inputs)
    image = batch.labels[0].modality == "image"
    for layer in range(3):
        rows = weights[layer][0, :, -2:, : len(image)][..., image].sum(-1).mean(-1)
        own = found[(found["layer"] == layer) & (found["modality"] == "image")]
        torch.testing.assert_close(
            torch.tensor(own.groupby("head")["mass"].sum().to_numpy()), rows, atol=1e-5, rtol=0
        )


def test_a_bad_sample_is_counted_and_stops_nothing(llava):
    bad = replace(made_sample("bad"), images=())
    found = measure_attention(llava, bench_of([bad, *check_samples()]), samples=None)
    assert found.left_out == {"bad": "the sample has no image"}
    assert set(found.frame["sample_id"]) == {"0", "1"}


class BrokenQueries(NoQueries):
    """Makes the queries of the first prompt of a batch infinite."""

    def change(self, vectors, site, layer, tokens):
        changed = vectors.clone()
        changed[0] = torch.inf
        return changed


def test_a_sample_whose_attention_is_not_finite_is_left_out(llava):
    with llava.interventions.applied(BrokenQueries([1])):
        found = measure_attention(llava, bench_of(check_samples()), samples=None, layers=[0, 1])
    reason = "attention of layer 1 is not finite in float32: try another dtype"
    assert found.left_out == {"0": reason}
    assert set(found.frame["sample_id"]) == {"1"}


def test_layers_that_compute_attention_themselves_are_named():
    model, processor = BY_FAMILY["llava"].build()
    vlm = wrap(with_own_attention(model), processor, name="own")
    with pytest.raises(UserError, match="layers 0, 1, 2 are not measured: OwnAttention"):
        measure_attention(vlm, bench_of(check_samples()), samples=None)


def test_what_cannot_be_measured_is_refused(llava):
    bench = bench_of(check_samples())
    with pytest.raises(UserError, match="unknown query group 'quesion'"):
        measure_attention(llava, bench, queries=["quesion"])
    with pytest.raises(UserError, match="queries is empty"):
        measure_attention(llava, bench, queries=[])
    with pytest.raises(UserError, match="layer 9 is out of range"):
        measure_attention(llava, bench, layers=9)


def test_an_encoder_has_no_generated_positions_to_measure_alone():
    vlm = wrap(*BY_FAMILY["florence2"].build(), name="tiny encoder")
    with pytest.raises(UserError, match="nothing is measured: generated tokens are not positions"):
        measure_attention(vlm, bench_of(check_samples()), queries=(), generated=2)


def test_one_layer_is_not_measured_in_the_singular():
    model, processor = BY_FAMILY["llava"].build()
    vlm = wrap(with_own_attention(model), processor, name="own")
    with pytest.raises(UserError, match="layer 1 is not measured: OwnAttention"):
        measure_attention(vlm, bench_of(check_samples()), samples=None, layers=1)


def test_a_saved_table_is_read_back(llava, tmp_path):
    found = measure_attention(llava, bench_of(check_samples()), samples=None, layers="last")
    found.save(tmp_path)
    assert AttentionTable.read(tmp_path).frame.equals(found.frame)
    (tmp_path / "attention.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="measure attention again"):
        AttentionTable.read(tmp_path)


def test_options_are_part_of_the_question(llava):
    (sample,) = check_samples()[:1]
    prompt = (*sample.prompt, Piece("text", role="option", text="\nA. a red one"))
    frame = measure_attention(
        llava, bench_of([replace(sample, prompt=prompt)]), samples=None, layers=0
    ).frame
    assert {"question", "option"} <= set(frame["role"])
    labels = llava.prompter([replace(sample, prompt=prompt)]).labels[0]
    asked = np.flatnonzero(np.isin(labels.role, ["question", "option"]))
    own = frame[(frame["queries"] == "question") & (frame["head"] == 0)]
    assert own["n_keys"].sum() == pytest.approx((asked + 1).mean(), rel=1e-5)
