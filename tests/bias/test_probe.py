"""``kg.probe`` on the embedded model: planted truths, pairing, what is left out, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import keygap as kg
from keygap.benchmarks import InMemory, Piece
from keygap.bias import PROBES, Condition, Probe, Variant, read_bias
from keygap.bias import probe as probe_module
from keygap.bias.condition import UNCHANGED
from keygap.bias.link_inputs import outcome_of
from keygap.bias.scoring import Scored, score
from keygap.bias.table import NUMBERS, verdict_of
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


def test_the_outcome_of_the_link_is_that_of_answers_with_the_image(found):
    own = found.samples.set_index("sample_id")
    shown, absent = (
        own["hint_margin"][own["condition"] == name] for name in ("conflict", "conflict_absent")
    )
    outcome = outcome_of(found.samples).values
    pd.testing.assert_series_equal(outcome.sort_index(), shown.sort_index())
    assert (absent - outcome).abs().min() > 1e-3


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


EXCLUDED = -np.inf


@pytest.mark.parametrize(
    ("logs", "entropy", "margin"),
    [
        ({"red": -1.0, "blue": -1.0, "green": EXCLUDED}, np.log(2), 0.0),
        ({"red": EXCLUDED, "blue": -1.0, "green": -1.0}, np.log(2), np.nan),
        ({"red": -1.0, "blue": EXCLUDED, "green": EXCLUDED}, 0.0, np.nan),
    ],
)
def test_excluded_answers_have_no_margin_and_no_part_in_the_entropy(logs, entropy, margin):
    scored = Scored("a", max(logs, key=lambda name: logs[name]), logs)
    row = probe_module.row_of(made_sample("a"), scored, scored, "green")  # the answer is red
    assert row["entropy"] == pytest.approx(entropy)
    assert row["margin"] == pytest.approx(margin, nan_ok=True)
    numbers = [row[name] for name in NUMBERS]
    assert not np.isinf(numbers).any()
    assert np.isnan([row[name] for name in ("hint_margin", "margin_without", "hint_effect")]).all()


def test_answers_without_a_margin_are_counted_and_not_averaged(vlm, asked, monkeypatch):
    def without_right(vlm, samples, candidates, *, pictures="shown"):
        """The first sample's right answer is excluded."""
        found, bad = score(vlm, samples, candidates, pictures=pictures)
        logs = {**found[0].log_probability, samples[0].answer: EXCLUDED}
        first = Scored(found[0].sample_id, max(logs, key=lambda name: logs[name]), logs)
        return [first, *found[1:]], bad

    monkeypatch.setattr(probe_module, "score", without_right)
    table = kg.probe(vlm, asked, probes=["absent"], n_bootstraps=20)
    row = row_of(table, "absent", "as_is")
    own = table.samples.query("condition == 'as_is'")
    assert row["n"] == len(asked)
    assert row["margin"] == pytest.approx(own["margin"].dropna().mean())
    assert np.isfinite(row[["margin", "margin_low", "margin_high", "entropy"]].astype(float)).all()
    (note,) = table.missing
    assert note.startswith("absent: 3 answers without a margin: ")


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


def test_a_variant_may_have_any_name(found, tmp_path):
    frame = found.frame.assign(variant="NA")
    differences = found.differences.assign(variant="none")
    replace(found, frame=frame, differences=differences).save(tmp_path)
    back = read_bias(tmp_path)
    assert set(back.frame["variant"]) == {"NA"}
    assert set(back.differences["variant"]) == {"none"}


def test_one_sample_is_left_out_in_the_singular(found):
    rows = [("hint", "conflict", "", "why", 1), ("hint", "agree", "", "because", 2)]
    left_out = pd.DataFrame(rows, columns=list(found.left_out.columns))
    table = replace(found, left_out=left_out)
    assert table.notes == ["hint: 2 samples left out: because", "hint: 1 sample left out: why"]


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


def test_an_answer_that_is_spelled_otherwise_than_its_candidate_is_left_out(vlm):
    """``kg.answer``, ``kg.probe`` and ``kg.reading_layers`` leave out the same samples."""
    samples = [replace(made_sample(name), answer=name) for name in ("Red", "red", "blue")]

    class Closed(InMemory):
        answers = ("red", "blue")

    bench = Closed("closed", samples)
    assert set(kg.answer(vlm, bench).left_out) == {"Red"}
    table = kg.probe(vlm, bench, probes=["absent"], n_bootstraps=5)
    (reason,) = table.left_out["reason"]
    assert reason == "the answer 'Red' is not among the options red, blue"
    with pytest.raises(UserError, match=r"2 samples can be scored.* the answer 'Red' is not among"):
        kg.reading_layers(vlm, bench, layers=[0])


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
