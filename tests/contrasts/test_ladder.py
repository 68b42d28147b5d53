"""The ladder's contrasts select what they say, disjointly and repeatably."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygap.contrasts import CONTRASTS
from keygap.contrasts.confounds import without_sinks
from keygap.contrasts.contrast import NotMeasurable
from keygap.contrasts.labels import SINK_SHARE
from keygap.store.layer import with_grids


def labels_of(
    samples: int = 6, side: int = 4, words: int = 7, sinks: bool = False, caption: int = 0
) -> pd.DataFrame:
    """Labels of samples with a template token, side x side patches, a caption and a question."""
    rows = []
    for sample in range(samples):
        name = f"s{sample}"
        rows += [(name, 1, "text", "template", -1, -1, 9.0 if sinks else 1.0)]
        for row in range(side):
            for column in range(side):
                share = 7.0 if sinks and row == column == 0 else 0.5
                rows.append((name, 99, "image", "", row, column, share))
        rows += [(name, 200 + word, "text", "caption", -1, -1, 1.0) for word in range(caption)]
        rows += [
            (name, 100 + (sample + word) % 11, "text", "question", -1, -1, 1.0)
            for word in range(words)
        ]
    columns = ["sample_id", "token_id", "modality", "role", "patch_row", "patch_column"]
    frame = pd.DataFrame(rows, columns=[*columns, "attention"])
    return frame.assign(image=np.where(frame["modality"] == "image", 0, -1))


@given(
    samples=st.integers(4, 12),
    side=st.integers(2, 5),
    words=st.integers(2, 9),
    seed=st.integers(0, 99),
    name=st.sampled_from(sorted(CONTRASTS)),
)
def test_sides_are_disjoint_and_not_empty(samples, side, words, seed, name):
    labels = labels_of(samples, side, words, sinks=True, caption=3)
    a, b = CONTRASTS[name].select(labels, ["question"], seed)
    assert a.any()
    assert b.any()
    assert not (a & b).any()
    again = CONTRASTS[name].select(labels, ["question"], seed)
    assert all(np.array_equal(x, y) for x, y in zip((a, b), again, strict=True))


def test_policies_are_fields():
    """Only image_text is required and has confounds; only it and image_caption are gaps."""
    assert tuple(CONTRASTS) == (
        "image_text", "image_caption", "image_image", "text_text", "text_vocabulary",
        "image_region", "image_sink", "text_sink", "text_token",
    )  # fmt: skip
    assert all(CONTRASTS[name].name == name for name in CONTRASTS)
    gap = CONTRASTS["image_text"]
    assert (gap.rung, gap.pairing, gap.required, gap.with_confounds) == (
        "between", "within", True, True
    )  # fmt: skip
    caption = CONTRASTS["image_caption"]
    assert (caption.rung, caption.pairing, caption.needs_role) == ("between", "within", "caption")
    for name in tuple(CONTRASTS)[1:]:
        contrast = CONTRASTS[name]
        assert contrast.rung != "between" or name == "image_caption"
        assert not contrast.required
        assert not contrast.with_confounds


def test_halves_never_share_a_sample():
    labels = labels_of()
    for name in ("image_image", "text_text"):
        a, b = CONTRASTS[name].select(labels, ["question"], 0)
        assert set(labels["sample_id"][a]).isdisjoint(labels["sample_id"][b])
        assert labels["sample_id"][a].nunique() == labels["sample_id"][b].nunique()


def test_vocabulary_halves_share_no_word_and_are_level():
    labels = labels_of(samples=12)
    a, b = CONTRASTS["text_vocabulary"].select(labels, ["question"], 0)
    assert set(labels["token_id"][a]).isdisjoint(labels["token_id"][b])
    counts = labels["token_id"][a | b].value_counts()
    assert abs(int(a.sum()) - int(b.sum())) <= counts.max()


def test_the_middle_row_of_an_odd_number_is_on_neither_side():
    labels = labels_of(side=3)
    upper, lower = CONTRASTS["image_region"].select(labels, ["question"], 0)
    assert set(labels["patch_row"][upper]) == {0}
    assert set(labels["patch_row"][lower]) == {2}


def test_sinks_are_those_above_the_share():
    labels = labels_of(sinks=True)
    sinks, rest = CONTRASTS["image_sink"].select(labels, ["question"], 0)
    assert (labels["attention"][sinks] >= SINK_SHARE).all()
    assert (labels["attention"][rest] < SINK_SHARE).all()
    assert set(labels["modality"][sinks | rest]) == {"image"}
    sinks, _ = CONTRASTS["text_sink"].select(labels, ["question"], 0)
    assert set(labels["role"][sinks]) == {"template"}


@pytest.mark.parametrize("name", ["image_sink", "text_sink"])
def test_without_sinks_a_contrast_of_sinks_is_not_measurable(name):
    with pytest.raises(NotMeasurable, match="5 times its even share"):
        CONTRASTS[name].select(labels_of(), ["question"], 0)


def test_sinks_that_were_not_drawn_are_in_no_other_contrast():
    """Tokens that were chosen by the attention they receive would distort it."""
    labels = labels_of(sinks=True)
    extra = (labels["attention"] >= SINK_SHARE) & (labels["modality"] == "image")
    labels = labels.assign(drawn=~extra)
    for name in ("image_text", "image_image", "image_region"):
        for mask in CONTRASTS[name].select(labels, ["question"], 0):
            assert not (mask & extra).any()
    sinks, rest = CONTRASTS["image_sink"].select(labels, ["question"], 0)
    assert (sinks == extra).all()
    assert rest.any()


@pytest.mark.parametrize("name", ["image_sink", "text_sink", "text_token"])
def test_without_attention_sinks_are_unknown_and_not_absent(name):
    labels = labels_of(sinks=True).assign(attention=np.nan)
    with pytest.raises(NotMeasurable, match="does not say how much attention"):
        CONTRASTS[name].select(labels, ["question"], 0)
    with pytest.raises(NotMeasurable, match="does not say how much attention"):
        without_sinks(CONTRASTS["image_text"], labels, ["question"], 0)


def image_of(rows: int, columns: int, role: str = "", top: int = 0) -> pd.DataFrame:
    """Labels of one picture's patches; rows of padding above it have none."""
    places = [(row, column) for row in range(top, top + rows) for column in range(columns)]
    return pd.DataFrame(places, columns=["patch_row", "patch_column"]).assign(
        sample_id="s0", image=0, modality="image", role=role, attention=1.0
    )


@pytest.mark.parametrize(("rows", "columns"), [(48, 48), (18, 24)])
def test_a_thumbnail_is_halved_apart_from_its_image(rows, columns):
    """It is a coarser view with rows of its own, all of which lie above the middle of the tiles."""
    labels = pd.concat([image_of(24, 24, "thumbnail"), image_of(rows, columns)], ignore_index=True)
    upper, lower = CONTRASTS["image_region"].select(labels, ["question"], 0)
    for mask, thumbnail, tiles in (
        (upper, range(12), range(rows // 2)),
        (lower, range(12, 24), range(rows // 2, rows)),
    ):
        found = labels[mask]
        of_thumbnail = found["role"] == "thumbnail"
        assert set(found["patch_row"][of_thumbnail]) == set(thumbnail)
        assert set(found["patch_row"][~of_thumbnail]) == set(tiles)


def test_the_halves_of_a_padded_image_are_those_of_the_picture():
    """Rows 6 to 17 of a square of 24 show the picture."""
    padding = image_of(12, 24, "padding").assign(patch_row=-1, patch_column=-1)
    labels = pd.concat([padding, image_of(12, 24, top=6)], ignore_index=True)
    upper, lower = CONTRASTS["image_region"].select(labels, ["question"], 0)
    assert set(labels["patch_row"][upper]) == set(range(6, 12))
    assert set(labels["patch_row"][lower]) == set(range(12, 18))


def test_the_halves_of_an_image_are_those_of_the_whole_image():
    """A store that keeps rows 0 to 2 of 4 says which is the last."""
    labels = labels_of()
    kept = with_grids(labels)[labels["patch_row"] < 3].reset_index(drop=True)
    upper, lower = CONTRASTS["image_region"].select(kept, ["question"], 0)
    assert set(kept["patch_row"][upper]) == {0, 1}
    assert set(kept["patch_row"][lower]) == {2}


def test_the_word_beside_the_sink_occurs_once_in_a_sample_and_is_no_sink():
    labels = labels_of(sinks=True)  # token 1 is the sink, and occurs once in every sample
    breaks = labels[labels["role"] == "template"].assign(token_id=2, attention=1.0)
    once = breaks.assign(token_id=3)
    also = breaks.assign(token_id=4)  # as common: the lower id is taken
    labels = pd.concat([labels, breaks, breaks, also, once], ignore_index=True)
    one, rest = CONTRASTS["text_token"].select(labels, ["question"], 0)
    assert labels["token_id"][one].tolist() == [3] * 6
    assert (one | rest).sum() == (labels["modality"] == "text").sum()
