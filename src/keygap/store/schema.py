"""The columns on disk. Plain parquet: pandas, Polars, DuckDB and datasets open it unaided.

Rows of ``tokens`` and of every ``vectors`` part stand in the same order: samples as they were run,
positions ascending, padding left out. Image features that stand in no prompt (the keys of
cross-attention layers) follow their prompt's tokens; a layer has the rows of what is read there.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

SAMPLES = pa.schema(
    [
        ("sample_id", pa.string()),
        ("subject", pa.string()),
        ("language", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("n_images", pa.int32()),
        ("n_tokens", pa.int32()),
        ("n_image_tokens", pa.int32()),
        ("failure", pa.string()),  # null where the sample was read
    ]
)
LABEL = pa.dictionary(pa.int32(), pa.string())
TOKENS = pa.schema(
    [
        ("sample_id", LABEL),
        ("position", pa.int32()),
        ("token_id", pa.int64()),
        ("token", pa.string()),
        ("modality", LABEL),
        ("role", LABEL),
        ("image", pa.int32()),  # -1 where a token is not of an image or video
        ("frame", pa.int32()),  # -1 where a token is not of a video
        ("patch_row", pa.int32()),
        ("patch_column", pa.int32()),
    ]
)


def vectors_schema(heads: int, head_dim: int) -> pa.Schema:
    """Columns of one site at one layer; heads and head_dim stand in the file's metadata too.

    ``attention`` is the attention that the position receives at this layer over its even share; NaN
    where a position is asked from and never looked at (queries of a cross-attention layer).
    """
    return pa.schema(
        [
            ("sample_id", LABEL),
            ("position", pa.int32()),
            ("modality", LABEL),
            ("attention", pa.float32()),
            ("vector", pa.list_(pa.float32(), heads * head_dim)),
        ],
        metadata={"heads": str(heads), "head_dim": str(head_dim)},
    )


def vectors_folder(root: Path, site: str, layer: int) -> Path:
    """Hive-style, so that readers that know partitions see site and layer as columns."""
    return root / "vectors" / f"site={site}" / f"layer={layer}"


def part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"
