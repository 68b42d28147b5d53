"""The held-out bound and the histogram against the true JSD of planted differences.

    python bench/statistics/planted_jsd.py [--vectors 10000] [--boosted]

The differences are a shift, a scale, a rotated covariance, a mixture, an XOR and none at all, in 8,
50 and 128 dimensions. The truth is computed from the exact densities by Monte Carlo.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from planted import PLANTED, planted, record

import keygap.gap
from keygap.gap.core.held_out import DEFAULT_CRITICS


def main() -> None:
    """Record and print truth, estimate and error of each planted difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=10_000, help="of each side")
    parser.add_argument("--boosted", action="store_true", help="let trees compete too")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[8, 50, 128])
    arguments = parser.parse_args()
    critics = (*DEFAULT_CRITICS, "boosted") if arguments.boosted else DEFAULT_CRITICS

    for d in arguments.dimensions:
        for name in ("none", *PLANTED):
            problem = planted(name, d)
            truth = 0.0 if name == "none" else problem.jsd(100_000)
            x, y = problem.draw(np.random.default_rng(d), arguments.vectors)
            groups = np.arange(arguments.vectors) // 20
            start = time.perf_counter()
            result = keygap.gap.jsd(x, y, groups, groups, critics=critics)
            seconds = time.perf_counter() - start
            histogram = keygap.gap.jsd_histogram(x, y, groups, groups, dims=min(d, 10))
            record(
                "planted_jsd",
                {
                    "d": d,
                    "planted": name,
                    "vectors a side": arguments.vectors,
                    "truth": truth,
                    "bound": result.raw_nats,
                    "error": result.raw_nats - truth,
                    "within": abs(result.nats - truth) <= max(0.02, 0.1 * truth),
                    "low": result.ci[0],
                    "high": result.ci[1],
                    "p": result.p_value,
                    "critic": result.estimator,
                    "linear alone": result.nats_by_critic["linear"],
                    "histogram": histogram.nats,
                    "its null": histogram.null_nats,
                    "seconds": seconds,
                },
                ("d", "planted", "vectors a side"),
            )


if __name__ == "__main__":
    main()
