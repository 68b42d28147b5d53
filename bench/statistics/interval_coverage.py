"""How often the 95 % interval of MMD^2 holds the true, planted value.

    python bench/statistics/interval_coverage.py [--simulations 400] [--workers 2]

The two sides are Gaussians a shift apart and the kernel has fixed bandwidths, so the truth is known
in closed form. The grid has 20 and 100 samples, tokens that are correlated within samples or not,
paired and unpaired sides, and gaps from weak to strong. `excludes 0` is how often the interval
distinguishes the gap from none. Where it seldom does, the interval may be too wide: the jackknife
counts twice the part of the variance that is left when the gap is small (see `PairSums.interval`).
"""

from __future__ import annotations

import argparse
import itertools
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from planted import gaussian_mmd2, record, tokens

import keygap.gap


def one_interval(
    d: int, n_samples: int, n_tokens: int, rho: float, shift: float, paired: bool, seed: int
) -> tuple[bool, bool]:
    """Whether the interval of one simulation holds the truth, and whether it excludes 0."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, d, n_samples, n_tokens, int(10 * rho), int(10 * shift)])
    x, groups_x = tokens(rng, np.full(n_samples, n_tokens), d, rho)
    y, groups_y = tokens(rng, rng.integers(1, n_tokens + 1, n_samples), d, rho)
    y[:, 0] += shift
    sigmas = tuple(np.sqrt(2.0 * d) * np.array([2.0, np.sqrt(2), 1.0, np.sqrt(0.5), 0.5]))
    result = keygap.gap.mmd(
        x,
        y,
        groups_x,
        groups_y if paired else groups_y + n_samples,
        bandwidth=sigmas,
        n_permutations=1,
        n_bootstraps=1,
    )
    truth = gaussian_mmd2(shift**2, np.ones(d), np.ones(d), sigmas)
    return result.ci[0] <= truth <= result.ci[1], result.ci[0] > 0.0


def main() -> None:
    """Run the grid, and record and print the coverage of each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    grid = itertools.product(
        (8, 50), (20, 100), (8,), (0.0, 0.5), (0.0, 0.3, 0.6, 1.5), (True, False)
    )
    names = ("d", "samples", "tokens", "correlation", "shift", "paired")
    with ProcessPoolExecutor(arguments.workers) as pool:
        for case in grid:
            columns = [[value] * arguments.simulations for value in case]
            found = [*pool.map(one_interval, *columns, range(arguments.simulations), chunksize=20)]
            held, seen = zip(*found, strict=True)
            row = {
                **dict(zip(names, case, strict=True)),
                "simulations": arguments.simulations,
                "coverage": float(np.mean(held)),
                "excludes 0": float(np.mean(seen)),
            }
            record("interval_coverage", row, names)


if __name__ == "__main__":
    main()
