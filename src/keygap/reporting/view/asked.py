"""What a request asks for, read from its query: numbers in their ranges, texts of limited length.

Nothing in a query names a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from keygap.contrasts.labels import SINK_SHARE
from keygap.reporting.view.plane import Plane
from keygap.reporting.view.tokens import Tokens
from keygap.tokens import MODALITIES, ROLES

LONGEST = 500  # characters of a text
MOST_CORNERS = 200  # of a lasso
MOST_KEPT = 5000  # tokens that are answered wherever they lie
COLUMNS = {"position": "position", "row": "patch_row", "column": "patch_column"}
SINKS = ("", "sinks", "others")


class Refused(Exception):
    """A request that means nothing; its text says why."""


@dataclass(frozen=True)
class Query:
    """The parameters of a request, each given once at most."""

    values: Mapping[str, str]

    def text(self, name: str) -> str:
        """A text; empty if it is not given."""
        value = self.values.get(name, "")
        if len(value) > LONGEST:
            raise Refused(f"{name} is longer than {LONGEST} characters")
        return value

    def one_of(self, name: str, known: tuple[str, ...]) -> str:
        """One of some words; the first if it is not given."""
        value = self.values.get(name, known[0])
        if value not in known:
            raise Refused(f"{name} is none of {', '.join(known)}")
        return value

    def whole(self, name: str, below: int) -> int:
        """A whole number from 0."""
        value = self.values.get(name, "")
        if not (value.isascii() and value.isdigit() and len(value) < 12 and int(value) < below):
            raise Refused(f"{name} is no whole number below {below}")
        return int(value)

    def number(self, name: str) -> float | None:
        """A finite number; None if it is not given."""
        value = self.values.get(name, "")
        if not value:
            return None
        try:
            found = float(value) if len(value) < 40 else math.nan
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise Refused(f"{name} is no number")
        return found

    def tokens(self, name: str, below: int) -> np.ndarray:
        """Numbers of tokens, separated by commas."""
        value = self.values.get(name, "")
        items = value.split(",") if value else []
        if len(items) > MOST_KEPT:
            raise Refused(f"{name} has more than {MOST_KEPT} tokens")
        if not all(one.isascii() and one.isdigit() and len(one) < 12 for one in items):
            raise Refused(f"{name} is no list of whole numbers")
        found = np.asarray(items, np.int64)
        if len(found) and found.max() >= below:
            raise Refused(f"{name} has a token that there is not")
        return found

    def corners(self, name: str) -> Float[np.ndarray, "n 2"]:
        """The corners of a region, as x and y in turn, separated by commas."""
        items = self.values.get(name, "").split(",")
        if len(items) > 2 * MOST_CORNERS:
            raise Refused(f"{name} has more than {MOST_CORNERS} corners")
        try:
            found = np.asarray([float(one) if len(one) < 40 else math.nan for one in items])
        except ValueError:
            found = np.full(1, math.nan)
        if len(found) < 6 or len(found) % 2 or not np.isfinite(found).all():
            raise Refused(f"{name} is no list of three corners or more")
        return found.reshape(-1, 2)


@dataclass(frozen=True)
class Filter:
    """Which tokens are looked for. What is empty filters nothing.

    Attributes:
        word: part of the word of a text token, in upper or lower case.
        sample: part of the id of a sample.
        modality: of ``keygap.tokens.MODALITIES``.
        role: as the page writes it: ``patch`` and ``no role`` for tokens that have none.
        sink: ``sinks``, or ``others``; a token whose attention is not known is neither.
        ranges: least and greatest values by the names of ``COLUMNS`` and ``attention``.
    """

    word: str = ""
    sample: str = ""
    modality: str = ""
    role: str = ""
    sink: str = ""
    ranges: tuple[tuple[str, float | None, float | None], ...] = ()

    @classmethod
    def of(cls, query: Query) -> Filter:
        """The filter of a request."""
        ends = (
            (name, query.number(f"{name}-from"), query.number(f"{name}-to"))
            for name in (*COLUMNS, "attention")
        )
        return cls(
            word=query.text("word").strip(),
            sample=query.text("of").strip(),
            modality=query.one_of("modality", ("", *MODALITIES)),
            role=query.one_of("role", ("", "patch", "no role", *ROLES[1:])),
            sink=query.one_of("sink", SINKS),
            ranges=tuple(one for one in ends if one[1:] != (None, None)),
        )

    def match(self, tokens: Tokens, plane: Plane) -> Bool[np.ndarray, " tokens"] | None:
        """Whether each token matches; None if all do."""
        if self == Filter():
            return None
        columns = tokens.columns
        text = columns["modality"] == MODALITIES.index("text")
        match = np.ones(len(tokens), bool)
        if self.word:
            match &= text & tokens.having(self.word)[columns["word"]]
        if self.sample:
            match &= tokens.sampled(self.sample)[columns["sample"]]
        if self.modality:
            match &= columns["modality"] == MODALITIES.index(self.modality)
        if self.role in ("patch", "no role"):
            match &= (columns["role"] == 0) & (text == (self.role == "no role"))
        elif self.role:
            match &= columns["role"] == ROLES.index(self.role)
        for name, low, high in self.ranges:
            if name != "attention":
                values = columns[COLUMNS[name]]
                known = values >= 0 if name == "position" else (values >= 0) & ~text
                match &= known & _within(values, low, high)
        self._by_attention(match, plane)
        return match

    def _by_attention(self, match: Bool[np.ndarray, " tokens"], plane: Plane) -> None:
        ends = [(low, high) for name, low, high in self.ranges if name == "attention"]
        if not (self.sink or ends):
            return
        fits = np.ones(len(plane.token), bool)
        with np.errstate(invalid="ignore"):  # what is not known is in no range and neither
            for low, high in ends:
                fits &= _within(plane.attention, low, high)
            if self.sink == "sinks":
                fits &= plane.attention >= SINK_SHARE
            elif self.sink:
                fits &= plane.attention < SINK_SHARE
        good = np.zeros(len(match), bool)
        good[plane.token[fits]] = True
        match &= good


def _within(values: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    found = np.ones(len(values), bool)
    if low is not None:
        found &= values >= low
    if high is not None:
        found &= values <= high
    return found
