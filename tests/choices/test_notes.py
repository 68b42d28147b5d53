"""Notes say where something is missing, and nowhere else."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from choices.planted import made_by, planted
from keygap.choices.levels import Plan
from keygap.choices.measuring import SiteNumbers
from keygap.choices.running import specifications

LEVELS = {"layer": ("0", "15", "29"), "text": ("question", "all"), "outliers": ("kept", "without")}


def said_of(note: str) -> list[tuple[str, ...]]:
    """Every combination that a note names."""
    found = []
    for text in re.findall(r"\(([^()]*)\)", note):
        lists = [part.partition(" ")[2].split(", ") for part in text.split("; ")]
        found += [*itertools.product(*lists)]
    return found


def test_a_note_names_the_combinations_that_it_was_made_for():
    numbers = SiteNumbers()
    for layer, text in ((0, "question"), (0, "all"), (15, "question"), (29, "question")):
        numbers.note("no sink", layer=layer, text=text)
        numbers.note("no sink", layer=layer, text=text)
    assert numbers.notes == [
        "no sink (layer 0; text question, all) and (layer 15, 29; text question)"
    ]


def test_a_complete_product_is_one_list_and_a_note_without_a_place_has_none():
    numbers = SiteNumbers()
    for place in itertools.product(*LEVELS.values()):
        numbers.note("nothing", **dict(zip(LEVELS, place, strict=True)))
    numbers.note("one choice")
    assert numbers.notes == [
        "nothing (layer 0, 15, 29; text question, all; outliers kept, without)", "one choice",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_any_combinations_are_named_once_and_no_others(seed):
    every = [*itertools.product(*LEVELS.values())]
    rng = np.random.default_rng(seed)
    chosen = [every[place] for place in rng.permutation(len(every))[: rng.integers(1, 12)]]
    numbers = SiteNumbers()
    for place in chosen:
        numbers.note("nothing", **dict(zip(LEVELS, place, strict=True)))
    (note,) = numbers.notes
    assert sorted(said_of(note)) == sorted(chosen)


def test_where_there_is_a_sink_in_some_choices_the_note_is_of_the_others():
    store = planted(layers=(0, 2), heads=1)
    labels = store.layer("k_proj", 2).labels
    labels["attention"] = np.where(labels["role"] == "template", 9.0, 1.0)
    plan = Plan(tokens=[60], spaces=["raw"], estimators=["linear"], text=["question", "all"])
    table = specifications(store, plan=plan)
    (note,) = (one for one in table.settings["notes"] if "no attention sink" in one)
    assert note.endswith(
        " (layer 0; text question, all; outliers without_sinks) and "
        "(layer 2; text question; outliers without_sinks)"
    )
    rows = table.frame[table.frame["outliers"] == "without_sinks"]
    assert set(zip(rows["layer"], rows["text"], strict=True)) == {("last", "all")}


def test_a_layer_that_is_two_levels_is_said_to_be():
    """The last of two layers is the middle one too."""
    store = planted(layers=(0, 1))
    store.manifest["n_layers"] = 2
    plan = Plan(tokens=[60], spaces=["raw"], estimators=["linear"], heads=["together"])
    notes = specifications(store, plan=plan).settings["notes"]
    said = "made, k_proj: layer last is the same as layer middle here, so it is one choice"
    assert said in notes
    assert not any("the store has layers" in note for note in notes)
    store.manifest["n_layers"] = 9
    notes = specifications(store, plan=plan).settings["notes"]
    assert "made, k_proj: layer last (8): the store has layers 0, 1" in notes


def test_where_the_median_distance_is_0_what_needs_none_is_kept():
    """Most tokens are equal: of 60 tokens of each side, 10 differ."""
    store = planted(layers=(0,), heads=2)
    vectors = made_by(store).of_layer[0]
    number = vectors.labels["sample_id"].str[1:].astype(int).to_numpy()
    vectors.array[number % 8 > 0] = 1.0
    names = ["gaussian_median", "gaussian_grid", "gaussian_1", "linear", "energy", "histogram_10"]
    plan = Plan(tokens=[60], spaces=["raw"], text=["question"], outliers=["kept"], estimators=names)
    table = specifications(store, plan=plan)
    assert set(table.frame["estimator"]) == set(names[2:])
    notes = [note for note in table.settings["notes"] if "median distance" in note]
    assert [note.split(": ")[1] for note in notes] == ["no gaussian_median", "no gaussian_grid"]
    assert all("heads together, 0, 1" in note for note in notes)
