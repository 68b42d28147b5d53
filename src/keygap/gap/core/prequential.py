"""A p-value for critics without refitting them under every label swap.

The labels of cross-validated scores cannot simply be swapped: every fold also trained the critics
of the other folds, which doubles the variance of the sum of scores under the null. The prequential
test goes through the folds in a row instead. Each fold is scored by the critic that was trained and
chosen on the folds before it alone. Given those, the labels of the fold are exchangeable under the
null (see ``swaps``), so its label swaps are valid as they are.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from keygap.gap.core.cross_validation import FoldLogOdds, Task
from keygap.gap.core.resampling import chunks, p_value
from keygap.gap.core.swaps import dealt, random_signs
from keygap.gap.core.weights import mean_of_present

_MAX_SCORE = 3.0  # in units of the root mean square: one far vector must not decide the test


def prequential_p(
    task: Task, log_odds: FoldLogOdds, n_permutations: int, rng: np.random.Generator
) -> float:
    """One-sided p-value of the sum over folds of standardised scores.

    Args:
        task: What the critics learn.
        log_odds: Their cross-validated log-odds; those of the last two folds are reused.
        n_permutations: Number of label swaps.
        rng: Source of randomness.

    Returns:
        The p-value; 1 without swaps.
    """
    if n_permutations == 0:
        return 1.0
    sides, n = task.sides, len(task.sides.x)
    observed, null = 0.0, np.zeros(n_permutations)
    record = np.zeros(len(log_odds.names))  # how well each column has predicted so far
    for k in range(1, task.n_folds):
        scores = _scores(task, log_odds, k)
        is_x = task.label[task.fold == k]
        scores_x = mean_of_present(scores[is_x], sides.sample_x[task.fold[:n] == k])
        scores_y = mean_of_present(scores[~is_x], sides.sample_y[task.fold[n:] == k])
        column = int(record.argmax())
        record += scores_x.mean(0) - scores_y.mean(0)
        compare = _compare_paired if sides.paired else _compare_unpaired
        of_fold, of_swaps = compare(scores_x[:, column], scores_y[:, column], n_permutations, rng)
        observed += of_fold
        null += of_swaps
    return p_value(observed, null)


def _scores(task: Task, log_odds: FoldLogOdds, k: int) -> Float[np.ndarray, "fold c"]:
    """Log-odds of fold k by critics of the folds before it, scaled and clipped without labels."""
    test, last = task.fold == k, task.n_folds - 1
    if k == last:
        found = log_odds.outer[test]
    elif k == last - 1:
        found = log_odds.inner[last][test]
    else:
        found = task.log_odds((task.fold < k)[None], log_odds.names)[0][test]
    scale = np.sqrt(np.square(found, dtype=np.float64).mean(0)) + 1e-12
    return np.clip(found / scale, -_MAX_SCORE, _MAX_SCORE)


def _compare_paired(
    a: Float[np.ndarray, " s"],
    b: Float[np.ndarray, " s"],
    n_permutations: int,
    rng: np.random.Generator,
) -> tuple[float, Float[np.ndarray, " B"]]:
    """Standardised sum of differences of sample scores, and the same under label swaps."""
    gaps = (a - b) / (np.sqrt(((a - b) ** 2).sum()) + 1e-12)
    swapped = [
        random_signs(rows.stop - rows.start, len(gaps), rng) @ gaps
        for rows in chunks(n_permutations, len(gaps))
    ]
    return float(gaps.sum()), np.concatenate(swapped)


def _compare_unpaired(
    a: Float[np.ndarray, " s"],
    b: Float[np.ndarray, " t"],
    n_permutations: int,
    rng: np.random.Generator,
) -> tuple[float, Float[np.ndarray, " B"]]:
    """Standardised difference of mean sample scores, and the same under label swaps."""
    pooled = np.concatenate([a, b])
    pooled = (pooled - pooled.mean()) / (pooled.std() + 1e-12)
    share = np.repeat([1.0 / len(a), -1.0 / len(b)], [len(a), len(b)])
    share /= np.sqrt((share**2).sum())
    swapped = [
        dealt(share, rows.stop - rows.start, rng) @ pooled
        for rows in chunks(n_permutations, len(pooled))
    ]
    return float(share @ pooled), np.concatenate(swapped)
