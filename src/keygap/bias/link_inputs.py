"""The four quantities of the chain, from a run's vectors, its attention and a probe's answers.

- ``separation``: how far a sample's image keys lie from its text keys (``bias.separation``);
- ``similarity``: mean query-key logit of image tokens minus that of text tokens;
- ``attention``: log of the image's attention per token over the text's, 0 where attention is even;
- ``answer``: a margin between two answers, in nats.

Image tokens are those that show part of an image, text tokens those of the chosen roles; attention
sinks are left out. Similarity and attention are of all of these tokens, separation of those whose
vectors are stored: by default all text and 64 image tokens of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from keygap.bias.condition import AS_IS
from keygap.bias.separation import separation
from keygap.contrasts.labels import is_image, is_text
from keygap.errors import UserError
from keygap.progress import track
from keygap.store import Store

UNIT = ["layer", "head"]
PROBE_OF_HINTS = "hint"
COVARIATES = ("image tokens", "text tokens", "length", "image position", "text position")


@dataclass(frozen=True)
class Outcome:
    """The last quantity of the chain.

    Attributes:
        what: says in words what a larger value means.
        values: a margin in nats, by sample id.
    """

    what: str
    values: pd.Series


def outcome_of(samples: pd.DataFrame) -> Outcome:
    """Choose the margin that attention should explain.

    With a conflicting text it is ``hint_margin``, the log-probability of the suggested minus that
    of the right answer, mean over the variants of the text. Only answers that have a
    ``hint_effect`` count: the model was given the image too, and its answer to the image alone is
    known. Otherwise it is ``margin`` of the samples as they are.

    Args:
        samples: of a ``BiasTable``.

    Raises:
        UserError: answers were generated, so that no answer has a likelihood.
    """
    conflict = samples[samples["suggested"].notna() & (samples["suggested"] != samples["answer"])]
    conflict = conflict[conflict["hint_effect"].notna()]
    if (conflict["probe"] == PROBE_OF_HINTS).any():
        conflict = conflict[conflict["probe"] == PROBE_OF_HINTS]
    if len(conflict):
        first = conflict["probe"].iloc[0]
        own = conflict[conflict["probe"] == first]
        values = own.groupby(own["sample_id"].astype(str))["hint_margin"].mean()
        what = f"suggested minus right answer of {first} in nats; larger follows the wrong text"
        return Outcome(what, values)
    plain = samples[(samples["condition"] == AS_IS) & samples["margin"].notna()]
    if plain.empty:
        raise UserError(
            "no answer has a margin: the link needs questions with options or a closed set of "
            "answers"
        )
    values = plain.groupby(plain["sample_id"].astype(str))["margin"].mean()
    what = "right minus best other answer in nats; larger is surer of the right answer"
    return Outcome(what, values)


def separations(
    store: Store, site: str, layers: Sequence[int], text_roles: Sequence[str]
) -> pd.DataFrame:
    """The separation of every sample at every layer and query head.

    Heads that share a key head have the same separation.

    Returns:
        Columns sample_id, layer, head, separation. A layer whose keys are all of one modality
        (cross-attention) has no rows.
    """
    found = []
    heads = int(store.manifest["heads"])
    for layer in track(layers, len(layers), f"separation of {store.manifest['model']}"):
        vectors = store.vectors(site, layer)
        if vectors.labels["modality"].nunique() < 2:
            continue
        own = separation(vectors, text_roles)
        group = max(1, heads // vectors.array.shape[1])
        copies = own.loc[own.index.repeat(group)].reset_index(drop=True)
        copies["head"] = group * copies["head"] + np.tile(np.arange(group), len(own))
        found.append(copies.assign(layer=layer))
    columns = ["sample_id", *UNIT, "separation"]
    return pd.concat(found)[columns] if found else pd.DataFrame(columns=columns)


def attention_quantities(
    frame: pd.DataFrame, queries: str, text_roles: Sequence[str]
) -> pd.DataFrame:
    """Similarity and attention of every sample, layer and head.

    Args:
        frame: of an ``AttentionTable``.
        queries: the query group.
        text_roles: what counts as text.

    Returns:
        Columns sample_id, layer, head, similarity, attention; rows that have both image and text.

    Raises:
        UserError: the frame has no such queries.
    """
    own = frame[(frame["queries"] == queries) & ~frame["sink"].astype(bool)]
    if own.empty:
        known = ", ".join(map(str, frame["queries"].unique()))
        raise UserError(f"the attention table has no queries {queries!r}, only {known}")
    own = own[own["n_keys"] > 0]
    sides = (_side(own[is_image(own)]), _side(own[is_text(own, text_roles)]))
    both = sides[0].merge(sides[1], left_index=True, right_index=True, suffixes=("_image", "_text"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(both["per_token_image"]) - np.log(both["per_token_text"])
    similarity = both["logit_image"] - both["logit_text"]
    quantities = pd.DataFrame({"similarity": similarity, "attention": ratio})
    return quantities.reset_index()


def _side(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean logit and relative attention per token, over the key groups of one side."""
    weighted = rows.assign(
        sample_id=rows["sample_id"].astype(str), logit=rows["logit"] * rows["n_keys"]
    )
    groups = weighted.groupby(["sample_id", *UNIT], observed=True)
    sums = groups[["logit", "relative", "n_keys"]].sum()
    return pd.DataFrame(
        {"logit": sums["logit"] / sums["n_keys"], "per_token": sums["relative"] / sums["n_keys"]}
    )


def covariates_of(tokens: pd.DataFrame, text_roles: Sequence[str]) -> pd.DataFrame:
    """Positions and token counts of every sample, columns ``COVARIATES``."""
    sample = tokens["sample_id"].astype(str)
    image, text = is_image(tokens), is_text(tokens, text_roles)
    place = tokens["position"]
    columns = (
        pd.Series(image).groupby(sample.to_numpy()).sum(),
        pd.Series(text).groupby(sample.to_numpy()).sum(),
        place.groupby(sample).size(),
        place[image].groupby(sample[image]).mean(),
        place[text].groupby(sample[text]).mean(),
    )
    return pd.DataFrame(dict(zip(COVARIATES, columns, strict=True)))


def pivoted(
    frame: pd.DataFrame, quantity: str, ids: Sequence[str], units: pd.MultiIndex
) -> Float[np.ndarray, "n m"]:
    """A quantity as samples x units; NaN where it is unknown."""
    if frame.empty:
        return np.full((len(ids), len(units)), np.nan)
    wide = frame.pivot(index="sample_id", columns=UNIT, values=quantity)
    return wide.reindex(index=list(ids), columns=units).to_numpy(np.float64)
