"""``kg.link``: does separation of keys reach the answer, through similarity and attention?

The chain that is inferred from separate keys is: farther keys, lower query-key similarity, less
attention to the image, an answer that follows the text. Each of its links is a correlation over
samples that can be there or not, at every layer and head. A link that is not found is reported as
plainly as one that is, with the smallest correlation that the samples could have shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from keygap import defaults, gap, random_streams
from keygap.arguments import MOST_RESAMPLINGS, distinct, seed_of, whole
from keygap.bias.link_inputs import (
    COVARIATES,
    UNIT,
    Outcome,
    attention_quantities,
    covariates_of,
    outcome_of,
    pivoted,
    separations,
)
from keygap.bias.link_statistics import (
    Estimate,
    chain_estimates,
    independent,
    smallest_detectable,
)
from keygap.bias.link_table import ALL, CHAIN, COLUMNS, LinkTable
from keygap.errors import UserError, unknown
from keygap.progress import step
from keygap.store import Store
from keygap.tokens import known_roles

MIN_SAMPLES = 20  # fewer have no p-value to rely on, and no link that could be seen
ALPHA = 0.05


class HasSamples(Protocol):
    """What the link needs of a ``BiasTable``."""

    @property
    def samples(self) -> pd.DataFrame:
        """One row per probe, condition, variant and sample."""


class HasFrame(Protocol):
    """What the link needs of an ``AttentionTable``."""

    @property
    def frame(self) -> pd.DataFrame:
        """One row per sample, layer, head, query group and key group."""


def link(
    store: Store,
    bias: HasSamples,
    attention: HasFrame | None = None,
    *,
    site: str = "k_proj",
    layers: Sequence[int] | None = None,
    text_roles: Sequence[str] = defaults.TEXT_ROLES,
    queries: str = "last",
    n_bootstraps: int = defaults.N_BOOTSTRAPS,
    seed: int = 0,
) -> LinkTable:
    """Measure the links from separation of keys to the answer, over samples.

    The link from similarity to attention is partly one of definition, because attention is the
    softmax of logits. It is the links before and after it that a model may or may not have.
    Margins differ between types of question; where a benchmark mixes them, choose one type. Under
    a wrong hint a larger answer follows the text, otherwise it is surer of the right answer, so
    the sign of a link to the answer depends on it: see ``LinkTable.outcome``.

    Args:
        store: a finished extraction.
        bias: a probe's table of the same samples. Used is the log-probability of the suggested
            minus the right answer under a wrong hint, if there is one, otherwise that of the right
            minus the best other answer of the samples as they are.
        attention: the attention table of the same samples; None measures the link from separation
            to the answer alone.
        site: whose vectors are used for the separation.
        layers: absolute indices; None means all that the store or the attention table has.
        text_roles: what counts as text.
        queries: the query group of the attention table.
        n_bootstraps: resamplings of samples behind the intervals.
        seed: of the resampling.

    Returns:
        One row per layer, head, link and measure.

    Raises:
        UserError: a site, layer or role that does not exist; answers without margins; or fewer
            than 20 samples that have everything.
    """
    whole(n_bootstraps, "n_bootstraps", 1, MOST_RESAMPLINGS)
    roles = known_roles(text_roles)
    outcome = outcome_of(bias.samples)
    places = [layer for _, layer in store.site_layers([site])]
    attended = pd.DataFrame(columns=["sample_id", *UNIT, "similarity", "attention"])
    if attention is not None:
        attended = attention_quantities(attention.frame, queries, roles)
    if layers is not None:
        _refuse_unknown(layers, {*places, *attended["layer"]})
        places = [each for each in places if each in layers]
        attended = attended[attended["layer"].isin(layers)]
    apart = separations(store, site, places, roles)
    held = covariates_of(store.tokens, roles)
    chain = _Chain.of(apart, attended, outcome, held)
    with step("link from the gap to the answer"):
        estimates = chain_estimates(
            chain.values,
            chain.covariates,
            n_bootstraps=n_bootstraps,
            seed=random_streams.integer(seed_of(seed), "link"),
        )
    notes = [*chain.notes, *_notes(places, apart, attention is None)]
    if set(roles) != set(defaults.TEXT_ROLES):
        notes.append(f"text is of the roles {', '.join(roles)}")
    frame = _frame_of(estimates, chain)
    said = frame.assign(outcome=outcome.what, text_roles=", ".join(roles))
    return LinkTable(said[list(COLUMNS)], tuple(notes))


def _refuse_unknown(layers: Sequence[int], known: set[int]) -> None:
    """Refuse layers that neither the store nor the attention table has.

    Raises:
        UserError: there is one, one is named twice, or none is named.
    """
    for layer in distinct(layers, "layers", "0"):
        if layer not in known:
            raise unknown("layer", layer, sorted(known), "of the store or the attention table")


@dataclass(frozen=True)
class _Chain:
    """The quantities of the samples that have all of them.

    Attributes:
        values: separation, similarity and attention, (n, m), and the answer, (n, 1).
        covariates: (n, k).
        units: layer and head of the m units; the head of a mean over heads is ``all``.
        notes: how many samples were left out, and what is held fixed.
    """

    values: list[np.ndarray]
    covariates: np.ndarray
    units: list[tuple[int, str]]
    notes: list[str]

    @classmethod
    def of(
        cls, apart: pd.DataFrame, attended: pd.DataFrame, outcome: Outcome, held: pd.DataFrame
    ) -> _Chain:
        """Bring the quantities together by sample.

        Raises:
            UserError: fewer than ``MIN_SAMPLES`` samples have all of them.
        """
        units = pd.MultiIndex.from_frame(
            pd.concat([apart[UNIT], attended[UNIT]]).drop_duplicates().sort_values(UNIT)
        )
        ids = sorted(outcome.values.index)
        wide = [
            pivoted(frame, name, ids, units)
            for frame, name in ((apart, CHAIN[0]), (attended, CHAIN[1]), (attended, CHAIN[2]))
        ]
        known = [np.isnan(each).all(0) | ~np.isnan(each) for each in wide]
        fixed = held.reindex(ids)
        some = np.logical_or.reduce([~np.isnan(each).all(1) for each in wide])
        whole_ones = np.logical_and.reduce([each.all(1) for each in known]) & some
        whole_ones &= fixed.notna().all(axis=1).to_numpy()
        if whole_ones.sum() < MIN_SAMPLES:
            raise UserError(
                f"{whole_ones.sum()} samples have separation, attention and a margin, and "
                f"{MIN_SAMPLES} are needed: extract, probe and measure attention of the same ones"
            )
        layers = units.get_level_values("layer").to_numpy()
        values = [_with_means(each[whole_ones], layers) for each in wide]
        answer = outcome.values.reindex(ids).to_numpy(np.float64)[whole_ones, None]
        covariates = fixed.to_numpy(np.float64)[whole_ones]
        names = [COVARIATES[number] for number in independent(covariates)]
        notes = [f"held fixed: {', '.join(names) or 'nothing, since all prompts are alike'}"]
        if missing := int((~whole_ones).sum()):
            notes.append(f"{missing} of {len(ids)} samples are left out: a quantity is missing")
        labels = [(int(layer), str(head)) for layer, head in units]
        labels += [(int(layer), ALL) for layer in np.unique(layers)]
        return cls([*values, answer], covariates, labels, notes)


def _with_means(values: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Append the mean over the heads of each layer."""
    means = [values[:, layers == layer].mean(1) for layer in np.unique(layers)]
    return np.column_stack([values, *means])


def _notes(layers: Sequence[int], apart: pd.DataFrame, without_attention: bool) -> list[str]:
    notes = []
    if without_attention:
        notes.append("no attention table was given: only separation -> answer is measured")
    if crossed := sorted(set(layers) - set(apart["layer"])):
        notes.append(
            f"layers {', '.join(map(str, crossed))}: image and text meet in cross-attention, so no "
            "query compares image keys with text keys, and there is no separation or similarity"
        )
    return notes


def _frame_of(estimates: Sequence[Estimate], chain: _Chain) -> pd.DataFrame:
    """The table: families are adjusted and what could have been seen is added."""
    n = len(chain.covariates)
    frames = []
    single = np.asarray([head != ALL for _, head in chain.units])
    for one in estimates:
        for family in (single, ~single):
            known = family & ~np.isnan(one.p_value)
            if not known.any():
                continue
            p_holm = gap.holm(one.p_value[known])
            links = len(CHAIN) - 1 if one.measure == "indirect" else 1
            low, high = one.low[known], one.high[known]
            places = [unit for unit, keep in zip(chain.units, known, strict=True) if keep]
            frames.append(
                pd.DataFrame(
                    {
                        "layer": [layer for layer, _ in places],
                        "head": [head for _, head in places],
                        "link": " -> ".join(one.link),
                        "measure": one.measure,
                        "value": one.value[known],
                        "ci_low": low,
                        "ci_high": high,
                        "p_value": one.p_value[known],
                        "p_holm": p_holm,
                        "found": (p_holm <= ALPHA) & ((low > 0) | (high < 0)),
                        "detectable": smallest_detectable(
                            n, int(known.sum()), held=one.held, links=links
                        ),
                        "n_samples": n,
                    }
                )
            )
    empty = pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(frames, ignore_index=True) if frames else empty
