"""A contrast out of an experiment file: two selections of tokens, written as plain values.

    - name: kind_of_question
      a: {modality: text, role: [question], subject: [shape]}
      b: {modality: text, role: [question], subject: [colour]}
    - name: shape_words
      a: {modality: text, role: [question], token: [circle, rectangle, triangle]}
      b: {modality: text, role: [question], token: [image]}

Every field narrows the selection; a field that is left out does not. Sides that share no sample, as
the first two, are compared as they are; else the samples that have both sides are used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from keygap.contrasts.ladder import CONTRASTS, Contrast, Masks, NotMeasurable, is_sink
from keygap.errors import UserError
from keygap.tokens import ROLES, known_roles

Share = Annotated[float, Field(ge=0, le=1)]
WORD_STARTS = "Ġ▁ "  # how byte-level and sentencepiece vocabularies spell a leading space


def _of_any_token(roles: list[str]) -> list[str]:
    return known_roles(roles, ROLES)


def refuse_twice(names: Iterable[str]) -> None:
    """A contrast's name is its key in every table.

    Raises:
        UserError: two contrasts have one name.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"the contrast {name!r} stands there {count} times: name each once")


TextRoles = Annotated[list[str], AfterValidator(known_roles)]
AnyRoles = Annotated[list[str], AfterValidator(_of_any_token)]


class Selection(BaseModel):
    """Which tokens. ``rows`` and ``columns`` are shares of the image's height and width."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: Literal["image", "text", "video", "audio"] | None = None
    role: AnyRoles | None = None
    token: list[str] | None = None
    language: list[str] | None = None
    subject: list[str] | None = None
    rows: tuple[Share, Share] | None = None
    columns: tuple[Share, Share] | None = None
    sink: bool | None = None

    def words(self) -> str:
        """The selection in words, as the report defines it."""
        chosen = self.model_dump(exclude_none=True)
        return "; ".join(f"{field} {_spelled(value)}" for field, value in chosen.items()) or "all"

    def mask(self, labels: pd.DataFrame) -> np.ndarray:
        """A boolean for every row of labels."""
        keep = np.ones(len(labels), dtype=bool)
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
            keep &= is_sink(labels) == self.sink
        return keep


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{end:g}" for end in value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _within(labels: pd.DataFrame, column: str, window: tuple[float, float]) -> np.ndarray:
    """Patches whose centre lies in a window of the image, as shares of its side."""
    place = labels[column].to_numpy()
    last = labels.groupby(["sample_id", "image"], observed=True)[column].transform("max").to_numpy()
    centre = (place + 0.5) / np.maximum(last + 1, 1)
    return (place >= 0) & (centre >= window[0]) & (centre < window[1])


class OwnContrast(BaseModel):
    """A contrast of the user's own. ``kind`` puts it on the ladder as one inside a modality."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^\w[\w-]*$")
    a: Selection
    b: Selection
    rung: Literal["own", "kind"] = "own"

    @model_validator(mode="after")
    def _name_is_new(self) -> OwnContrast:
        if self.name in CONTRASTS:
            raise ValueError(f"{self.name} is the name of a contrast that keygap has")
        return self

    def contrast(self) -> Contrast:
        """The contrast that ``measure`` takes."""
        what = f"{self.a.words()}, against {self.b.words()}"
        return Contrast(self.name, self.rung, what, self._select)

    def _select(self, labels: pd.DataFrame, roles: Sequence[str], seed: int) -> Masks:
        a, b = self.a.mask(labels), self.b.mask(labels)
        for side, mask in (("a", a), ("b", b)):
            if not mask.any():
                raise NotMeasurable(f"side {side} selects no token")
        if (a & b).any():
            raise NotMeasurable("both sides select the same tokens")
        return a, b
