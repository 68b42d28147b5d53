"""What the server answers: the store, as far as somebody looks at it, in the explorer's own form.

Answers are plain values for JSON. Numbers are typed arrays in base64, as in a report
(``keygap.reporting.explorer.data``), and a token keeps its number in the store in every answer.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from keygap.contrasts.labels import SINK_SHARE
from keygap.reporting.explorer.data import (
    Pictures,
    coordinates,
    packed,
    prompts_of,
    thumbnails_of,
)
from keygap.reporting.run import projection_of
from keygap.reporting.view.asked import Filter, Query, Refused
from keygap.reporting.view.plane import Plane
from keygap.reporting.view.planes import METHODS, Planes
from keygap.reporting.view.tokens import Tokens, tokens_of
from keygap.store import Store
from keygap.store.checksums import REPAIR
from keygap.store.reading import read_rows
from keygap.store.run import THUMBNAILS, vectors_folder
from keygap.text import printable
from keygap.tokens import MODALITIES, ROLES

MOST = 20_000  # points of an answer
MOST_OF_SAMPLE = 4000  # tokens of one sample that are answered wherever they lie
MOST_WORDS = 50
PATIENCE = 0.15  # seconds in which an answer reads files that nobody has read before
KINDS = {
    "sample": "<u4",
    "position": "<u4",
    "word": "<u4",
    "modality": "<u1",
    "role": "<u1",
    "image": "<i2",
    "frame": "<i2",
    "row": "<i2",
    "column": "<i2",
}
NAMES = {"row": "patch_row", "column": "patch_column"}


class Explored:
    """A run that is looked at.

    Args:
        store: a finished extraction.
        seed: of the order in which points are thinned, and of the axes.

    Raises:
        UserError: a file of the run is missing or damaged, or it has no tokens.
    """

    def __init__(self, store: Store, seed: int = 0) -> None:
        self.store = store
        self.manifest = store.manifest
        self.tokens: Tokens = tokens_of(store)
        self.planes = Planes(store, self.tokens, projection_of(store.root), seed)
        self.has_thumbnails = store.has(THUMBNAILS)
        self._counts = np.bincount(self.tokens.columns["word"], minlength=len(self.tokens.words))
        self._last: tuple[Filter, Plane, np.ndarray | None, int] | None = None
        self._busy = threading.Lock()  # one answer at a time, which bounds what they take
        self.planes.at(self.planes.places[0], "pca")

    def page(self) -> dict[str, Any]:
        """What the page has from the start: the run without a single token."""
        empty = dict.fromkeys(KINDS, "")
        none = {"tsne": None, "pca": None, "attention": None}
        columns = self.tokens.columns
        run: dict[str, Any] = {
            "model": printable(self.manifest["model"]),
            "benchmark": str(self.manifest["benchmark"]),
            "samples": [],
            "words": [],
            "readable": {},
            "tokens": {"count": 0, "id": "", **empty},
            "prompts": {"count": 0, **empty, "length": ""},
            "places": [
                {"site": site, "layer": layer, "at": None, **none}
                for site, layer in self.planes.places
            ],
            "thumbnails": {"grids": [], "rows": []} if self.has_thumbnails else None,
            "patches": bool((columns["patch_row"] >= 0).any()),
            "missing": [],
        }
        pairs = np.unique(columns["modality"].astype(int) * 256 + columns["role"])
        return {
            "modalities": list(MODALITIES),
            "roles": list(ROLES),
            "runs": [run],
            "pictures": [],
            "sink_share": SINK_SHARE,
            "all": len(self.tokens),
            "n_samples": len(self.tokens.samples),
            "methods": [self.planes.methods(place) for place in self.planes.places],
            "pairs": [[int(pair) // 256, int(pair) % 256] for pair in pairs],
        }

    def points(self, query: Query) -> dict[str, Any]:
        """Points of a window of the plane of a place, at most ``MOST``."""
        place = self.planes.places[query.whole("place", len(self.planes.places))]
        method = query.one_of("method", METHODS)
        if method not in self.planes.methods(place):
            raise Refused(f"there are no {method} coordinates of {place[0]}, layer {place[1]}")
        keep = query.tokens("keep", len(self.tokens))
        sample = query.values.get("sample", "")
        own = (
            np.arange(0)
            if not sample
            else np.asarray(self.tokens.of_sample(query.whole("sample", len(self.tokens.samples))))
        )[:MOST_OF_SAMPLE]
        asked = Filter.of(query)
        ends = [query.number(name) for name in ("left", "right", "bottom", "top")]
        found = self.planes.at(place, method)
        if isinstance(found, float):
            return {"preparing": found}
        window = tuple(
            whole if end is None else end for end, whole in zip(ends, found.whole, strict=True)
        )
        with self._busy:
            match, matching = self._matching(asked, found)
            always = found.rows_of(np.union1d(keep, own).astype(np.int32))
            thin = found.thinned(window, MOST - len(always), match)  # type: ignore[arg-type]
            rows = np.union1d(thin.rows, always)
            rows = rows[np.argsort(found.token[rows], kind="stable")]
            return {
                "place": self.planes.places.index(place),
                "method": method,
                "low": found.low,
                "high": found.high,
                "points": coordinates(np.stack([found.x[rows], found.y[rows]], 1).astype(float)),
                "attention": packed(found.attention[rows], "<f4"),
                "total": len(found.token),
                "window": thin.window,
                "matching": thin.matching,
                "found": matching,
                **self._labels(found.token[rows]),
            }

    def inside(self, query: Query) -> dict[str, Any]:
        """How many tokens of a place lie inside a region of its plane and match a filter."""
        place = self.planes.places[query.whole("place", len(self.planes.places))]
        method = query.one_of("method", METHODS)
        if method not in self.planes.methods(place):
            raise Refused(f"there are no {method} coordinates of {place[0]}, layer {place[1]}")
        corners, asked = query.corners("corners"), Filter.of(query)
        found = self.planes.at(place, method)
        if isinstance(found, float):
            return {"preparing": found}
        with self._busy:
            rows = found.within(corners)
            match, _ = self._matching(asked, found)
            return {"inside": len(rows) if match is None else int(match[found.token[rows]].sum())}

    def sample(self, query: Query) -> dict[str, Any]:
        """The prompt of a sample, and its pictures."""
        number = query.whole("sample", len(self.tokens.samples))
        own = self.tokens.of_sample(number)
        columns = {
            name: values[own.start : own.stop] for name, values in self.tokens.columns.items()
        }
        name, used = self.tokens.samples[number], np.unique(columns["word"])
        frame = pd.DataFrame(
            {
                "sample_id": name,
                "token": [self.tokens.words[word] for word in columns["word"]],
                "position": columns["position"],
                "image": columns["image"],
                "modality": np.asarray(MODALITIES)[columns["modality"]],
                "role": np.asarray(ROLES)[columns["role"]],
            }
        )
        word = {self.tokens.words[one]: int(one) for one in used}
        pictures = Pictures()
        return {
            "sample": number,
            "prompts": prompts_of(frame, {name: number}, word),
            "thumbnails": self._thumbnails(name, number, own.start, pictures),
            "pictures": list(pictures.encoded),
            **self._texts(np.asarray([number]), used),
        }

    def words(self, query: Query) -> dict[str, Any]:
        """The words that contain a text, the most frequent first."""
        text = query.text("word").strip()
        if not text:
            raise Refused("word is empty")
        found = np.flatnonzero(self.tokens.having(text))
        order = found[np.argsort(-self._counts[found], kind="stable")]
        return {
            "words": len(found),
            "tokens": int(self._counts[found].sum()),
            "most": [
                [self.tokens.readable[word], int(self._counts[word])]
                for word in order[:MOST_WORDS]
                if len(self.tokens.readable[word]) <= 200
            ],
        }

    def elsewhere(self, query: Query) -> dict[str, Any]:
        """The attention that a token receives at each place from ``first`` on; null if not known.

        A run has hundreds of places, each in a file of its own: the answer has as many as could be
        read in ``PATIENCE`` seconds.
        """
        token = query.whole("token", len(self.tokens))
        first = query.whole("first", len(self.planes.places))
        until = time.monotonic() + PATIENCE
        found: list[float | None] = []
        for place in self.planes.places[first:]:
            found.append(self._attention(place, token))
            if time.monotonic() > until:
                break
        return {"token": token, "first": first, "attention": found}

    def _attention(self, place: tuple[str, int], token: int) -> float | None:
        if (plane := self.planes.known(place)) is not None:
            values = plane.attention[plane.rows_of(np.asarray([token], np.int32))]
        else:
            folder = vectors_folder(self.store.root, *place).relative_to(self.store.root).as_posix()
            number = self.tokens.part_of(token)
            if number not in self.store.parts(folder):
                return None
            name = self.tokens.samples[int(self.tokens.columns["sample"][token])]
            where = [("sample_id", "=", name), ("position", "=", self._position(token))]
            table = read_rows(self.store.part(folder, number), REPAIR, ["attention"], where)
            values = table["attention"].to_numpy()
        return None if not len(values) or np.isnan(values[0]) else float(values[0])

    def _position(self, token: int) -> int:
        return int(self.tokens.columns["position"][token])

    def _matching(self, asked: Filter, plane: Plane) -> tuple[np.ndarray | None, int]:
        """Which tokens match, and how many of a plane do; kept while only the window changes."""
        last = self._last
        if last is None or last[:2] != (asked, plane):
            match = asked.match(self.tokens, plane)
            count = len(plane.token) if match is None else int(match[plane.token].sum())
            self._last = last = (asked, plane, match, count)
        return last[2:]

    def _labels(self, tokens: Int[np.ndarray, " n"]) -> dict[str, Any]:
        columns = {name: self.tokens.columns[NAMES.get(name, name)][tokens] for name in KINDS}
        return {
            "tokens": {
                "count": len(tokens),
                "id": packed(tokens, "<u4"),
                **{name: packed(columns[name], kind) for name, kind in KINDS.items()},
            },
            **self._texts(np.unique(columns["sample"]), np.unique(columns["word"])),
        }

    def _texts(self, samples: np.ndarray, words: np.ndarray) -> dict[str, Any]:
        """Ids of samples and spellings of words by their numbers."""
        spelled, text = self.tokens.words, self.tokens.readable
        return {
            "samples": {int(one): self.tokens.samples[one] for one in samples},
            "words": {int(one): spelled[one] for one in words},
            "readable": {int(one): text[one] for one in words if text[one] != spelled[one]},
        }

    def _thumbnails(
        self, name: str, number: int, token: int, pictures: Pictures
    ) -> dict[str, Any] | None:
        if not self.has_thumbnails:
            return None
        part = self.tokens.part_of(token)
        if part not in self.store.parts(THUMBNAILS):
            return {"grids": [], "rows": []}
        path = self.store.part(THUMBNAILS, part)
        kept = read_rows(path, REPAIR, None, [("sample_id", "=", name)])
        return thumbnails_of(kept.to_pandas(), {name: number}, pictures)
