"""The table: its columns, its planted truth, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import yaml

import keygap as kg
from keygap.contrasts.ladder import CONTRASTS
from keygap.errors import UserError
from keygap.gap.core.standardise import standardise
from keygap.measurement import gap as gap_table
from keygap.projection import principal_components, tsne
from made import MadeStore, made_vectors


def test_one_row_per_layer_head_and_contrast(store, table):
    frame = table.frame
    assert list(frame.columns) == list(gap_table.COLUMNS)
    assert not frame.duplicated(["site", "layer", "head", "contrast", "confound"]).any()
    assert set(frame["head"]) == {"all", "0", "1", "2"}
    per_place = table.main.groupby(["layer", "contrast"]).size()
    assert (per_place == 4).all()
    numbers = frame.drop(columns=["ratio", "ratio_ci_low", "ratio_ci_high"]).select_dtypes("number")
    assert np.isfinite(numbers.to_numpy()).all()
    assert (frame["p_holm"] >= frame["p_value"]).all()
    assert (frame["mmd2_ci_low"] <= frame["mmd2"]).all()
    assert (frame["mmd2"] <= frame["mmd2_ci_high"]).all()
    assert frame["p_value"].between(1 / 361, 1).all()  # 40 swaps for each of 3 layers x 3 heads
    assert frame[frame["head"] == "all"]["p_value"].between(1 / 201, 1).all()


def test_image_and_text_differ_and_halves_do_not(table):
    whole = table.main.query("head == 'all'").set_index(["layer", "contrast"])
    for layer in (0, 15, 29):
        assert whole.loc[(layer, "image_text"), "mmd2"] > 0.1
        assert whole.loc[(layer, "image_text"), "p_value"] == pytest.approx(1 / 201)
        for same in ("image_image", "text_text"):
            assert abs(whole.loc[(layer, same), "mmd2"]) < 0.02


def test_a_missing_contrast_is_a_note(table):
    assert any("layer 0: no image_sink: no image token receives" in note for note in table.notes)


def test_saved_and_read_back(table, tmp_path):
    table.save(tmp_path)
    read = pd.read_csv(tmp_path / "gap.csv", dtype={"head": str})
    read["confound"] = read["confound"].fillna("")
    pd.testing.assert_frame_equal(read, table.frame, check_dtype=False)
    assert set(pd.read_csv(tmp_path / "jsd.csv")["jsd_dim"]) == {2, 5, 10, 50}


def test_what_was_asked_stands_beside_the_tables(store, table, tmp_path):
    table.save(tmp_path)
    asked = yaml.safe_load((tmp_path / "measurement.yaml").read_text())
    assert asked == table.settings
    assert asked["text_roles"] == ["question"]
    assert (asked["n_permutations"], asked["n_bootstraps"], asked["seed"]) == (200, 200, 0)
    assert asked["contrasts"][0] == {
        "name": "image_text", "rung": "between", "what": "image tokens, text of the chosen roles"
    }  # fmt: skip
    assert "image_sink" in [item["name"] for item in asked["contrasts"]]  # though not measured
    options = {"n_permutations": 1, "n_bootstraps": 1, "layers": [0], "contrasts": ["image_text"]}
    other = kg.measure(store, text_roles=["question", "template"], **options)
    assert other.main["n_b"].iloc[0] > table.main.query("contrast == 'image_text'")["n_b"].iloc[0]
    other.save(tmp_path)
    again = yaml.safe_load((tmp_path / "measurement.yaml").read_text())
    assert again["text_roles"] == ["question", "template"]


def test_a_save_that_stops_midway_leaves_no_record_of_another_measurement(
    table, tmp_path, monkeypatch
):
    table.save(tmp_path)

    def full(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr(type(table.shape), "save", full)
    with pytest.raises(UserError, match="disk is full"):
        table.save(tmp_path)
    assert (tmp_path / "gap.csv").is_file()
    assert not (tmp_path / "measurement.yaml").exists()


def test_a_run_with_nothing_to_measure_keeps_its_columns(store, tmp_path):
    none = kg.measure(store, layers=[0], contrasts=["image_sink"])
    assert none.frame.empty
    none.save(tmp_path)
    read = pd.read_csv(tmp_path / "jsd.csv")
    assert list(read.columns) == list(gap_table.PROFILE_COLUMNS)


def test_one_word_is_never_the_highest(store):
    """A contrast whose one side is one repeated word has the rung ``single``."""
    word = CONTRASTS["text_vocabulary"]
    single = dataclasses.replace(word, name="one_word", rung="single", draws=1)
    options = {"n_permutations": 1, "n_bootstraps": 1, "layers": [0]}
    row = kg.measure(store, contrasts=["image_text", single], **options).summary().iloc[0]
    assert (row["highest"], row["interval"]) == ("", "")


def test_the_null_band_holds_zero_and_not_the_gap(table):
    whole = table.main.query("contrast == 'image_text'")
    assert (whole["mmd2_null_low"] < 0).all()
    assert (whole["mmd2_null_high"] > 0).all()
    assert (whole["mmd2_null_high"] < 0.5 * whole["mmd2"]).all()


def test_saturation_is_marked(table):
    marked = table.profile.dropna(subset="jsd_saturates_at")
    first = marked[marked["jsd_dim"] == marked["jsd_saturates_at"]]
    assert (first["jsd_nats"] >= 0.95 * np.log(2)).all()
    before = marked[marked["jsd_dim"] < marked["jsd_saturates_at"]]
    assert (before["jsd_nats"] < 0.95 * np.log(2)).all()
    assert set(table.profile.query("jsd_saturates_at.isna()")["contrast"]) >= {"text_text"}


def test_non_finite_vectors_name_the_layer_and_the_sample(store, tmp_path, monkeypatch):
    vectors = store.vectors("k_proj", 15)
    broken = vectors.array.copy()
    broken[100, 1, 7] = np.nan
    monkeypatch.setattr(type(store), "vectors", lambda *_: type(vectors)(broken, vectors.labels))
    sample = vectors.labels["sample_id"].iloc[100]
    with pytest.raises(UserError, match=f"k_proj at layer 15 are NaN.*in sample {sample} at pos"):
        kg.measure(store, layers=[15])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"contrasts": ["image_txt"]}, "did you mean 'image_text'"),
        ({"sites": ["v_proj"]}, "unknown site 'v_proj'"),
        ({"layers": [3]}, "unknown layer '3'"),
        ({"contrasts": ["text_text", "text_text"]}, "'text_text' stands there 2 times"),
        ({"text_roles": ["question", "options"]}, "unknown role 'options'; did you mean 'option'"),
        ({"text_roles": ["answer"]}, "the run has no text tokens to compare"),
    ],
)
def test_what_is_not_there_is_one_line(store, arguments, line):
    with pytest.raises(UserError) as error:
        kg.measure(store, **arguments)
    assert line in str(error.value)


def test_too_few_samples_is_one_line(vlm, easy_vqa, tmp_path):
    few = kg.extract(vlm, easy_vqa, tmp_path / "few", layers=[0], samples=3)
    with pytest.raises(UserError, match=r"too few samples.*3 samples on a side, 4 are needed"):
        kg.measure(few)


def test_standardise_weighs_both_sides_the_same():
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (50, 5)).astype(np.float32)
    y = rng.normal(-1.0, 1.0, (5000, 5)).astype(np.float32)
    a, b = standardise(x, y)
    np.testing.assert_allclose(a.mean(0) + b.mean(0), 0, atol=1e-5)
    second = (a.astype(np.float64) ** 2).mean(0) + (b.astype(np.float64) ** 2).mean(0)
    np.testing.assert_allclose(second, 2, rtol=1e-5)


def test_a_constant_column_becomes_zero():
    x = np.ones((10, 2), np.float32)
    a, b = standardise(x, x)
    assert not a.any()
    assert not b.any()


def test_tsne_keeps_two_far_clusters_apart_and_repeats():
    rng = np.random.default_rng(0)
    array = np.concatenate([rng.normal(0, 1, (100, 20)), rng.normal(30, 1, (100, 20))])
    plane = tsne(principal_components(array, 10, seed=0), perplexity=20, seed=0)
    assert plane.shape == (200, 2)
    centres = plane[:100].mean(0), plane[100:].mean(0)
    spread = max(plane[:100].std(), plane[100:].std())
    assert np.linalg.norm(centres[0] - centres[1]) > spread
    np.testing.assert_array_equal(plane, tsne(principal_components(array, 10, seed=0), 20, 0))


def test_too_few_tokens_for_tsne_is_one_line():
    with pytest.raises(UserError, match="too few for t-SNE"):
        tsne(np.zeros((50, 3)), perplexity=30)


def test_a_few_tokens_of_each_sample_say_nearly_what_all_of_them_say(store, table):
    options = {
        "contrasts": ["image_text", "image_region"],
        "n_permutations": 50,
        "n_bootstraps": 50,
    }
    few = kg.measure(store, tokens_per_sample=4, **options)
    again = kg.measure(store, tokens_per_sample=4, **options)
    assert few.frame.equals(again.frame)
    thinned, whole = (
        t.main[t.main["head"] == "all"].set_index(["layer", "contrast"]) for t in (few, table)
    )
    for place, row in thinned.iterrows():
        everything = whole.loc[place]
        assert row["n_a"] == min(4 * row["n_samples"], everything["n_a"])
        assert row["n_samples"] == everything["n_samples"]
        # samples are the unit: leaving tokens out costs less than an interval is wide
        width = everything["mmd2_ci_high"] - everything["mmd2_ci_low"]
        assert abs(row["mmd2"] - everything["mmd2"]) < width


def test_matched_positions_stay_matched_when_tokens_are_left_out():
    options = {"contrasts": ["image_text"], "n_permutations": 1, "n_bootstraps": 1}
    made = MadeStore(made_vectors(60, pictures=(4, 9, 14, 21), words=12))
    rows = [
        kg.measure(made, tokens_per_sample=limit, **options).frame.query(
            "confound == 'position_matched'"
        )
        for limit in (2, None)
    ]
    assert len(rows[0]) == 1
    columns = ["n_a", "n_b", "mmd2"]
    np.testing.assert_array_equal(rows[0][columns], rows[1][columns])


def test_a_gap_with_nothing_of_kind_beside_it_says_so_by_blanks(store):
    options = {"n_permutations": 1, "n_bootstraps": 1, "layers": [0]}
    (row,) = kg.measure(store, contrasts=["image_text"], **options).summary().to_dict("records")
    assert (row["highest"], row["interval"]) == ("", "")
    assert np.isnan(row["ratio_kind"])
