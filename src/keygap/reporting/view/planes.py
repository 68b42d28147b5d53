"""The planes that a view has looked at, made when they are first asked for.

Principal components of all tokens are computed in a thread and kept in memory, about 24 bytes a
token; nothing is written into the run folder. When they take more than ``MOST_BYTES``, the one that
was asked for longest ago is dropped and computed again if it is wanted.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import pandas as pd

from keygap.errors import UserError
from keygap.reporting.view.components import projected
from keygap.reporting.view.plane import Plane, plane
from keygap.reporting.view.tokens import Tokens
from keygap.store import Store

MOST_BYTES = 2**28
METHODS = ("pca", "tsne")


class Planes:
    """The planes of a store.

    Args:
        store: the store.
        tokens: its labels.
        projection: the rows of ``projection.parquet``; None if the run has none.
        seed: of the axes and of the order of the points.
    """

    def __init__(
        self, store: Store, tokens: Tokens, projection: pd.DataFrame | None, seed: int
    ) -> None:
        self.store, self.tokens, self.seed = store, tokens, seed
        self.places = store.site_layers()
        self._drawn = _drawn(projection, tokens, seed)
        self._made: OrderedDict[tuple[str, int], Plane] = OrderedDict()
        self._failed: dict[tuple[str, int], UserError] = {}
        self._share: dict[tuple[str, int], float] = {}  # of those that are being made
        self._lock = threading.Lock()
        self._one = threading.Lock()  # one is made at a time

    def methods(self, place: tuple[str, int]) -> list[str]:
        """The coordinates that a place has."""
        return [name for name in METHODS if name == "pca" or place in self._drawn]

    def at(self, place: tuple[str, int], method: str) -> Plane | float:
        """A plane, or the share of it that is done; a thread begins with it if none has.

        Args:
            place: site and layer.
            method: one of its ``methods``.

        Raises:
            UserError: a file is damaged.
        """
        if method == "tsne":
            return self._drawn[place]
        with self._lock:
            if place in self._failed:
                raise self._failed.pop(place)
            if place in self._made:
                self._made.move_to_end(place)
                return self._made[place]
            if place not in self._share:
                self._share[place] = 0.0
                threading.Thread(target=self._make, args=[place], daemon=True).start()
            return self._share[place]

    def known(self, place: tuple[str, int]) -> Plane | None:
        """The plane of a place if it is there already."""
        with self._lock:
            return self._made.get(place)

    def _make(self, place: tuple[str, int]) -> None:
        try:
            with self._one:
                found = projected(
                    self.store,
                    self.tokens,
                    place,
                    self.seed,
                    lambda share: self._share.__setitem__(place, share),
                )
                made = plane(found.token, found.points, found.attention, self.seed)
        except UserError as error:
            with self._lock:
                self._failed[place] = error
        except BaseException as error:
            with self._lock:
                self._failed[place] = UserError(f"{place[0]}, layer {place[1]}: {error!r}")
            raise
        else:
            with self._lock:
                self._made[place] = made
                while len(self._made) > 1 and self._nbytes() > MOST_BYTES:
                    self._made.popitem(last=False)
        finally:
            with self._lock:
                del self._share[place]

    def _nbytes(self) -> int:
        return sum(one.nbytes for one in self._made.values())


def _drawn(
    projection: pd.DataFrame | None, tokens: Tokens, seed: int
) -> dict[tuple[str, int], Plane]:
    """The planes of ``projection.parquet``, of tokens that the store has."""
    if projection is None or projection.empty:
        return {}
    sample = projection["sample_id"].astype(str).map(tokens.number_of)
    frame = projection.assign(number=sample).dropna(subset="number")
    keys = tokens.columns["sample"].astype(np.int64) << 32 | tokens.columns["position"]
    order = np.argsort(keys, kind="stable").astype(np.int32)
    found = {}
    for _, part in frame.groupby(["site", "layer"], sort=False, observed=True):
        wanted = part["number"].to_numpy(np.int64) << 32 | part["position"].to_numpy(np.int64)
        at = np.searchsorted(keys, wanted, sorter=order)
        number = order[np.minimum(at, len(order) - 1)]
        points = part[["x", "y"]].to_numpy(np.float32)
        good = (keys[number] == wanted) & ~part.duplicated(["number", "position"]).to_numpy()
        good &= np.isfinite(points).all(axis=1)
        if good.any():
            known = part["attention"] if "attention" in part else pd.Series(np.nan, part.index)
            place = (str(part["site"].iloc[0]), int(part["layer"].iloc[0]))
            attention = known.to_numpy(np.float32)
            found[place] = plane(number[good], points[good], attention[good], seed)
    return found
