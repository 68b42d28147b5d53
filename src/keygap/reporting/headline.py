"""The verdict of a report: for each model one plain sentence, and what does not follow from it.

A reader takes away the first sentence, so it has the range over layers, the interval, what the gap
is compared with, the number of samples and the accuracy. Everything in it is read from the tables
by the rules below; nothing is worded by hand for a run.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from keygap.display import counted
from keygap.measurement.views import JSD_DIM
from keygap.reporting.numbers import fixed, with_interval
from keygap.reporting.run import Run

FEW_SAMPLES = 20  # as in gap.core.cautions, which needs torch
# Why a gap has no ratio, in a cell of the first table and in a caution.
NO_RATIO = {
    "nothing measured": "nothing inside one modality was measured, so the size of the gap cannot "
    "be judged.",
    "no gap": "MMD² of image and text is not above 0: there is no gap, and no ratio.",
    "none above 0": "no MMD² inside one modality is above 0, so there is no ratio.",
    "no common samples": "no contrast inside one modality shares samples with the gap, so there is "
    "no ratio.",
}
NOT_CAUSE = (
    "A distance does not say that the model overlooks its image: that needs its answers when image "
    "and text disagree."
)


@dataclass(frozen=True)
class Verdict:
    """What a report says first about one run, site and contrast.

    Attributes:
        title: model, benchmark, site and, if there are several, contrast.
        sentence: the result.
        not_said: what does not follow.
        cautions: doubts about the numbers, by rule.
    """

    title: str
    sentence: str
    not_said: str
    cautions: list[str]


def verdicts(runs: Sequence[Run], probed: Sequence[bool]) -> list[Verdict]:
    """The verdict of every run, site and contrast between modalities.

    Args:
        runs: measured runs.
        probed: for each, whether text bias was measured too.
    """
    return [
        _verdict(run, str(site), str(contrast), rows, bias)
        for run, bias in zip(runs, probed, strict=True)
        for (site, contrast), rows in _between(run).groupby(["site", "contrast"], sort=False)
    ]


def _between(run: Run) -> pd.DataFrame:
    frame = run.table.main
    return frame[(frame["head"] == "all") & (frame["rung"] == "between")]


def _verdict(run: Run, site: str, contrast: str, rows: pd.DataFrame, probed: bool) -> Verdict:
    several = _between(run)["contrast"].nunique() > 1
    title = f"{run.model} on {run.manifest['benchmark']}, {site}"
    return Verdict(
        title=f"{title}, {contrast}" if several else title,
        sentence=" ".join([_size(rows), _sample_text(run, rows)]),
        not_said=_not_said(probed),
        cautions=list(_cautions(run, rows)),
    )


def _size(rows: pd.DataFrame) -> str:
    """How the gap compares with the largest distance inside one modality, over layers."""
    compared = rows[rows["ratio"].notna()]
    if compared.empty:
        low, high = rows["mmd2"].min(), rows["mmd2"].max()
        return f"MMD² of image and text is {_range(low, high, 3)} at {_layers(rows['layer'])}."
    low, high = compared["ratio"].min(), compared["ratio"].max()
    least, most = compared["ratio_ci_low"].min(), compared["ratio_ci_high"].max()
    highest = ", ".join(dict.fromkeys(compared["highest"]))
    ends = f"{fixed(least, 2)} to {fixed(most, 2)}"
    span = f"{_range(low, high, 2)} times (95 % intervals from {ends})"
    return (
        f"Image and text are {_claim(compared)} than the two most distant kinds of token inside "
        f"one modality ({highest}): their MMD² is {span} as large, at {_layers(compared['layer'])}."
    )


def _claim(compared: pd.DataFrame) -> str:
    """What the intervals of the ratio say, of all layers or of how many."""
    n = len(compared)
    above = int((compared["ratio_ci_low"] > 1).sum())
    below = int((compared["ratio_ci_high"] < 1).sum())
    if above == n:
        return "farther apart"
    if below == n:
        return "nearer to each other"
    if above + below == 0:
        return "not shown to be farther apart or nearer to each other"
    claims = {"farther apart": above, "nearer to each other": below}
    found = " and ".join(f"{claim} at {count}" for claim, count in claims.items() if count)
    return f"{found} of {n} layers"


def _why_no_ratio(run: Run, row: dict[Hashable, Any]) -> str:
    """A key of ``NO_RATIO``; empty where there is a ratio."""
    if not math.isnan(row["ratio"]):
        return ""
    frame = run.table.main
    kinds = frame[
        (frame["head"] == "all")
        & (frame["rung"] == "kind")
        & (frame["site"] == row["site"])
        & (frame["layer"] == row["layer"])
    ]
    if kinds.empty:
        return "nothing measured"
    if row["mmd2"] <= 0:
        return "no gap"
    return "no common samples" if (kinds["mmd2"] > 0).any() else "none above 0"


def _layers(layers: pd.Series) -> str:
    found = sorted({int(layer) for layer in layers})
    if len(found) == 1:
        return f"layer {found[0]}"
    if len(found) <= 4:
        return f"layers {', '.join(map(str, found))}"
    return f"{len(found)} layers from {found[0]} to {found[-1]}"


def _sample_text(run: Run, rows: pd.DataFrame) -> str:
    n = int(rows["n_samples"].max())
    samples = counted(n, "sample")
    if run.accuracy is None or not len(run.accuracy):
        return f"Measured on {samples}; answers were not scored."
    overall = run.accuracy.iloc[0]
    if math.isnan(overall["accuracy"]):
        return f"Measured on {samples}; no answer could be scored."
    return (
        f"Measured on {samples}. Accuracy ({overall['rule']}): {fixed(overall['accuracy'], 2)}, "
        f"over {overall['total']:,} scored answers."
    )


def _not_said(probed: bool) -> str:
    if probed:
        return f"{NOT_CAUSE} Text bias was measured too: see its section."
    return f"{NOT_CAUSE} Text bias was not measured here (keygap bias)."


def _cautions(run: Run, rows: pd.DataFrame) -> list[str]:
    """Doubts about the numbers of one contrast, by rule."""
    found = []
    n = int(rows["n_samples"].max())
    if n < FEW_SAMPLES:
        fewer = f"{counted(n, 'sample')}, fewer than {FEW_SAMPLES}"
        found.append(f"{fewer}: intervals and p-values are rough.")
    if run.identical_prompts:
        found.append("All prompts have the same text, so text tokens are copies of each other.")
    spans = rows[(rows["ratio_ci_low"] <= 1) & (rows["ratio_ci_high"] >= 1)]
    if len(spans):
        found.append(
            f"At {_layers(spans['layer'])} the interval of the ratio includes 1: there the gap "
            "cannot be distinguished from a distance inside one modality."
        )
    reasons = [_why_no_ratio(run, row) for row in rows.to_dict("records")]
    for reason, text in NO_RATIO.items():
        own = [layer for layer, why in zip(rows["layer"], reasons, strict=True) if why == reason]
        if own:
            found.append(f"At {_layers(pd.Series(own))}, {text}")
    ends = run.saturates_at()
    saturated = [
        row["layer"]
        for row in rows.to_dict("records")
        if ends.get((row["site"], row["layer"], row["contrast"]), math.inf) <= JSD_DIM
    ]
    if saturated:
        found.append(
            f"At {_layers(pd.Series(saturated))} the JSD is saturated in {JSD_DIM} components: it "
            "says that the sides can be told apart, and not how far apart they are."
        )
    return found


def _range(low: float, high: float, digits: int) -> str:
    first, last = fixed(low, digits), fixed(high, digits)
    return first if first == last else f"{first} to {last}"


def headline(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Rows of the first table: at most seven columns, one row per run, site, layer and contrast."""
    rows = []
    for run in runs:
        summary = run.summary()
        several = summary["contrast"].nunique() > 1
        sizes = {
            (own["site"], own["layer"], own["contrast"]): own
            for own in _between(run).to_dict("records")
        }
        for row in summary.to_dict("records"):
            own = sizes[row["site"], row["layer"], row["contrast"]]
            what = f"{row['contrast']}, " if several else ""
            why = _why_no_ratio(run, own)
            kind = row["highest"] and f"{row['highest']} {row['kind']:.3f}"
            rows.append({
                "model": f"{run.model} on {run.manifest['benchmark']}",
                "place": f"{what}{row['site']}, layer {row['layer']}",
                "gap": with_interval(own["mmd2"], own["mmd2_ci_low"], own["mmd2_ci_high"], 3),
                "highest": kind or why,
                "ratio": with_interval(row["ratio_kind"], own["ratio_ci_low"],
                                        own["ratio_ci_high"], 2),
                "samples": int(own["n_samples"]),
                "accuracy": row["accuracy"],
            })  # fmt: skip
    return rows
