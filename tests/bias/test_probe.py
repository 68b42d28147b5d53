"""``kg.probe`` on the embedded model: planted truths, pairing, what is left out, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import keygap as kg
from keygap.benchmarks import Piece
from keygap.bias import PROBES, Condition, Probe, Variant, read_bias
from keygap.bias import probe as probe_module
from keygap.bias.condition import UNCHANGED
from keygap.bias.scoring import score
from keygap.bias.table import verdict_of
from keygap.errors import UserError
from made import bench_of, made_sample

ONE = {"phrasings": ["Hint: the answer is {answer}."], "positions": ["after"]}


@pytest.fixture(scope="module")
def asked(easy_vqa):
    return easy_vqa.choose(6, subjects=["shape", "colour"])


@pytest.fixture(scope="module")
def found(vlm, asked) -> kg.BiasTable:
    return kg.probe(vlm, asked, probes=[PROBES["hint"](**ONE), "absent"], n_bootstraps=50)


def row_of(table: kg.BiasTable, probe: str, condition: str) -> pd.Series:
    frame = table.frame
    return frame[(frame["probe"] == probe) & (frame["condition"] == condition)].iloc[0]


def test_answers_as_it_is_are_those_of_kg_answer(vlm, asked, found):
    expected = kg.answer(vlm, asked).frame.set_index("sample_id")
    own = found.samples[
        (found.samples["probe"] == "hint") & (found.samples["condition"] == "as_is")
    ]
    own = own.set_index("sample_id")
    assert own["chosen"].to_dict() == expected["chosen"].to_dict()
    assert row_of(found, "hint", "as_is")["accuracy"] == expected["correct"].mean()


def test_every_sample_is_under_every_condition(asked, found):
    counts = found.samples.groupby(["probe", "condition"])["sample_id"].nunique()
    assert set(counts) == {len(asked)}
    assert found.left_out.empty
    assert found.notes == []


def test_a_hint_has_an_effect_of_its_own_and_an_image_too(found):
    conflict = row_of(found, "hint", "conflict")
    own = found.samples[found.samples["condition"] == "conflict"]
    effect = own["hint_margin"] + own["margin_without"]
    assert conflict["hint_effect"] == pytest.approx(effect.mean())
    assert conflict["hint_effect_low"] > 0
    absent = found.differences.query("condition == 'absent' and measure == 'margin'").iloc[0]
    assert absent["high"] < 0


def test_the_numbers_of_a_sample_fit_together(found):
    own = found.samples
    assert (own["margin"] > 0).equals(own["correct"])
    right = own[own["correct"]]
    assert np.allclose(np.exp(right["log_probability"]), right["confidence"])
    assert own["entropy"].between(0, np.log(13)).all()
    agreed = own[own["condition"] == "agree"]
    assert (agreed["suggested"] == agreed["answer"]).all()
    assert agreed["followed"].tolist() == agreed["correct"].tolist()


def test_with_the_image_masked_answers_follow_the_text_alone(vlm, asked):
    with kg.mask(vlm, "image"):
        masked = kg.probe(vlm, asked, probes=[PROBES["hint"](**ONE), "blank"], n_bootstraps=50)
    conflict = row_of(masked, "hint", "conflict")
    assert conflict["tpr_high"] == 1
    assert conflict["tpr"] > 0.8
    assert row_of(masked, "blank", "blank")["verdict"] == "no answer changed"
    assert masked.settings["interventions"][0]["name"] == "mask"


def test_with_the_hint_masked_answers_follow_the_image_alone(vlm, asked):
    with kg.mask(vlm, "hint"):
        masked = kg.probe(vlm, asked, probes=[PROBES["hint"](**ONE)], n_bootstraps=50)
    conflict = row_of(masked, "hint", "conflict")
    assert conflict["verdict"] == "image only"
    assert conflict["tpr"] == 0
    assert conflict["changed"] == 0
    assert conflict["followed"] == 0


@pytest.mark.parametrize(
    ("text", "image", "low", "high", "changed", "verdict"),
    [
        (1, 0, 0.21, 1.0, 0.1, "undecided"),  # one decided answer says nothing
        (4, 0, 0.51, 1.0, 0.1, "text only"),
        (0, 4, 0.0, 0.49, 0.1, "image only"),
        (9, 1, 0.6, 0.98, 0.1, "text"),
        (1, 9, 0.02, 0.4, 0.1, "image"),
        (5, 5, 0.24, 0.76, 0.1, "undecided"),
        (0, 0, np.nan, np.nan, 0.1, "undecided"),
        (np.nan, np.nan, np.nan, np.nan, 0.0, "no answer changed"),
        (np.nan, np.nan, np.nan, np.nan, 0.1, ""),
    ],
)
def test_a_verdict_needs_an_interval_on_one_side_of_one_half(
    text, image, low, high, changed, verdict
):
    row = {"text": text, "image": image, "tpr_low": low, "tpr_high": high, "changed": changed}
    assert verdict_of(row) == verdict


def test_tables_come_back_from_their_files(found, tmp_path):
    found.save(tmp_path)
    back = read_bias(tmp_path)
    pd.testing.assert_frame_equal(back.summary(), found.summary())
    pd.testing.assert_frame_equal(back.differences, found.differences)
    assert back.settings["probes"]["hint"]["positions"] == ["after"]
    (tmp_path / "bias.csv").unlink()
    with pytest.raises(UserError, match="was not probed"):
        read_bias(tmp_path)


def test_bad_samples_and_unfit_ones_are_counted(vlm):
    bad = replace(made_sample("bad"), images=())
    kept = replace(made_sample("kept"), answer=None)
    choice = [
        replace(
            made_sample(name, colour=colour),
            options=("red", "blue"),
            answer=answer,
            prompt=(Piece("image"), Piece("text", text="Which? A. red B. blue")),
        )
        for name, colour, answer in (("one", "red", "A"), ("two", "blue", "B"))
    ]
    table = kg.probe(vlm, bench_of([bad, kept, *choice]), probes=["description", "absent"])
    reasons = table.left_out.groupby("reason")["samples"].max().to_dict()
    assert reasons["the right answer is not published"] == 1
    assert reasons["the sample has no image"] >= 1
    assert reasons["the sample has no caption"] == 3
    assert row_of(table, "absent", "absent")["n"] == 2
    assert any("no caption" in note for note in table.notes)


def test_where_no_condition_fits_any_sample_there_is_no_table(vlm):
    bench = bench_of([made_sample("a"), made_sample("b")])
    with pytest.raises(UserError, match="no caption"):
        kg.probe(vlm, bench, probes=["description"])


def test_a_probe_of_ones_own_is_asked_and_scored(vlm, asked):
    def shouted(sample, samples):
        pieces = [replace(p, text=p.text.upper()) for p in sample.prompt]
        return Variant(replace(sample, prompt=tuple(pieces)))

    own = Probe("loud", (UNCHANGED, Condition("shouted", shouted)), {"how": "upper case"})
    table = kg.probe(vlm, asked[:2], probes=[own])
    assert row_of(table, "loud", "shouted")["n"] == 2
    assert table.settings["probes"] == {"loud": {"how": "upper case"}}


@pytest.mark.parametrize(
    ("probes", "said"),
    [
        (["hints"], "did you mean 'hint'"),
        (["hint", "hint"], "twice"),
        ([], "probes"),
        ("hint", "probes"),
    ],
)
def test_wrong_lists_of_probes_are_refused(vlm, asked, probes, said):
    with pytest.raises(UserError, match=said):
        kg.probe(vlm, asked, probes=probes)


def test_a_probe_costs_a_forward_pass_for_each_condition(vlm, asked, found, monkeypatch):
    passes = []  # the check of batches was done when ``found`` was made
    forward = type(vlm).forward

    def counted(self, *arguments, **keywords):
        passes.append(1)
        return forward(self, *arguments, **keywords)

    monkeypatch.setattr(type(vlm), "forward", counted)
    kg.probe(vlm, asked, probes=[PROBES["hint"](**ONE), "blank", "absent"])
    assert len(passes) == 1 + 3 + 1 + 2  # as_is is shared


def test_a_model_that_needs_its_images_is_asked_the_other_conditions(
    vlm, asked, found, monkeypatch
):
    def needs_images(vlm, samples, candidates, *, pictures="shown"):
        if pictures != "shown":
            raise UserError("it cannot run so")
        return score(vlm, samples, candidates)

    monkeypatch.setattr(probe_module, "score", needs_images)
    table = kg.probe(vlm, asked, probes=[PROBES["hint"](**ONE)], n_bootstraps=20)
    assert row_of(table, "hint", "conflict")["n"] == len(asked)
    assert row_of(table, "hint", "conflict_absent")["n"] == 0
    assert np.isnan(row_of(table, "hint", "conflict")["tpr"])
    assert table.notes == [f"hint: {len(asked)} samples left out: it cannot run so"]
    with pytest.raises(UserError, match="it cannot run so"):
        kg.probe(vlm, asked, probes=["absent"])
