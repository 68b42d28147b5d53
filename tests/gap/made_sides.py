"""Two sides of planted Gaussian vectors that come in samples."""

import numpy as np
from planted import tokens


def sides(seed, samples=50, d=6, rho=0.3, shift=0.0, scale=1.0, counts=(10, 4)):
    """Vectors of both sides and their sample ids; the second side is scaled and shifted."""
    rng = np.random.default_rng(seed)
    x, groups_x = tokens(rng, np.full(samples, counts[0]), d, rho)
    y, groups_y = tokens(rng, np.full(samples, counts[1]), d, rho)
    y = y * scale
    y[:, 0] += shift
    return x, y, groups_x, groups_y


def classified_sides(seed, samples=40, n_tokens=10, d=4, rho=0.3, shift=0.0):
    """Sides for classifiers: the second one has half as many vectors."""
    return sides(seed, samples, d, rho, shift, counts=(n_tokens, max(1, n_tokens // 2)))


def unequal_sides(seed, samples=12, d=4, shift=0.5, rho=0.5, paired=True):
    """Sides whose samples differ in their numbers of vectors."""
    rng = np.random.default_rng(seed)
    x, groups_x = tokens(rng, rng.integers(1, 7, samples), d, rho)
    y, groups_y = tokens(rng, rng.integers(1, 4, samples), d, rho)
    y[:, 0] += shift
    return x, y, groups_x, groups_y if paired else groups_y + samples
