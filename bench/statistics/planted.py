"""Data with a known answer, shared by the checks in this folder and by tests/gap.

Vectors come in samples: vector = sqrt(rho) * effect of its sample + sqrt(1 - rho) * noise, so that
one vector is N(0, I) and two of the same sample have correlation rho. Each side of a sample has an
effect of its own, so within-sample label swaps are a true null when the sides' laws are equal.
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
    """Vectors (sum of counts, d) of law N(0, I) and the sample index of each."""
    sample = np.repeat(np.arange(len(counts)), counts)
    effect = rng.standard_normal((len(counts), d))
    noise = rng.standard_normal((len(sample), d))
    return np.sqrt(rho) * effect[sample] + np.sqrt(1 - rho) * noise, sample


def gaussian_mmd2(
    shift2: float, var_x: np.ndarray, var_y: np.ndarray, sigmas: tuple[float, ...]
) -> float:
    """MMD^2 between N(0, diag var_x) and N(delta, diag var_y), delta along the first axis."""
    return (
        kernel_of_gaussians(0.0, 2 * var_x, sigmas)
        + kernel_of_gaussians(0.0, 2 * var_y, sigmas)
        - 2 * kernel_of_gaussians(shift2, var_x + var_y, sigmas)
    )


def kernel_of_gaussians(shift2: float, variance: np.ndarray, sigmas: tuple[float, ...]) -> float:
    """E k(X, Y) of the mean Gaussian kernel, X - Y having this mean and these variances.

    A Gaussian integral: prod sqrt(s2 / (s2 + v)) times exp(-delta^2 / (2 (s2 + v_1))), the mean
    delta, of which the square is given, along an axis of variance v_1.
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
    """Two laws in d dimensions: how to draw from them, and log p_x - log p_y."""

    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
    log_ratio: Callable[[np.ndarray], np.ndarray]

    def jsd(self, n: int = 200_000, seed: int = 0) -> float:
        """JSD in nats by Monte Carlo from the exact densities (standard error about 0.001)."""
        x, y = self.draw(np.random.default_rng(seed), n)
        of_x = np.logaddexp(0.0, -self.log_ratio(x)).mean()
        of_y = np.logaddexp(0.0, self.log_ratio(y)).mean()
        return float(np.log(2.0) - 0.5 * of_x - 0.5 * of_y)


def _normal(z: np.ndarray, sd: float = 1.0) -> np.ndarray:
    return -0.5 * (z / sd) ** 2 - np.log(sd)


def planted(name: str, d: int) -> Planted:
    """shift, scale, rotation, mixture or xor; the other dimensions are N(0, 1) on both sides."""
    growth = 1.0 + 1.4 / np.sqrt(d)  # of every axis, so that the JSD stays near 0.25
    turn = np.sqrt(0.5) * np.array([[1.0, -1.0], [1.0, 1.0]])  # 45 degrees
    spread = np.array([4.0, 0.5])

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = rng.standard_normal((2, n, d))
        if name == "shift":
            y[:, 0] += 1.5
        elif name == "scale":
            y *= growth
        elif name == "rotation":
            x[:, :2] *= spread
            y[:, :2] = (y[:, :2] * spread) @ turn.T
        elif name == "mixture":
            y[:, 0] = 0.5 * y[:, 0] + rng.choice([-2.0, 2.0], n)
        elif name == "xor":
            corner = rng.choice([-1.0, 1.0], (2, n, 1))
            x[:, :2] = 0.6 * x[:, :2] + corner[0] * [1.0, -1.0]
            y[:, :2] = 0.6 * y[:, :2] + corner[1] * [1.0, 1.0]
        return x, y

    def log_ratio(v: np.ndarray) -> np.ndarray:
        a, b = v[:, 0], v[:, 1]
        if name == "shift":
            return _normal(a) - _normal(a - 1.5)
        if name == "scale":
            return (_normal(v) - _normal(v, growth)).sum(1)
        if name == "rotation":
            back = v[:, :2] @ turn
            return (_normal(v[:, :2] / spread) - _normal(back / spread)).sum(1)
        if name == "mixture":
            return _normal(a) - np.logaddexp(_normal(a - 2, 0.5), _normal(a + 2, 0.5)) + np.log(2.0)

        def pair(p: float, q: float) -> np.ndarray:
            return np.logaddexp(
                _normal(a - p, 0.6) + _normal(b - q, 0.6),
                _normal(a + p, 0.6) + _normal(b + q, 0.6),
            )

        return pair(1.0, -1.0) - pair(1.0, 1.0)

    return Planted(draw, log_ratio)


PLANTED = ("shift", "scale", "rotation", "mixture", "xor")


def table(rows: list[dict[str, object]]) -> str:
    """Rows as aligned text; the columns are the keys of the first."""
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
    """Add a row to bench/results/NAME.json, in place of the one with equal values of `case`.

    A long grid can so be run in parts, or be killed, and keeps what it has.
    """
    path = RESULTS / f"{name}.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    rows = [old for old in rows if any(old[key] != row[key] for key in case)]
    _write(name, [*rows, row])
    print(row, flush=True)


def _write(name: str, rows: list[dict[str, object]]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    whole = RESULTS / f"{name}.json.part"  # a run that is killed while writing spoils nothing
    whole.write_text(json.dumps(rows, indent=1) + "\n")
    whole.replace(RESULTS / f"{name}.json")
