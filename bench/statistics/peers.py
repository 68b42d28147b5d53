"""keygap against hyppo, alibi-detect and POT: equal numbers where they compute them, and the time.

    python -m venv .venv-peers && .venv-peers/bin/pip install -r bench/statistics/peers.txt
    PYTHONPATH=src .venv-peers/bin/python bench/statistics/peers.py [--small]

The peers need an environment of their own, because none of them is a dependency of keygap. For the
agreement every vector is a sample of its own, because the peers know no samples. For speed keygap
gets the same vectors in 200 samples, which is its use, and once more without samples. Every timing
is a new process. The peers make 100 permutations, because 1,000 would take up to an hour, and
keygap makes 100 and 1,000, so compare milliseconds per permutation.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from planted import save

D = 128
SIGMA = 12.0  # bandwidth of the agreement


def data(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sides of n float32 vectors, half a unit apart in every tenth dimension."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, D), dtype=np.float32) for _ in range(2))
    y[:, ::10] += 0.5
    return x, y


def agreement() -> list[dict[str, Any]]:
    """The same statistics of the same data, computed by each peer and by keygap."""
    rows = []
    for compare in (_with_alibi, _with_hyppo, _with_pot, _with_scipy):
        statistic, peer, theirs, ours = compare(*data(300))
        rows.append(
            {
                "statistic": statistic,
                "peer": peer,
                "theirs": theirs,
                "keygap": ours,
                "relative difference": abs(ours / theirs - 1),
            }
        )
    return rows


def _with_alibi(x: np.ndarray, y: np.ndarray) -> tuple[str, str, float, float]:
    from alibi_detect.cd import MMDDrift

    detector = MMDDrift(
        x, backend="pytorch", sigma=np.array([SIGMA]), n_permutations=2, device="cpu"
    )
    theirs = float(detector.predict(y)["data"]["distance"])
    return "Gaussian MMD^2, unbiased", "alibi-detect", theirs, _mmd2(x, y, bandwidth=SIGMA)


def _with_hyppo(x: np.ndarray, y: np.ndarray) -> tuple[str, str, float, float]:
    """Compare the correlation of the kernel with the labels.

    The biased MMD^2 of hyppo is 2 n^2 m^2 / (n + m)^4 times the root of this correlation. keygap's
    is made biased by adding the pairs of a vector with itself, and divided by the same two norms.
    """
    import ot
    from hyppo.ksample import MMD

    n = len(x)
    wide = x.astype(float), y.astype(float)  # hyppo does not accept float32
    pooled = np.concatenate(wide)
    kernel = np.exp(-ot.dist(pooled, pooled) / (2 * SIGMA**2))
    within = sum(part.sum() for part in (kernel[:n, :n], kernel[n:, n:])) - 2 * n
    biased = _mmd2(x, y, bandwidth=SIGMA) - within / (n**2 * (n - 1)) + 2 / n
    centred = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    scale = 2 * n**4 / (2 * n) ** 4
    ours = scale * biased / (np.linalg.norm(centred) / (2 * n) * (n / 2) / n)
    theirs = MMD(compute_kernel="rbf", bias=True, gamma=1 / (2 * SIGMA**2)).statistic(*wide)
    statistic = "correlation of kernel and labels (from biased MMD^2)"
    return statistic, "hyppo", float(theirs / scale) ** 2, ours


def _with_pot(x: np.ndarray, y: np.ndarray) -> tuple[str, str, float, float]:
    import ot

    import keygap.gap

    means = (side.mean(0).astype(float) for side in (x, y))
    covariances = (np.cov(side.T, bias=True).astype(float) for side in (x, y))
    theirs = float(ot.gaussian.bures_wasserstein_distance(*means, *covariances)) ** 2
    ours = keygap.gap.frechet(x, y, n_permutations=0).distance
    return "Frechet distance", "POT", theirs, ours


def _with_scipy(x: np.ndarray, y: np.ndarray) -> tuple[str, str, float, float]:
    """Compare the energy distance in one dimension, where scipy computes it as an integral."""
    from scipy.stats import energy_distance

    n = len(x)
    line_x, line_y = (side[:, :1].astype(float) for side in (x, y))
    theirs = float(energy_distance(line_x[:, 0], line_y[:, 0]) ** 2)
    equal_pairs = sum(  # what leaving them out adds to the means within the sides
        np.abs(line - line.T).sum() / (n * n * (n - 1)) for line in (line_x, line_y)
    )
    ours = _mmd2(line_x, line_y, kernel="energy") + equal_pairs
    return "energy distance, biased, d = 1", "scipy", theirs, ours


def _mmd2(x: np.ndarray, y: np.ndarray, **options: Any) -> float:
    import keygap.gap

    return keygap.gap.mmd(x, y, n_permutations=200, n_bootstraps=1, **options).mmd2


def run_keygap(n: int, permutations: int, samples: int | None) -> float:
    """Keygap's p-value."""
    import keygap.gap

    x, y = data(n)
    groups = None if samples is None else np.arange(n) * samples // n
    result = keygap.gap.mmd(
        x, y, groups, groups, paired=False, n_permutations=permutations, n_bootstraps=1
    )
    return result.p_value


def run_alibi(n: int, permutations: int, samples: int | None) -> float:
    """alibi-detect's p-value."""
    from alibi_detect.cd import MMDDrift

    x, y = data(n)
    detector = MMDDrift(x, backend="pytorch", n_permutations=permutations, device="cpu")
    return float(detector.predict(y)["data"]["p_val"])


def run_hyppo(n: int, permutations: int, samples: int | None) -> float:
    """Hyppo's p-value, by permutation (auto=True would take a chi-squared)."""
    from hyppo.ksample import MMD

    x, y = data(n)
    x, y = x.astype(float), y.astype(float)  # it takes no float32
    return float(MMD().test(x, y, reps=permutations, workers=1, auto=False)[1])


RUNNERS: dict[str, Callable[[int, int, int | None], float]] = {
    "keygap": run_keygap,
    "alibi-detect": run_alibi,
    "hyppo": run_hyppo,
}


def timed(peer: str, n: int, permutations: int, samples: int | None) -> dict[str, object]:
    """Seconds and peak memory above the data; runs in a process of its own."""
    data(n)
    RUNNERS[peer](64, 5, None)  # load libraries, compile what is compiled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    p_value = RUNNERS[peer](n, permutations, samples)
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "peer": peer,
        "vectors a side": n,
        "permutations": permutations,
        "samples": samples or "",
        "seconds": took,
        "ms per permutation": 1000 * took / permutations,
        "GB above the data": (peak - before) / 2**20,
        "p": p_value,
    }


def main() -> None:
    """Check the agreement, then measure the speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tenth of the vectors")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        peer, n, permutations, samples = arguments.one
        print(json.dumps(timed(peer, int(n), int(permutations), int(samples) or None)))
        return

    rows = agreement()
    save("peers_agreement", rows)
    if any(row["relative difference"] > 1e-4 for row in rows):
        sys.exit("a peer computes another number")
    divide = 10 if arguments.small else 1
    runs = [
        ("hyppo", 2000 // divide, 100, 0),
        ("keygap", 2000 // divide, 100, 0),
        ("keygap", 2000 // divide, 100, 200),
        ("keygap", 2000 // divide, 1000, 200),
        ("alibi-detect", 5000 // divide, 100, 0),
        ("keygap", 5000 // divide, 100, 200),
        ("keygap", 5000 // divide, 1000, 200),
    ]
    rows = []
    for run in runs:
        output = subprocess.run(
            [sys.executable, __file__, "--one", *map(str, run)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        rows.append(json.loads(output.splitlines()[-1]))
        print(rows[-1], flush=True)
    save("peers_speed", rows)


if __name__ == "__main__":
    main()
