"""Data with a known answer, shared by the checks in this folder and by tests/gap.

Vectors come in samples: vector = sqrt(rho) * effect of its sample + sqrt(1 - rho) * noise. So one
vector is N(0, I), and two vectors of one sample have correlation rho. Each side of a sample has an
effect of its own, so label swaps within samples are a true null if both sides have one law.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).resolve().parents[1] / "results"


def tokens(
    rng: np.random.Generator, counts: np.ndarray, d: int, rho: float
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of law N(0, I), shape (sum of counts, d), and the sample index of each."""
    sample = np.repeat(np.arange(len(counts)), counts)
    effect = rng.standard_normal((len(counts), d))
    noise = rng.standard_normal((len(sample), d))
    return np.sqrt(rho) * effect[sample] + np.sqrt(1 - rho) * noise, sample


def gaussian_mmd2(
    shift2: float, var_x: np.ndarray, var_y: np.ndarray, sigmas: tuple[float, ...]
) -> float:
    """MMD^2 between N(0, diag var_x) and N(delta, diag var_y) with delta along the first axis."""
    return (
        kernel_of_gaussians(0.0, 2 * var_x, sigmas)
        + kernel_of_gaussians(0.0, 2 * var_y, sigmas)
        - 2 * kernel_of_gaussians(shift2, var_x + var_y, sigmas)
    )


def kernel_of_gaussians(shift2: float, variance: np.ndarray, sigmas: tuple[float, ...]) -> float:
    """E k(X, Y) of the averaged Gaussian kernel, where X - Y is N(delta, diag variance).

    It is a Gaussian integral, prod_j sqrt(s^2 / (s^2 + v_j)) exp(-delta^2 / (2 (s^2 + v_1))), with
    delta along the first axis. ``shift2`` is delta^2.
    """
    values = [
        np.exp(
            0.5 * np.log(sigma**2 / (sigma**2 + variance)).sum()
            - shift2 / (2 * (sigma**2 + variance[0]))
        )
        for sigma in sigmas
    ]
    return float(np.mean(values))


@dataclass(frozen=True)
class Planted:
    """Two laws in d dimensions: a function that draws from both, and log p_x - log p_y."""

    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
    log_ratio: Callable[[np.ndarray], np.ndarray]

    def jsd(self, n: int = 200_000, seed: int = 0) -> float:
        """JSD in nats by Monte Carlo from the exact densities (standard error about 0.001)."""
        x, y = self.draw(np.random.default_rng(seed), n)
        of_x = np.logaddexp(0.0, -self.log_ratio(x)).mean()
        of_y = np.logaddexp(0.0, self.log_ratio(y)).mean()
        return float(np.log(2.0) - 0.5 * of_x - 0.5 * of_y)


def _normal(z: np.ndarray, sd: float = 1.0) -> np.ndarray:
    """Log density of N(0, sd^2), less a constant that cancels in every ratio."""
    return -0.5 * (z / sd) ** 2 - np.log(sd)


Pair = tuple[np.ndarray, np.ndarray]


def _noise(rng: np.random.Generator, n: int, d: int) -> Pair:
    x, y = rng.standard_normal((2, n, d))
    return x, y


def _none(d: int) -> Planted:
    return Planted(lambda rng, n: _noise(rng, n, d), lambda v: np.zeros(len(v)))


def _shift(d: int) -> Planted:
    """The first axis of y is shifted by 1.5."""

    def draw(rng: np.random.Generator, n: int) -> Pair:
        x, y = _noise(rng, n, d)
        y[:, 0] += 1.5
        return x, y

    return Planted(draw, lambda v: _normal(v[:, 0]) - _normal(v[:, 0] - 1.5))


def _scale(d: int) -> Planted:
    """Every axis of y is wider, by an amount that keeps the JSD near 0.25."""
    growth = 1.0 + 1.4 / np.sqrt(d)

    def draw(rng: np.random.Generator, n: int) -> Pair:
        x, y = _noise(rng, n, d)
        return x, y * growth

    return Planted(draw, lambda v: (_normal(v) - _normal(v, growth)).sum(1))


def _rotation(d: int) -> Planted:
    """The covariance of the first two axes of y is turned by 45 degrees."""
    turn = np.sqrt(0.5) * np.array([[1.0, -1.0], [1.0, 1.0]])
    spread = np.array([4.0, 0.5])

    def draw(rng: np.random.Generator, n: int) -> Pair:
        x, y = _noise(rng, n, d)
        x[:, :2] *= spread
        y[:, :2] = (y[:, :2] * spread) @ turn.T
        return x, y

    def log_ratio(v: np.ndarray) -> np.ndarray:
        back = v[:, :2] @ turn
        return (_normal(v[:, :2] / spread) - _normal(back / spread)).sum(1)

    return Planted(draw, log_ratio)


def _mixture(d: int) -> Planted:
    """The first axis of y has two modes."""

    def draw(rng: np.random.Generator, n: int) -> Pair:
        x, y = _noise(rng, n, d)
        y[:, 0] = 0.5 * y[:, 0] + rng.choice([-2.0, 2.0], n)
        return x, y

    def log_ratio(v: np.ndarray) -> np.ndarray:
        a = v[:, 0]
        return _normal(a) - np.logaddexp(_normal(a - 2, 0.5), _normal(a + 2, 0.5)) + np.log(2.0)

    return Planted(draw, log_ratio)


def _xor(d: int) -> Planted:
    """Each side has two opposite corners of a square in the first two axes."""

    def draw(rng: np.random.Generator, n: int) -> Pair:
        x, y = _noise(rng, n, d)
        corner = rng.choice([-1.0, 1.0], (2, n, 1))
        x[:, :2] = 0.6 * x[:, :2] + corner[0] * [1.0, -1.0]
        y[:, :2] = 0.6 * y[:, :2] + corner[1] * [1.0, 1.0]
        return x, y

    def log_ratio(v: np.ndarray) -> np.ndarray:
        a, b = v[:, 0], v[:, 1]

        def pair(p: float, q: float) -> np.ndarray:
            return np.logaddexp(
                _normal(a - p, 0.6) + _normal(b - q, 0.6),
                _normal(a + p, 0.6) + _normal(b + q, 0.6),
            )

        return pair(1.0, -1.0) - pair(1.0, 1.0)

    return Planted(draw, log_ratio)


_MADE = {
    "none": _none,
    "shift": _shift,
    "scale": _scale,
    "rotation": _rotation,
    "mixture": _mixture,
    "xor": _xor,
}
PLANTED = tuple(name for name in _MADE if name != "none")


def planted(name: str, d: int) -> Planted:
    """A difference by name in d dimensions; axes without it are N(0, 1) on both sides."""
    return _MADE[name](d)


def table(rows: list[dict[str, object]]) -> str:
    """Rows as aligned text, with the keys of the first row as columns."""
    header = list(rows[0])
    cells = [header] + [[_cell(row[key]) for key in header] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(value.rjust(width) for value, width in zip(line, widths, strict=True))
        for line in cells
    )


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save(name: str, rows: list[dict[str, object]]) -> None:
    """Write the rows to bench/results/NAME.json and print them as one table."""
    _write(name, rows)
    print(table(rows))


def record(name: str, row: dict[str, object], case: Sequence[str]) -> None:
    """Add a row to bench/results/NAME.json in place of the one with equal values of `case`.

    So a long grid can be run in parts, and keeps its rows when it is killed.
    """
    path = RESULTS / f"{name}.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    rows = [old for old in rows if any(old[key] != row[key] for key in case)]
    _write(name, [*rows, row])
    print(row, flush=True)


def _write(name: str, rows: list[dict[str, object]]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    whole = RESULTS / f"{name}.json.part"  # a run that is killed while writing does no harm
    whole.write_text(json.dumps(rows, indent=1) + "\n")
    whole.replace(RESULTS / f"{name}.json")
