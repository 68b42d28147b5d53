"""A store that keeps few image tokens holds the same vectors and contrasts as one with all."""

from __future__ import annotations

import numpy as np
import pytest

import keygap as kg
from keygap.contrasts import CONTRASTS
from keygap.errors import UserError
from keygap.store import LabelledVectors
from made import SAMPLES

KEPT = 6
INDEX = ["sample_id", "position"]


@pytest.fixture(scope="module")
def few(vlm, easy_vqa, tmp_path_factory) -> kg.Store:
    out = tmp_path_factory.mktemp("few") / "run"
    return kg.extract(vlm, easy_vqa, out, samples=SAMPLES, batch_size=8, tokens=KEPT)


def rows_of(vectors: LabelledVectors) -> list[tuple[str, int]]:
    return list(vectors.labels[INDEX].itertuples(index=False, name=None))


def test_what_is_kept_is_as_it_was(store, few):
    assert len(few.tokens) == len(store.tokens)
    for layer in store.layers("k_proj"):
        kept, every = few.vectors("k_proj", layer), store.vectors("k_proj", layer)
        at = {row: number for number, row in enumerate(rows_of(every))}
        places = [at[row] for row in rows_of(kept)]
        assert places == sorted(places)
        np.testing.assert_array_equal(kept.array, every.array[places])
        same = [name for name in every.labels if name != "drawn"]
        assert kept.labels[same].equals(every.labels.loc[places, same].reset_index(drop=True))

        drawn = kept.labels[kept.labels["drawn"]]
        counts = drawn.groupby(["sample_id", "modality"], observed=True).size().unstack()
        assert (counts["image"] == KEPT).all()
        text = every.labels[every.labels["modality"] == "text"].groupby("sample_id", observed=True)
        assert (counts["text"] == text.size()).all()


def test_the_same_image_tokens_at_every_layer(few):
    chosen = []
    for layer in few.layers("k_proj"):
        labels = few.vectors("k_proj", layer).labels.query("drawn")
        chosen.append(labels[INDEX].reset_index(drop=True))
    assert all(one.equals(chosen[0]) for one in chosen)


@pytest.mark.parametrize("name", ["image_text", "image_region", "text_sink"])
def test_the_sides_of_a_contrast_are_part_of_those_of_all_tokens(store, few, name):
    """Upper and lower patches are those of the whole image, not of what is kept of it."""
    of_all, of_few = (each.vectors("k_proj", 15) for each in (store, few))
    sides = [
        [set(rows_of(vectors.where(mask))) for mask in CONTRASTS[name].select(
            vectors.labels, ["question"], 0
        )]
        for vectors in (of_all, of_few)
    ]  # fmt: skip
    for every, kept in zip(*sides, strict=True):
        assert kept
        assert kept <= every


def test_the_store_says_what_was_left_out(few):
    assert few.identity["tokens"] == KEPT
    total = int(few.samples["failure"].isna().sum())
    assert few.manifest["n_image_tokens"] == 16 * total
    assert few.manifest["n_image_tokens_drawn"] == KEPT * total


def test_another_number_of_tokens_is_another_extraction(vlm, easy_vqa, few):
    with pytest.raises(UserError, match="its tokens is 6, not 'all'"):
        kg.extract(vlm, easy_vqa, few.root, samples=SAMPLES, batch_size=8, tokens="all")
