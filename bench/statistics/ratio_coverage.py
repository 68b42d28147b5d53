"""How often the 95 % interval of a ratio of two gaps holds the true, planted ratio.

    python bench/statistics/ratio_coverage.py [--simulations 400] [--workers 2]

The two gaps are those of a ladder over the same samples: image against text, and text against
itself (two sets of words). The sides are Gaussians a shift apart and the kernel has fixed
bandwidths, so both truths are known in closed form. All tokens of a sample share one effect, and
both gaps use the same text, so the two estimates are correlated. If the second gap is estimated at
0 or below there is no ratio, as in the table of a run; coverage counts the other simulations.
`fewer samples` leaves a third of the samples out of the second gap, as happens where some questions
have words of one set only.
"""

from __future__ import annotations

import argparse
import itertools
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from planted import kernel_of_gaussians, record

import keygap.gap

D = 16
SIGMAS = tuple(np.sqrt(2.0 * D) * np.array([2.0, np.sqrt(2), 1.0, np.sqrt(0.5), 0.5]))


def true_ratio(image: float, words: float) -> float:
    """Ratio of MMD^2 between image and text to MMD^2 between the two halves of the text.

    The image is N(image, I). The text is half N(0, I) and half N(words, I). The two shifts are
    along different axes.
    """

    def kernel(shift2: float) -> float:
        return kernel_of_gaussians(shift2, np.full(D, 2.0), SIGMAS)

    same, between = kernel(0.0), kernel(words**2)
    to_text = 0.5 * kernel(image**2) + 0.5 * kernel(image**2 + words**2)
    return (same + 0.5 * same + 0.5 * between - 2 * to_text) / (2 * same - 2 * between)


def one_ratio(
    n_samples: int, rho: float, image: float, words: float, fewer: bool, seed: int
) -> tuple[bool, float] | None:
    """Whether the interval holds the truth, and its width over the truth; None: no ratio."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, n_samples, int(10 * rho), int(10 * image), int(10 * words)])
    effect = rng.standard_normal((n_samples, D))

    def side(counts: np.ndarray, axis: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
        sample = np.repeat(np.arange(n_samples), counts)
        noise = rng.standard_normal((len(sample), D))
        vectors = np.sqrt(rho) * effect[sample] + np.sqrt(1 - rho) * noise
        vectors[:, axis] += shift
        return vectors, sample

    counts = rng.integers(1, 5, n_samples)
    x, of_x = side(np.full(n_samples, 8), 0, image)
    a, of_a = side(counts, 1, 0.0)
    b, of_b = side(counts, 1, words)
    options: dict[str, Any] = {"bandwidth": SIGMAS, "n_permutations": 1, "n_bootstraps": 1}
    text, of_text = np.concatenate([a, b]), np.concatenate([of_a, of_b])
    gap = keygap.gap.mmd(x, text, of_x, of_text, **options)
    if fewer:
        a, of_a, b, of_b = a[of_a % 3 > 0], of_a[of_a % 3 > 0], b[of_b % 3 > 0], of_b[of_b % 3 > 0]
    kind = keygap.gap.mmd(a, b, of_a, of_b, **options)
    if kind.mmd2 <= 0.0:
        return None
    truth = true_ratio(image, words)
    low, high = keygap.gap.mmd_ratio(gap, kind).ci
    return low <= truth <= high, (high - low) / truth


def main() -> None:
    """Run the grid, and record and print the coverage of each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    names = ("samples", "correlation", "image shift", "words shift", "fewer samples")
    grid = itertools.product((20, 100, 200), (0.0, 0.5), (1.0, 2.0), (0.7, 1.5), (False, True))
    with ProcessPoolExecutor(arguments.workers) as pool:
        for case in grid:
            columns = [[value] * arguments.simulations for value in case]
            found = [*pool.map(one_ratio, *columns, range(arguments.simulations), chunksize=20)]
            held, width = zip(*filter(None, found), strict=True)
            row = {
                **dict(zip(names, case, strict=True)),
                "simulations": arguments.simulations,
                "truth": true_ratio(case[2], case[3]),
                "no ratio": found.count(None) / len(found),
                "coverage": float(np.mean(held)),
                "median width / truth": float(np.median(width)),
            }
            record("ratio_coverage", row, names)


if __name__ == "__main__":
    main()
