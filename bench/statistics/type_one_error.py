"""How often a true null is rejected at 0.05: MMD and JSD with whole samples, and token by token.

    python bench/statistics/type_one_error.py [--simulations 400] [--workers 2]

The grid: 20 and 100 samples, 5 and 50 tokens each, within-sample correlation 0, 0.5 and 0.9, paired
and unpaired, equal counts and unequal ones (side y has a fifth of the tokens, and every count is
drawn anew). The last rows permute tokens instead of samples and fail.
"""

from __future__ import annotations

import argparse
import itertools
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from planted import save, tokens

import keygap.gap

D = 4
ALPHA = 0.05


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
    """Run the grid and print the share of rejections of each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tests", nargs="+", default=["mmd", "jsd", "mmd, tokens permuted"])
    arguments = parser.parse_args()

    grid = list(
        itertools.product((20, 100), (5, 50), (0.0, 0.5, 0.9), (True, False), (False, True))
    )
    cases = [("mmd", *row) for row in grid]
    cases += [("jsd", *row) for row in grid if row[0] == 20 or row[1] == 5]
    cases += [("mmd, tokens permuted", 20, 25, rho, False, False) for rho in (0.0, 0.5, 0.9)]
    cases = [case for case in cases if case[0] in arguments.tests]
    rows: list[dict[str, object]] = []
    with ProcessPoolExecutor(arguments.workers) as pool:
        for case in cases:
            columns = [[value] * arguments.simulations for value in case]
            p_values = pool.map(one_null, *columns, range(arguments.simulations), chunksize=10)
            rejected = float(np.mean([p <= ALPHA for p in p_values]))
            names = ("test", "samples", "tokens", "correlation", "paired", "unequal counts")
            rows.append({**dict(zip(names, case, strict=True)), "rejected at 0.05": rejected})
            print(rows[-1], flush=True)
    save("type_one_error", rows)


if __name__ == "__main__":
    main()
