"""Which vectors are on the two sides of a contrast, how they are paired, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keygap.contrasts import CONTRASTS
from keygap.contrasts.confounds import CONFOUNDS
from keygap.contrasts.contrast import Contrast, NotMeasurable, Pairing, TooFewSamples
from keygap.contrasts.sides import Case, Selector
from keygap.errors import UserError
from keygap.store import LabelledVectors
from made import made_vectors


def select(vectors: LabelledVectors, contrast: str | Contrast, limit: int | None = None) -> Case:
    if isinstance(contrast, str):
        contrast = CONTRASTS[contrast]
    return Selector(vectors, ["question"], limit, 0).case(contrast)


def without(vectors: LabelledVectors, name: str, limit: int | None = None) -> Case:
    """The sides of image_text without a confound."""
    selector = Selector(vectors, ["question"], limit, 0)
    (confound,) = (confound for confound in CONFOUNDS if confound.name == name)
    return selector.without(confound, selector.case(CONTRASTS["image_text"]))


def with_sinks(vectors: LabelledVectors, where: np.ndarray) -> LabelledVectors:
    return LabelledVectors(
        vectors.array, vectors.labels.assign(attention=np.where(where, 9.0, 1.0))
    )


def by_language(pairing: Pairing = "auto") -> Contrast:
    """Text of odd samples, text of even ones: no sample has both."""

    def languages(labels, roles, seed):
        text = (labels["modality"] == "text").to_numpy()
        english = (labels["language"] == "en").to_numpy()
        return text & english, text & ~english

    return Contrast("language", "two languages", languages, "own", pairing)


def by_word(pairing: Pairing = "auto") -> Contrast:
    """Word 0 against word 1: some samples have both, some have one only."""

    def words(labels, roles, seed):
        text = (labels["role"] == "question").to_numpy()
        return tuple(text & (labels["token_id"] == word).to_numpy() for word in (0, 1))

    return Contrast("words", "two words", words, "own", pairing)


def ids_by_word(vectors: LabelledVectors) -> list[set[str]]:
    labels = vectors.labels[vectors.labels["role"] == "question"]
    return [set(labels["sample_id"][labels["token_id"] == word]) for word in (0, 1)]


def test_sides_that_share_no_sample_are_compared_as_they_are():
    case = select(made_vectors(), by_language())
    assert set(case.a.labels["language"]) == {"en"}
    assert set(case.b.labels["language"]) == {"zh"}
    assert (len(set(case.a.sample_ids)), len(set(case.b.sample_ids))) == (12, 12)
    assert case.left_out == 0


@pytest.mark.parametrize("pairing", ["auto", "within"])
def test_of_sides_that_share_samples_those_with_both_are_used(pairing):
    vectors = made_vectors()
    ids = ids_by_word(vectors)
    assert ids[0] ^ ids[1]
    case = select(vectors, by_word(pairing))
    assert set(case.a.sample_ids) == set(case.b.sample_ids) == ids[0] & ids[1]
    assert case.left_out == len(ids[0] ^ ids[1])


def test_within_samples_needs_samples_with_both_sides():
    with pytest.raises(TooFewSamples, match="0 samples on a side, 4 are needed"):
        select(made_vectors(), by_language("within"))


def test_between_samples_refuses_samples_on_both_sides():
    vectors = made_vectors()
    shared = set.intersection(*ids_by_word(vectors))
    with pytest.raises(UserError, match=f"'words' is paired between.*{len(shared)} samples"):
        select(vectors, by_word("between"))
    case = select(vectors, by_language("between"))
    assert set(case.a.sample_ids).isdisjoint(case.b.sample_ids)


@pytest.mark.parametrize("name", ["image_image", "text_text"])
def test_halves_are_paired_between_samples(name):
    assert CONTRASTS[name].pairing == "between"
    case = select(made_vectors(25), name)
    assert set(case.a.sample_ids).isdisjoint(case.b.sample_ids)
    assert (len(set(case.a.sample_ids)), len(set(case.b.sample_ids))) == (12, 13)


def test_a_side_keeps_at_most_so_many_tokens_of_a_sample():
    vectors = made_vectors(pictures=(2, 9))
    case = select(vectors, "image_text", limit=4)
    counts = case.a.labels["sample_id"].value_counts()
    assert sorted(counts) == [2] * 12 + [4] * 12
    again = select(vectors, "image_text", limit=4)
    np.testing.assert_array_equal(case.a.array, again.a.array)
    assert len(select(vectors, "image_text").a) == 12 * 2 + 12 * 9


def test_each_draw_is_another_selection():
    selector = Selector(made_vectors(), ["question"], None, 0)
    vocabulary = CONTRASTS["text_vocabulary"]
    first, second = (set(selector.case(vocabulary, n).a.labels["token_id"]) for n in (0, 1))
    assert first != second


def test_sides_of_one_layer_without_image_are_not_measurable():
    vectors = made_vectors()
    text = vectors.where((vectors.labels["modality"] == "text").to_numpy())
    with pytest.raises(NotMeasurable, match="at this layer every token is text"):
        select(text, "image_text")


def test_a_run_without_image_or_text_tokens_is_refused():
    vectors = made_vectors()
    separators = vectors.labels.assign(role="separator")
    with pytest.raises(UserError, match="no image tokens to compare"):
        select(LabelledVectors(vectors.array, separators), "image_text")
    with pytest.raises(UserError, match="none of role hint, only of question, template"):
        Selector(vectors, ["hint"], None, 0).case(CONTRASTS["image_text"])


def test_a_dimension_that_is_massive_is_not_kept():
    vectors = made_vectors()
    vectors.array[:, 1, 3] *= 20.0
    case = without(vectors, "without_massive")
    assert np.argwhere(~case.kept).tolist() == [[1, 3]]
    assert len(case.a) == len(select(vectors, "image_text").a)


def test_matched_pairs_take_the_place_of_samples():
    vectors = made_vectors(60, pictures=(4, 9, 14, 21), words=12)
    case = without(vectors, "position_matched", limit=2)
    np.testing.assert_array_equal(case.a.positions, case.b.positions)
    np.testing.assert_array_equal(case.a.sample_ids, case.b.sample_ids)
    assert len(set(case.a.sample_ids)) == len(case.a)
    assert set(case.a.labels["modality"]) == {"image"}
    assert set(case.b.labels["modality"]) == {"text"}


def test_fewer_than_four_matched_pairs_are_too_few():
    """Three images reach the positions of other samples' text, and no text those of images."""
    vectors = made_vectors(30, pictures=(9,) * 27 + (15,) * 3)
    with pytest.raises(TooFewSamples, match="samples on a side, 4 are needed"):
        without(vectors, "position_matched")


def test_a_sink_of_two_words_is_of_kind():
    vectors = made_vectors()
    sinks = vectors.labels["token_id"].isin([999, 0]) & (vectors.labels["modality"] == "text")
    assert select(with_sinks(vectors, sinks.to_numpy()), "text_sink").rung == "kind"


def test_a_sink_of_one_word_is_single():
    vectors = made_vectors()
    template = (vectors.labels["role"] == "template").to_numpy()
    assert select(with_sinks(vectors, template), "text_sink").rung == "single"


@pytest.mark.parametrize(("noise", "rung"), [(0.0, "single"), (0.001, "single"), (1.0, "kind")])
def test_an_image_sink_is_of_kind_unless_it_is_one_vector(noise, rung):
    vectors = made_vectors()
    sinks = ((vectors.labels["modality"] == "image") & (vectors.labels["position"] == 0)).to_numpy()
    vectors.array[sinks] = 3.0 + noise * vectors.array[sinks]
    assert select(with_sinks(vectors, sinks), "image_sink").rung == rung


@pytest.mark.parametrize("rung", ["own", "same", "between"])
def test_only_contrasts_of_kind_become_single(rung):
    vectors = made_vectors()
    template = (vectors.labels["role"] == "template").to_numpy()
    contrast = dataclasses.replace(CONTRASTS["text_sink"], rung=rung)
    assert select(with_sinks(vectors, template), contrast).rung == rung


def test_a_word_beside_the_sink_is_single():
    assert select(made_vectors(), "text_token").rung == "single"


@pytest.mark.parametrize("name", ["without_sinks", "equal_counts"])
def test_a_confound_of_a_drawn_contrast_keeps_its_selection(name):
    """Half of the tokens, drawn by the seed of the selection, on each side."""

    def drawn(labels, roles, seed):
        chosen = np.random.default_rng(seed).random(len(labels)) < 0.5
        image = (labels["modality"] == "image").to_numpy()
        return image & chosen, ~image & chosen

    vectors = made_vectors()
    vectors = with_sinks(vectors, (vectors.labels["patch_row"] == 0).to_numpy())
    selector = Selector(vectors, ["question"], None, 0)
    (confound,) = (confound for confound in CONFOUNDS if confound.name == name)
    case = selector.case(Contrast("drawn", "drawn", drawn, "own"), draw=3)
    found = selector.without(confound, case)
    for side, whole in ((found.a, case.a), (found.b, case.b)):
        places = zip(side.sample_ids, side.positions, strict=True)
        assert set(places) <= set(zip(whole.sample_ids, whole.positions, strict=True))
