"""The first screen of a report: golden sentences for every rule, numbers that claim no more."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from keygap.gap.core import cautions
from keygap.reporting.headline import FEW_SAMPLES, headline, verdicts
from keygap.reporting.notes import notes_of
from keygap.reporting.numbers import least_p, near_zero, p_value
from keygap.reporting.run import Run, read_run


@pytest.fixture(scope="module")
def measured(two_sites) -> Run:
    return read_run(two_sites)


def changed(
    run: Run,
    accuracy: float | None = 0.9,
    saturates_at: int | None = None,
    others: dict[str, Any] | None = None,
    **values: Any,
) -> Run:
    """A run with one gap, at layer 3 of ``k_proj``, and one other contrast of given values."""
    frame = run.table.frame
    row = frame[(frame["rung"] == "between") & (frame["head"] == "all") & (frame["confound"] == "")]
    fixed: dict[str, Any] = {
        "model": "m", "site": "k_proj", "layer": 3, "contrast": "image_text", "n_samples": 200,
        "mmd2": 0.3, "mmd2_ci_low": 0.28, "mmd2_ci_high": 0.32, "ratio": 2.0, "ratio_ci_low": 1.8,
        "ratio_ci_high": 2.2, "highest": "text_vocabulary", "jsd_nats": 0.4,
    }  # fmt: skip
    own = row.head(1).assign(**{**fixed, **values})
    kind = own.assign(contrast="text_vocabulary", rung="kind", mmd2=0.15, ratio=np.nan)
    kind = kind.assign(**(others or {}))
    profile = run.table.profile.head(1).assign(
        site="k_proj", layer=3, contrast="image_text", jsd_saturates_at=saturates_at
    )
    frame = pd.concat([own, kind], ignore_index=True)
    table = dataclasses.replace(run.table, frame=frame, profile=profile)
    scored = None
    if accuracy is not None:
        scored = pd.DataFrame({"rule": ["all"], "correct": [9], "total": [10]})
        scored["accuracy"] = accuracy
    manifest = {**run.manifest, "model": "m", "benchmark": "b"}
    return Run(run.root, manifest, table, None, scored)


FAR = (
    "Image and text are farther apart than the two most distant kinds of token inside one modality "
    "(text_vocabulary): their MMD² is 2.00 times (95 % intervals from 1.80 to 2.20) as large, at "
    "layer 3."
)
UNDECIDED = (
    "Image and text are not shown to be farther apart or nearer to each other than the two most "
    "distant kinds of token inside one modality (text_vocabulary): their MMD² is"
)
SCORED = "Accuracy (all): 0.90, over 10 scored answers."
NO_RATIO = dict.fromkeys(("ratio", "ratio_ci_low", "ratio_ci_high"), math.nan)
GOLDEN: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "far": ({}, f"{FAR} Measured on 200 samples. {SCORED}", []),
    "few samples": (
        {"n_samples": 19},
        f"{FAR} Measured on 19 samples. {SCORED}",
        ["19 samples, fewer than 20: intervals and p-values are rough."],
    ),
    "an interval that spans 1": (
        {"ratio": 1.1, "ratio_ci_low": 0.9, "ratio_ci_high": 1.3},
        f"{UNDECIDED} 1.10 times (95 % intervals from 0.90 to 1.30) as large, at layer 3. Measured "
        f"on 200 samples. {SCORED}",
        [
            "At layer 3 the interval of the ratio includes 1: there the gap cannot be "
            "distinguished from a distance inside one modality."
        ],
    ),
    "as many samples as were checked": (
        {"n_samples": 20},
        f"{FAR} Measured on 20 samples. {SCORED}",
        [],
    ),
    "one sample": (
        {"n_samples": 1, "accuracy": None},
        f"{FAR} Measured on 1 sample; answers were not scored.",
        ["1 sample, fewer than 20: intervals and p-values are rough."],
    ),
    "nearer": (
        {"ratio": 0.5, "ratio_ci_low": 0.4, "ratio_ci_high": 0.6},
        "Image and text are nearer to each other than the two most distant kinds of token inside "
        "one modality (text_vocabulary): their MMD² is 0.50 times (95 % intervals from 0.40 to "
        "0.60) as large, at layer 3. Measured on 200 samples. " + SCORED,
        [],
    ),
    "no samples in common": (
        NO_RATIO,
        f"MMD² of image and text is 0.300 at layer 3. Measured on 200 samples. {SCORED}",
        [
            "At layer 3, no contrast inside one modality shares samples with the gap, so there is "
            "no ratio."
        ],
    ),
    "nothing beside it": (
        {**NO_RATIO, "others": {"rung": "same"}},
        f"MMD² of image and text is 0.300 at layer 3. Measured on 200 samples. {SCORED}",
        [
            "At layer 3, nothing inside one modality was measured, so the size of the gap cannot "
            "be judged."
        ],
    ),
    "no gap": (
        {**NO_RATIO, "mmd2": -0.0004},
        f"MMD² of image and text is 0.000 at layer 3. Measured on 200 samples. {SCORED}",
        ["At layer 3, MMD² of image and text is not above 0: there is no gap, and no ratio."],
    ),
    "no distance inside a modality": (
        {**NO_RATIO, "others": {"mmd2": -0.001}},
        f"MMD² of image and text is 0.300 at layer 3. Measured on 200 samples. {SCORED}",
        ["At layer 3, no MMD² inside one modality is above 0, so there is no ratio."],
    ),
    "an interval without an end": (
        {"ratio_ci_low": 0.0, "ratio_ci_high": math.inf},
        f"{UNDECIDED} 2.00 times (95 % intervals from 0.00 to no bound) as large, at layer 3. "
        f"Measured on 200 samples. {SCORED}",
        [
            "At layer 3 the interval of the ratio includes 1: there the gap cannot be "
            "distinguished from a distance inside one modality."
        ],
    ),
    "saturated": (
        {"saturates_at": 2},
        f"{FAR} Measured on 200 samples. {SCORED}",
        [
            "At layer 3 the JSD is saturated in 2 components: it says that the sides can be told "
            "apart, and not how far apart they are."
        ],
    ),
    "not scored": (
        {"accuracy": None},
        f"{FAR} Measured on 200 samples; answers were not scored.",
        [],
    ),
}


def test_few_samples_are_those_of_which_a_measurement_warns():
    assert FEW_SAMPLES == cautions.FEW_SAMPLES


@pytest.mark.parametrize(
    ("lows", "claim"),
    [
        ((1.2, 1.1), "farther apart than"),
        ((1.2, 0.9), "farther apart at 1 of 2 layers than"),
        ((1.2, 0.1), "farther apart at 1 and nearer to each other at 1 of 2 layers than"),
        ((0.9, 0.1), "nearer to each other at 1 of 2 layers than"),
        ((0.2, 0.1), "nearer to each other than"),
        ((0.9, 0.8), "not shown to be farther apart or nearer to each other than"),
    ],
)
def test_a_claim_over_layers_is_true_of_them(measured, lows, claim):
    """Each interval of a ratio is 0.3 wide."""
    run = changed(measured)
    frame = run.table.frame
    rows = [
        frame.assign(layer=n, ratio=low + 0.1, ratio_ci_low=low, ratio_ci_high=low + 0.3)
        for n, low in enumerate(lows)
    ]
    table = dataclasses.replace(run.table, frame=pd.concat(rows, ignore_index=True))
    (found,) = verdicts([dataclasses.replace(run, table=table)], [False])
    assert found.sentence.startswith(f"Image and text are {claim} the two most distant kinds")


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_sentences(measured, case):
    values, sentence, cautions = GOLDEN[case]
    found = verdicts([changed(measured, **values)], [False])
    assert [(one.title, one.sentence, one.cautions) for one in found] == [
        ("m on b, k_proj", sentence, cautions)
    ]


@pytest.mark.parametrize(
    ("probed", "said"),
    [(True, "Text bias was measured too"), (False, "Text bias was not measured here")],
)
def test_what_does_not_follow_depends_on_whether_bias_was_measured(measured, probed, said):
    (found,) = verdicts([changed(measured)], [probed])
    assert found.not_said.startswith("A distance does not say that the model overlooks its image")
    assert said in found.not_said


def test_identical_prompts_are_a_caution(measured):
    run = changed(measured)
    run.__dict__["identical_prompts"] = True  # a cached property, as a store would give it
    (found,) = verdicts([run], [False])
    assert found.cautions == [
        "All prompts have the same text, so text tokens are copies of each other."
    ]
    assert not measured.identical_prompts  # of real questions


def test_the_first_table_has_at_most_seven_columns_and_the_numbers_of_gap_csv(measured):
    rows = headline([measured])
    assert len(rows) == 2 * 2
    assert all(len(row) <= 7 for row in rows)
    frame = measured.table.main
    gaps = frame[(frame["rung"] == "between") & (frame["head"] == "all")]
    for row, own in zip(rows, gaps.to_dict("records"), strict=True):
        assert row["gap"].startswith(f"{own['mmd2']:.3f} ({own['mmd2_ci_low']:.3f} to")
        assert row["ratio"].startswith(f"{own['ratio']:.2f} (")


def test_notes_are_one_line_for_each_reason(measured):
    notes = (
        "m, k_proj, layer 0: no image_sink: no image token receives 5 times its share",
        "m, k_proj, layer 3: no image_sink: no image token receives 5 times its share",
        "m, k_proj, layer 0: caution, text_text: a: 100 samples, only 62 of them different: x",
        "m, k_proj, layer 0: caution, text_text: b: 100 samples, only 61 of them different: x",
        "something without a place {and} braces",
    )
    run = dataclasses.replace(measured, table=dataclasses.replace(measured.table, notes=notes))
    found = notes_of([run])
    assert found.skipped == [
        "no image token receives 5 times its share (image_sink; k_proj at layers 0, 3)",
        "something without a place {and} braces",
    ]
    assert found.cautions == [
        "100 samples, only 61 to 62 of them different: x (text_text (a), text_text (b); k_proj at "
        "layer 0)"
    ]


def test_notes_name_the_benchmark_and_all_only_where_every_run_has_them(measured):
    everywhere, once = (f"m, k_proj, layer 0: no {what}: {what} is missing" for what in ("a", "b"))

    def run(benchmark: str, *notes: str) -> Run:
        table = dataclasses.replace(measured.table, notes=notes)
        manifest = {**measured.manifest, "benchmark": benchmark}
        return dataclasses.replace(measured, table=table, manifest=manifest)

    found = notes_of([run("first", everywhere, once), run("second", everywhere)])
    assert found.skipped == [
        "a is missing (a; k_proj at layer 0; all runs)",
        f"b is missing (b; k_proj at layer 0; {measured.model} on first)",
    ]


def test_a_p_value_that_no_swap_reached_is_a_bound():
    assert p_value(1 / 1001, 1000) == "≤ 0.001"
    assert p_value(2 / 1001, 1000) == "0.002"
    assert p_value(0.04) == "0.04"
    assert p_value(math.nan, 10) == ""


def test_a_number_inside_its_null_band_is_0(measured):
    assert near_zero(-0.0002, -0.0004, 0.0003) == "0 ± 0.0004"
    assert near_zero(0.25, -0.0004, 0.0003) == "0.2500"
    swaps = least_p(measured.table.statistics)
    assert swaps[("k_proj", 0)] == max(20, 40 * 2)  # 40 for each of two layers


def test_layers_without_a_gap_are_named_apart_and_not_counted(measured):
    run = changed(measured)
    frame = run.table.frame
    none = frame.assign(layer=0, **NO_RATIO)
    none.loc[none["rung"] == "between", "mmd2"] = -0.0004
    table = dataclasses.replace(run.table, frame=pd.concat([none, frame], ignore_index=True))
    run = dataclasses.replace(run, table=table)
    (found,) = verdicts([run], [False])
    assert found.sentence.startswith(FAR)
    assert found.cautions == [
        "At layer 0, MMD² of image and text is not above 0: there is no gap, and no ratio."
    ]
    first, second = headline([run])
    assert (first["highest"], first["ratio"]) == ("no gap", "")
    assert second["highest"] == "text_vocabulary 0.150"
