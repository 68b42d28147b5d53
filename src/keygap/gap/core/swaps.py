"""Label swaps: the two sides as they could have been if the labels x and y meant nothing.

Vectors of one sample are not independent, so a swap moves whole samples. Paired sides exchange the
two labels within each sample, with probability 1/2. Unpaired sides are dealt the pooled samples
anew, as many to each side as it had. Both are exact under the null hypothesis that labels are
exchangeable within (paired) or over (unpaired) samples, whatever the dependence inside a sample.

Where a statistic is a function of sample differences or sample means, a swap is a vector of signs
or of dealt weights, and thousands of swaps are one matrix product: ``random_signs`` and ``dealt``.
Where it is not, ``swap_labels`` makes one swap of the vectors themselves.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from keygap.gap.core.inputs import CheckedSides


def random_signs(n_swaps: int, n: int, rng: np.random.Generator) -> Float[np.ndarray, "swaps n"]:
    """Signs of the differences of n paired samples under label swaps.

    Args:
        n_swaps: Number of swaps.
        n: Number of samples.
        rng: Source of randomness.

    Returns:
        +1 where a sample keeps its labels and -1 where it exchanges them, one row per swap.
    """
    return rng.choice([-1.0, 1.0], size=(n_swaps, n))


def dealt(
    weights: Float[np.ndarray, " n"], n_swaps: int, rng: np.random.Generator
) -> Float[np.ndarray, "swaps n"]:
    """Weights of the pooled samples of unpaired sides, dealt to them anew.

    Args:
        weights: Weight of each sample, samples of x first. A statistic that is the difference of
            two means has 1 / s for each sample of x and -1 / t for each sample of y.
        n_swaps: Number of swaps.
        rng: Source of randomness.

    Returns:
        The weights in a random order, one row per swap.
    """
    return rng.permuted(np.tile(weights, (n_swaps, 1)), axis=1)


def swap_labels(sides: CheckedSides, rng: np.random.Generator) -> CheckedSides:
    """The sides after one label swap, for statistics that need the vectors again.

    Args:
        sides: Both sides.
        rng: Source of randomness.

    Returns:
        New sides with as many samples each as before.
    """
    s = sides.n_samples_x
    if sides.paired:
        exchanged = rng.random(s) < 0.5
        to_x = np.concatenate([~exchanged[sides.sample_x], exchanged[sides.sample_y]])
        sample = np.concatenate([sides.sample_x, sides.sample_y])
        new_index = np.arange(s)
    else:
        order = rng.permutation(sides.n_cells)
        new_index = np.empty(sides.n_cells, dtype=int)
        new_index[order[:s]] = np.arange(s)
        new_index[order[s:]] = np.arange(sides.n_samples_y)
        sample = sides.cells
        to_x = np.isin(sample, order[:s])
    pooled = sides.pooled
    return replace(
        sides,
        x=pooled[to_x],
        y=pooled[~to_x],
        sample_x=new_index[sample[to_x]],
        sample_y=new_index[sample[~to_x]],
    )
