"""Which vectors are compared, on which rung they stand, and what is left of a bad contrast."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
import yaml

import keygap as kg
from keygap.contrasts import own as selection
from keygap.contrasts.ladder import CONTRASTS
from keygap.contrasts.own import OwnContrast
from keygap.contrasts.sides import Case, cases
from keygap.errors import UserError
from keygap.store import Vectors
from made import MadeStore, made_vectors

FEW = {"n_permutations": 100, "n_bootstraps": 20}
NATIVE = (4, 9, 14, 21, 30, 41)  # image tokens of a sample, where images keep their size


def measured(vectors: Vectors, *contrasts, layers=(0,), **options):
    """Rows by (contrast, confound) of all heads together, and the notes."""
    table = kg.measure(MadeStore(vectors, layers), contrasts=list(contrasts), **FEW | options)
    whole = table.frame[table.frame["head"] == "all"]
    return whole.set_index(["contrast", "confound"]), table


def case_of(vectors: Vectors, name: str) -> Case:
    (case,) = cases(vectors, [CONTRASTS[name]], ["question"], None, 0)
    assert isinstance(case, Case)
    return case


def with_sinks(vectors: Vectors, where: np.ndarray) -> Vectors:
    return Vectors(vectors.array, vectors.labels.assign(attention=np.where(where, 9.0, 1.0)))


def test_one_word_is_no_rung_to_stand_on():
    """A point against a cloud is far, whatever the point: it is shown and judges nothing."""
    vectors = made_vectors(gap=0.7)
    template = (vectors.labels["role"] == "template").to_numpy()
    vectors.array[template] = 0.0  # at the centre of the text, and still far from it
    vectors = with_sinks(vectors, template)
    rows, table = measured(vectors, *CONTRASTS)
    assert rows.loc[("text_sink", ""), "rung"] == "single"
    assert rows.loc[("text_sink", ""), "mmd2"].item() > 0.2
    largest = rows[rows["rung"] == "kind"]["mmd2"].max()
    assert rows.loc[("text_sink", ""), "mmd2"].item() > 2 * largest
    assert set(rows["highest"].dropna()) <= {"text_vocabulary", "image_region"}
    assert "text_sink" not in set(table.summary()["highest"])


def test_a_sink_of_two_words_is_of_kind():
    vectors = made_vectors()
    sinks = vectors.labels["token_id"].isin([999, 0]) & (vectors.labels["modality"] == "text")
    assert case_of(with_sinks(vectors, sinks.to_numpy()), "text_sink").rung == "kind"


@pytest.mark.parametrize(("noise", "rung"), [(0.0, "single"), (0.001, "single"), (1.0, "kind")])
def test_an_image_sink_is_of_kind_unless_it_is_one_vector(noise, rung):
    vectors = made_vectors()
    sinks = ((vectors.labels["modality"] == "image") & (vectors.labels["position"] == 0)).to_numpy()
    vectors.array[sinks] = 3.0 + noise * vectors.array[sinks]
    assert case_of(with_sinks(vectors, sinks), "image_sink").rung == rung


def test_a_word_beside_the_sink_is_single():
    assert case_of(made_vectors(), "text_token").rung == "single"


@pytest.mark.parametrize("seed", range(3))
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


def test_a_gap_stays_when_positions_match():
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
    # no sample can be left out of both, so it is nothing to take a ratio to
    assert "language" not in set(table.frame["highest"])
    assert table.frame.query("contrast == 'image_text' and confound == ''")["ratio"].notna().any()


def test_the_examples_of_the_docstring_are_measured():
    example = selection.__doc__.split("\n\n")[1]
    own = [OwnContrast.model_validate(item) for item in yaml.safe_load(textwrap.dedent(example))]
    vectors = made_vectors(40)
    rows, table = measured(vectors, *(item.contrast() for item in own))
    assert rows.loc[("kind_of_question", ""), "n_samples"].item() == 40
    text = vectors.labels[vectors.labels["modality"] == "text"]
    having = [set(text["sample_id"][text["token"] == token]) for token in ("Ġcircle", "Ġimage")]
    assert rows.loc[("shape_words", ""), "n_samples"].item() == len(having[0] & having[1])
    left = len(having[0] ^ having[1])
    assert left
    assert any(f"shape_words: {left} samples have one of its sides only" in n for n in table.notes)


def test_a_contrast_that_cannot_be_measured_is_a_note_and_the_others_stand():
    """Text that is one vector: its own contrasts have no distances, the gap itself has."""
    vectors = made_vectors(gap=1.0)
    vectors.array[(vectors.labels["modality"] == "text").to_numpy()] = -1.0
    rows, table = measured(vectors, *CONTRASTS)
    assert {"image_text", "image_image", "image_region"} == {name for name, _ in rows.index}
    for name in ("text_vocabulary", "text_text, head all", "text_text, head 1"):
        assert any(f"made, k_proj, layer 0: no {name}" in note for note in table.notes), name
    assert sum("the median distance" in note for note in table.notes) >= 4
    assert any("layer 0: all vectors of y are equal" in note for note in table.notes)


def test_a_dead_head_is_a_note():
    vectors = made_vectors(gap=1.0)
    vectors.array[:, 1] = 3.0
    _, table = measured(vectors, "image_text")
    found = table.main.query("contrast == 'image_text'")["head"]
    assert found.tolist() == ["all", "0"]
    assert any("layer 0: no image_text, head 1: " in note for note in table.notes)


def test_a_gap_that_cannot_be_measured_at_all_names_its_place():
    vectors = made_vectors()
    vectors.array[:] = 3.0
    with pytest.raises(UserError, match="k_proj, layer 0: "):
        measured(vectors, "image_text")


def test_heads_of_one_dimension_are_notes():
    vectors = made_vectors(gap=1.0)
    narrow = Vectors(vectors.array[:, :, :1], vectors.labels)
    _, table = measured(narrow, "image_text", "image_region")
    assert set(table.frame["head"]) == {"all"}
    assert any("no image_region, head 1: " in note for note in table.notes)


def test_holm_can_be_significant_for_many_heads_and_layers():
    """As many swaps as the family needs: 100 of them and 32 tests leave 0.32 at the least."""
    wide = made_vectors(gap=1.0)
    vectors = Vectors(np.repeat(wide.array, 4, axis=1), wide.labels)  # 8 heads
    _, table = measured(vectors, "image_text", layers=range(4))
    main = table.main
    for heads, tests in ((main["head"] == "all", 4), (main["head"] != "all", 32)):
        rows = main[heads]
        assert len(rows) == tests
        np.testing.assert_allclose(rows["p_holm"].min(), tests * rows["p_value"].min())
        assert rows["p_holm"].min() < 0.026
