"""Contrasts that a user defines in an experiment file, as two selections in plain values.

    - name: kind_of_question
      a: {modality: text, role: [question], subject: [shape]}
      b: {modality: text, role: [question], subject: [colour]}
    - name: shape_words
      a: {modality: text, role: [question], token: [circle, rectangle, triangle]}
      b: {modality: text, role: [question], token: [image]}

Every field narrows the selection; a field that is left out does not. If the two sides share
samples, only samples with both sides are used. If they share none, as in the first example, they
are compared as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from keygap.contrasts import CONTRASTS
from keygap.contrasts.contrast import Contrast, Masks, NotMeasurable
from keygap.contrasts.labels import grid_ends, is_drawn, is_sink, refuse_unknown_sinks
from keygap.errors import UserError
from keygap.tokens import ROLES, known_roles

Share = Annotated[float, Field(ge=0, le=1)]
WORD_STARTS = "Ġ▁ "  # a leading space, as byte-level and sentencepiece vocabularies spell it


def _of_any_token(roles: list[str]) -> list[str]:
    return known_roles(roles, ROLES)


def refuse_twice(names: Iterable[str]) -> None:
    """Refuse two contrasts of one name, which is a key in every table.

    Raises:
        UserError: a name occurs more than once.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"the contrast {name!r} is listed {count} times: name each once")


TextRoles = Annotated[list[str], AfterValidator(known_roles)]
AnyRoles = Annotated[list[str], AfterValidator(_of_any_token)]


class Selection(BaseModel):
    """Which tokens one side has: those that every field selects."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    modality: Literal["image", "text", "video", "audio"] | None = None
    """Tokens of this modality, padding and separators of images among them."""
    role: AnyRoles | None = None
    """Tokens of any of these roles."""
    token: list[str] | None = None
    """These words, without a leading space."""
    language: list[str] | None = None
    """Tokens of samples in any of these languages."""
    subject: list[str] | None = None
    """Tokens of samples of any of these subjects."""
    rows: tuple[Share, Share] | None = None
    """Patches whose centre lies in this range, as shares of the image's height."""
    columns: tuple[Share, Share] | None = None
    """As ``rows``, of the width."""
    sink: bool | None = None
    """Only attention sinks (``true``) or only other tokens (``false``)."""

    def words(self) -> str:
        """Describe the selection in words, for the report."""
        chosen = self.model_dump(exclude_none=True)
        return "; ".join(f"{field} {_spelled(value)}" for field, value in chosen.items()) or "all"

    def mask(self, labels: pd.DataFrame) -> Bool[np.ndarray, " n"]:
        """Evaluate the selection on n labelled tokens.

        Raises:
            NotMeasurable: it asks for sinks, and attention was not recorded.
        """
        keep: np.ndarray = np.ones(len(labels), dtype=bool)
        if self.modality is not None:
            keep &= (labels["modality"] == self.modality).to_numpy()
        for column in ("role", "language", "subject"):
            wanted = getattr(self, column)
            if wanted is not None:
                keep &= labels[column].isin(wanted).to_numpy()
        if self.token is not None:
            spelled = labels["token"].str.lstrip(WORD_STARTS)
            keep &= spelled.isin(self.token).to_numpy()
        for column, window in (("patch_row", self.rows), ("patch_column", self.columns)):
            if window is not None:
                keep &= _within(labels, column, window)
        if self.sink is not None:
            refuse_unknown_sinks(labels, keep)
            keep &= is_sink(labels) == self.sink
        return keep if self.sink else keep & is_drawn(labels)


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{end:g}" for end in value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _within(
    labels: pd.DataFrame, column: str, window: tuple[float, float]
) -> Bool[np.ndarray, " n"]:
    """Patches whose centre lies in a window, as shares of the image's side."""
    index = labels[column].to_numpy()
    first, last = grid_ends(labels, column)
    centre = (index - first + 0.5) / (last - first + 1)
    return (index >= 0) & (centre >= window[0]) & (centre < window[1])


class OwnContrast(BaseModel):
    """A contrast that a user defines."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[^\W_][\w-]*$")
    """Letters, digits, hyphens and underscores; it begins with a letter or digit, and is new."""
    a: Selection
    """The first side."""
    b: Selection
    """The second side."""
    rung: Literal["own", "kind"] = "own"
    """``kind`` puts it on the ladder, as a contrast inside one modality."""

    @model_validator(mode="after")
    def _name_is_new(self) -> OwnContrast:
        if self.name in CONTRASTS:
            raise ValueError(f"{self.name} is the name of a contrast that keygap has")
        return self

    def contrast(self) -> Contrast:
        """Build the contrast that ``measure`` takes."""
        what = f"{self.a.words()}, against {self.b.words()}"
        return Contrast(self.name, what, self._select, self.rung, note_left_out=True)

    def _select(self, labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
        a, b = self.a.mask(labels), self.b.mask(labels)
        for side, mask in (("a", a), ("b", b)):
            if not mask.any():
                raise NotMeasurable(f"side {side} selects no token")
        if (a & b).any():
            raise NotMeasurable("both sides select the same tokens")
        if self.rung == "kind" and labels["modality"][a | b].nunique() > 1:
            raise NotMeasurable("it selects tokens of two modalities, so its rung is not kind")
        return a, b
