"""What is read while answers are scored is of the prompt, however its answers are scored."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from keygap.align.baselines import build
from keygap.align.causes import watching
from keygap.align.causes.judging import Judge, Judged
from keygap.align.causes.watching import Watch
from keygap.benchmarks import InMemory
from keygap.bias.scoring import score_prepared

from .made_model import COLOURS, Colours, colours, tiny

PHRASING = "Hint: the answer is {answer}."


class SharedStart(Colours):
    """The same questions, with one more answer that begins with the first token of another."""

    @property
    def answers(self) -> tuple[str, ...]:
        return (*COLOURS, "red blue")


@pytest.fixture(scope="module")
def vlm():
    return tiny()


def mixed(count: int, with_options: int) -> InMemory:
    """Samples of which the first have options, whose letters differ in their first token."""
    samples = colours(count).samples
    lettered = [
        replace(each, options=COLOURS, answer="ABC"[COLOURS.index(str(each.answer))])
        for each in samples[:with_options]
    ]
    return SharedStart("mixed", [*lettered, *samples[with_options:]])


def judge_of(vlm, source: InMemory, batch_size: int, **settings: Any) -> Judge:
    known: dict[str, Any] = {
        "site": "k_proj", "gap_layers": (0, 1), "state_layers": (1,), "reading": (0, 1),
        "roles": ("question",), "n_bootstraps": 20,
    }  # fmt: skip
    judged = source.choose(len(source.samples), 0)
    return Judge(vlm, judged, [PHRASING], batch_size=batch_size, **{**known, **settings})


def by_sample(found: Judged) -> pd.DataFrame:
    table = found.samples.set_index("sample_id")[["image_attention", "gap"]].sort_index()
    assert table.notna().all(axis=None)
    return table


def by_layer(found: Judged) -> pd.Series:
    rows = found.rows[found.rows["measure"] != "seconds"]
    return rows.set_index(["measure", "layer", "variant"])["value"]


@pytest.mark.parametrize("site", ["k_proj", "key"])
def test_answers_that_share_a_first_token_are_judged_on_the_same_prompts(vlm, site):
    source = colours(24)
    shared = SharedStart("colours", source.samples)
    expected, found = (
        judge_of(vlm, each, 12, site=site).measure(nullcontext()) for each in (source, shared)
    )
    assert set(expected.rows["measure"]) >= {"image_attention", "mmd_squared", "readout"}
    pd.testing.assert_frame_equal(by_sample(found), by_sample(expected), atol=1e-5)
    pd.testing.assert_series_equal(by_layer(found), by_layer(expected), atol=1e-5)


def test_samples_of_one_batch_that_are_scored_in_two_ways_keep_their_own_numbers(vlm):
    together, alone = (
        by_sample(judge_of(vlm, mixed(6, 1), size).measure(nullcontext())) for size in (6, 1)
    )
    assert len(together) == 6
    pd.testing.assert_frame_equal(together, alone, atol=1e-5)


def test_samples_that_get_no_pass_under_an_intervention_are_left_out(vlm):
    judge = judge_of(vlm, mixed(9, 6), 9)
    before = by_sample(judge.measure(nullcontext()))
    vcd = build("vcd", alpha=0.5, plausibility=0.0)
    found = judge.measure(vlm.interventions.applied(vcd))
    without_pass = ["s6", "s7", "s8"]
    assert sorted(found.left_out) == without_pass
    pd.testing.assert_frame_equal(by_sample(found), before.drop(without_pass), atol=1e-5)


def test_a_pass_over_other_prompts_is_refused(vlm):
    (asked,) = judge_of(vlm, mixed(6, 1), 6).batches
    assert len(asked.chosen) == 2
    watch = Watch(vlm, "k_proj", [0], [], [])
    other = replace(asked.plain, groups=asked.plain.groups[1:])
    with (
        watch.entered(),
        watch.reading(asked.chosen[0]),
        pytest.raises(RuntimeError, match="has the shape"),
    ):
        score_prepared(vlm, other)


def test_answers_alone_are_measured_without_reading_attention(vlm, monkeypatch):
    """As a search does: attention at every layer, with intervals, would be computed for nothing."""
    source = colours(6)
    answers = ["sample_id", "correct", "followed", "margin", "hint_margin"]
    expected = judge_of(vlm, source, 6).measure(nullcontext()).samples[answers]
    monkeypatch.setattr(watching, "AttentionTap", None)
    alone = judge_of(vlm, source, 6, gap_layers=(), state_layers=(), reading=())
    found = alone.measure(nullcontext())
    assert set(found.rows["measure"]) == {"seconds"}
    assert found.samples[["image_attention", "gap"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(found.samples[answers], expected)
