"""What the figures of text bias show, in words: an alternative text and a caption for each.

See ``keygap.reporting.findings`` for what these texts are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from keygap import defaults
from keygap.bias.condition import AS_IS
from keygap.bias.intervals import jackknife_of_log
from keygap.bias.link_table import ALL, CHAIN, LinkTable
from keygap.bias.table import BiasTable
from keygap.display import between, counted
from keygap.reporting.numbers import largest, samples_in, smallest, with_interval
from keygap.reporting.run import Run

WHO = {"last": "the last prompt position", "question": "the question", "generated": "the answer"}
SHOWS_NOTHING = ("separator", "padding")  # roles of image positions that show no part of it


def conditions_in_words(run: Run, table: BiasTable) -> str:
    """Accuracy as it is and at its lowest, and where most answers follow the text.

    Args:
        run: the run.
        table: what was asked, and the answers.
    """
    rows = table.frame.drop_duplicates(["probe", "condition"])
    parts = []
    as_is = rows[(rows["condition"] == AS_IS) & rows["accuracy"].notna()]
    others = rows[(rows["condition"] != AS_IS) & rows["accuracy"].notna()]
    followed = _against_the_image(rows, table.samples)
    if len(as_is):
        parts.append(f"accuracy on the unchanged samples is {_share(as_is.iloc[0], 'accuracy')}")
    if len(others):
        worst = smallest(others, "accuracy")
        parts.append(f"lowest with {_share(worst, 'accuracy')} under {_condition(worst)}")
    if len(followed):
        most = largest(followed, "followed")
        parts.append(f"the text is followed most under {_condition(most)}: {_share(most)}")
    found = "; ".join(parts) or "nothing could be scored"
    return f"Answers of {run.model} under {counted(len(rows), 'condition')}: {found}"


def _against_the_image(rows: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """The conditions with image and text in which the text suggests a wrong answer.

    Where it suggests the right one, following the text and seeing the image are the same.

    Args:
        rows: one for each condition.
        samples: of the ``BiasTable``.
    """
    scored = samples[samples["followed"].notna()]
    both = scored[scored["followed"].astype(bool) & scored["correct"].astype(bool)]
    right = pd.MultiIndex.from_frame(both[["probe", "condition"]])
    own = pd.MultiIndex.from_frame(rows[["probe", "condition"]])
    return rows[rows["followed"].notna() & rows["text"].notna() & ~own.isin(right)]


def _share(row: pd.Series, name: str = "followed") -> str:
    return with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"], 2)


def _condition(row: pd.Series) -> str:
    return f"{row['probe']}: {row['condition']}"


def conditions_caption(frame: pd.DataFrame) -> str:
    """What the figure of conditions shows and how to read it."""
    n = samples_in(frame["n"])
    return (
        "Share of answers that are right (accuracy) and that are what the added text suggests "
        f"(followed) under each condition, with 95 % intervals; n = {n}. Dotted: accuracy of the "
        "samples as they are. Where a wrong hint moves accuracy left and following right, the text "
        "decides; where neither moves, the hint has no effect."
    )


def asking(frame: pd.DataFrame) -> str:
    """The query positions that are shown: the last prompt position, where it was measured.

    Args:
        frame: rows of ``attention.parquet``.
    """
    return "last" if (frame["queries"] == "last").any() else str(frame["queries"].iloc[0])


def attention_ratio(frame: pd.DataFrame) -> pd.DataFrame:
    """Attention per image token over attention per text token; layers by heads.

    Args:
        frame: rows of ``attention.parquet`` of one query group.
    """
    sums = _sums(frame, ["layer", "head"])
    per_token = sums["relative"] / sums["n_keys"]
    return (per_token[True] / per_token[False]).unstack("head")


def _sums(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Attention and number of keys of the text (False) and of the image (True), without sinks.

    What is not there is NaN.
    """
    kept = frame[~frame["sink"] & ~frame["role"].isin(SHOWS_NOTHING)]
    visual = kept["modality"].isin(["image", "video"])
    groups = kept.assign(visual=visual).groupby([*keys, "visual"], observed=True)
    sums: Any = groups[["relative", "n_keys"]].sum().unstack("visual")
    columns: Any = [["relative", "n_keys"], [True, False]]
    return sums.reindex(columns=pd.MultiIndex.from_product(columns))


def ratio_interval(frame: pd.DataFrame) -> tuple[float, float, float]:
    """The ratio over all rows, with a jackknife interval over samples.

    Args:
        frame: rows of ``attention.parquet`` of one query group, of one head or of several.

    Returns:
        The ratio and the ends of its 95 % interval; NaN where there are too few samples.
    """
    sums = _sums(frame, ["sample_id"]).fillna(0.0)
    if not all(sums["n_keys", kind].any() for kind in (True, False)):
        return np.nan, np.nan, np.nan

    of = {
        (name, kind): sums[name, kind].to_numpy(float)
        for name in ("relative", "n_keys")
        for kind in (True, False)
    }

    def ratio(without: Float[np.ndarray, " n"] | float) -> Any:
        """The ratio of all samples, each without the part that is given as 1."""
        image, text = (
            (of["relative", kind].sum() - without * of["relative", kind])
            / (of["n_keys", kind].sum() - without * of["n_keys", kind])
            for kind in (True, False)
        )
        return image / text

    with np.errstate(divide="ignore", invalid="ignore"):  # a single sample leaves nothing
        found = jackknife_of_log(float(ratio(0.0)[0]), ratio(1.0))
    return found.value, found.low, found.high


def attention_in_words(run: Run, frame: pd.DataFrame) -> str:
    """How much attention an image token gets, over all heads and at the heads of both ends.

    Args:
        run: the run.
        frame: rows of ``attention.parquet``.
    """
    queries = asking(frame)
    own = frame[frame["queries"] == queries]
    ratios = attention_ratio(own).reset_index().melt("layer", value_name="ratio").dropna()
    if ratios.empty:
        return f"Attention of {run.model}: no head sees both image and text"
    most, least = (
        f"{between(*ratio_interval(_of_head(own, row)))} at layer {row['layer']:g}, head "
        f"{row['head']:g}"
        for row in (largest(ratios, "ratio"), smallest(ratios, "ratio"))
    )
    above = int((ratios["ratio"].to_numpy(float) > 1).sum())
    return (
        f"Attention of {WHO[queries]} of {run.model}, without sinks: an image token gets "
        f"{between(*ratio_interval(own))} times what a text token gets over all heads "
        f"together; it gets more at {above} of {counted(len(ratios), 'head')}; the largest ratio "
        f"is {most}, the smallest {least}"
    )


def _of_head(frame: pd.DataFrame, place: Mapping[str, Any]) -> pd.DataFrame:
    return frame[(frame["layer"] == place["layer"]) & (frame["head"] == place["head"])]


def attention_caption(frame: pd.DataFrame) -> str:
    """What the figure of attention shows and how to read it."""
    n = frame["sample_id"].nunique()
    return (
        f"Attention of {WHO[asking(frame)]} per image token over attention per text token (binary "
        "logarithm, no unit: 1 is twice as much, -1 half as much) at each layer and query head; "
        f"sinks are left out; n = {counted(n, 'sample')}. White is even attention, red more to the "
        "image, blue more to the text. A cell has no interval here; those of the indices are in "
        "attention_indices.csv."
    )


def drawn_links(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that the figure of links draws: means over heads, each link and the whole chain."""
    return frame[(frame["head"] == ALL) & frame["measure"].isin(["spearman", "indirect"])]


def chain_in_words(run: Run, frame: pd.DataFrame) -> str:
    """The strongest value of each link and of the chain, and at how many layers it was found.

    Args:
        run: the run.
        frame: of a ``LinkTable``.
    """
    parts = []
    for (link, measure), rows in drawn_links(frame).groupby(["link", "measure"], sort=False):
        known = rows[rows["value"].notna()]
        if known.empty:
            continue
        top = largest(known.assign(size=known["value"].abs()), "size")
        what = link if measure == "spearman" else "the whole chain"
        parts.append(
            f"{what}: strongest {with_interval(top['value'], top['ci_low'], top['ci_high'], 2)} at "
            f"layer {top['layer']}, found at {int(known['found'].astype(bool).sum())} of "
            f"{counted(len(known), 'layer')}"
        )
    found = "; ".join(parts) or "no link was tested"
    return f"Links from separation of keys to answers in {run.model}, means over heads: {found}"


def chain_caption(frame: pd.DataFrame) -> str:
    """What the figure of links shows and how to read it."""
    whole = frame[frame["head"] == ALL]
    n = int(whole["n_samples"].max()) if len(whole) else 0
    seen = whole.loc[whole["measure"] == "spearman", "detectable"].min()
    table = LinkTable(frame)
    outcome = f" answer: {table.outcome}." if table.outcome else ""
    roles = table.text_roles
    if roles and set(roles) != set(defaults.TEXT_ROLES):
        outcome += f" Text is of the roles {', '.join(roles)}."
    return (
        f"Rank correlation (Spearman, from -1 to 1) of each link of the chain "
        f"{' -> '.join(CHAIN)} over {counted(n, 'sample')}, by layer, means over heads; the last "
        "panel is the effect along the whole chain, a product of standardised coefficients (no "
        "unit). Bars: 95 % bootstrap intervals. Filled: found, that is p after Holm's adjustment "
        "at most 0.05 and an interval that excludes 0. With these samples a correlation of "
        f"{seen:.2f} would be found with a probability of 0.8; weaker correlations may have "
        f"gone undetected.{outcome}"
    )
