"""``image_caption``: image tokens against the tokens of a text that says what the image shows."""

from __future__ import annotations

import pytest

import keygap as kg
from keygap.store.reading import read_yaml


@pytest.fixture(scope="module")
def captioned(vlm, easy_vqa, tmp_path_factory) -> kg.Store:
    chosen = easy_vqa.choose(14).with_captions()[:12]
    out = tmp_path_factory.mktemp("runs") / "captioned"
    return kg.extract(vlm, chosen, out, layers=[15], sites=["k_proj"], batch_size=6)


def test_the_run_is_another_run_than_one_without_captions(captioned, store):
    with_captions, without = (
        read_yaml(run.root / "extraction.yaml", "") for run in (captioned, store)
    )
    assert (with_captions["benchmark"], without["benchmark"]) == ("easy-vqa+captions", "easy-vqa")
    tokens = captioned.tokens
    text = tokens[tokens["role"] == "caption"].groupby("sample_id", observed=True)["token"]
    assert len(text) == 12
    assert all(words.iloc[0] == "a" and len(words) >= 3 for _, words in text)


def test_it_is_a_gap_of_its_own(captioned):
    table = kg.measure(captioned, n_permutations=200, n_bootstraps=20)
    whole = table.main.query("head == 'all'").set_index("contrast")
    row = whole.loc["image_caption"].to_dict()
    assert row["mmd2"] > 0.05
    assert row["p_value"] < 0.01
    assert row["ratio"] > 0
    assert set(table.frame.query("confound != ''")["contrast"]) == {"image_text"}
    assert set(table.summary()["contrast"]) == {"image_text", "image_caption"}


def test_a_run_without_captions_has_no_note_unless_it_was_asked_for(store, table):
    assert not any("image_caption" in note for note in table.notes)
    names = ["image_text", "image_caption"]
    asked = kg.measure(store, contrasts=names, layers=[0], n_permutations=1, n_bootstraps=1)
    assert any("no image_caption: no text says what" in note for note in asked.notes)
