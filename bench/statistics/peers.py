"""keygap beside hyppo, alibi-detect and POT: the same number where they compute it, and the time.

    python -m venv .venv-peers && .venv-peers/bin/pip install -r bench/statistics/peers.txt
    PYTHONPATH=src .venv-peers/bin/python bench/statistics/peers.py [--small]

An environment of its own, because none of them is a dependency of keygap. Every vector is a sample
of its own for the agreement (the peers know no samples); for speed keygap gets the same vectors in
200 samples, which is its job, and once more without samples. Every timing is a fresh process. The
peers make 100 permutations (1,000 would take them up to an hour), keygap 100 and 1,000: compare
milliseconds per permutation.
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


def data(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sides of n float32 vectors, half a unit apart in every tenth dimension."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, D), dtype=np.float32) for _ in range(2))
    y[:, ::10] += 0.5
    return x, y


def agreement() -> list[dict[str, Any]]:
    """Same statistic, same data: theirs and ours."""
    import ot
    from alibi_detect.cd import MMDDrift
    from hyppo.ksample import MMD

    import keygap.gap

    x, y = data(300)
    n = len(x)
    few = {"n_permutations": 200, "n_bootstraps": 1}
    sigma = 12.0
    ours = keygap.gap.mmd(x, y, bandwidth=sigma, **few).mmd2
    detector = MMDDrift(
        x, backend="pytorch", sigma=np.array([sigma]), n_permutations=2, device="cpu"
    )
    rows: list[dict[str, Any]] = [
        {
            "statistic": "Gaussian MMD^2, unbiased",
            "peer": "alibi-detect",
            "theirs": float(detector.predict(y)["data"]["distance"]),
            "keygap": ours,
        }
    ]

    # The biased MMD of hyppo is 2 n^2 m^2 / (n + m)^4 times the root of a correlation, that of the
    # kernel with the labels. Ours, a vector's pairs with itself put back, over the same two norms.
    wide = x.astype(float), y.astype(float)  # hyppo takes no float32
    pooled = np.concatenate(wide)
    kernel = np.exp(-ot.dist(pooled, pooled) / (2 * sigma**2))
    within = sum(part.sum() for part in (kernel[:n, :n], kernel[n:, n:])) - 2 * n
    biased = ours - within / (n**2 * (n - 1)) + 2 / n
    centred = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    scale = 2 * n**4 / (2 * n) ** 4
    correlation = scale * biased / (np.linalg.norm(centred) / (2 * n) * (n / 2) / n)
    theirs = MMD(compute_kernel="rbf", bias=True, gamma=1 / (2 * sigma**2)).statistic(*wide)
    rows.append(
        {
            "statistic": "correlation of kernel and labels (from biased MMD^2)",
            "peer": "hyppo",
            "theirs": float(theirs / scale) ** 2,
            "keygap": correlation,
        }
    )
    mean_x, mean_y = x.mean(0).astype(float), y.mean(0).astype(float)
    bures = ot.gaussian.bures_wasserstein_distance(
        mean_x,
        mean_y,
        np.cov(x.T, bias=True).astype(float),
        np.cov(y.T, bias=True).astype(float),
    )
    rows.append(
        {
            "statistic": "Frechet distance",
            "peer": "POT",
            "theirs": float(bures) ** 2,
            "keygap": keygap.gap.frechet(x, y, n_permutations=0).distance,
        }
    )
    # One dimension: the energy distance is an integral that scipy does exactly (its root, over 2).
    from scipy.stats import energy_distance

    line = keygap.gap.mmd(x[:, :1], y[:, :1], kernel="energy", **few).mmd2
    spread = sum(
        np.abs(side[:, :1] - side[:, 0]).sum() / (n * n * (n - 1)) for side in (x, y)
    )  # what leaving out equal pairs adds to the within-side means
    rows.append(
        {
            "statistic": "energy distance, biased, d = 1",
            "peer": "scipy",
            "theirs": float(energy_distance(x[:, 0], y[:, 0]) ** 2),
            "keygap": line + spread,
        }
    )
    for row in rows:
        row["relative difference"] = abs(row["keygap"] / row["theirs"] - 1)
    return rows


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
    """Seconds and peak memory above the data, measured inside a process of its own."""
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
    """Agreement first, then speed."""
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
