"""MDI and AEI: how much more attention a text token gets than an image token.

With the attention ``A`` and the number ``n`` of text tokens (T) and other tokens (O), which show
part of an image or video (arXiv 2508.10552):

    MDI = (A_T / n_T) / (A_O / n_O)         modality dominance index
    AEI = (A_T / (A_T + A_O)) / q           attention efficiency index
    q = n_T / (n_T + n_O)                   share of text

so that AEI = MDI / (1 + q (MDI - 1)) where nothing is averaged. Published values differ in choices
that move them severalfold: which tokens are text, whether attention sinks and the first token are
counted, whether ratios are averaged or sums are divided, which positions attend, and at which
layers. A variant here is one combination of these choices, and q is given with each.

Attention is relative: the weight of a key times the number of keys that its query sees. For one
query this changes no ratio; over several queries under a causal mask it makes both indices 1 when
attention is even, whatever the order of image and text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from keygap import defaults, random_streams
from keygap.arguments import seed_of, whole
from keygap.bias.intervals import CONFIDENCE
from keygap.errors import UserError
from keygap.gap.core.resampling import multiplicities

TEXT = {  # roles that count as text; None: all
    "question": ("question", "option"),
    "user": ("question", "option", "hint"),
    "all": None,
}
ORDERS = ("mean of ratios", "ratio of sums")
CHOICES = ("text", "sinks", "first", "order", "queries", "stage")
COLUMNS = (
    *CHOICES, "mdi", "mdi_low", "mdi_high", "aei", "aei_low", "aei_high", "q", "n_samples",
)  # fmt: skip
_SHOWS_NOTHING = ("separator", "padding")  # roles of image positions that show no part of it
_WITH = {True: "with", False: "without"}

Sums = Float[np.ndarray, "samples layers 4"]  # A_T, n_T, A_O, n_O; means over heads


def attention_indices(
    frame: pd.DataFrame, *, n_bootstraps: int = defaults.N_BOOTSTRAPS, seed: int = 0
) -> pd.DataFrame:
    """MDI, AEI and q of every variant.

    Args:
        frame: ``AttentionTable.frame``.
        n_bootstraps: resamplings of the samples for the intervals.
        seed: of the resampling. All variants use the same draws.

    Returns:
        One row per variant (``COLUMNS``).

        - ``text``: what counts as text: ``question`` (roles question and option), ``user`` (also
          hints) or ``all`` (also template, system and generated tokens).
        - ``sinks``, ``first``: ``with`` or ``without`` attention sinks and the first token.
        - ``order``: ``mean of ratios`` (the index of each sample and layer, then their mean) or
          ``ratio of sums`` (attention and numbers of tokens summed over samples and layers first).
          Attention is averaged over heads before either.
        - ``queries``: which positions attend.
        - ``stage``: ``early``, ``middle``, ``late`` (the first, middle and last two of the measured
          layers), ``all``, or the index of one layer.
        - ``*_low``, ``*_high``: 95 % percentile interval of a bootstrap over samples; NaN with
          fewer than two samples.
        - ``n_samples``: samples in which both kinds of token are seen. The others do not count.

    Raises:
        UserError: the table has no row.
    """
    n_bootstraps, seed = whole(n_bootstraps, "n_bootstraps", 1), seed_of(seed)
    if not len(frame):
        raise UserError("the attention table has no row: there is nothing to compare")
    samples, layers = (np.unique(frame[name].to_numpy()) for name in ("sample_id", "layer"))
    rng = random_streams.generator(seed, "attention indices", "bootstrap")
    several = len(samples) > 1
    draws = multiplicities(len(samples), n_bootstraps, rng) if several else np.ones((0, 1))
    stages = stages_of(len(layers)) | {str(layer): [n] for n, layer in enumerate(layers.tolist())}
    rows = []
    for choice, sums in _sums_of_choices(frame, samples, layers):
        for stage, places in stages.items():
            for order in ORDERS:
                values = _values(sums[:, places], order, draws)
                rows.append({**choice, "order": order, "stage": stage, **values})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def stages_of(layers: int) -> dict[str, list[int]]:
    """The places of the layers of each stage among the measured ones."""
    every = list(range(layers))
    middle = every[(layers - 1) // 2 :][:2]
    return {"early": every[:2], "middle": middle, "late": every[-2:], "all": every}


def _sums_of_choices(
    frame: pd.DataFrame, samples: np.ndarray, layers: np.ndarray
) -> Iterator[tuple[dict[str, str], Sums]]:
    """Attention and numbers of text and other tokens, for each choice of tokens and queries."""
    small = _mean_over_heads(frame)
    small["row"] = np.searchsorted(samples, small["sample_id"].to_numpy())
    small["place"] = np.searchsorted(layers, small["layer"].to_numpy())
    shape = (len(samples), len(layers))
    choices = itertools.product(
        TEXT, (True, False), (True, False), pd.unique(small["queries"]).tolist()
    )
    for text, sinks, first, queries in choices:
        chosen = small[small["queries"] == queries]
        chosen = chosen[sinks | ~chosen["sink"]]
        chosen = chosen[first | ~chosen["first"]]
        names = {"text": text, "sinks": _WITH[sinks], "first": _WITH[first], "queries": queries}
        yield names, _sums(chosen, TEXT[text], shape)


def _mean_over_heads(frame: pd.DataFrame) -> pd.DataFrame:
    """Attention and numbers of tokens by modality and role, summed over images and frames."""
    keys = ["sample_id", "layer", "queries", "modality", "role", "sink", "first"]
    heads = frame.groupby("layer")["head"].nunique()
    small = frame.groupby(keys, as_index=False, observed=True)[["relative", "n_keys"]].sum()
    count = small["layer"].map(heads)
    return small.assign(relative=small["relative"] / count, n_keys=small["n_keys"] / count)


def _sums(chosen: pd.DataFrame, roles: Sequence[str] | None, shape: tuple[int, int]) -> Sums:
    of_text = chosen["modality"] == "text"
    is_text = (of_text if roles is None else of_text & chosen["role"].isin(roles)).to_numpy()
    is_other = (~of_text & ~chosen["role"].isin(_SHOWS_NOTHING)).to_numpy()
    sums = np.zeros((*shape, 4))
    row, place = chosen["row"].to_numpy(), chosen["place"].to_numpy()
    for start, mask in ((0, is_text), (2, is_other)):
        for offset, name in enumerate(("relative", "n_keys")):
            values = chosen[name].to_numpy(dtype=np.float64)[mask]
            np.add.at(sums[..., start + offset], (row[mask], place[mask]), values)
    return sums


def _values(
    sums: Sums, order: str, draws: Float[np.ndarray, "B samples"]
) -> dict[str, float | int]:
    """MDI, AEI, q and their intervals over some layers."""
    usable = (sums[..., 1] > 0) & (sums[..., 3] > 0)  # both kinds of token are seen
    used = usable.any(1)
    observed = _indices(sums, usable, np.ones((1, len(sums))), order)[0]
    values: dict[str, float | int] = dict(zip(("mdi", "aei", "q"), observed, strict=True))
    drawn = _indices(sums, usable, draws, order) if used.sum() > 1 else np.full((1, 3), np.nan)
    drawn = drawn[np.isfinite(drawn).all(1)]  # a draw may have none of the samples that count
    tails = (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE))
    bounds = np.percentile(drawn, tails, axis=0) if len(drawn) else np.full((2, 3), np.nan)
    for column, name in enumerate(("mdi", "aei")):
        values[f"{name}_low"], values[f"{name}_high"] = bounds[:, column]
    return values | {"n_samples": int(used.sum())}


def _indices(
    sums: Sums, usable: np.ndarray, weights: Float[np.ndarray, "B samples"], order: str
) -> Float[np.ndarray, "B 3"]:
    """MDI, AEI and q, each sample weighted by how often a resampling drew it."""
    kept = np.where(usable[..., None], sums, 0.0)
    if order == "ratio of sums":
        return _ratios(weights @ kept.sum(1))
    each = np.where(usable[..., None], _ratios(kept), 0.0).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (weights @ each) / (weights @ usable.sum(1))[:, None]


def _ratios(sums: Float[np.ndarray, "... 4"]) -> Float[np.ndarray, "... 3"]:
    text, n_text, other, n_other = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = n_text / (n_text + n_other)
        return np.stack([(text / n_text) / (other / n_other), text / (text + other) / q, q], -1)
