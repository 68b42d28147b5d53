"""Which items of a benchmark a seed chooses. Pure functions of the index, without images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from keygap.benchmarks.sample import Entry


def choose(entries: Sequence[Entry], samples: int | None, seed: int) -> list[int]:
    """Choose items by a seed, stratified by subject.

    The order follows a hash of seed and id, so it does not depend on the machine, the Python
    version or the model, and a smaller choice is the beginning of a larger one. At every length,
    subjects are represented in proportion to their size. Items that show the same image are not
    independent samples, so a second item of an image comes only after one item of every image.

    Args:
        entries: the benchmark's index.
        samples: how many; None, or more than there are, means all.
        seed: any integer.

    Returns:
        Positions in ``entries``, in the order in which the samples are run.
    """

    def rank(number: int) -> bytes:
        return hashlib.sha256(f"{seed}:{entries[number].id}".encode()).digest()

    rounds: dict[int, list[int]] = defaultdict(list)
    seen: dict[str, int] = defaultdict(int)
    for number in sorted(range(len(entries)), key=rank):
        image = entries[number].image_key or entries[number].id
        rounds[seen[image]].append(number)
        seen[image] += 1
    chosen = [number for turn in sorted(rounds) for number in _interleaved(entries, rounds[turn])]
    return chosen if samples is None else chosen[:samples]


def _interleaved(entries: Sequence[Entry], numbers: Iterable[int]) -> list[int]:
    """Merge the subjects so that every beginning of the list has each in proportion."""
    by_subject: dict[str, list[int]] = defaultdict(list)
    for number in numbers:
        by_subject[entries[number].subject].append(number)
    # the k-th of n items of a subject is sorted by (k + 1/2) / n
    ranked = [
        ((k + 0.5) / len(own), subject, number)
        for subject, own in by_subject.items()
        for k, number in enumerate(own)
    ]
    return [number for _, _, number in sorted(ranked)]


def with_copies(entries: Sequence[Entry], chosen: Iterable[int]) -> list[int]:
    """Replace each chosen item by all rows of its question, in the order of the index.

    Circular evaluation needs every copy of a question, whereas ``choose`` takes one of each first.

    Args:
        entries: the benchmark's index.
        chosen: positions in it, as ``choose`` returns them.

    Returns:
        Positions in ``entries``, each once.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for number, entry in enumerate(entries):
        if entry.question_key:
            rows[entry.question_key].append(number)
    # an item without a question_key is the only row of its question
    copies = (rows.get(entries[place].question_key, [place]) for place in chosen)
    return list(dict.fromkeys(number for group in copies for number in group))
