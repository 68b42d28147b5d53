"""Held-out logits of the side by competing critics, on which JSD and C2ST are built.

An estimate from a classifier is honest if the vectors it is judged on come from samples that the
classifier never saw, and if it was chosen and calibrated without them. So the log-odds are
cross-validated by sample, and for each fold the critic is chosen and calibrated on inner folds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from keygap.errors import UserError, unknown
from keygap.gap.core.calibration import Calibration, bound_terms
from keygap.gap.core.critic import Critic
from keygap.gap.core.critics import CRITICS
from keygap.gap.core.cross_validation import FoldLogOdds, Task, fold_log_odds
from keygap.gap.core.inputs import CheckedSides
from keygap.gap.core.prequential import prequential_p
from keygap.gap.core.resampling import central_band, multiplicities
from keygap.gap.core.weights import mean_of_present

DEFAULT_CRITICS = ("linear", "quadratic", "spline", "network")
MAX_VECTORS = 10_000  # of each side; more cost time and change little
NO_CRITIC = "none"  # the name that wins a fold in which no critic beats chance
_DRAWS = 100  # bootstraps at a time
_ERRORS = 2.0  # standard errors that a bound has to exceed on the training folds


def named_critics(names: Sequence[str]) -> list[Critic]:
    """Look up critics by name.

    Args:
        names: Their names.

    Returns:
        The critics, in the order of the names.

    Raises:
        UserError: A name is unknown, or there is none.
    """
    for name in names:
        if name not in CRITICS:
            raise unknown("critic", name, CRITICS)
    if not names:
        raise UserError(f"no critic given: name some of {', '.join(CRITICS)}")
    return [CRITICS[name] for name in names]


@dataclass(frozen=True)
class HeldOut:
    """Calibrated held-out logits of side x for every pooled vector.

    Attributes:
        logits: By the critic that won on the training folds; 0 where none beat chance there.
        logits_by_critic: By each critic alone.
        wins: Number of folds that each critic won. "none" counts folds without a winner.
        p_value: Of the prequential test.
    """

    logits: Float[np.ndarray, " n+m"]
    logits_by_critic: dict[str, Float[np.ndarray, " n+m"]]
    wins: dict[str, int]
    p_value: float

    @property
    def winner(self) -> str:
        """The critic that won the most folds."""
        return max(self.wins, key=lambda name: self.wins[name])


def held_out(
    sides: CheckedSides,
    z: Float[np.ndarray, "n+m k"],
    critics: Sequence[Critic],
    n_permutations: int,
    rng: np.random.Generator,
    seed: int = 0,
) -> HeldOut:
    """Train, choose, calibrate and predict, each vector by folds without its sample.

    Args:
        sides: Both sides.
        z: Whitened components of the pooled vectors.
        critics: The critics that compete.
        n_permutations: Number of label swaps of the test.
        rng: Source of randomness of the folds and label swaps.
        seed: Seed of critics that draw random numbers.

    Returns:
        Logits of every pooled vector, and the p-value.
    """
    task = Task.of(sides, z, critics, rng, seed)
    return held_out_together([task], n_permutations, [rng])[0]


def held_out_together(
    tasks: Sequence[Task], n_permutations: int, rngs: Sequence[np.random.Generator]
) -> list[HeldOut]:
    """``held_out`` of several tasks, such as the heads of a layer, which share their fits.

    Args:
        tasks: What the critics learn.
        n_permutations: Number of label swaps of the test.
        rngs: Source of randomness of the label swaps of each task.

    Returns:
        The logits and the p-value of each task.
    """
    fitted = fold_log_odds(tasks)
    return [
        _judged(task, log_odds, n_permutations, rng)
        for task, log_odds, rng in zip(tasks, fitted, rngs, strict=True)
    ]


def _judged(
    task: Task, log_odds: FoldLogOdds, n_permutations: int, rng: np.random.Generator
) -> HeldOut:
    """Choose and calibrate on the training folds of each fold."""
    names, n = log_odds.names, len(task.z)
    logits = np.empty(n)
    by_critic = {name: np.empty(n) for name in dict.fromkeys(names)}
    wins: Counter[str] = Counter()
    for k in range(task.n_folds):
        test = task.fold == k
        calibration, bounds, best = _choose(task, log_odds.inner[k], ~test)
        predicted = calibration.apply(log_odds.outer[test])
        logits[test] = 0.0 if best is None else predicted[:, best]
        wins[NO_CRITIC if best is None else names[best]] += 1
        for name, of_critic in by_critic.items():
            own = [column for column, critic in enumerate(names) if critic == name]
            of_critic[test] = predicted[:, own[int(bounds[own].argmax())]]
    p = prequential_p(task, log_odds, n_permutations, rng)
    return HeldOut(logits, by_critic, dict(wins), p)


def balanced_mean(
    values: Float[np.ndarray, " n+m"],
    sides: CheckedSides,
    n_bootstraps: int,
    level: float,
    rng: np.random.Generator,
) -> tuple[float, tuple[float, float]]:
    """Mean over both sides with equal weight for sides and samples, and its interval.

    The interval is the percentile bootstrap over whole samples.

    Args:
        values: One value for each pooled vector.
        sides: Both sides; paired samples are drawn together.
        n_bootstraps: Number of bootstraps.
        level: Share of intervals that hold the truth.
        rng: Source of randomness.

    Returns:
        The mean, and the low and high end of its interval.
    """
    return mean_with_interval(values, sides, drawn_samples(sides, n_bootstraps, rng), level)


Draws = tuple[Int[np.ndarray, "B s"], Int[np.ndarray, "B t"]]


def drawn_samples(sides: CheckedSides, n_bootstraps: int, rng: np.random.Generator) -> Draws:
    """How often each sample of each side is drawn in each bootstrap; paired ones together.

    Args:
        sides: Both sides; only their numbers of samples matter.
        n_bootstraps: Number of bootstraps.
        rng: Source of randomness.

    Returns:
        The counts of x and of y.
    """
    draws_x = multiplicities(sides.n_samples_x, n_bootstraps, rng)
    if sides.paired:
        return draws_x, draws_x
    return draws_x, multiplicities(sides.n_samples_y, n_bootstraps, rng)


def mean_with_interval(
    values: Float[np.ndarray, " n+m"], sides: CheckedSides, draws: Draws, level: float
) -> tuple[float, tuple[float, float]]:
    """``balanced_mean`` with bootstraps that were drawn before.

    Args:
        values: One value for each pooled vector.
        sides: Both sides.
        draws: Of ``drawn_samples``.
        level: Share of intervals that hold the truth.

    Returns:
        The mean, and the low and high end of its interval.
    """
    n = len(sides.x)
    of_x, of_y = sides.by_sample(values[:n], values[n:])
    means = 0.5 * _mean_of_draws(draws[0], of_x) + 0.5 * _mean_of_draws(draws[1], of_y)
    return float(0.5 * of_x.mean() + 0.5 * of_y.mean()), central_band(means, level)


def _mean_of_draws(
    draws: Int[np.ndarray, "B s"], values: Float[np.ndarray, " s"]
) -> Float[np.ndarray, " B"]:
    """The mean of the samples that each bootstrap draws; a few at a time are turned to float64."""
    parts = (draws[start : start + _DRAWS] for start in range(0, len(draws), _DRAWS))
    return np.concatenate([np.empty(0), *(part @ values for part in parts)]) / len(values)


def _choose(
    task: Task, inner: Float[np.ndarray, "n+m c"], train: Bool[np.ndarray, " n+m"]
) -> tuple[Calibration, Float[np.ndarray, " c"], int | None]:
    """Calibrate every column on the training folds and choose the one of the largest bound.

    The largest bound of several calibrated columns is positive by luck where there is nothing to
    find. So a winner has to exceed two standard errors over samples. With a threshold of one, 2 of
    60 simulations without a difference (20 samples, strongly correlated) read more than 0.02 nats.
    """
    label, weight = task.label[train], task.weight[train]
    calibration = Calibration.fit(inner[train], label, weight)
    logits = calibration.apply(inner[train])
    bounds = (weight / weight.sum()) @ bound_terms(logits, label[:, None])
    best = int(bounds.argmax())
    error = _standard_error(bound_terms(logits[:, best], label), task.sides, train)
    return calibration, bounds, best if bounds[best] > _ERRORS * error else None


def _standard_error(
    terms: Float[np.ndarray, " train"], sides: CheckedSides, train: Bool[np.ndarray, " n+m"]
) -> float:
    """Standard error of the balanced mean of the terms of whole samples.

    A sample is one observation: both sides of it if they are paired, because its terms of x and y
    are correlated.
    """
    is_x = sides.is_x[train]
    of_x, of_y = (
        0.5 * mean_of_present(terms[side], sides.cells[train][side]) for side in (is_x, ~is_x)
    )
    observed = (of_x + of_y,) if sides.paired else (of_x, of_y)
    return float(np.sqrt(sum(np.var(means, ddof=1) / len(means) for means in observed)))
