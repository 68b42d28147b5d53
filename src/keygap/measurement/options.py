"""The options of a measurement, which every step of it shares."""

from __future__ import annotations

from dataclasses import dataclass

from keygap.arguments import MOST_RESAMPLINGS, seed_of, whole

SWAPS_PER_TEST = 40  # Holm multiplies p by the number of tests: the least p_holm is about 1/40


@dataclass(frozen=True)
class Options:
    """What ``kg.measure`` was asked for, apart from sites, layers and contrasts.

    Attributes:
        text_roles: what counts as text.
        tokens_per_sample: at most this many tokens of a sample on each side; None: all.
        n_permutations: the least number of label swaps of a test.
        n_bootstraps: resamplings of whole samples behind intervals that need them.
        seed: of every random draw.
    """

    text_roles: list[str]
    tokens_per_sample: int | None
    n_permutations: int
    n_bootstraps: int
    seed: int

    def __post_init__(self) -> None:
        """Check the numbers, and make Python's own of numpy's, which YAML cannot write.

        Raises:
            UserError: a number is out of range.
        """
        most = MOST_RESAMPLINGS
        checked = {
            "n_permutations": whole(self.n_permutations, "n_permutations", 1, most),
            "n_bootstraps": whole(self.n_bootstraps, "n_bootstraps", 1, most),
            "seed": seed_of(self.seed),
        }
        if self.tokens_per_sample is not None:
            checked["tokens_per_sample"] = whole(self.tokens_per_sample, "tokens_per_sample", 2)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def swaps(self, tests: int) -> int:
        """Label swaps of a test that Holm adjusts together with others, ``tests`` in all."""
        return max(self.n_permutations, SWAPS_PER_TEST * tests)
