"""Pairs of laws that differ in shape, mostly with equal means and covariances, and their true JSD.

A shape is a law of a few coordinates. The others are N(0, 1) on both sides, and everything is
turned by one random rotation. All densities are known exactly (a curve is a mixture of many
Gaussians), so the true JSD is a Monte Carlo mean that shares no code with any estimator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from planted import Planted
from scipy import special, stats

Draw = Callable[[np.random.Generator, int], np.ndarray]
LogDensity = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Law:
    """A law of k coordinates: a function that draws rows, and the log density of rows."""

    draw: Draw
    log_density: LogDensity
    k: int


def gaussian(k: int) -> Law:
    """N(0, I)."""
    return Law(
        lambda rng, n: rng.standard_normal((n, k)),
        lambda v: -0.5 * (v**2).sum(1) - 0.5 * k * np.log(2 * np.pi),
        k,
    )


def clusters(centres: np.ndarray, sd: float, weights: np.ndarray | None = None) -> Law:
    """Mixture of Gaussians of one deviation; curves are mixtures of many."""
    count, k = centres.shape
    shares = np.full(count, 1.0 / count) if weights is None else weights

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return centres[rng.choice(count, n, p=shares)] + sd * rng.standard_normal((n, k))

    def log_density(v: np.ndarray) -> np.ndarray:
        parts = [
            special.logsumexp(
                -0.5 * ((rows[:, None] - centres) ** 2).sum(2) / sd**2, b=shares, axis=1
            )
            for rows in np.array_split(v, 1 + len(v) * count // 4_000_000)
        ]
        return np.concatenate(parts) - k * np.log(sd * np.sqrt(2 * np.pi))

    return Law(draw, log_density, k)


def points(places: np.ndarray, weights: np.ndarray) -> Law:
    """A discrete law; its density is with respect to counting measure on the places."""
    k = places.shape[1]

    def log_density(v: np.ndarray) -> np.ndarray:
        nearest = ((v[:, None] - places) ** 2).sum(2).argmin(1)
        return np.log(np.maximum(weights[nearest], 1e-300))

    return Law(lambda rng, n: places[rng.choice(len(places), n, p=weights)], log_density, k)


def radial(k: int, log_of_radius: LogDensity, radius: Draw) -> Law:
    """A uniform direction times a radius whose log density is given, up to the sphere's area."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        direction = rng.standard_normal((n, k))
        return direction / np.linalg.norm(direction, axis=1, keepdims=True) * radius(rng, n)

    def log_density(v: np.ndarray) -> np.ndarray:
        r = np.linalg.norm(v, axis=1)
        area = np.log(2) + 0.5 * k * np.log(np.pi) - special.gammaln(0.5 * k)
        return log_of_radius(r) - (k - 1) * np.log(r) - area

    return Law(draw, log_density, k)


def sphere(k: int, width: float) -> Law:
    """Radius N(R, width^2), with R such that the covariance is I."""
    middle = np.sqrt(k - width**2)
    return radial(
        k,
        lambda r: stats.norm.logpdf(r, middle, width),
        lambda rng, n: middle + width * rng.standard_normal((n, 1)),
    )


def scaled_gaussians(k: int, scales: tuple[float, ...]) -> Law:
    """N(0, s^2 I) with s drawn from the scales, divided so that the covariance is I."""
    sizes = np.array(scales) / np.sqrt(np.mean(np.square(scales)))

    def log_density(v: np.ndarray) -> np.ndarray:
        squares = (v**2).sum(1)[:, None]
        return special.logsumexp(
            -0.5 * squares / sizes**2 - k * np.log(sizes * np.sqrt(2 * np.pi)), axis=1
        ) - np.log(len(sizes))

    return Law(
        lambda rng, n: rng.choice(sizes, (n, 1)) * rng.standard_normal((n, k)), log_density, k
    )


def multivariate_t(k: int, degrees: int) -> Law:
    """Multivariate t with covariance I."""
    shape = np.eye(k) * (degrees - 2) / degrees

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        spread = np.sqrt((degrees - 2) / rng.chisquare(degrees, (n, 1)))
        return spread * rng.standard_normal((n, k))

    law = stats.multivariate_t(np.zeros(k), shape, degrees)
    return Law(draw, lambda v: np.atleast_1d(law.logpdf(v)), k)


def independent(k: int, one: Any) -> Law:
    """Independent coordinates of one law of variance 1."""
    return Law(lambda rng, n: one.rvs((n, k), random_state=rng), lambda v: one.logpdf(v).sum(1), k)


def _grid(parity: int, side: int = 4) -> np.ndarray:
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side)), 2).reshape(-1, 2)
    cells = cells[cells.sum(1) % 2 == parity]
    return (cells - (side - 1) / 2.0) / 1.14


def _curve(shape: str, side: int) -> np.ndarray:
    t = np.linspace(0.0, 1.0, 200)
    if shape == "moons":
        arc = np.stack([np.cos(np.pi * t), np.sin(np.pi * t)], 1)
        return 1.3 * (arc if side == 0 else [1.0, 0.5] - arc) - [0.65, 0.325]
    turn = 3 * np.pi * np.sqrt(t) + np.pi * side
    return 2.0 * np.sqrt(t)[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)


def _signs(product: int) -> np.ndarray:
    corners = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), 3).reshape(-1, 3)
    return corners[corners.prod(1) == product]


def _five_moments() -> Law:
    """Three clusters at the nodes of Gauss-Hermite quadrature: five moments of N(0, 1)."""
    sd = 0.35
    nodes = np.sqrt(1 - sd**2) * np.sqrt(3.0) * np.array([[-1.0], [0.0], [1.0]])
    return clusters(nodes, sd, np.array([1.0, 4.0, 1.0]) / 6.0)


def _lattice(even: float) -> Law:
    places = np.stack(np.meshgrid(np.arange(5), np.arange(5)), 2).reshape(-1, 2) - 2.0
    weights = np.where(places.sum(1) % 2 == 0, even / 13.0, (1 - even) / 12.0)
    return points(places, weights)


def _pair(name: str, d: int) -> tuple[Law, Law]:
    heavy = {
        "t": lambda: multivariate_t(d, 4),
        "laplace axes": lambda: independent(d, stats.laplace(scale=np.sqrt(0.5))),
        "t axes": lambda: independent(d, stats.t(5.0, scale=np.sqrt(0.6))),
        "scales": lambda: scaled_gaussians(d, (0.6, 1.4)),
    }
    against_noise = {
        "ring": lambda: sphere(2, 0.2),
        "shell": lambda: sphere(min(d, 4), 0.3),
        "five moments": _five_moments,
        "one axis": lambda: clusters(np.array([[-0.9], [0.9]]), np.sqrt(1 - 0.81)),
    }
    two_sided = {
        "checkerboard": lambda side: clusters(_grid(side), 0.2),
        "moons": lambda side: clusters(_curve("moons", side), 0.2),
        "spirals": lambda side: clusters(_curve("spirals", side), 0.15),
        "signs": lambda side: clusters(_signs((1, -1)[side]), 0.3),
        "lattice": lambda side: _lattice((0.8, 0.3)[side]),
    }
    if name == "none":
        return gaussian(d), gaussian(d)
    if name in two_sided:
        return two_sided[name](0), two_sided[name](1)
    law = (heavy | against_noise)[name]()
    return law, gaussian(law.k)


FEWEST = {
    "ring": 2, "checkerboard": 2, "t": 2, "laplace axes": 2, "t axes": 2, "scales": 2, "shell": 3,
    "signs": 3, "moons": 2, "spirals": 2, "five moments": 2, "one axis": 2, "lattice": 2,
}  # fmt: skip
SHAPES = tuple(FEWEST)


def shape(name: str, d: int, seed: int = 0) -> Planted:
    """A shape by name in d dimensions, turned by the random rotation of a seed."""
    law_x, law_y = _pair(name, d)
    k = law_x.k
    turn = stats.ortho_group(d, seed=seed).rvs() if d > 1 else np.eye(1)

    def one(rng: np.random.Generator, n: int, law: Law) -> np.ndarray:
        rows = np.column_stack([law.draw(rng, n), rng.standard_normal((n, d - k))])
        return rows @ turn

    def log_ratio(v: np.ndarray) -> np.ndarray:
        own = (v @ turn.T)[:, :k]
        return law_x.log_density(own) - law_y.log_density(own)

    return Planted(lambda rng, n: (one(rng, n, law_x), one(rng, n, law_y)), log_ratio)
