"""How often a true null is rejected at 0.05: MMD and JSD with whole samples, and token by token.

    python bench/statistics/type_one_error.py [--simulations 400] [--workers 2] [--tests mmd]

The grid has 20 and 100 samples, 5 and 50 tokens each, correlation 0, 0.5 and 0.9 within samples,
paired and unpaired sides, and equal or unequal counts (side y has a fifth of the tokens, and every
count is drawn anew). The last rows permute tokens instead of samples, and fail. Every row is saved
as soon as it is done, so the tests can be run separately. By chance alone one row of fifty lies
outside 0.03 to 0.07; such a row is followed by one with five times as many new simulations.
"""

from __future__ import annotations

import argparse
import itertools
from concurrent.futures import Executor, ProcessPoolExecutor

import numpy as np
import torch
from planted import record, tokens

import keygap.gap

D = 4
ALPHA = 0.05
NAMES = ("test", "samples", "tokens", "correlation", "paired", "unequal counts")


def counts(
    rng: np.random.Generator, n_samples: int, n_tokens: int, unequal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each sample on the two sides."""
    if not unequal:
        both = np.full(n_samples, n_tokens)
        return both, both
    few = max(1, n_tokens // 5)
    return (
        rng.integers(max(1, n_tokens // 2), 3 * n_tokens // 2 + 1, n_samples),
        rng.integers(1, 2 * few + 1, n_samples),
    )


def one_null(
    test: str, n_samples: int, n_tokens: int, rho: float, paired: bool, unequal: bool, seed: int
) -> float:
    """The p-value of one simulated null."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, n_samples, n_tokens, int(10 * rho), paired, unequal])
    counts_x, counts_y = counts(rng, n_samples, n_tokens, unequal)
    x, groups_x = tokens(rng, counts_x, D, rho)
    y, groups_y = tokens(rng, counts_y, D, rho)
    if not paired:
        groups_y = groups_y + n_samples
    if test == "mmd, tokens permuted":
        return keygap.gap.mmd(x, y, n_permutations=199, n_bootstraps=1, seed=seed).p_value
    function = keygap.gap.jsd if test == "jsd" else keygap.gap.mmd
    result = function(x, y, groups_x, groups_y, n_permutations=199, n_bootstraps=1, seed=seed)
    return result.p_value


def main() -> None:
    """Run the grid, and record and print the share of rejections of each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tests", nargs="+", default=["mmd", "jsd", "mmd, tokens permuted"])
    arguments = parser.parse_args()

    grid = list(
        itertools.product((20, 100), (5, 50), (0.0, 0.5, 0.9), (True, False), (False, True))
    )
    cases = [("mmd", *row) for row in grid]
    cases += [("jsd", *row) for row in grid]
    cases += [("mmd, tokens permuted", 20, 25, rho, False, False) for rho in (0.0, 0.5, 0.9)]
    cases = [case for case in cases if case[0] in arguments.tests]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for case in cases:
            first = range(arguments.simulations)
            rejected = rejections(pool, case, first)
            if not 0.03 <= rejected <= 0.07 and case[0] in ("mmd", "jsd"):
                rejections(pool, case, range(len(first), 6 * len(first)))


def rejections(pool: Executor, case: tuple[object, ...], seeds: range) -> float:
    """Share of rejections at 0.05 over the seeds; it is also recorded as a row."""
    columns = [[value] * len(seeds) for value in case]
    p_values = pool.map(one_null, *columns, seeds, chunksize=10)
    rejected = float(np.mean([p <= ALPHA for p in p_values]))
    row = dict(zip(NAMES, case, strict=True))
    row |= {"simulations": len(seeds), "rejected at 0.05": rejected}
    record("type_one_error", row, (*NAMES, "simulations"))
    return rejected


if __name__ == "__main__":
    main()
