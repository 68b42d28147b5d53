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
from matplotlib.ticker import MaxNLocator

from keygap.bias.attention_table import AttentionTable
from keygap.bias.link_table import LinkTable, read_link, summarise
from keygap.bias.table import BiasTable, read_bias
from keygap.reporting.bias_findings import (
    WHO,
    asking,
    attention_caption,
    attention_in_words,
    attention_ratio,
    chain_caption,
    chain_in_words,
    conditions_caption,
    conditions_in_words,
    drawn_links,
)
from keygap.reporting.drawing import Drawn
from keygap.reporting.figures import canvas, fitted
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


def findings(run: Run, files: BiasFiles) -> list[str]:
    """What was found, in sentences: of the answers, their analyses, attention, and each link."""
    found = []
    if files.answers is not None:
        found += [conditions_in_words(run, files.answers), *files.answers.analyses]
    if files.attention is not None:
        found.append(attention_in_words(run, files.attention))
    if files.link is not None:
        found += summarise(files.link)
        if outcome := LinkTable(files.link).outcome:
            found.append(f"answer in the links: {outcome}")
    return found


def drawn(run: Run, files: BiasFiles) -> list[Drawn]:
    """The figures of what there is."""
    found: list[Drawn] = []
    if files.answers is not None:
        frame = files.answers.frame
        words = conditions_in_words(run, files.answers), conditions_caption(frame)
        found.append(Drawn("conditions", conditions(run, frame), *words))
    if files.attention is not None:
        frame = files.attention
        words = attention_in_words(run, frame), attention_caption(frame)
        found.append(Drawn("attention", attention(run, frame), *words))
    if files.link is not None:
        frame = files.link
        words = chain_in_words(run, frame), chain_caption(frame)
        found.append(Drawn("link", chain(run, frame), *words))
    return found


def named(figure: Figure, run: Run, what: str) -> None:
    """Title a figure with its model, benchmark and content."""
    text = f"{run.model} on {run.manifest['benchmark']}: {what}"
    figure.suptitle(fitted(text, figure.get_figwidth()), size=9)


def conditions(run: Run, frame: pd.DataFrame) -> Figure:
    """Accuracy and following under every condition, with 95 % intervals.

    The dotted line is the accuracy of the samples as they are.
    """
    rows = frame.drop_duplicates(["probe", "condition"])
    rows = rows[~((rows["condition"] == "as_is") & (rows["probe"] != rows["probe"].iloc[0]))]
    figure, axes = canvas(1, 1, 4.15, 1.3 + 0.24 * len(rows))
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
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    named(figure, run, "answers under each condition")
    return figure


def attention(run: Run, frame: pd.DataFrame) -> Figure:
    """Attention per image token over attention per text token, by layer and head.

    Sinks are not counted. The last prompt position attends, or the question where that was not
    measured. Colours are binary logarithms, and white is even attention.
    """
    queries = asking(frame)
    found = attention_ratio(frame[frame["queries"] == queries])
    ratio = np.log2(found.to_numpy(float))
    layers, heads = ratio.shape
    figure, axes = canvas(1, 1, 1.8 + 0.17 * max(layers, 16), 1.3 + 0.19 * max(heads, 5))
    ax = axes[0, 0]
    finite = np.abs(ratio[np.isfinite(ratio)])
    limit = max(1.0, float(np.quantile(finite, 0.98)) if len(finite) else 1.0)
    drawn = ax.imshow(
        ratio.T, aspect="auto", cmap="RdBu_r", origin="lower",
        norm=TwoSlopeNorm(0, -limit, limit),
    )  # fmt: skip
    step = -(-layers // 12)
    ax.set(xlabel="layer", ylabel="head", xticks=np.arange(0, layers, step))
    ax.set_xticklabels([str(layer) for layer in found.index[::step]])
    figure.colorbar(drawn, ax=ax, label="log2 of image\nover text, per token")
    named(figure, run, f"attention of {WHO[queries]}, without sinks")
    return figure


def chain(run: Run, frame: pd.DataFrame) -> Figure:
    """The correlation of each link, and the effect along the whole chain, by layer.

    Filled markers are links that were found (p after Holm at most 0.05).
    """
    whole = drawn_links(frame)
    links = list(dict.fromkeys(zip(whole["link"], whole["measure"], strict=True)))
    columns = max(1, min(3, len(links)))
    figure, axes = canvas(-(-len(links) // columns) or 1, columns, 2.5, 2.4)
    for empty in axes.flat[len(links) :]:
        empty.set_visible(False)
    for ax, (link, measure) in zip(axes.flat, links, strict=False):
        own = whole[(whole["link"] == link) & (whole["measure"] == measure)].sort_values("layer")
        value = own["value"].to_numpy(float)
        ends: Float[np.ndarray, "2 n"] = np.abs(
            np.stack([value - own["ci_low"], own["ci_high"] - value])
        )
        ax.errorbar(own["layer"], value, yerr=ends, fmt="none", color="#8C8C8C")
        found = own["found"].to_numpy(bool)
        for here, fill in ((found, "#0072B2"), (~found, "#FFFFFF")):
            ax.plot(
                own["layer"][here], value[here], "o", markersize=4,
                markeredgecolor="#0072B2", markerfacecolor=fill,
            )  # fmt: skip
        ax.axhline(0, color="#8C8C8C", linestyle=":", linewidth=1)
        ax.set(xlabel="layer", ylabel="rank correlation" if measure == "spearman" else "effect")
        ax.set_title(fitted(link if measure == "spearman" else "the whole chain", 2.2))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        ax.margins(x=0.1)
    named(figure, run, "links of the chain (filled: found)")
    return figure
