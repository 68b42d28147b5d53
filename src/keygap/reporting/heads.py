"""The gap of every layer and head, in one orientation and on one scale for all models of a report.

A cell shows its value and interval when pointed at. A dot marks a head whose test remains after
Holm's adjustment over the layers and heads of its site.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from keygap.display import counted
from keygap.measurement.verdict import SIGNIFICANT
from keygap.reporting.figures import canvas, named
from keygap.reporting.numbers import largest as largest_row
from keygap.reporting.numbers import smallest, with_interval
from keygap.reporting.run import Run, contrasts_of


def by_head(run: Run, site: str) -> pd.DataFrame:
    """Rows of single heads of the contrasts between modalities; empty if there are none."""
    table = run.table.main
    table = table[(table["site"] == site) & (table["head"] != "all")]
    table = table[table["rung"] == "between"]
    return table.assign(head=table["head"].astype(int))


def largest(runs: Sequence[Run]) -> float:
    """The largest MMD squared of a single head over some runs, the end of their common scale."""
    values = [by_head(run, site)["mmd2"].max() for run in runs for site in sites_of(run)]
    return float(pd.Series(values, dtype=float).max())


def sites_of(run: Run) -> list[str]:
    """The sites that were measured."""
    return [str(site) for site in run.table.frame["site"].unique()]


def heads(run: Run, site: str, top: float | None = None) -> Figure:
    """Draw MMD squared by layer and head, a panel for each contrast between modalities.

    There must be one at this site that was measured by head (see ``by_head``).

    Args:
        run: the run.
        site: one of its sites.
        top: end of the scale; None: the largest value here.
    """
    table = by_head(run, site)
    names = [name for name in contrasts_of([run]) if name in set(table["contrast"])]
    n_layers, n_heads = table["layer"].nunique(), table["head"].nunique()
    figure, grid = canvas(1, len(names), max(3.4, 1.6 + 0.28 * n_heads), 1.5 + 0.28 * n_layers)
    for axes, name in zip(grid[0], names, strict=True):
        part = table[table["contrast"] == name]
        square = part.pivot(index="layer", columns="head", values="mmd2")
        image = axes.imshow(square.to_numpy(), cmap="cividis", vmin=0, vmax=top, aspect="auto")
        rows = {layer: place for place, layer in enumerate(square.index)}
        columns = {head: place for place, head in enumerate(square.columns)}
        for cell in part.to_dict("records"):
            x, y = columns[cell["head"]], rows[cell["layer"]]
            hover = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=True, alpha=0.0, lw=0)
            hover.set_gid(_id(name, cell["layer"], cell["head"]))
            axes.add_patch(hover)
            if cell["p_holm"] <= SIGNIFICANT:
                axes.plot(x, y, ".", ms=3, color="#FFFFFF", mec="#000000", mew=0.4)
        axes.set_xticks(range(square.shape[1]), [str(head) for head in square.columns])
        axes.set_yticks(range(square.shape[0]), [str(layer) for layer in square.index])
        axes.set_xlabel("key head")
        axes.set_ylabel("layer")
        if len(names) > 1:
            axes.set_title(name)
        figure.colorbar(image, ax=axes)
    what = f"{names[0]} MMD² by head" if len(names) == 1 else "MMD² by head"
    named(figure, run, site, what)
    return figure


def titles(run: Run, site: str) -> dict[str, str]:
    """What each cell shows when pointed at, by the name of its group in the drawing."""
    return {
        _id(row["contrast"], row["layer"], row["head"]): (
            f"layer {row['layer']}, head {row['head']}: {row['mmd2']:.4f} "
            f"({row['mmd2_ci_low']:.4f} to {row['mmd2_ci_high']:.4f}), p Holm {row['p_holm']:.3g}"
        )
        for row in by_head(run, site).to_dict("records")
    }


def in_words(run: Run, site: str) -> str:
    """What the figure shows, for readers who do not see it."""
    table = by_head(run, site)
    best, least = largest_row(table, "mmd2"), smallest(table, "mmd2")
    most, fewest = (
        f"{with_interval(row['mmd2'], row['mmd2_ci_low'], row['mmd2_ci_high'], 3)} at head "
        f"{row['head']} of layer {row['layer']}"
        for row in (best, least)
    )
    found = int((table["p_holm"] <= SIGNIFICANT).sum())
    return (
        f"MMD squared between image and text by layer and head at {site}: largest {most}, smallest "
        f"{fewest}; p after Holm at most {SIGNIFICANT:g} at {found} of "
        f"{counted(len(table), 'cell')}"
    )


def caption(run: Run, site: str) -> str:
    """What the figure shows and how to read it."""
    n = int(by_head(run, site)["n_samples"].max())
    return (
        "MMD² (no unit; 0: the same distribution) between image and text of each key head alone "
        "(columns) at each layer (rows): the brighter, the farther apart, on one scale for all "
        f"models of this page; n = {counted(n, 'sample')}. A dot: p at most {SIGNIFICANT:g} after "
        "Holm's adjustment over layers and heads. Point at a cell for its value and its 95 % "
        "jackknife interval."
    )


def _id(contrast: str, layer: int, head: int) -> str:
    return f"cell-{contrast.encode().hex()}-{layer}-{head}"
