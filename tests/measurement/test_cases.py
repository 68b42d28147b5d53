"""Which comparisons are made of a layer: draws, confounds, heads, and notes for what is missing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import keygap as kg
from keygap.contrasts import CONTRASTS
from keygap.contrasts.contrast import Contrast
from keygap.contrasts.own import OwnContrast
from keygap.contrasts.sides import Case, Selector
from keygap.errors import UserError
from keygap.gap import mmd
from keygap.measurement.cases import by_head, cases
from keygap.measurement.options import Options
from keygap.store import LabelledVectors
from made import made_store, made_vectors

FEW = {"n_permutations": 100, "n_bootstraps": 20}
NATIVE = (4, 9, 14, 21, 30, 41)  # image tokens of a sample, where images keep their size


def measured(vectors: LabelledVectors, *contrasts, layers=(0,), **options):
    """Rows by (contrast, confound) of all heads together, and the table."""
    table = kg.measure(made_store(vectors, layers), contrasts=list(contrasts), **FEW | options)
    whole = table.frame[table.frame["head"] == "all"]
    return whole.set_index(["contrast", "confound"]), table


def selected(vectors: LabelledVectors, *contrasts: Contrast) -> tuple[list[Case], list[str]]:
    notes: list[str] = []
    selector = Selector(vectors, ["question"], None, 0)
    return list(cases(selector, contrasts, notes.append)), notes


def test_a_contrast_with_confounds_is_followed_by_them():
    vectors = made_vectors(60, NATIVE, words=12)
    vectors.array[:, 0, 0] *= 20.0
    found, notes = selected(vectors, CONTRASTS["image_text"], CONTRASTS["text_text"])
    assert [(case.contrast.name, case.confound) for case in found] == [
        ("image_text", ""),
        ("image_text", "with_template"),
        ("image_text", "equal_counts"),
        ("image_text", "position_matched"),
        ("image_text", "without_massive"),
        ("text_text", ""),
    ]
    assert notes == ["no image_text without_sinks: no attention sink is among these tokens"]


def test_of_several_draws_the_one_with_the_median_mmd_is_measured():
    """Text whose words are apart: each of five splits of five words reads another MMD squared."""
    vectors = made_vectors(30)
    for word in range(5):
        vectors.array[vectors.labels["token_id"] == word] += 0.5 * word**2
    contrast = dataclasses.replace(CONTRASTS["text_vocabulary"], draws=5)
    ((case,), _) = selected(vectors, contrast)
    selector = Selector(vectors, ["question"], None, 0)
    sizes = []
    for draw in range(5):
        one = selector.case(contrast, draw)
        x, y = (side.array.reshape(len(side), -1).astype(float) for side in (one.a, one.b))
        mean = 0.5 * (x.mean(0) + y.mean(0))
        scale = np.sqrt(0.5 * ((x - mean) ** 2).mean(0) + 0.5 * ((y - mean) ** 2).mean(0))
        x, y = (x - mean) / scale, (y - mean) / scale
        ids = one.a.sample_ids, one.b.sample_ids
        size = mmd(x, y, *ids, n_permutations=0, n_bootstraps=0).mmd2
        sizes.append((size, set(one.a.labels["token_id"])))
    sizes.sort(key=lambda pair: pair[0])
    assert sizes[0][0] < sizes[2][0] < sizes[4][0]
    assert set(case.a.labels["token_id"]) == sizes[2][1]


def test_heads_alone_are_compared_without_confounds_only():
    vectors = made_vectors(60, NATIVE, words=12)
    options = Options(["question"], None, 100, 20, 0)
    found, _ = selected(vectors, CONTRASTS["image_text"])
    plain, *confounded = found
    sides = dict(by_head(plain, options, n_layers=3))
    assert list(sides) == ["all", "0", "1"]
    assert [one.x.shape[1] for one in sides.values()] == [16, 8, 8]
    np.testing.assert_array_equal(sides["1"].x, plain.a.array[:, 1])
    np.testing.assert_array_equal(sides["all"].x[:, 8:], plain.a.array[:, 1])
    assert [one.n_permutations for one in sides.values()] == [3 * 40, 3 * 2 * 40, 3 * 2 * 40]
    assert [one.dims for one in sides.values()] == [None, (2,), (2,)]
    for case in confounded:
        ((head, one),) = by_head(case, options, n_layers=3)
        assert (head, one.dims) == ("all", (2,))


def test_a_single_word_is_shown_and_is_never_the_highest():
    """A point against a cloud is far, whatever the point."""
    vectors = made_vectors(gap=0.7)
    template = (vectors.labels["role"] == "template").to_numpy()
    vectors.array[template] = 0.0  # at the centre of the text, and still far from it
    sinks = vectors.labels.assign(attention=np.where(template, 9.0, 1.0))
    rows, table = measured(LabelledVectors(vectors.array, sinks), *CONTRASTS)
    assert rows.loc[("text_sink", ""), "rung"] == "single"
    assert rows.loc[("text_sink", ""), "mmd2"].item() > 0.2
    largest = rows[rows["rung"] == "kind"]["mmd2"].max()
    assert rows.loc[("text_sink", ""), "mmd2"].item() > 2 * largest
    assert set(rows["highest"].dropna()) <= {"text_vocabulary", "image_region"}
    assert "text_sink" not in set(table.summary()["highest"])


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_what_depends_on_position_alone_goes_when_positions_match(seed):
    vectors = made_vectors(120, NATIVE, words=12, by_position=0.05, seed=seed)
    rows, _ = measured(vectors, "image_text", seed=seed)
    plain = rows.loc[("image_text", "")]
    assert plain["mmd2_ci_low"].item() > 0.05
    matched = rows.loc[("image_text", "position_matched")]
    assert matched["n_samples"].item() >= 30
    assert matched["n_samples"].item() == matched["n_a"].item() == matched["n_b"].item()
    assert matched["mmd2_ci_low"].item() < 0 < matched["mmd2_ci_high"].item()
    assert matched["mmd2_ci_high"].item() < 0.05


def test_a_gap_remains_when_positions_match():
    vectors = made_vectors(120, NATIVE, words=12, by_position=0.05, gap=0.7)
    rows, _ = measured(vectors, "image_text")
    matched = rows.loc[("image_text", "position_matched")]
    assert matched["mmd2_ci_low"].item() > 0.02
    assert matched["p_value"].item() < 0.02


def test_fewer_than_four_pairs_of_a_position_are_a_note():
    """Three images reach the positions of the others' text, and no text those of the images."""
    _, table = measured(made_vectors(30, pictures=(9,) * 27 + (15,) * 3), "image_text")
    (note,) = (note for note in table.notes if "position_matched" in note)
    assert "samples on a side, 4 are needed" in note


def language(rung: str = "own") -> OwnContrast:
    zh, en = ({"modality": "text", "language": [code]} for code in ("zh", "en"))
    return OwnContrast.model_validate({"name": "language", "a": zh, "b": en, "rung": rung})


@pytest.mark.parametrize("rung", ["own", "kind"])
def test_two_languages_are_compared_though_no_sample_has_both(rung):
    vectors = made_vectors()
    vectors.array[(vectors.labels["language"] == "en").to_numpy()] += 1.0
    vectors.array[(vectors.labels["token"] == "Ġcircle").to_numpy()] += 2.0
    rows, table = measured(vectors, "image_text", "text_vocabulary", language(rung).contrast())
    row = rows.loc[("language", "")]
    assert row["mmd2_ci_low"].item() > 0.05
    assert row["p_value"].item() < 0.02
    assert row["n_samples"].item() == 24
    # no sample can be left out of both, so no ratio refers to it
    assert "language" not in set(table.frame["highest"])
    assert table.frame.query("contrast == 'image_text' and confound == ''")["ratio"].notna().any()


def test_samples_that_a_users_contrast_leaves_out_are_counted_in_a_note():
    words = [{"modality": "text", "role": ["question"], "token": [w]} for w in ("circle", "image")]
    contrast = OwnContrast.model_validate({"name": "words", "a": words[0], "b": words[1]})
    vectors = made_vectors(40)
    rows, table = measured(vectors, contrast.contrast())
    text = vectors.labels[vectors.labels["modality"] == "text"]
    having = [set(text["sample_id"][text["token"] == token]) for token in ("Ġcircle", "Ġimage")]
    assert rows.loc[("words", ""), "n_samples"].item() == len(having[0] & having[1])
    left = len(having[0] ^ having[1])
    assert left
    assert any(f"words: {left} samples have one of its sides only" in n for n in table.notes)


def test_a_contrast_that_cannot_be_measured_is_a_note_and_the_others_are_measured():
    """Text that is one vector: its own contrasts have no distances, the gap itself has."""
    vectors = made_vectors(gap=1.0)
    vectors.array[(vectors.labels["modality"] == "text").to_numpy()] = -1.0
    rows, table = measured(vectors, *CONTRASTS)
    assert {"image_text", "image_image", "image_region"} == {name for name, _ in rows.index}
    for name in ("text_vocabulary", "text_text, head all", "text_text, head 1"):
        assert any(f"made, k_proj, layer 0: no {name}" in note for note in table.notes), name
    assert sum("the median distance" in note for note in table.notes) >= 4
    spread = "layer 0: no spread of image_text, head all: all vectors of y are equal"
    assert any(spread in note for note in table.notes)


def test_a_required_contrast_that_cannot_be_selected_refuses_the_run():
    vectors = made_vectors(3)
    with pytest.raises(UserError, match="too few samples to measure: 3 samples on a side"):
        selected(vectors, CONTRASTS["image_text"])
    optional = dataclasses.replace(CONTRASTS["image_text"], required=False)
    found, notes = selected(vectors, optional)
    assert (found, notes) == ([], ["no image_text: 3 samples on a side, 4 are needed"])
    hints = Selector(made_vectors(), ["hint"], None, 0)
    assert list(cases(hints, [optional], notes.append)) == []
    assert "no image_text: the run has no text tokens to compare" in notes[-1]


def test_a_required_contrast_that_a_layer_does_not_have_is_a_note():
    """As in cross-attention, where image and text are keys of different layers."""
    vectors = made_vectors()
    text = vectors.where((vectors.labels["modality"] == "text").to_numpy())
    found, (note,) = selected(text, CONTRASTS["image_text"])
    assert not found
    assert "no image_text: image and text meet in cross-attention" in note


def test_a_dead_head_is_a_note():
    vectors = made_vectors(gap=1.0)
    vectors.array[:, 1] = 3.0
    _, table = measured(vectors, "image_text")
    found = table.main.query("contrast == 'image_text'")["head"]
    assert found.tolist() == ["all", "0"]
    assert any("layer 0: no image_text, head 1: " in note for note in table.notes)


def test_a_required_contrast_without_any_distance_names_its_site_and_layer():
    vectors = made_vectors()
    vectors.array[:] = 3.0
    with pytest.raises(UserError, match="k_proj, layer 0: "):
        measured(vectors, "image_text")


def test_heads_of_one_dimension_are_notes():
    vectors = made_vectors(gap=1.0)
    narrow = LabelledVectors(vectors.array[:, :, :1], vectors.labels)
    _, table = measured(narrow, "image_text", "image_region")
    assert set(table.frame["head"]) == {"all"}
    assert any("no image_region, head 1: " in note for note in table.notes)
