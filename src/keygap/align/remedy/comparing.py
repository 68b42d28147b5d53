"""Candidates against the model as it is, paired by sample, and the rule that chooses one.

A choice among many candidates makes the chosen one look better than it is: of a hundred changes
without any effect, the best one lowers following by chance. So the differences of the choosing set
only choose, and the claim rests on samples with other images that no choice has seen. Nothing here
needs a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from keygap.align.causes.points import Point
from keygap.align.causes.tables import POINT_COLUMNS
from keygap.bias.intervals import Interval, mean, paired_proportions
from keygap.bias.table import ALL
from keygap.progress import track

CHOOSING, TEST, SECOND = "choosing", "test", "second"
STAGES = (CHOOSING, TEST, SECOND)
COLUMNS = (
    "model", "benchmark", "stage", *POINT_COLUMNS, "n_layers", "parameters", "measure", "variant",
    "before", "after", "difference", "ci_low", "ci_high", "n", "missing",
)  # fmt: skip
_SHARES = {"following": "followed", "accuracy_conflict": "correct_conflict"}
_NUMBERS = ("hint_effect",)
_ROUNDING = 1e-9  # of a difference of two shares


@dataclass(frozen=True)
class Answers:
    """What a model answered under one point.

    Attributes:
        samples: ``SAMPLE_COLUMNS`` of the experiment on causes, without ``point``.
        n_layers: layers at which the point acts.
        parameters: the numbers that it adds to the model.
    """

    samples: pd.DataFrame
    n_layers: int = 0
    parameters: int = 0


@dataclass(frozen=True)
class Rule:
    """How a candidate is chosen, and when it is confirmed.

    Attributes:
        most_loss: of accuracy without a hint, as a share of samples.
        n_bootstraps: resamplings of samples behind intervals of means.
        seed: of the resamplings.
    """

    most_loss: float
    n_bootstraps: int
    seed: int

    def candidates(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The candidates on the choosing set, the best one first.

        A candidate ``lowers`` following if the interval of the difference, all phrasings together,
        lies below 0. It ``keeps`` accuracy if the estimated loss without a hint is at most
        ``most_loss``. It is ``complete`` if every sample that the model as it is answers is
        answered. Those with all three come first, the one that lowers following most before all
        others; of equal ones the one with fewer parameters, then fewer layers, then the smaller
        strength.

        Args:
            frame: ``COLUMNS``.

        Returns:
            One row per candidate: ``POINT_COLUMNS``, ``n_layers``, ``parameters``, ``following``
            and ``accuracy`` as differences with their intervals, ``complete``, ``lowers``,
            ``keeps`` and ``eligible``.
        """
        rows = frame[(frame["stage"] == CHOOSING) & frame["variant"].isin([ALL, ""])]
        found = rows[[*POINT_COLUMNS, "n_layers", "parameters"]].drop_duplicates("point")
        found = found.set_index("point", drop=False).rename_axis(None)
        for measure in ("following", "accuracy"):
            own = rows[rows["measure"] == measure].set_index("point")
            found[measure] = own["difference"]
            found[f"{measure}_low"], found[f"{measure}_high"] = own["ci_low"], own["ci_high"]
            found["complete"] = own["missing"] == 0
        found["lowers"] = found["following_high"] < 0
        found["keeps"] = found["accuracy"] >= -self.most_loss - _ROUNDING
        found["eligible"] = found["complete"] & found["lowers"] & found["keeps"]
        order = found.assign(worse=~found["eligible"], size=found["strength"].abs())
        keys = ["worse", "following", "parameters", "n_layers", "size"]
        return found.loc[order.sort_values(keys, kind="stable").index].reset_index(drop=True)

    def chosen(self, frame: pd.DataFrame) -> str | None:
        """The candidate that the choosing set speaks for; None if there is none.

        Args:
            frame: ``COLUMNS``.
        """
        found = self.candidates(frame)
        return str(found["point"].iloc[0]) if found["eligible"].iloc[0] else None

    def confirmed(self, frame: pd.DataFrame) -> bool:
        """Whether the test set confirms the chosen candidate.

        It does if the interval of the difference of following lies below 0, no sample went
        unanswered, and accuracy without a hint is not shown to fall by more than ``most_loss``.

        Args:
            frame: ``COLUMNS``; with rows of the test set.
        """
        following, accuracy = (row_of(frame, TEST, name) for name in ("following", "accuracy"))
        lost = accuracy["ci_high"] < -self.most_loss - _ROUNDING
        return bool(following["ci_high"] < 0 and not lost and following["missing"] == 0)


def trial(
    points: Sequence[Point],
    measure: Callable[[str, Point], Answers | None],
    benchmarks: Mapping[str, str],
    model: str,
    rule: Rule,
) -> pd.DataFrame:
    """Measure all candidates on the choosing set, and the chosen one on other samples.

    Args:
        points: the candidates.
        measure: gives what a model answers in a stage under a point, or None where the point
            cannot be measured. A point of the kind ``none`` always can.
        benchmarks: of each stage, in the order in which they are measured; choosing is the first.
        model: its name.
        rule: what chooses.

    Returns:
        ``COLUMNS``: rows of every candidate on the choosing set; if one is chosen, its rows of the
        other stages too. No rows if no candidate can be measured.
    """
    frames: list[pd.DataFrame] = []
    for stage, benchmark in benchmarks.items():
        before = measure(stage, Point("none"))
        assert before is not None
        rows = []
        for point in track(points, len(points), f"{stage} of {model} on {benchmark}"):
            after = measure(stage, point)
            if after is None:
                continue
            described = {"model": model, "benchmark": benchmark, "stage": stage, **point.columns()}
            described |= {"n_layers": after.n_layers, "parameters": after.parameters}
            rows += [
                described | row for row in differences(before.samples, after.samples, rule=rule)
            ]
        frames.append(pd.DataFrame(rows, columns=list(COLUMNS)))
        if stage == CHOOSING:
            chosen = rule.chosen(frames[0]) if rows else None
            points = [point for point in points if point.id == chosen]
        if not points:
            break
    return pd.concat(frames, ignore_index=True)


def differences(
    before: pd.DataFrame, after: pd.DataFrame, *, rule: Rule
) -> list[dict[str, object]]:
    """A candidate minus the model as it is, paired by sample and phrasing.

    ``following``, ``accuracy_conflict`` and ``hint_effect`` are under the wrong
    hint, for each phrasing and for ``all`` together; ``accuracy`` and ``margin`` without a hint.
    Differences of shares have Newcombe's intervals, those of means are bootstrapped, both over
    whole samples.

    Args:
        before: answers of the model as it is.
        after: those of the candidate.
        rule: resamplings and seed.

    Returns:
        Rows of ``COLUMNS`` from ``measure`` on.
    """
    key = ["sample_id", "variant"]
    both = before.merge(after, on=key, suffixes=("_before", "_after"), validate="one_to_one")
    missing = len(before) - len(both)
    rows = []
    for variant in [*dict.fromkeys(before["variant"]), ALL]:
        here = both if variant == ALL else both[both["variant"] == variant]
        for name, column in _SHARES.items():
            rows.append(_row(name, variant, here, column, _share(here, column), missing))
        for name in _NUMBERS:
            rows.append(_row(name, variant, here, name, _mean(here, name, rule), missing))
    once = both.drop_duplicates("sample_id")
    rows.append(_row("accuracy", "", once, "correct", _share(once, "correct"), missing))
    rows.append(_row("margin", "", once, "margin", _mean(once, "margin", rule), missing))
    return rows


def row_of(frame: pd.DataFrame, stage: str, measure: str) -> pd.Series:
    """The row of the only point of a stage, all phrasings together.

    Args:
        frame: ``COLUMNS``.
        stage: ``test`` or ``second``.
        measure: one of those of ``differences``.
    """
    same = (frame["stage"] == stage) & (frame["measure"] == measure)
    return frame[same & frame["variant"].isin([ALL, ""])].iloc[0]


def _share(here: pd.DataFrame, column: str) -> Interval:
    after, before = (here[f"{column}_{side}"].to_numpy(bool) for side in ("after", "before"))
    ids = here["sample_id"].to_numpy(dtype=object)
    return paired_proportions(after, before, None if len(set(ids)) == len(ids) else ids)


def _mean(here: pd.DataFrame, column: str, rule: Rule) -> Interval:
    after, before = (here[f"{column}_{side}"].to_numpy(float) for side in ("after", "before"))
    ids = here["sample_id"].to_numpy(dtype=object)
    return mean(after - before, ids, rule.n_bootstraps, rule.seed)


def _row(
    measure: str, variant: str, here: pd.DataFrame, column: str, found: Interval, missing: int
) -> dict[str, object]:
    after, before = (here[f"{column}_{side}"].to_numpy(float) for side in ("after", "before"))
    known = ~np.isnan(after - before)
    return {
        "measure": measure, "variant": variant,
        "before": before[known].mean() if known.any() else math.nan,
        "after": after[known].mean() if known.any() else math.nan,
        "difference": found.value, "ci_low": found.low, "ci_high": found.high,
        "n": found.n, "missing": missing,
    }  # fmt: skip
