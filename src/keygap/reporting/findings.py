"""What the figures of the gap show, in words: an alternative text and a caption for each.

The alternative text of a figure states its finding with the numbers that carry it, because those
who do not see the figure want what others take from it and not its axes. The caption says what is
drawn, its unit, intervals and samples, and how to read it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from keygap.display import counted
from keygap.reporting.figures import all_heads, without_single
from keygap.reporting.numbers import (
    fixed,
    from_to,
    largest,
    samples_in,
    smallest,
    with_interval,
)
from keygap.reporting.run import Run, contrasts_of

LADDER_RUNGS = {
    "between": "between image and text",
    "kind": "between two kinds of token inside one modality",
    "same": "between two halves of one modality",
    "single": "between one word and the rest",
}
SATURATED = "95 % of the maximum"


def _gap_rows(runs: Sequence[Run], site: str) -> pd.DataFrame:
    rows = [all_heads(run, site).assign(run=run.model) for run in runs]
    return pd.concat(rows, ignore_index=True)


def _mmd2(row: pd.Series) -> str:
    return with_interval(row["mmd2"], row["mmd2_ci_low"], row["mmd2_ci_high"], 3)


def ladder_in_words(runs: Sequence[Run], site: str, single: bool = False) -> str:
    """The largest distance of each kind on the ladder.

    Args:
        runs: those that are drawn.
        site: where.
        single: whether the figure is that of contrasts of a single word.
    """
    rows = _gap_rows(runs, site)
    parts = []
    for rung, what in LADDER_RUNGS.items():
        own = rows[rows["rung"] == rung]
        if own.empty or (rung == "single") != single:
            continue
        top = largest(own, "mmd2")
        parts.append(
            f"{what} at most {_mmd2(top)} ({top['contrast']} of {top['run']} at layer "
            f"{top['layer']})"
        )
    return f"MMD squared at {site} with 95 % intervals: {'; '.join(parts)}"


def ladder_caption(runs: Sequence[Run], site: str, single: bool = False) -> str:
    """What the ladder shows and how to read it (see ``ladder_in_words``)."""
    rows = _gap_rows(runs, site)
    rows = rows[(rows["rung"] == "single") == single]
    how = (
        "One word against the rest of the text is large by construction, so that no gap can be "
        "judged by it."
        if single
        else "The gap between image and text is large if its bar is longer than those of two kinds "
        "of token inside one modality; halves of one modality must lie at 0."
    )
    n = samples_in(rows["n_samples"])
    return (
        f"Squared distance of distributions (MMD², no unit; 0: the same) of each contrast at "
        f"{site}, all heads together, one scale for all panels. Whiskers: 95 % jackknife intervals "
        f"over samples; n = {n}. {how}"
    )


def gap_by_layer_in_words(run: Run, site: str) -> str:
    """Where the gap is largest and smallest, and whether label swaps reach it."""
    rows = without_single(all_heads(run, site))
    parts = []
    for contrast in contrasts_of([run], "between"):
        own = rows[rows["contrast"] == contrast]
        if own.empty:
            continue
        top, least = largest(own, "mmd2"), smallest(own, "mmd2")
        text = f"{contrast} is {_mmd2(top)} at layer {top['layer']}"
        if len(own) > 1:
            text = (
                f"{contrast} is largest at layer {top['layer']} with {_mmd2(top)} and smallest at "
                f"layer {least['layer']} with {_mmd2(least)}"
            )
        above = int((own["mmd2"] > own["mmd2_null_high"]).sum())
        parts.append(
            f"{text}; it is above what swapped labels give (at most "
            f"{fixed(own['mmd2_null_high'].max(), 4)}) at {above} of {counted(len(own), 'layer')}"
        )
    found = "; ".join(parts) or "no contrast between modalities was measured"
    return f"MMD squared by layer at {site} with 95 % intervals: {found}"


def gap_by_layer_caption(run: Run, site: str) -> str:
    """What the gap by layer shows and how to read it."""
    rows = all_heads(run, site)
    n = samples_in(rows["n_samples"])
    return (
        "MMD² (no unit; 0: the same distribution) of each contrast by layer, all heads together. "
        f"Bars: 95 % jackknife intervals over samples; n = {n}. Grey: the middle "
        "95 % of what swapped labels give; a point within it cannot be distinguished from 0. "
        "Points are joined where neighbouring layers were measured."
    )


def jsd_in_words(run: Run, site: str) -> str:
    """How far image and text can be told apart, by the number of components."""
    table = run.table.profile
    table = without_single(table[table["site"] == site])
    parts = []
    for contrast in contrasts_of([run], "between"):
        own = table[table["contrast"] == contrast]
        if own.empty:
            continue
        few, many = (own[own["jsd_dim"] == own["jsd_dim"].agg(end)] for end in ("min", "max"))
        full = int(few["jsd_saturates_at"].notna().sum())
        top = largest(few, "jsd_nats")
        parts.append(
            f"{contrast} is {from_to(few['jsd_nats'], 2)} nats in {few['jsd_dim'].iloc[0]} "
            f"components (largest: "
            f"{with_interval(top['jsd_nats'], top['jsd_ci_low'], top['jsd_ci_high'], 3)} at layer "
            f"{top['layer']}) and {from_to(many['jsd_nats'], 2)} in {many['jsd_dim'].iloc[0]}, of "
            f"at most 0.69; it reaches {SATURATED} at {full} of {counted(len(few), 'layer')}"
        )
    found = "; ".join(parts) or "no contrast between modalities was measured"
    return f"JSD by number of principal components at {site}: {found}"


def jsd_caption(run: Run, site: str) -> str:
    """What the profile of the JSD shows and how to read it."""
    n = samples_in(all_heads(run, site)["n_samples"])
    return (
        "Jensen-Shannon divergence in nats (0: the same distribution; ln 2 = 0.69, dotted: fully "
        "told apart) of each contrast by the number of principal components, all heads together: a "
        f"lower bound by a classifier on held-out samples; n = {n}. "
        "A ring marks 95 % of the maximum: from there on the JSD says that sides can be told "
        "apart, and not how far apart they are. Hollow and dashed: below an earlier point, which "
        "means too few samples. The intervals are in the table of every contrast."
    )


def neighbours_of_own_modality(frame: pd.DataFrame) -> float:
    """The share of points whose nearest other point is of their modality.

    Args:
        frame: points of one run, site and layer: ``x``, ``y`` and ``modality``.
    """
    points = frame[["x", "y"]].to_numpy(float)
    if len(points) < 2:
        return np.nan
    nearest = np.asarray(KDTree(points).query(points, k=2)[1])
    own = np.arange(len(points))
    # Of points at one place the first found may be the other one.
    other = np.where(nearest[:, 0] == own, nearest[:, 1], nearest[:, 0])
    modality = frame["modality"].to_numpy()
    return float((modality == modality[other]).mean())


def projections_in_words(runs: Sequence[Run], site: str) -> str:
    """How mixed image and text tokens are in the projections."""
    shares, sizes = [], []
    for run in runs:
        for _, part in run.projected(site).groupby("layer"):
            shares.append(100 * neighbours_of_own_modality(part))
            sizes.append(len(part))
    return (
        f"t-SNE of image and text tokens at {site} in {counted(len(sizes), 'panel')} of "
        f"{from_to(pd.Series(sizes, dtype=float), 0)} tokens: the nearest neighbour of a token is "
        f"of its own modality for {from_to(pd.Series(shares), 0)} % of the tokens"
    )


def projections_caption(runs: Sequence[Run], site: str) -> str:
    """What the projections show and what they do not."""
    frames = [run.projected(site) for run in runs]
    n = sum(frame.groupby("layer", observed=True).ngroups for frame in frames)
    each = pd.concat([frame.groupby("layer").size() for frame in frames]).astype(float)
    return (
        f"Tokens in two dimensions without units by t-SNE, {counted(n, 'panel')} of "
        f"{from_to(each, 0)} tokens. Neighbours are kept and distances are not: how far apart two "
        "groups lie, how large they are and whether they touch measures nothing, and coordinates "
        "of different panels cannot be compared. There is no interval."
    )
