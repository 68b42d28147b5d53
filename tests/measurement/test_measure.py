"""``kg.measure`` on the embedded model: planted truth, families of tests, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import keygap as kg
from keygap.errors import UserError
from keygap.measurement.views import GAP_COLUMNS
from made import made_store, made_vectors

FEW: dict[str, Any] = {"n_permutations": 1, "n_bootstraps": 1}


def test_one_row_per_layer_head_and_contrast(table):
    frame = table.frame
    assert tuple(frame.columns) == GAP_COLUMNS
    assert not frame.duplicated(["site", "layer", "head", "contrast", "confound"]).any()
    assert set(frame["head"]) == {"all", "0", "1", "2"}
    per_contrast = table.main.groupby(["layer", "contrast"]).size()
    assert (per_contrast == 4).all()
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


def test_only_gaps_between_modalities_have_confounds_and_ratios(table):
    frame = table.frame
    assert set(frame.loc[frame["confound"] != "", "contrast"]) == {"image_text"}
    assert set(frame.loc[frame["ratio"].notna(), "contrast"]) == {"image_text"}
    assert frame.query("contrast == 'image_text' and confound == ''")["ratio"].notna().all()


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


def test_rows_of_the_jsd_say_how_many_vectors_it_used(table):
    rows = table.statistics.query("statistic == 'jsd'")
    used = rows["settings"].map(json.loads)
    fewer = rows[["n_a", "n_b"]].min(axis=1)
    assert (rows["n_a"] != rows["n_b"]).any()
    for side in ("n_x", "n_y"):
        assert used.map(lambda settings, side=side: settings[side]).tolist() == fewer.tolist()


def test_p_is_adjusted_over_layers_for_every_tested_number(table):
    """The gap of the means is tested at three layers, all heads together, by 200 label swaps."""
    rows = table.statistics.query("statistic == 'modality_gap'")
    assert rows["p_value"].tolist() == pytest.approx([1 / 201] * 3)
    assert rows["p_holm"].tolist() == pytest.approx([3 / 201] * 3)
    untested = table.statistics[table.statistics["p_value"].isna()]
    assert untested["p_holm"].isna().all()


def test_tests_with_too_few_swaps_for_their_family_are_not_adjusted(table):
    rows = table.statistics.query("statistic == 'frechet'")
    assert len(rows) == 3
    assert (rows["p_value"] >= 1 / 21).all()  # of three such tests, none could be below 0.14
    assert rows["p_holm"].isna().all()


def test_every_test_makes_the_label_swaps_that_were_asked_for():
    store = made_store(made_vectors(gap=1.0))
    rows = kg.measure(
        store, contrasts=["image_text"], n_permutations=2000, n_bootstraps=20
    ).statistics.set_index("statistic")  # fmt: skip
    for name in ("modality_gap", "c2st_accuracy", "mmd2"):
        assert rows.loc[[name], "p_value"].min() == pytest.approx(1 / 2001), name


def test_holm_can_be_significant_for_many_heads_and_layers():
    """A family of 16 tests makes 16 x 40 swaps, since 100 swaps could not get below 0.16."""
    one = made_vectors(gap=1.0)
    vectors = type(one)(np.repeat(one.array, 4, axis=1), one.labels)  # 8 heads
    store = made_store(vectors, range(2))
    main = kg.measure(
        store, contrasts=["image_text"], n_permutations=100, n_bootstraps=20
    ).main  # fmt: skip
    for heads, tests in ((main["head"] == "all", 2), (main["head"] != "all", 16)):
        rows = main[heads]
        assert len(rows) == tests
        np.testing.assert_allclose(rows["p_holm"].min(), tests * rows["p_value"].min())
        assert rows["p_holm"].min() < 0.026


def test_non_finite_vectors_name_the_layer_and_the_sample(store, monkeypatch):
    vectors = store.vectors("k_proj", 15)
    broken = vectors.array.copy()
    broken[100, 1, 7] = np.nan
    monkeypatch.setattr(type(store), "layer", lambda *_: type(vectors)(broken, vectors.labels))
    sample = vectors.labels["sample_id"].iloc[100]
    with pytest.raises(UserError, match=f"k_proj at layer 15 are NaN.*in sample {sample} at pos"):
        kg.measure(store, layers=[15])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"contrasts": ["image_txt"]}, "did you mean 'image_text'"),
        ({"sites": ["v_proj"]}, "unknown site 'v_proj'"),
        ({"layers": [3]}, "unknown layer '3'"),
        ({"contrasts": ["text_text", "text_text"]}, "'text_text' is listed 2 times"),
        ({"text_roles": ["question", "options"]}, "unknown role 'options'; did you mean 'option'"),
        ({"text_roles": ["answer"]}, "the run has no text tokens to compare"),
    ],
)
def test_what_is_not_there_is_one_line(store, arguments, line):
    with pytest.raises(UserError) as error:
        kg.measure(store, **arguments)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_too_few_samples_is_one_line(vlm, easy_vqa, tmp_path):
    few = kg.extract(vlm, easy_vqa, tmp_path / "few", layers=[0], samples=3)
    with pytest.raises(UserError, match=r"too few samples.*3 samples on a side, 4 are needed"):
        kg.measure(few)


def test_a_few_tokens_of_each_sample_say_nearly_what_all_of_them_say(store, table):
    options: dict[str, Any] = {
        "layers": [15],
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
    for index in thinned.index:
        row, everything = thinned.loc[index], whole.loc[index]
        assert row["n_a"] == min(4 * row["n_samples"], everything["n_a"])
        assert row["n_samples"] == everything["n_samples"]
        # samples are the unit: leaving tokens out costs less than an interval is wide
        width = everything["mmd2_ci_high"] - everything["mmd2_ci_low"]
        assert abs(row["mmd2"] - everything["mmd2"]) < width


def test_matched_positions_stay_matched_when_tokens_are_left_out():
    made = made_store(made_vectors(60, pictures=(4, 9, 14, 21), words=12))
    rows = [
        kg.measure(
            made, contrasts=["image_text"], tokens_per_sample=limit, **FEW
        ).frame.query("confound == 'position_matched'")
        for limit in (2, None)
    ]  # fmt: skip
    assert len(rows[0]) == 1
    columns = ["n_a", "n_b", "mmd2"]
    np.testing.assert_array_equal(rows[0][columns], rows[1][columns])
