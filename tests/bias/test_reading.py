"""Layers that read the image are found where the only layer that can read it was planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import keygap as kg
from keygap.benchmarks import InMemory
from keygap.benchmarks.sample import Entry
from keygap.bias import reading
from keygap.bias.reading import ReadingMask, reading_layers
from keygap.bias.scoring import Scored
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples
from made import made_sample
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


class OnImages(InMemory):
    """Yes or no, two questions on each of some images."""

    answers = ("yes", "no")
    images = ("a", "a", "b", "b", "c", "c")

    def index(self):
        pairs = zip(self.samples, self.images, strict=False)
        return [Entry(item.id, item.subject, image_key=image) for item, image in pairs]


@pytest.fixture
def asked(vlm, monkeypatch):
    """Samples of given images whose margin is what a test says: of the mask and the sample."""

    def read(margin, images="aabbcc", **options):
        def scored(vlm, samples, candidates):
            masks = [one for one in vlm.interventions.active if isinstance(one, ReadingMask)]
            found = {each.id: margin(masks, each.id) for each in samples}
            known = {name: value for name, value in found.items() if value is not None}
            bad = dict.fromkeys(found.keys() - known.keys(), "not a number")
            logs = {name: {"yes": value, "no": 0.0} for name, value in known.items()}
            return [Scored(name, "yes", both) for name, both in logs.items()], bad

        monkeypatch.setattr(reading, "score", scored)
        samples = [replace(made_sample(f"s{n}"), answer="yes") for n in range(len(images))]
        bench = type("Own", (OnImages,), {"images": tuple(images)})("own", samples)
        return reading_layers(vlm, bench.choose(), **{"layers": [4, 23], **options})

    return read


def by_mask(masks, name):
    """Layer 23 alone reads: with it masked, 2 to 3 nats are lost."""
    lost = 2 + int(name[1:]) / 10
    return 3.0 - (lost if any(23 in mask.layers for mask in masks) else 0.0)


def test_layers_that_were_not_asked_for_are_masked_with_all_of_them(asked, vlm):
    """Layer 4 loses 0.3 nats of 2.5 to 3.5: a named layer, and not all of the effect."""
    masked: set[tuple[int, ...]] = set()

    def partly(masks, name):
        masked.update(tuple(mask.layers) for mask in masks)
        return by_mask(masks, name) - (0.3 if any(4 in mask.layers for mask in masks) else 0.0)

    found = asked(partly, "aabbccdd", n_bootstraps=20, layers=[4])
    every = tuple(range(len(vlm.layers)))
    assert masked == {(4,), every, tuple(index for index in every if index != 4)}
    rows = found.frame.set_index("masked")
    assert rows.loc["all", "effect"] > 2
    assert found.named == [4]
    assert 0.1 <= rows.loc["layer", "share"] < 0.2
    assert rows.loc["layer", "share"] == pytest.approx(0.3 / rows.loc["all", "effect"])
    assert rows.loc["others", "effect"] == pytest.approx(rows.loc["all", "effect"] - 0.3)
    assert "100%" not in found.summary()


def test_without_an_effect_of_all_layers_nothing_is_said_of_shares(asked):
    """Layer 4 alone loses 0.51 nats, and all layers together gain 0.2."""

    def gaining(masks, name):
        lost = {4: 0.51, 23: -0.71}
        gone = {index for mask in masks for index in mask.layers}
        return 3.0 - sum(value for index, value in lost.items() if index in gone)

    found = asked(gaining, "aabbccdd", n_bootstraps=20)
    assert not found.named
    said = found.summary()
    assert "masking all layers together does not lower the margin of the right answer" in said
    assert "-0.20 nats" in said
    assert "10%" not in said
    assert "no layer alone reads" not in repr(found)


def test_layers_that_lose_little_are_said_to_be_those_that_were_tried(asked):
    found = asked(by_mask, "aabbccdd", n_bootstraps=20, layers=[4, 5, 6, 9])
    assert found.summary() == (
        "no layer reads the image by itself: of the layers masked alone (4-6, 9), none loses 10% "
        "of what masking all layers loses"
    )


def test_a_share_of_nothing_is_not_said(asked, monkeypatch):
    """All layers lose 1 nat on the half that names, and nothing on the half that tests."""
    monkeypatch.setattr(
        reading, "_in_first_half", lambda chosen, ids: {name: int(name[1:]) < 4 for name in ids}
    )

    def uneven(masks, name):
        gone = {index for mask in masks for index in mask.layers}
        first = int(name[1:]) < 4
        return 3.0 - (1.0 if first else 0.5 - 0.6 * (len(gone) > 1)) * (23 in gone)

    found = asked(uneven, "aabbccdd", n_bootstraps=20)
    assert found.named == [23]
    assert "%" not in found.summary()


def test_a_sample_that_one_mask_alone_refuses_is_left_out(asked):
    def refusing(masks, name):
        together = any(mask.layers == [4] for mask in masks) and name == "s1"
        return None if together else by_mask(masks, name)

    found = asked(refusing, "aabbccdd", n_bootstraps=20)
    assert found.left_out == {"s1": "not a number"}
    assert set(found.naming) | set(found.testing) == {f"s{n}" for n in range(8)} - {"s1"}
    assert found.named == [23]


def test_a_sample_that_is_refused_when_layers_are_tested_is_in_no_half(asked):
    """The layers were named before; the samples that named them are still not those that test."""
    passes = []

    def refusing(masks, name):
        passes.append(name)
        late = passes.count(name) > 4  # none, all, layer 4, layer 23; then named and others
        return None if late and name == "s1" else by_mask(masks, name)

    found = asked(refusing, "aabbccdd", n_bootstraps=20)
    whole = asked(by_mask, "aabbccdd", n_bootstraps=20)
    assert set(found.left_out) == {"s1"}
    assert set(found.naming) == set(whole.naming) - {"s1"}
    assert set(found.testing) == set(whole.testing) - {"s1"}


def test_a_margin_that_is_infinite_is_left_out(asked):
    def infinite(masks, name):
        return np.inf if name == "s2" else by_mask(masks, name)

    found = asked(infinite, "aabbccdd", n_bootstraps=20)
    assert set(found.left_out) == {"s2"}
    assert np.isfinite(found.frame["effect"]).all()


@pytest.mark.parametrize("images", ["aaaab", "aaaa", "abc"])
def test_halves_of_fewer_than_two_samples_are_refused(asked, images):
    with pytest.raises(
        UserError, match=f"{len(images)} samples can be scored, .* has [01] where 2"
    ):
        asked(by_mask, images)


def test_no_resamplings_are_refused(asked):
    with pytest.raises(UserError, match="n_bootstraps"):
        asked(by_mask, n_bootstraps=0)


@pytest.mark.filterwarnings("error")
def test_shares_of_nothing_are_no_numbers(asked):
    found = asked(lambda masks, name: 3.0, n_bootstraps=20)
    assert found.frame["share"].isna().all()
    assert (found.frame["effect"] == 0).all()
    assert "masking all layers together does not lower the margin" in found.summary()


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
