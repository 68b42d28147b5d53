"""The bound of the default critics, of random features and of trees on differences in shape.

    python bench/statistics/shapes_jsd.py [--vectors 10000] [--shapes ring] [--dimensions 2 10 50]

Shapes and their true JSD are in `shapes.py`. `old` are the critics without the network, `default`
those with it. Random Fourier features (512 of them, half the median distance as bandwidth) are
fitted by the same Newton's method as the linear critic. `boosted` are gradient-boosted trees.
Seconds are of the processor, of one thread; compare them within a row only.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from planted import record
from shapes import FEWEST, SHAPES, shape

import keygap.gap
from keygap.gap.core.critic import Critic, Rows, Trains
from keygap.gap.core.critics import CRITICS
from keygap.gap.core.held_out import DEFAULT_CRITICS
from keygap.gap.core.logistic import logistic_regression

OLD = ("linear", "quadratic", "spline")
N_FEATURES = 512


def random_features(rows: Rows, trains: Trains) -> np.ndarray:
    """Log-odds by logistic regression on random Fourier features (Rahimi and Recht 2007)."""
    (z,) = rows.by_head  # a single one here
    rng = np.random.default_rng(rows.seed)
    few = z[rng.choice(len(z), 500)]
    distance = np.median(np.linalg.norm(few[:250] - few[250:], axis=1))
    angles = z @ rng.standard_normal((z.shape[1], N_FEATURES)) * (2.0 / distance)
    features = np.cos(angles + rng.uniform(0.0, 2 * np.pi, N_FEATURES))
    inputs = torch.from_numpy(np.column_stack([features, np.ones(len(features))]).T).float()
    found = []
    for train in trains:
        weight = rows.weight[train] / rows.weight[train].mean()
        label, weight = (torch.from_numpy(of)[None].float() for of in (rows.label[train], weight))
        coefficients = logistic_regression(inputs[None][..., train], label, weight)
        found.append((coefficients.float() @ inputs)[0].numpy())
    return np.stack(found)[None, ..., None]


CRITICS["random features"] = Critic("random features", 1, random_features)
CHOICES = {
    "old": OLD,
    "default": DEFAULT_CRITICS,
    "network": ("network",),
    "random features": ("random features",),
    "boosted": ("boosted",),
}


def main() -> None:
    """Record and print truth and bounds of each shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=10_000, help="of side x")
    parser.add_argument("--vectors-y", type=int, help="of side y; as many as of x by default")
    parser.add_argument("--per-sample", type=int, default=20)
    parser.add_argument("--shapes", nargs="+", default=["none", *SHAPES])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 10, 50])
    parser.add_argument("--choices", nargs="+", default=list(CHOICES), choices=list(CHOICES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    n, m = arguments.vectors, arguments.vectors_y or arguments.vectors
    ids_x, ids_y = (np.arange(count) // arguments.per_sample for count in (n, m))
    for name in arguments.shapes:
        for d in sorted({max(d, FEWEST.get(name, 2)) for d in arguments.dimensions}):
            planted = shape(name, d)
            x, y = planted.draw(np.random.default_rng(d), max(n, m))
            row: dict[str, object] = {
                "shape": name,
                "d": d,
                "vectors x": n,
                "vectors y": m,
                "per sample": arguments.per_sample,
                "truth": 0.0 if name == "none" else planted.jsd(60_000),
            }
            for choice in arguments.choices:
                start = time.process_time()
                found = keygap.gap.jsd(
                    x[:n], y[:m], ids_x, ids_y, paired=n == m, critics=CHOICES[choice],
                    n_permutations=0,
                )  # fmt: skip
                row[choice] = found.raw_nats
                row[f"{choice}, seconds"] = time.process_time() - start
            key = ("shape", "d", "vectors x", "vectors y", "per sample")
            record("shapes_jsd", row, key)


if __name__ == "__main__":
    main()
