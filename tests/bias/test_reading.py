"""Layers that read the image are found where the only layer that can read it was planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import keygap as kg
from keygap.benchmarks import InMemory
from keygap.bias.reading import ReadingMask, reading_layers
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples
from models.zoo import BY_FAMILY


@pytest.fixture(scope="module")
def colours(easy_vqa):
    """Six questions of shape and colour, of six images, which the embedded model answers."""
    chosen = easy_vqa.choose(40)
    samples = [chosen.sample(number) for number in range(len(chosen))]
    own = [sample for sample in samples if sample.subject != "yes/no"][:6]

    class Colours(InMemory):
        answers = easy_vqa.answers

    return Colours("colours", own).choose()


@pytest.fixture(scope="module")
def planted(vlm, colours):
    """Text can look at the image at layer 23 alone; one other layer is measured beside it."""
    with vlm.interventions.applied(ReadingMask([n for n in range(30) if n != 23])):
        return reading_layers(vlm, colours, layers=[4, 23], n_bootstraps=100)


def test_the_only_layer_that_can_read_is_named(planted):
    assert planted.named == [23]
    rows = planted.frame.set_index(["masked", "layer", "head"]).sort_index()
    assert rows.loc[("layer", 4, -1), "effect"] == pytest.approx(0, abs=1e-4)
    assert rows.loc[("layer", 23, -1), "share"] == pytest.approx(1, abs=1e-4)
    assert rows.loc[("named", -1, -1), "effect"] > 1
    assert rows.loc[("others", -1, -1), "effect"] == pytest.approx(0, abs=1e-4)
    assert planted.summary().startswith("layers 23 read the image")


@pytest.mark.slow
def test_heads_of_the_named_layers_are_masked_one_by_one(vlm, colours, tmp_path):
    with vlm.interventions.applied(ReadingMask([n for n in range(30) if n != 23])):
        table = reading_layers(vlm, colours, layers=[23], heads=True, n_bootstraps=100)
    heads = table.frame[table.frame["masked"] == "head"]
    assert heads["head"].tolist() == list(range(9))
    assert heads["effect"].abs().max() > 0.05
    table.save(tmp_path)
    assert (tmp_path / "reading.csv").is_file()


def test_halves_are_disjoint_and_whole(planted, colours):
    naming, testing = set(planted.naming), set(planted.testing)
    assert not naming & testing
    assert naming | testing == {entry.id for entry in colours.entries}
    assert abs(len(naming) - len(testing)) <= 1


def test_without_any_reading_the_model_is_blind(vlm, colours):
    plain = kg.answer(vlm, colours).frame["correct"].mean()
    with vlm.interventions.applied(ReadingMask(range(30))):
        blind = kg.answer(vlm, colours).frame["correct"].mean()
    assert plain >= 0.8
    assert blind <= 0.4


def test_samples_without_answers_are_left_out(vlm, good_samples):
    with pytest.raises(UserError, match=r"0 samples can be scored.*no answers to choose from"):
        reading_layers(vlm, InMemory("open", good_samples), layers=[0])


@pytest.mark.parametrize("family", ["llava", "gemma3", "mllama"])
def test_all_heads_masked_one_by_one_are_the_layer_masked(family):
    vlm = wrap(*BY_FAMILY[family].build(), name=f"tiny {family}")
    batch = vlm.prompter(check_samples())
    layer = vlm.layer_indices(["last"])[-1]
    heads = [ReadingMask([layer], head) for head in range(vlm.layers[layer].heads)]
    found = []
    for masks in ([], [ReadingMask([layer])], heads, heads[:1]):
        with torch.no_grad(), vlm.interventions.applied(*masks):
            logits = vlm.forward(batch).logits
        found.append(
            np.concatenate(
                [
                    row[: len(labels)].numpy()
                    for row, labels in zip(logits, batch.labels, strict=True)
                ]
            )
        )
    plain, whole, by_head, one = found
    np.testing.assert_allclose(by_head, whole, atol=1e-5)
    assert np.abs(plain - whole).max() > 1e-4
    assert np.abs(one - whole).max() > 1e-6
