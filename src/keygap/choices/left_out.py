"""Every number of a choice as a function of how often each sample is counted.

A number over tokens is either a sum over pairs of samples (MMD) or a sum over samples (histograms,
mean terms). Written like this, the observed value and the values without some samples are products
with a matrix of multiplicities: row 0 counts every sample once, and each other row leaves a group
of samples out. Intervals are jackknife intervals over these groups, because a bootstrap of whole
samples doubles the bias of a biased estimate, and with it moves every ratio. All choices share the
groups: a sample is in the same group in every choice and every model. So statements about many
choices get an interval too. Coordinates, bandwidths, bins and fitted classifiers stay as they were
fitted to all samples.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from keygap.contrasts.contrast import NotMeasurable
from keygap.gap.core.calibration import LN2

_COLUMNS = 4096  # of histograms at a time


def multiplicities(ranks: Int[np.ndarray, " S"], n_groups: int) -> Float[np.ndarray, "1+G S"]:
    """How often each sample is counted: once in row 0, and 0 times in the row of its group.

    The samples of ranks 2i and 2i + 1 are in the same group. One belongs to each half, so a group
    takes as many samples from both halves, as far as none is missing.

    Args:
        ranks: rank of each of the S samples; the order is random already.
        n_groups: number G of groups, at most as many as there are pairs of samples.

    Raises:
        NotMeasurable: without some group, fewer than two samples of a half are left.
    """
    left_out = ranks // 2 % n_groups == np.arange(n_groups)[:, None]
    kept = 1.0 - left_out
    if (kept @ np.eye(2)[ranks % 2]).min() < 2:
        raise NotMeasurable(
            f"without one of the {n_groups} groups of samples, fewer than two are left in a half"
        )
    return np.concatenate([np.ones((1, len(ranks))), kept])


def mean_terms(
    terms: Float[np.ndarray, " n"],
    samples: Int[np.ndarray, " n"],
    draws: Float[np.ndarray, "B S"],
    by_sample: bool,
) -> Float[np.ndarray, " B"]:
    """Mean of one term for each token of a side.

    Args:
        terms: one for each token.
        samples: index of its sample.
        draws: multiplicities.
        by_sample: whether samples weigh the same, or tokens.
    """
    size, weight = _weights(samples, draws.shape[1], by_sample)
    totals = np.bincount(samples, weights=weight * terms, minlength=len(size))
    return (draws @ totals) / (draws @ size)


def histogram_divergence(
    bins: tuple[Int[np.ndarray, "n columns"], Int[np.ndarray, "m columns"]],
    n_bins: int,
    samples: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]],
    draws: Float[np.ndarray, "B S"],
    by_sample: bool,
) -> Float[np.ndarray, " B"]:
    """JSD of two histograms in nats, averaged over columns.

    The observed value is computed in float64, the others in float32.

    Args:
        bins: bin of every token of each side in every column.
        n_bins: number of bins of a column.
        samples: index of the sample of every token of each side.
        draws: multiplicities; row 0 is the observed value.
        by_sample: whether samples weigh the same, or tokens.
    """
    width = max(1, _COLUMNS // n_bins)
    columns = bins[0].shape[1]
    total = np.zeros(len(draws))
    for start in range(0, columns, width):
        part = slice(start, start + width)
        shares = [
            _shares(own[:, part], n_bins, sample, draws, by_sample)
            for own, sample in zip(bins, samples, strict=True)
        ]
        total[:1] += _divergences(*(share[0] for share in shares)).numpy()
        total[1:] += _divergences(*(share[1] for share in shares)).double().numpy()
    return np.clip(total / columns, 0.0, LN2)


def _shares(
    bins: Int[np.ndarray, "n columns"],
    n_bins: int,
    samples: Int[np.ndarray, " n"],
    draws: Float[np.ndarray, "B S"],
    by_sample: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Share of every bin in row 0 of the draws (float64), and in the others (float32)."""
    n_samples, columns = draws.shape[1], bins.shape[1]
    size, weight = _weights(samples, n_samples, by_sample)
    index = (samples[:, None] * columns + np.arange(columns)) * n_bins + bins
    counts = np.bincount(
        index.ravel(), weights=np.repeat(weight, columns), minlength=n_samples * columns * n_bins
    ).reshape(n_samples, columns * n_bins)
    norm = draws @ size
    observed = torch.from_numpy(draws[:1] @ counts / norm[0])
    drawn = torch.from_numpy(draws[1:].astype(np.float32)) @ torch.from_numpy(
        counts.astype(np.float32)
    )
    return observed, drawn / torch.from_numpy(norm[1:, None].astype(np.float32))


def _divergences(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Sum over columns of the JSD of the rows of two matrices of shares."""
    middle = 0.5 * (p + q)
    entropies = 0.5 * (torch.xlogy(p, p) + torch.xlogy(q, q)) - torch.xlogy(middle, middle)
    return entropies.sum(1)


def _weights(
    samples: Int[np.ndarray, " n"], n_samples: int, by_sample: bool
) -> tuple[Float[np.ndarray, " S"], Float[np.ndarray, " n"]]:
    """What each sample weighs, and each of its tokens: 1 a sample, or 1 a token."""
    counts = np.bincount(samples, minlength=n_samples).astype(np.float64)
    if by_sample:
        return np.minimum(counts, 1.0), 1.0 / counts[samples]
    return counts, np.ones(len(samples))
