"""Small parts of a store: two heads of two dimensions, one image token and two words a sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from keygap.store import LabelledVectors, PartTables, StoreWriter, write_part
from keygap.store.schema import (
    SAMPLES_SCHEMA,
    THUMBNAILS_SCHEMA,
    TOKENS_SCHEMA,
    vectors_schema,
)

IDENTITY = {"model": "made", "seed": 0, "layers": [0, 3], "interventions": []}
PLACES = (("k_proj", 0), ("k_proj", 3), ("hidden", 3))
TOKENS = ("<image>", "is", "it")


def vector(sample: int, position: int, layer: int) -> list[float]:
    """The four numbers that a part has there."""
    return [1000.0 * sample + 100.0 * position + 10.0 * layer + n for n in range(4)]


def part(samples: range, failed: tuple[int, ...] = ()) -> PartTables:
    """The tables of some samples, of which some failed."""
    rows = [
        {"sample_id": f"s{n}", "subject": "x", "failure": "broken"}
        if n in failed
        else {"sample_id": f"s{n}", "subject": "x", "language": "en", "n_tokens": 3}
        for n in samples
    ]
    good = [n for n in samples if n not in failed]
    size = len(good)
    names = np.repeat([f"s{n}" for n in good], 3)
    modality = ["image", "text", "text"] * size
    tokens = {
        "sample_id": names,
        "position": [0, 1, 2] * size,
        "token_id": [5, 6, 7] * size,
        "token": list(TOKENS) * size,
        "modality": modality,
        "role": ["", "template", "question"] * size,
        "image": [0, -1, -1] * size,
        "frame": [-1] * 3 * size,
        "patch_row": [0, -1, -1] * size,
        "patch_column": [0, -1, -1] * size,
    }
    vectors = {}
    for site, layer in PLACES:
        schema = vectors_schema(2, 2)
        columns = {
            "sample_id": names,
            "position": [0, 1, 2] * size,
            "modality": modality,
            "drawn": [True] * len(names),
            "attention": np.arange(3 * size, dtype=np.float32),
            "vector": [vector(n, position, layer) for n in good for position in range(3)],
        }
        vectors[site, layer] = _table(columns, schema)
    return PartTables(
        samples=pa.Table.from_pylist(rows, schema=SAMPLES_SCHEMA),
        tokens=_table(tokens, TOKENS_SCHEMA) if good else None,
        vectors=vectors if good else {},
        thumbnails=_thumbnails([f"s{n}" for n in good]) if good else None,
    )


def _thumbnails(names: Sequence[str]) -> pa.Table:
    """Bytes in the place of a picture for each sample, and a grid of one patch."""
    rows = [
        dict.fromkeys(THUMBNAILS_SCHEMA.names)
        | {"sample_id": name, "image": 0, "frame": -1, "picture": f"picture of {name}".encode()}
        | {"width": 1, "height": 1, "image_width": 1, "image_height": 1}
        | {"grid_rows": 1, "grid_columns": 1, "grid_top": 0.0, "grid_bottom": 1.0}
        | {"grid_left": 0.0, "grid_right": 1.0}
        for name in names
    ]
    return pa.Table.from_pylist(rows, schema=THUMBNAILS_SCHEMA)


def _table(columns: dict, schema: pa.Schema) -> pa.Table:
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in schema]
    return pa.table(arrays, schema=schema)


def run_of(vectors: LabelledVectors, root: Path, layers: Sequence[int] = (0, 3)) -> None:
    """Write vectors that a test made as a finished run of ``k_proj``, or what is missing of one.

    Twelve samples make a part. Every layer has the same vectors, plus its number.
    """
    ids = list(dict.fromkeys(vectors.labels["sample_id"]))
    manifest = {
        "model": "made", "benchmark": "made", "connector": "none", "n_layers": 4, "heads": 2,
        "key_heads": 2, "head_dim": 8, "versions": {}, "n_samples": len(ids), "n_failed": 0,
        "failures": {},
    }  # fmt: skip
    with StoreWriter(root, IDENTITY) as writer:
        for number in range(len(ids) // 12):
            names = ids[12 * number : 12 * (number + 1)]
            if set(names) <= writer.done and number not in writer.damaged:
                continue
            part = _part_of(vectors, names, layers)
            writer.commit(number, part.samples, write_part(root, number, part))
        writer.write_manifest({**manifest, "checksums": writer.checksums})


def _part_of(vectors: LabelledVectors, names: list[str], layers: Sequence[int]) -> PartTables:
    rows = vectors.labels["sample_id"].isin(names).to_numpy()
    labels = vectors.labels[rows].assign(frame=-1)
    flat = vectors.array[rows].reshape(int(rows.sum()), -1)
    samples = labels.groupby("sample_id", sort=False)[["subject", "language"]].first()
    return PartTables(
        samples=pa.Table.from_pylist(samples.reset_index().to_dict("records"), SAMPLES_SCHEMA),
        tokens=_table({name: labels[name] for name in TOKENS_SCHEMA.names}, TOKENS_SCHEMA),
        vectors={
            ("k_proj", layer): _table(
                {
                    **{name: labels[name] for name in ("sample_id", "position", "modality")},
                    "drawn": [True] * len(labels),
                    "attention": labels["attention"].astype("float32"),
                    "vector": list(flat + layer),
                },
                vectors_schema(*vectors.array.shape[1:]),
            )
            for layer in layers
        },
        thumbnails=_thumbnails(names),
    )
