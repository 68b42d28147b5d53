"""Principal components of all tokens of a site and layer, however many there are.

Each column is standardised and two components are fitted on a subsample, of which one half is image
tokens where there are enough, as ``keygap project`` does. The fitted axes are then applied to every
token, block by block. The subsample comes from parts that a seed draws, so the store is read little
more than once. A component's sign is that in which its largest weight is positive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from keygap.errors import UserError
from keygap.random_streams import generator, integer
from keygap.reporting.view.tokens import BLOCK, Tokens, numbers_of
from keygap.store import Store
from keygap.store.checksums import REPAIR
from keygap.store.reading import read_blocks
from keygap.store.run import vectors_folder
from keygap.store.schema import as_float32, numbers_in
from keygap.tokens import MODALITIES

FITTED = 10_000  # most tokens of images that axes are fitted on, and of texts
COLUMNS = ("sample_id", "position", "attention", "vector")
PARTS = 32  # of a store that they come from, unless those have too few
BYTES = 2**25  # of a block of vectors


@dataclass(frozen=True)
class Axes:
    """What turns vectors into two coordinates.

    Attributes:
        weights: two components of the columns as they are.
        offset: of the coordinates.
    """

    weights: Float[np.ndarray, "d 2"]
    offset: Float[np.ndarray, " 2"]

    def of(self, vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
        """The coordinates of vectors."""
        return vectors @ self.weights + self.offset


@dataclass(frozen=True)
class Projected:
    """The tokens that are read at a site and layer.

    Attributes:
        token: their numbers.
        points: their coordinates.
        attention: what they receive, divided by its even share.
    """

    token: Int[np.ndarray, " n"]
    points: Float[np.ndarray, "n 2"]
    attention: Float[np.ndarray, " n"]


def projected(
    store: Store,
    tokens: Tokens,
    place: tuple[str, int],
    seed: int,
    told: Callable[[float], object] = lambda share: None,
) -> Projected:
    """Principal components of every token at a site and layer whose vector is finite.

    Args:
        store: the store.
        tokens: its labels.
        place: site and layer.
        seed: of the subsample that the axes are fitted on.
        told: is called with the share that is done.

    Raises:
        UserError: a file is missing or damaged, or there are fewer than three tokens.
    """
    folder = vectors_folder(store.root, *place).relative_to(store.root).as_posix()
    parts = {number: store.part(folder, number) for number in store.parts(folder)}
    axes = _axes(_subsample(parts, seed), seed)
    found: list[Projected] = []
    for done, (number, path) in enumerate(parts.items()):
        told(done / len(parts))
        found.append(_part(tokens, number, path, axes))
    finite = [np.isfinite(one.points).all(axis=1) for one in found]
    token, points, attention = (
        np.concatenate([getattr(one, name)[good] for one, good in zip(found, finite, strict=True)])
        for name in ("token", "points", "attention")
    )
    return Projected(token, points, attention)


def _part(tokens: Tokens, number: int, path: Path, axes: Axes) -> Projected:
    points, attention, samples, positions = [], [], [], []
    for block in read_blocks(path, REPAIR, COLUMNS, _rows(path)):
        points.append(axes.of(_array(block, path)).astype(np.float32))
        attention.append(block["attention"].to_numpy(zero_copy_only=False))
        positions.append(block["position"].to_numpy(zero_copy_only=False))
        samples.append(numbers_of(block["sample_id"], tokens.number_of))
    at = _numbers(tokens, number, np.concatenate(samples), np.concatenate(positions), path)
    return Projected(at, np.concatenate(points), np.concatenate(attention))


def _numbers(
    tokens: Tokens, part: int, sample: np.ndarray, position: np.ndarray, path: Path
) -> Int[np.ndarray, " n"]:
    """The tokens of the rows of a part of a layer, which may have fewer than the part."""
    if part not in tokens.parts:
        raise UserError(f"{path} has tokens that the store does not list: {REPAIR}")
    inside = tokens.in_part(part)
    own = slice(inside.start, inside.stop)
    known = (tokens.columns["sample"][own], tokens.columns["position"][own])
    if len(sample) == len(inside):
        at = np.arange(len(inside))
    else:
        keys = known[0].astype(np.int64) << 32 | known[1]
        order = np.argsort(keys, kind="stable")
        wanted = sample.astype(np.int64) << 32 | position
        place = np.searchsorted(keys, wanted, sorter=order)
        at = order[np.minimum(place, len(order) - 1)]
    if not (np.array_equal(known[0][at], sample) and np.array_equal(known[1][at], position)):
        raise UserError(f"{path} has other rows than the tokens of its part: {REPAIR}")
    return (inside.start + at).astype(np.int32)


def _axes(sides: list[Float[np.ndarray, "n d"]], seed: int) -> Axes:
    """Standardise, each side with equal weight, and fit two components."""
    if sum(map(len, sides)) < 3:
        raise UserError("fewer than three tokens are too few for principal components")
    both = np.concatenate(sides).astype(np.float64)
    weight = np.repeat([len(both) / len(side) for side in sides], [len(side) for side in sides])
    with np.errstate(invalid="ignore"):  # see keygap.gap.core.standardise
        scaler = StandardScaler().fit(both, sample_weight=weight)
    scaled = scaler.transform(both)
    fitted = PCA(min(2, both.shape[1]), random_state=integer(seed, "view", "PCA")).fit(scaled)
    components = fitted.components_
    if len(components) < 2:  # vectors of one dimension
        components = np.vstack([components, np.zeros_like(components)])
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[[0, 1], largest])[:, None]
    weights = (components / scaler.scale_).T
    offset = -(scaler.mean_ @ weights) - fitted.mean_ @ components.T
    return Axes(weights.astype(np.float32), offset.astype(np.float32))


def _subsample(parts: dict[int, Path], seed: int) -> list[Float[np.ndarray, "n d"]]:
    """Vectors of text tokens and of the others, in equal numbers if there are enough."""
    rng = generator(seed, "view", "tokens of the axes")
    width = _width(next(iter(parts.values())))
    most = min(FITTED, BYTES // (4 * width))
    quota = ceil(most / min(PARTS, len(parts)))
    found: tuple[list[np.ndarray], ...] = ([], [])
    had = [0, 0]
    for visited, number in enumerate(rng.permutation(list(parts))):
        if min(had) == most or (visited >= PARTS and min(had) >= most // 4):
            break
        path = parts[int(number)]
        sides = _sides(path)
        rows = [
            np.sort(rng.permutation(np.flatnonzero(sides == side))[: min(quota, most - had[side])])
            for side in (0, 1)
        ]
        for side, vectors in enumerate(_chosen(path, rows)):
            found[side].extend(vectors)
            had[side] += len(rows[side])
    return [np.concatenate(one) for one in found if one]


def _sides(path: Path) -> Int[np.ndarray, " n"]:
    """For each row, 1 for a token of an image and 0 for text."""
    text = {name: int(name != "text") for name in MODALITIES}
    blocks = read_blocks(path, REPAIR, ["modality"], BLOCK)
    return np.concatenate([numbers_of(block["modality"], text) for block in blocks])


def _chosen(path: Path, rows: list[np.ndarray]) -> tuple[list[np.ndarray], ...]:
    """The vectors of two ascending lists of rows, in pieces."""
    found: tuple[list[np.ndarray], ...] = ([], [])
    first = 0
    for block in read_blocks(path, REPAIR, ["vector"], _rows(path)):
        last = first + block.num_rows
        own = [one[(one >= first) & (one < last)] - first for one in rows]
        if any(len(one) for one in own):
            vectors = _array(block, path)
            for side, one in enumerate(own):
                kept = vectors[one]
                kept = kept[np.isfinite(kept).all(axis=1)]
                if len(kept):
                    found[side].append(kept)
        first = last
    return found


def _width(path: Path) -> int:
    """How many numbers a vector of a file has."""
    kind = pq.read_schema(path.absolute()).field("vector").type
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width) // 2
    if not pa.types.is_fixed_size_list(kind):
        raise UserError(f"{path} holds no vectors: {REPAIR}")
    return int(kind.list_size)


def _rows(path: Path) -> int:
    return max(256, min(BLOCK, BYTES // (4 * _width(path))))


def _array(block: pa.RecordBatch, path: Path) -> Float[np.ndarray, "n d"]:
    flat = numbers_in(block["vector"])
    if len(flat) != block.num_rows * _width(path):
        raise UserError(f"{path} holds tokens without vectors: {REPAIR}")
    dtype = (block.schema.metadata or {}).get(b"dtype", b"float32").decode()
    return as_float32(flat, dtype).reshape(block.num_rows, -1)
