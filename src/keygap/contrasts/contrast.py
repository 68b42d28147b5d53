"""What a contrast is: two selections of labelled tokens that are compared.

A contrast carries every policy that depends on it as a field, so that no other module asks for a
contrast by name: how its two sides are paired, whether a run that lacks it is refused, whether its
confounds are measured, and its rung on the ladder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool

Masks = tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]
Select = Callable[[pd.DataFrame, Sequence[str], int], Masks]
Rung = Literal["between", "same", "kind", "single", "own"]
Pairing = Literal["within", "between", "auto"]


class NotMeasurable(ValueError):
    """A contrast does not exist for the given tokens; the message is shown to the reader."""


class TooFewSamples(NotMeasurable):
    """A contrast exists, but in too few samples for an interval and a test."""


@dataclass(frozen=True)
class Contrast:
    """Two selections from one table of labelled tokens.

    Attributes:
        name: its name in every table.
        what: one line that says what the two sides are.
        select: a function of (labels, text roles, seed) that returns two boolean masks over the
            rows of labels.
        rung: its place on the ladder. ``between``: a gap between modalities, which gets a ratio
            and shape statistics. ``same``: one distribution split in two, the paper's baseline.
            ``kind``: two kinds of token inside one modality, what a gap is compared with.
            ``single``: one word against many, which is far by construction and compared with
            nothing (a contrast of rung ``kind`` becomes one where its tokens make it so, see
            ``Case.rung``). ``own``: defined by the user and off the ladder.
        pairing: what a label swap does. ``within``: only samples with both sides are used, and
            labels are swapped inside each sample. ``between``: whole samples are dealt to the
            sides. ``auto``: ``between`` if no sample has both sides, otherwise ``within``.
        required: whether a run for which it cannot be measured is refused. If false, the table
            has a note instead.
        with_confounds: whether it is also measured with each confound of
            ``contrasts.confounds.CONFOUNDS``.
        draws: the number of seeded selections. Of several, the one with the median MMD squared
            is measured, because a single random split of a small vocabulary can read twice what
            the next one reads.
        sides: the names of the two sides in the tables.
        note_left_out: whether a note counts the samples that are left out because they have one
            side only.
        needs_role: a role that only some runs have, because they were made for this contrast. A
            measurement of all registered contrasts leaves it out of the others without a note.
    """

    name: str
    what: str
    select: Select
    rung: Rung
    pairing: Pairing = "auto"
    required: bool = False
    with_confounds: bool = False
    draws: int = 1
    sides: tuple[str, str] = ("a", "b")
    note_left_out: bool = False
    needs_role: str = ""
