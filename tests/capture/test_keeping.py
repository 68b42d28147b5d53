"""Which image tokens are kept: the drawn ones, whatever the batch, and those that are sinks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from keygap.capture import Capture
from keygap.capture.keeping import SINKS, Draw, Keeper
from keygap.contrasts.labels import SINK_SHARE
from made import made_sample

SITE, LAYER = "k_proj", 3
FEW = Draw(image_tokens=5, seed=2)


@pytest.fixture(scope="module")
def read(vlm, batch):
    with Capture(vlm, [SITE], [LAYER], attention=True) as capture:
        found = capture(batch)
    return {SITE: found[SITE, LAYER], "attention": torch.full_like(found["attention", LAYER], 0.5)}


def kept(vlm, samples, batch, read, draw=FEW):
    keeper = Keeper(vlm, samples, batch, draw)
    keeper(LAYER, read)
    assert not keeper.failures
    return keeper.vectors()[SITE, LAYER]


def test_all_text_and_so_many_image_tokens(vlm, samples, batch, read):
    found = kept(vlm, samples, batch, read)
    assert found.drawn.all()
    for row, labels in enumerate(batch.labels):
        places = found.place[found.row == row]
        assert places.tolist() == sorted(places)
        chosen = np.isin(np.arange(len(labels)), places)
        assert chosen[labels.modality == "text"].all()
        assert chosen[labels.modality == "image"].sum() == 5
        vectors = found.vectors[torch.from_numpy(found.row == row)]
        assert torch.equal(vectors, read[SITE][row, torch.from_numpy(places)])


def test_the_draw_depends_on_sample_and_seed_alone(vlm, samples, batch, read):
    def drawn(own, own_batch, draw, index):
        tensors = {name: tensor[index] for name, tensor in read.items()}
        found = kept(vlm, own, own_batch, tensors, draw)
        return {own[row].id: found.place[found.row == row].tolist() for row in range(len(own))}

    together = drawn(samples, batch, FEW, [0, 1, 2])
    turned = drawn(samples[::-1], vlm.prompter(samples[::-1]), FEW, [2, 1, 0])
    assert together == turned
    image = np.flatnonzero(batch.labels[0].modality == "image")
    one, two = (set(together[name]) & set(image) for name in ("s0", "s1"))
    assert one != two  # the same image positions, another sample
    assert drawn(samples, batch, replace(FEW, seed=3), [0, 1, 2]) != together


def test_image_tokens_are_drawn_evenly(batch):
    image = batch.labels[0].modality == "image"
    counts = sum(Draw(4, 0).mask(batch.labels[0], str(n))[image].astype(int) for n in range(2000))
    expected = 2000 * 4 / image.sum()
    # five standard deviations of a binomial count
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("count", [1, 3, 5, 7, 11, 15, 16, 20])
def test_every_part_of_an_image_has_its_share(batch, count):
    """Of so many tokens of 16, no run of neighbours has two too few or two too many."""
    labels = batch.labels[0]
    image = labels.modality == "image"
    kept = Draw(count, 0).mask(labels, "s")[image]
    assert kept.sum() == min(count, 16)
    before = np.cumsum(kept) - np.arange(1, 17) * min(count, 16) / 16
    assert np.ptp(before) <= 2


def test_sinks_are_kept_and_marked(vlm, samples, batch, read):
    labels = batch.labels[1]
    before = kept(vlm, samples, batch, read)
    image = np.flatnonzero(labels.modality == "image")
    spare = np.setdiff1d(image, before.place[before.row == 1])
    shares = read["attention"].clone()
    shares[1, spare[:2]] = torch.tensor([SINK_SHARE, 3 * SINK_SHARE])
    shares[1, spare[2]] = SINK_SHARE * 0.99
    shares[1, len(labels) :] = 100.0  # padding
    found = kept(vlm, samples, batch, {**read, "attention": shares})
    added = ~found.drawn
    assert set(found.row[added]) == {1}
    assert found.place[added].tolist() == spare[:2].tolist()
    assert found.attention[added].tolist() == [SINK_SHARE, 3 * SINK_SHARE]
    assert (found.place[found.row == 1] == sorted(found.place[found.row == 1])).all()
    rest = found.take(found.drawn)
    assert torch.equal(rest.vectors, before.vectors)


def test_a_sample_without_spare_tokens_beside_one_with_many(vlm):
    """What it offers in the place of sinks is not kept twice."""
    one, two = made_sample("one"), made_sample("two")
    both = (*two.images, *two.images)
    shown = (two.prompt[0], replace(two.prompt[0], image=1), *two.prompt[1:])
    own = [one, replace(two, images=both, prompt=shown)]
    batch = vlm.prompter(own)
    with Capture(vlm, [SITE], [LAYER], attention=True) as capture:
        tensors = {name: tensor for (name, _), tensor in capture(batch).items()}
    tensors["attention"] = torch.full_like(tensors["attention"], 2 * SINK_SHARE)
    found = kept(vlm, own, batch, tensors, Draw(16, 0))
    pairs = list(zip(found.row.tolist(), found.place.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert (~found.drawn[found.row == 0]).sum() == 0
    assert (~found.drawn[found.row == 1]).sum() == 16
    assert (found.row == 0).sum() == len(batch.labels[0])


def test_no_more_sinks_than_a_layer_keeps(vlm, batch, samples, read):
    shares = torch.full_like(read["attention"], 2 * SINK_SHARE)
    found = kept(vlm, samples, batch, {**read, "attention": shares}, Draw(1, 0))
    image = int((batch.labels[0].modality == "image").sum())
    assert [(~found.drawn[found.row == row]).sum() for row in range(3)] == [
        min(SINKS, image - 1)
    ] * 3


def test_a_layer_is_given_away_once_it_is_complete(vlm, batch):
    """At the end of the pass nothing is left that is held."""
    order = []
    with Capture(vlm, ["k_proj", "query", "hidden"], [0, 2], attention=True) as capture:
        left = capture(batch, lambda layer, read: order.append((layer, sorted(read))))
        whole = capture(batch)
    everything = ["attention", "hidden", "k_proj", "query"]
    assert order == [(0, everything), (2, everything)]
    assert left == {}
    assert len(whole) == 8
