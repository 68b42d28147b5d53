"""How far the keys of one sample's image lie from those of its text, at each head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import sparse

from keygap.contrasts.labels import is_image, is_sink, is_text
from keygap.store import LabelledVectors


def separation(vectors: LabelledVectors, text_roles: Sequence[str]) -> pd.DataFrame:
    """Compute the separation of image and text tokens within every sample.

    It is the distance of the two means over the root mean square of the two spreads, Cohen's d in
    several dimensions: ``|m_I - m_T| / sqrt((s_I^2 + s_T^2) / 2)``, where ``s^2`` is the mean
    squared distance of a side's tokens from their mean, with n - 1 in the denominator. Attention
    sinks are left out: they lie far from all other tokens. Few tokens make the distance of the
    means larger by chance, so hold their number fixed when samples are compared.

    Args:
        vectors: of one site and layer.
        text_roles: what counts as text.

    Returns:
        One row per sample and head, columns sample_id, head, separation; NaN for a sample with
        fewer than two tokens on a side.
    """
    labels = vectors.labels
    kept = ~is_sink(labels)
    code, ids = pd.factorize(labels["sample_id"].astype(str))
    sides = (is_image(labels) & kept, is_text(labels, text_roles) & kept)
    (mean_a, spread_a), (mean_b, spread_b) = (
        _moments(vectors.array, code, len(ids), side) for side in sides
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.linalg.norm(mean_a - mean_b, axis=-1)
        values = distance / np.sqrt((spread_a + spread_b) / 2)
    heads = values.shape[1]
    return pd.DataFrame(
        {
            "sample_id": np.repeat(ids, heads),
            "head": np.tile(np.arange(heads), len(ids)),
            "separation": values.ravel(),
        }
    )


def _moments(
    array: Float[np.ndarray, "n heads head_dim"],
    code: np.ndarray,
    samples: int,
    side: Bool[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, "s heads head_dim"], Float[np.ndarray, "s heads"]]:
    """Mean and spread of each sample's tokens on one side; NaN where there are fewer than two."""
    own = array[side].astype(np.float64)
    rows = np.arange(len(own))
    belongs = sparse.csr_array((np.ones(len(own)), (code[side], rows)), (samples, len(own)))
    count = np.bincount(code[side], minlength=samples).astype(np.float64)
    count[count < 2] = np.nan
    width = array.shape[1] * array.shape[2]  # -1 would be no width for a side without a token
    mean = (belongs @ own.reshape(len(own), width)).reshape(samples, *array.shape[1:])
    mean /= count[:, None, None]
    apart = ((own - mean[code[side]]) ** 2).sum(-1)
    return mean, (belongs @ apart) / (count - 1)[:, None]
