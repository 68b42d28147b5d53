"""Which tokens a choice takes: one order of samples, whatever a model or a choice lacks."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from choices.planted import made_by, planted
from keygap.choices.left_out import multiplicities
from keygap.choices.levels import Plan
from keygap.choices.running import sample_ranks, specifications
from keygap.choices.selection import Layer, Selection
from keygap.contrasts.contrast import NotMeasurable
from keygap.errors import UserError
from keygap.store import LabelledVectors, Store

SAMPLES = 100


def without(store: Store, *names: str) -> Store:
    """The same store, in which these samples failed."""
    made = made_by(store)
    for index, vectors in made.of_layer.items():
        kept = ~vectors.labels["sample_id"].isin(names).to_numpy()
        made.of_layer[index] = vectors.where(kept)
    made.samples.loc[made.samples["sample_id"].isin(names), "failure"] = "it failed"
    return store


def layer_of(store: Store, *others: Store) -> Layer:
    return Layer(store.layer("k_proj", 0), sample_ranks([store, *others], 0)["made"], 0)


def names_of(layer: Layer, selection: Selection) -> list[str]:
    """The samples of a selection, in their order."""
    by_rank = {rank: name for name, rank in layer.ranks.items()}
    return [by_rank[rank] for rank in selection.ranks.tolist()]


def placed(layer: Layer, selection: Selection, n_groups: int) -> dict[str, tuple[int, int]]:
    """Half and group of every sample."""
    left_out = multiplicities(selection.ranks, n_groups)[1:] == 0
    groups = left_out.argmax(0).tolist()
    found = zip(selection.halves.tolist(), groups, strict=True)
    return dict(zip(names_of(layer, selection), found, strict=True))


@pytest.mark.parametrize("tokens", [40, 400])
def test_a_sample_that_one_model_lacks_moves_no_other(tokens):
    """40 tokens are of 40 samples, and 400 of all."""
    whole = layer_of(planted(samples=SAMPLES, layers=(0,)))
    first = names_of(whole, whole.select("question", "kept", 40))[3]
    for fewer in (
        layer_of(without(planted(samples=SAMPLES, layers=(0,)), first)),
        layer_of(planted(samples=90, layers=(0,)), planted(samples=SAMPLES, layers=(0,))),
    ):
        ours, theirs = (one.select("question", "kept", tokens) for one in (whole, fewer))
        half_and_group = placed(whole, ours, 10)
        shared = placed(fewer, theirs, 10).items() & half_and_group.items()
        present = set(names_of(fewer, theirs)) & set(half_and_group)
        assert len(shared) == len(present) >= 0.85 * ours.n_samples


def test_text_and_outliers_that_drop_a_sample_move_no_other():
    store = planted(samples=SAMPLES, layers=(0,))
    labels = store.layer("k_proj", 0).labels
    sinks = labels["sample_id"].eq("s004") & labels["modality"].eq("image")
    labels["attention"] = np.where(sinks, 9.0, 1.0)
    layer = layer_of(store)
    every = placed(layer, layer.select("all", "kept", 500), 20)
    fewer = placed(layer, layer.select("question", "without_sinks", 300), 20)
    assert set(every) - set(fewer) == {"s004"}
    assert fewer.items() < every.items()


def test_halves_and_groups_are_balanced_and_the_order_is_of_the_seed():
    layer = layer_of(planted(samples=SAMPLES, layers=(0,)))
    for tokens, groups in ((60, 10), (400, 25)):
        selection = layer.select("question", "kept", tokens)
        assert np.bincount(selection.halves).tolist() == [selection.n_samples // 2] * 2
        left_out = multiplicities(selection.ranks, groups)[1:] == 0
        for half in (0, 1):
            assert np.ptp(left_out[:, selection.halves == half].sum(1)) <= 1
    ids = [f"s{number:03d}" for number in range(SAMPLES)]
    orders = [sample_ranks([planted(samples=SAMPLES)], seed)["made"] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0], key=orders[0].__getitem__) != ids


def test_what_is_missing_may_leave_too_few_in_a_half_or_without_a_group():
    whole = layer_of(planted(samples=SAMPLES, layers=(0,)))
    kept = [name for name, rank in whole.ranks.items() if rank % 2 == 0][:20]
    kept += [name for name, rank in whole.ranks.items() if rank % 2][:3]
    dropped = [name for name in whole.ranks if name not in kept]
    layer = layer_of(without(planted(samples=SAMPLES, layers=(0,)), *dropped))
    with pytest.raises(NotMeasurable, match="3 of the samples are in one of the halves, 4 are"):
        layer.select("question", "kept", 60)
    with pytest.raises(NotMeasurable, match="without one of the 4 groups of samples, fewer than"):
        multiplicities(np.array([0, 1, 2, 3, 4, 6, 8, 9, 16, 17]) * 4, 4)


def test_models_of_different_samples_are_noted():
    plan = Plan(
        tokens=[60], layers=["first"], heads=["together"], text=["question"], outliers=["kept"],
        spaces=["raw"], units=["sample"], estimators=["linear"],
    )  # fmt: skip
    one, other = planted("one"), without(planted("other", seed=1), "s007")
    notes = specifications(one, other, plan=plan).settings["notes"]
    said = "made: 39 of 40 samples are in the runs of all models, so the order of two models"
    assert [note.startswith(said) for note in notes].count(True) == 1
    elsewhere = planted("other", benchmark="else", samples=30)
    for stores in ([one, planted("other", seed=1)], [one, elsewhere], [other]):
        notes = specifications(*stores, plan=plan).settings["notes"]
        assert not any("in the runs of all models" in note for note in notes)


class Counted:
    """A layer that counts the rows that are read, and how often any are."""

    def __init__(self, vectors: LabelledVectors) -> None:
        self.vectors, self.labels, self.shape = vectors, vectors.labels, vectors.shape
        self.read: list[int] = []

    def where_each(self, masks):
        self.read.append(sum(int(mask.sum()) for mask in masks))
        return self.vectors.where_each(masks)

    def not_finite(self):
        return self.vectors.not_finite()


def test_a_layer_is_read_once_and_only_its_chosen_tokens():
    store = planted(samples=SAMPLES, layers=(0,))
    counted = Counted(made_by(store).of_layer[0])
    made_by(store).of_layer[0] = cast(LabelledVectors, counted)
    plan = Plan(tokens=[50, 90], spaces=["raw"], text=["question", "all"], estimators=["linear"])
    specifications(store, plan=plan)
    assert len(counted.read) == 1
    assert counted.read[0] <= 2 * 2 * 90


@pytest.mark.parametrize("outliers", ["kept", "without_massive"])
def test_what_is_read_from_disk_is_what_is_in_memory(store, outliers):
    ranks = sample_ranks([store], 0)[store.manifest["benchmark"]]
    on_disk = Layer(store.layer("k_proj", 15), ranks, 0).select("question", outliers, 100)
    in_memory = Layer(store.vectors("k_proj", 15), ranks, 0).select("question", outliers, 100)
    for name, value in vars(on_disk).items():
        np.testing.assert_array_equal(value, getattr(in_memory, name))
    picked = Layer(store.vectors("k_proj", 15), ranks, 0).pick("question", outliers, 100)
    array = store.vectors("k_proj", 15).array
    np.testing.assert_array_equal(on_disk.image, array[picked.rows[0]])
    np.testing.assert_array_equal(on_disk.text, array[picked.rows[1]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused_before_the_work(value, monkeypatch):
    store = planted("one", layers=(0, 2))
    made_by(store).of_layer[2].array[3, 0, 0] = value

    def work(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("keygap.choices.running.measure_layer", work)
    said = r"one: 1 vectors of k_proj at layer 2 are NaN or infinite"
    with pytest.raises(UserError, match=said):
        specifications(store, plan=Plan(tokens=[60], estimators=["linear"]))
