"""Held-out probabilities of the side, by critics that compete: what JSD and C2ST are made of.

An estimate from a classifier is honest when the vectors it is judged on come from samples that it
never saw, when the critic was chosen without them, and when its probabilities were calibrated
without them. A fold is therefore a set of whole samples. One model for every pair of folds left
out serves both as inner folds of each other: K (K - 1) / 2 inner and K outer fits of each critic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from keygap.errors import UserError, unknown
from keygap.gap.core.critics import CRITICS, Critic
from keygap.gap.core.inputs import TwoSides
from keygap.gap.core.resampling import mean_by_sample, multiplicities, p_value

N_FOLDS = 5
_MAX_LOGIT = 8.0  # costs 0.0003 nats where the sides are perfectly separable


def named_critics(names: Sequence[str]) -> list[Critic]:
    """The critics of these names; UserError for an unknown one, or none."""
    for name in names:
        if name not in CRITICS:
            raise unknown("critic", name, CRITICS)
    if not names:
        raise UserError(f"no critic given: name some of {', '.join(CRITICS)}")
    return [CRITICS[name] for name in names]


@dataclass(frozen=True)
class HeldOut:
    """Calibrated held-out logits of every vector, from the critic that won its training folds."""

    logits: Float[np.ndarray, " n+m"]
    logits_by_critic: dict[str, Float[np.ndarray, " n+m"]]
    wins: dict[str, int]  # folds won, by critic; "none": no critic beat chance there, p = 1/2
    p_value: float

    @property
    def winner(self) -> str:
        """The critic that won most folds."""
        return max(self.wins, key=lambda name: self.wins[name])


def held_out(
    sides: TwoSides,
    z: Float[np.ndarray, "n+m k"],
    critics: Sequence[Critic],
    n_permutations: int,
    rng: np.random.Generator,
) -> HeldOut:
    """Train, choose, calibrate and predict, each vector by folds without its sample.

    The p-value is prequential: folds in a row, each scored by the critic that was trained and
    chosen on the folds before it alone. Given the past, labels of a fold are exchangeable under
    the null (swapped within samples, or dealt to samples), so its permutations are valid without
    refitting. Swapping labels of the cross-validated scores would not be: every fold also trained
    the others, which doubles the variance of their sum.
    """
    label = np.arange(len(z)) < len(sides.x)
    weight = sides.weights
    fold, n_folds = _folds(sides, rng)
    raw = _RawScores.fit(z, label, weight, fold, n_folds, critics)
    names = [critic.name for critic in critics for _ in range(critic.variants)]
    columns = {name: [i for i, n in enumerate(names) if n == name] for name in names}
    logits = np.empty(len(z))
    by_critic = {name: np.empty(len(z)) for name in columns}
    wins: Counter[str] = Counter()
    for k in range(n_folds):
        test, train = fold == k, fold != k
        calibration, inner = _calibrate(raw.inner[k][train], label[train], weight[train])
        predicted = calibration.apply(raw.outer[test])
        best = int(inner.argmax())
        # Calibrated terms of a true null are positive by luck alone; being held to one standard
        # error over samples keeps a few correlated samples from reading below 0.
        terms = _terms(calibration.apply(raw.inner[k][train])[:, best], label[train])
        if inner[best] > _standard_error(terms, sides.cells[train], label[train]):
            logits[test] = predicted[:, best]
            wins[names[best]] += 1
        else:
            logits[test] = 0.0
            wins["none"] += 1
        for name, own in columns.items():
            by_critic[name][test] = predicted[:, own[int(inner[own].argmax())]]
    p = _prequential_p(sides, z, label, weight, fold, raw, n_permutations, rng)
    return HeldOut(logits, by_critic, dict(wins), p)


def bootstrap_interval(
    of_x: Float[np.ndarray, " s"],
    of_y: Float[np.ndarray, " t"],
    paired: bool,
    n_bootstraps: int,
    level: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Percentile interval of the mean of both sides' means, samples drawn with replacement."""
    draws_x = multiplicities(len(of_x), n_bootstraps, rng)
    draws_y = draws_x if paired else multiplicities(len(of_y), n_bootstraps, rng)
    means = 0.5 * (draws_x @ of_x) / len(of_x) + 0.5 * (draws_y @ of_y) / len(of_y)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _folds(sides: TwoSides, rng: np.random.Generator) -> tuple[Int[np.ndarray, " n+m"], int]:
    """Fold of each pooled vector: whole samples, both sides in every fold."""
    n_folds = min(N_FOLDS, sides.n_samples_x, sides.n_samples_y)
    of_x = rng.permutation(np.arange(sides.n_samples_x) % n_folds)
    of_y = of_x if sides.paired else rng.permutation(np.arange(sides.n_samples_y) % n_folds)
    return np.concatenate([of_x[sides.sample_x], of_y[sides.sample_y]]), n_folds


@dataclass(frozen=True)
class _RawScores:
    """Log-odds of rows that the model never saw, one column for each critic variant."""

    critics: Sequence[Critic]
    n_folds: int
    outer: Float[np.ndarray, "n+m c"]  # row of fold k: trained without k
    inner: Float[np.ndarray, "folds n+m c"]  # [k], row of fold i: trained without k and i

    @classmethod
    def fit(
        cls,
        z: np.ndarray,
        label: np.ndarray,
        weight: np.ndarray,
        fold: np.ndarray,
        n_folds: int,
        critics: Sequence[Critic],
    ) -> _RawScores:
        n_columns = sum(critic.variants for critic in critics)
        outer = np.empty((len(z), n_columns))
        inner = np.full((n_folds, len(z), n_columns), np.nan)
        for i in range(n_folds):
            for j in range(i, n_folds):
                test = (fold == i) | (fold == j)
                predicted = _fit_predict(critics, z, label, weight, ~test, test)
                if i == j:
                    outer[test] = predicted
                else:
                    inner[i][fold == j] = predicted[fold[test] == j]
                    inner[j][fold == i] = predicted[fold[test] == i]
        return cls(critics, n_folds, outer, inner)


def _fit_predict(
    critics: Sequence[Critic],
    z: np.ndarray,
    label: np.ndarray,
    weight: np.ndarray,
    train: Bool[np.ndarray, " n+m"],
    test: Bool[np.ndarray, " n+m"],
) -> Float[np.ndarray, "test c"]:
    share = weight[train] / weight[train].mean()  # mean 1: the ridge then means the same for all n
    rows, side, new = z[train], label[train], z[test]
    return np.concatenate([critic.fit(rows, side, share)(new) for critic in critics], axis=1)


@dataclass(frozen=True)
class _Calibration:
    scale: Float[np.ndarray, " c"]
    slope: Float[np.ndarray, " c"]
    intercept: Float[np.ndarray, " c"]

    def apply(self, log_odds: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        scores = np.clip(log_odds / self.scale, -10.0, 10.0)
        return np.clip(self.slope * scores + self.intercept, -_MAX_LOGIT, _MAX_LOGIT)


def _calibrate(
    log_odds: Float[np.ndarray, "n c"], label: np.ndarray, weight: np.ndarray
) -> tuple[_Calibration, Float[np.ndarray, " c"]]:
    """Platt's logistic calibration (1999) of every column at once, and its in-sample bound in nats.

    A column that points the wrong way gets slope 0, hence p = 1/2 and a bound of 0: this is what
    keeps the estimate from going far below 0 where there is nothing to find.
    """
    share = weight / weight.sum()
    scale = np.sqrt(share @ log_odds**2) + 1e-12
    scores = np.clip(log_odds / scale, -10.0, 10.0)
    slope, intercept = np.zeros(scores.shape[1]), np.zeros(scores.shape[1])
    for _ in range(25):  # Newton; the small ridge bounds the slope of separable sides
        p = expit(slope * scores + intercept)
        error = share[:, None] * (p - label[:, None])
        curve = share[:, None] * p * (1.0 - p)
        gradient_a = (error * scores).sum(0) + 1e-4 * slope
        gradient_b = error.sum(0) + 1e-4 * intercept
        aa = (curve * scores**2).sum(0) + 1e-4
        ab = (curve * scores).sum(0)
        bb = curve.sum(0) + 1e-4
        determinant = aa * bb - ab**2
        step_a = (bb * gradient_a - ab * gradient_b) / determinant
        step_b = (aa * gradient_b - ab * gradient_a) / determinant
        slope -= np.clip(step_a, -2.0, 2.0)
        intercept -= np.clip(step_b, -2.0, 2.0)
        if max(np.abs(step_a).max(), np.abs(step_b).max()) < 1e-4:
            break
    wrong = slope <= 0.0
    calibration = _Calibration(scale, np.where(wrong, 0.0, slope), np.where(wrong, 0.0, intercept))
    return calibration, share @ _terms(calibration.apply(log_odds), label[:, None])


def _terms(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Ln 2 + log probability of the true side, in nats."""
    return np.log(2.0) - np.logaddexp(0.0, np.where(label, -logits, logits))


def _standard_error(
    terms: Float[np.ndarray, " n"], cells: Int[np.ndarray, " n"], label: Bool[np.ndarray, " n"]
) -> float:
    """Of the balanced mean of the terms, a sample being one observation of its side."""
    variance = 0.0
    for side in (label, ~label):
        means = _sample_means(terms[side], cells[side])
        variance += 0.25 * float(np.var(means, ddof=1)) / len(means)
    return variance**0.5


def _prequential_p(
    sides: TwoSides,
    z: Float[np.ndarray, "n+m k"],
    label: np.ndarray,
    weight: np.ndarray,
    fold: Int[np.ndarray, " n+m"],
    raw: _RawScores,
    n_permutations: int,
    rng: np.random.Generator,
) -> float:
    """One-sided p of the sum over folds of standardised scores, each trained on the past alone."""
    if n_permutations == 0:
        return 1.0
    n, last = len(sides.x), raw.n_folds - 1
    observed, null = 0.0, np.zeros(n_permutations)
    record = np.zeros(raw.outer.shape[1])  # how well each column has predicted so far
    for k in range(1, raw.n_folds):
        test = fold == k
        if k == last:
            log_odds = raw.outer[test]
        elif k == last - 1:
            log_odds = raw.inner[last][test]
        else:
            log_odds = _fit_predict(raw.critics, z, label, weight, fold < k, test)
        # Scale and clip without looking at labels: one far vector must not be the whole score.
        scale = np.sqrt((log_odds**2).mean(0)) + 1e-12
        scores = np.clip(log_odds / scale, -3.0, 3.0)
        column = int(record.argmax())
        is_x = label[test]
        scores_x = _sample_means(scores[is_x], sides.sample_x[fold[:n] == k])
        scores_y = _sample_means(scores[~is_x], sides.sample_y[fold[n:] == k])
        record += scores_x.mean(0) - scores_y.mean(0)
        a, b = scores_x[:, column], scores_y[:, column]
        if sides.paired:
            gaps = (a - b) / (np.sqrt(((a - b) ** 2).sum()) + 1e-12)
            observed += gaps.sum()
            null += rng.choice([-1.0, 1.0], size=(n_permutations, len(gaps))) @ gaps
        else:
            pooled = np.concatenate([a, b])
            pooled = (pooled - pooled.mean()) / (pooled.std() + 1e-12)
            share = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))])
            share /= np.sqrt((share**2).sum())
            observed += share @ pooled
            null += rng.permuted(np.tile(share, (n_permutations, 1)), axis=1) @ pooled
    return p_value(observed, null)


def _sample_means(
    scores: Float[np.ndarray, "n ..."], sample: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "samples ..."]:
    """Mean scores of the samples that occur here, in the order of their ids."""
    present, index = np.unique(sample, return_inverse=True)
    return mean_by_sample(scores, index, len(present))
