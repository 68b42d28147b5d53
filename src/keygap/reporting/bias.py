"""Text bias in the report: conditions of the probes, attention by layer and head, and the chain.

Each figure is drawn if its file is in the run folder. All files are read before anything is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from keygap.bias.attention_table import AttentionTable
from keygap.bias.link_table import read_link
from keygap.bias.table import BiasTable, read_bias
from keygap.reporting.figures import canvas
from keygap.reporting.run import Run
from keygap.store.results import is_recorded
from keygap.store.run import ATTENTION, BIAS, LINK

MEASURES = {"accuracy": "#0072B2", "followed": "#D55E00"}
COLUMNS = ("accuracy", "changed", "followed", "tpr", "coarse_tpr", "margin", "hint_effect")


@dataclass(frozen=True)
class BiasFiles:
    """What a run folder has about text bias; None for what it has not.

    Attributes:
        answers: of the probes.
        attention: rows of ``attention.parquet``.
        link: rows of ``link.csv``.
    """

    answers: BiasTable | None
    attention: pd.DataFrame | None
    link: pd.DataFrame | None


def read(root: Path) -> BiasFiles:
    """Read what a run folder has about text bias.

    Raises:
        UserError: a file is damaged.
    """
    return BiasFiles(
        read_bias(root) if is_recorded(root, BIAS) else None,
        AttentionTable.read(root).frame if is_recorded(root, ATTENTION) else None,
        read_link(root).frame if is_recorded(root, LINK) else None,
    )


def drawn(run: Run, files: BiasFiles) -> dict[str, Figure]:
    """The figures of what there is, by name."""
    figures: dict[str, Figure] = {}
    if files.answers is not None:
        figures["conditions"] = conditions(run, files.answers.frame)
    if files.attention is not None:
        figures["attention"] = attention(run, files.attention)
    if files.link is not None:
        figures["link"] = chain(run, files.link)
    return figures


def conditions(run: Run, frame: pd.DataFrame) -> Figure:
    """Accuracy and following under every condition, with 95 % intervals.

    The dotted line is the accuracy of the samples as they are.
    """
    rows = frame.drop_duplicates(["probe", "condition"])
    rows = rows[~((rows["condition"] == "as_is") & (rows["probe"] != rows["probe"].iloc[0]))]
    figure, axes = canvas(1, 1, 7, 0.9 + 0.26 * len(rows))
    ax = axes[0, 0]
    names = [
        f"{probe}: {name}" for probe, name in zip(rows["probe"], rows["condition"], strict=True)
    ]
    for shift, (measure, colour) in zip((-0.12, 0.12), MEASURES.items(), strict=True):
        value = rows[measure].to_numpy(float)
        ends = np.stack([value - rows[f"{measure}_low"], rows[f"{measure}_high"] - value])
        height = np.arange(len(rows)) + shift
        kept = ~np.isnan(value)
        ax.errorbar(
            value[kept], height[kept], xerr=np.abs(ends[:, kept]),
            fmt="o", markersize=4, color=colour, label=measure,
        )  # fmt: skip
    as_is = rows.loc[rows["condition"] == "as_is", "accuracy"]
    if len(as_is):
        ax.axvline(float(as_is.iloc[0]), color="#8C8C8C", linestyle=":", linewidth=1)
    ax.set(xlim=(-0.02, 1.02), xlabel="share of samples", yticks=np.arange(len(rows)))
    ax.set_yticklabels(names)
    ax.invert_yaxis()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set_title(f"{run.model} on {run.manifest['benchmark']}: answers under each condition")
    return figure


def attention(run: Run, frame: pd.DataFrame) -> Figure:
    """Attention per image token over attention per text token, by layer and head.

    Sinks are not counted. The last prompt position attends, or the question where that was not
    measured. Colours are binary logarithms, and white is even attention.
    """
    queries = "last" if (frame["queries"] == "last").any() else str(frame["queries"].iloc[0])
    found = attention_ratio(frame[frame["queries"] == queries])
    ratio = np.log2(found.to_numpy(float))
    layers, heads = ratio.shape
    figure, axes = canvas(1, 1, 1.8 + 0.22 * max(layers, 12), 1.2 + 0.22 * max(heads, 5))
    ax = axes[0, 0]
    finite = np.abs(ratio[np.isfinite(ratio)])
    limit = max(1.0, float(np.quantile(finite, 0.98)) if len(finite) else 1.0)
    drawn = ax.imshow(
        ratio.T, aspect="auto", cmap="RdBu_r", origin="lower",
        norm=TwoSlopeNorm(0, -limit, limit),
    )  # fmt: skip
    step = max(1, layers // 16)
    ax.set(xlabel="layer", ylabel="head", xticks=np.arange(0, layers, step))
    ax.set_xticklabels([str(layer) for layer in found.index[::step]])
    figure.colorbar(drawn, ax=ax, label="log2 of image over text, per token")
    ax.set_title(f"{run.model}: attention of {_WHO[queries]}, without sinks")
    return figure


_WHO = {"last": "the last prompt position", "question": "the question", "generated": "the answer"}


def attention_ratio(frame: pd.DataFrame) -> pd.DataFrame:
    """Attention per image token over attention per text token; layers by heads.

    Args:
        frame: rows of ``attention.parquet`` of one query group.
    """
    kept = frame[~frame["sink"] & ~frame["role"].isin(["separator", "padding"])]
    visual = kept["modality"].isin(["image", "video"])
    groups = kept.assign(visual=visual).groupby(["layer", "head", "visual"], observed=True)
    sums = groups[["relative", "n_keys"]].sum()
    per_token = (sums["relative"] / sums["n_keys"]).unstack("visual")
    per_token = per_token.reindex(columns=[True, False])
    return (per_token[True] / per_token[False]).unstack("head")


def chain(run: Run, frame: pd.DataFrame) -> Figure:
    """The correlation of each link, and the effect along the whole chain, by layer.

    Filled markers are links that were found (p after Holm at most 0.05).
    """
    whole = frame[(frame["head"] == "all") & frame["measure"].isin(["spearman", "indirect"])]
    links = list(dict.fromkeys(zip(whole["link"], whole["measure"], strict=True)))
    figure, axes = canvas(1, max(1, len(links)), 2.6, 2.6)
    for ax, (link, measure) in zip(axes[0], links, strict=False):
        own = whole[(whole["link"] == link) & (whole["measure"] == measure)].sort_values("layer")
        value = own["value"].to_numpy(float)
        ends: Float[np.ndarray, "2 n"] = np.abs(
            np.stack([value - own["ci_low"], own["ci_high"] - value])
        )
        ax.errorbar(own["layer"], value, yerr=ends, fmt="none", color="#8C8C8C")
        found = own["found"].to_numpy(bool)
        for here, fill in ((found, "#0072B2"), (~found, "white")):
            ax.plot(
                own["layer"][here], value[here], "o", markersize=4,
                markeredgecolor="#0072B2", markerfacecolor=fill,
            )  # fmt: skip
        ax.axhline(0, color="#8C8C8C", linestyle=":", linewidth=1)
        ax.set(xlabel="layer", ylabel="rank correlation" if measure == "spearman" else "effect")
        ax.set_title(link if measure == "spearman" else "the whole chain")
    figure.suptitle(f"{run.model}: links of the chain (filled: found)", fontsize=9)
    return figure
