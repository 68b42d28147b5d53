"""Random generators by seed and purpose.

Two seeds must never share a draw, and two purposes under one seed must never use related streams:
thinning that resembles a null distribution, or nine random splits of which eight recur under the
next seed, would correlate results that are reported as independent. Every generator therefore comes
from a ``numpy.random.SeedSequence`` whose entropy is the user's seed and whose spawn key is a hash
of the purpose. The same seed and purpose give the same stream on every machine.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """The random generator of a purpose.

    Args:
        seed: the user's seed, at least 0.
        purpose: what the draws are for, such as ``"mmd", "label swaps"``. Joint draws (bootstraps
            of two statistics over the same samples) need the same seed and purpose.
    """
    return np.random.default_rng(_sequence(seed, purpose))


def integer(seed: int, *purpose: object) -> int:
    """A seed of 32 bits for a library that takes an integer and makes its own generator.

    Args:
        seed: the user's seed, at least 0.
        purpose: what the draws are for.
    """
    return int(_sequence(seed, purpose).generate_state(1)[0])


def _sequence(seed: int, purpose: tuple[object, ...]) -> np.random.SeedSequence:
    digest = hashlib.sha256("\x1f".join(map(str, purpose)).encode()).digest()
    return np.random.SeedSequence(seed, spawn_key=tuple(np.frombuffer(digest[:16], "<u4").tolist()))
