"""How much of a large comparison is used, and that it is drawn fairly."""

from __future__ import annotations

import numpy as np
import pytest

import keygap as kg
from keygap.contrasts import CONTRASTS, limits
from keygap.contrasts.confounds import CONFOUNDS
from keygap.contrasts.sides import Case, Selector
from made import made_store, made_vectors


def case_of(vectors, name: str = "image_text", limit: int | None = 64) -> Case:
    return Selector(vectors, ["question"], limit, 0).case(CONTRASTS[name])


def counts(side) -> np.ndarray:
    return side.labels["sample_id"].value_counts().sort_index().to_numpy()


def test_samples_give_up_the_same_share_of_their_tokens(monkeypatch):
    vectors = made_vectors(pictures=(4, 20))  # every second sample has five times as many
    whole = case_of(vectors)
    monkeypatch.setattr(limits, "MAX_TOKENS", len(whole.b))
    half = case_of(vectors)
    assert len(half.a) == len(half.b) == len(whole.b) // 2
    assert set(half.a.sample_ids) == set(whole.a.sample_ids)
    np.testing.assert_allclose(counts(half.a), counts(whole.a) / 4, atol=1)
    assert half.limited.startswith(f"{len(half.a)} tokens of 24 samples")
    assert whole.limited == ""


def test_a_side_has_what_the_other_leaves_of_its_half(monkeypatch):
    vectors = made_vectors(pictures=(4, 20))
    whole = case_of(vectors)
    most = len(whole.a) - 10 + len(whole.b)
    assert len(whole.b) < most // 2 < len(whole.a) - 10
    monkeypatch.setattr(limits, "MAX_TOKENS", most)
    case = case_of(vectors)
    assert (len(case.a), len(case.b)) == (len(whole.a) - 10, len(whole.b))


def test_every_sample_keeps_a_token(monkeypatch):
    monkeypatch.setattr(limits, "MAX_TOKENS", 48)
    case = case_of(made_vectors(pictures=(2, 9)))
    assert counts(case.a).tolist() == counts(case.b).tolist() == [1] * 24


@pytest.mark.parametrize("name", ["image_text", "image_image"])
def test_of_many_samples_some_are_drawn(monkeypatch, name):
    monkeypatch.setattr(limits, "MAX_SAMPLES", 8)
    case = case_of(made_vectors(), name)
    ids = [set(side.sample_ids) for side in (case.a, case.b)]
    assert [len(each) for each in ids] == [8, 8]
    assert (ids[0] == ids[1]) is (name == "image_text")
    assert "of 8 samples" in case.limited


def test_pairs_are_made_among_some_of_many_samples(monkeypatch):
    vectors = made_vectors(pictures=(2, 9))
    selector = Selector(vectors, ["question"], 64, 0)
    (matched,) = (each for each in CONFOUNDS if each.by_pair)
    whole = len(selector.without(matched, selector.case(CONTRASTS["image_text"])).a)
    monkeypatch.setattr(limits, "MAX_SAMPLES", 10)
    case = selector.without(matched, selector.case(CONTRASTS["image_text"]))
    assert 4 <= len(case.a) == len(case.b) <= 10
    np.testing.assert_array_equal(case.a.positions, case.b.positions)
    assert case.limited == "pairs among 20 of 24 samples"
    monkeypatch.setattr(limits, "MAX_SAMPLES", 12)
    assert selector.without(matched, selector.case(CONTRASTS["image_text"])).limited == ""
    monkeypatch.setattr(limits, "MAX_SAMPLES", 5)
    everything = Selector(vectors, ["question"], None, 0)
    case = everything.without(matched, everything.case(CONTRASTS["image_text"]))
    assert (len(case.a), case.limited) == (whole, "")


def test_everything_is_used_where_all_tokens_are_asked_for(monkeypatch):
    vectors = made_vectors(pictures=(4, 20))
    whole = case_of(vectors, limit=None)
    monkeypatch.setattr(limits, "MAX_TOKENS", 30)
    monkeypatch.setattr(limits, "MAX_SAMPLES", 8)
    again = case_of(vectors, limit=None)
    np.testing.assert_array_equal(again.a.array, whole.a.array)
    assert again.limited == ""


def test_a_measurement_says_what_it_left_out(monkeypatch):
    monkeypatch.setattr(limits, "MAX_TOKENS", 60)
    store = made_store(made_vectors())
    table = kg.measure(store, contrasts=["image_text"], n_bootstraps=20, n_permutations=20)
    (line,) = {note for note in table.notes if "image_text is measured on" in note}
    first = table.main.iloc[0]
    assert f"{first['n_a']} tokens of 24 samples and {first['n_b']} tokens" in line
    assert first["n_a"] + first["n_b"] == 60
    assert "--tokens-per-sample all" in line
    assert any("image_text position_matched" in note for note in table.notes)
