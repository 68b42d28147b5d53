"""The columns on disk, in plain parquet that pandas, Polars, DuckDB and ``datasets`` open directly.

The rows of ``tokens`` and of every layer's vectors are in the same order: samples in the order of
the run, then ascending positions, without padding. Image features that are not in the prompt (the
keys of cross-attention layers) follow the tokens of their prompt. Each layer has only the rows of
the tokens that are read there.

``thumbnails`` has one row per image of a sample's prompt, and one per frame of a video. ``image``
and ``frame`` are those of ``tokens``. ``picture`` is the image as WebP. The rows and columns of
patches count through a grid: the one of the columns that begin with ``grid_``, and for patches of
the role ``thumbnail``, which show the whole image more coarsely, the one of ``coarse_``. The edges
of a grid are fractions of the image's height and width (``keygap.tokens.PatchGrid``). A grid that
there is not, or whose place is not known, is null.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from jaxtyping import Float

SAMPLES_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("subject", pa.string()),
        ("language", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("n_images", pa.int32()),
        ("n_tokens", pa.int32()),
        ("n_image_tokens", pa.int32()),
        ("failure", pa.string()),  # why the sample could not be read; null if it was
    ]
)
LABEL = pa.dictionary(pa.int32(), pa.string())
TOKENS_SCHEMA = pa.schema(
    [
        ("sample_id", LABEL),
        ("position", pa.int32()),
        ("token_id", pa.int64()),
        ("token", pa.string()),
        ("modality", LABEL),
        ("role", LABEL),
        ("image", pa.int32()),  # -1 for a token of no image or video
        ("frame", pa.int32()),  # -1 for a token of no video
        ("patch_row", pa.int32()),  # -1 for a token that is no patch
        ("patch_column", pa.int32()),
    ]
)
GRID = (
    *(("rows", pa.int32()), ("columns", pa.int32())),
    *((edge, pa.float32()) for edge in ("top", "bottom", "left", "right")),
)
THUMBNAILS_SCHEMA = pa.schema(
    [
        ("sample_id", LABEL),
        ("image", pa.int32()),
        ("frame", pa.int32()),  # -1 for an image, and for a video whose frames are not known
        ("picture", pa.binary()),
        ("width", pa.int32()),  # of the picture
        ("height", pa.int32()),
        ("image_width", pa.int32()),  # of the image that it was made of
        ("image_height", pa.int32()),
        *((f"grid_{name}", kind) for name, kind in GRID),
        *((f"coarse_{name}", kind) for name, kind in GRID),
    ]
)


# What vectors are computed in, and how their numbers are stored. Parquet has neither bfloat16 nor
# integers of 16 bits, so a vector in bfloat16 is stored as its bytes. Earlier stores have integers.
NUMBERS = {"float32": pa.float32(), "float16": pa.float16(), "float64": pa.float64()}
BFLOAT16 = "bfloat16"


def vectors_schema(heads: int, head_dim: int, dtype: str = "float32") -> pa.Schema:
    """The columns of one site at one layer.

    ``vector`` holds the heads one after another, in the precision that the model computed in.
    ``drawn`` is false for an image token that was not drawn, and is kept because it is an attention
    sink at this layer. ``attention`` is the attention that the position receives at this layer,
    divided by its even share; NaN for the queries of a cross-attention layer, which receive none.

    Args:
        heads: heads of the site, in the metadata of the file too.
        head_dim: dimensions of a head, in the metadata of the file too.
        dtype: ``BFLOAT16`` or a key of ``NUMBERS``, in the metadata of the file too.
    """
    size = heads * head_dim
    if dtype == BFLOAT16:
        kind: pa.DataType = pa.binary(2 * size)
    else:  # elements that cannot be null take half the time to write and read
        kind = pa.list_(pa.field("element", NUMBERS[dtype], nullable=False), size)
    return pa.schema(
        [
            ("sample_id", LABEL),
            ("position", pa.int32()),
            ("modality", LABEL),
            ("drawn", pa.bool_()),
            ("attention", pa.float32()),
            pa.field("vector", kind, nullable=False),
        ],
        metadata={"heads": str(heads), "head_dim": str(head_dim), "dtype": dtype},
    )


def numbers_in(column: pa.Array) -> np.ndarray:
    """The numbers of a column ``vector`` as they are stored, one vector after another.

    Raises:
        TypeError: it holds no vectors.
    """
    if pa.types.is_fixed_size_binary(column.type):
        width = column.type.byte_width
        data, first = column.buffers()[1], column.offset * width
        return np.frombuffer(data or b"", np.uint16, len(column) * width // 2, first)
    if not pa.types.is_fixed_size_list(column.type):
        raise TypeError(f"a column of {column.type}")
    return column.flatten().to_numpy(zero_copy_only=False)


def as_float32(stored: np.ndarray, dtype: str = "float32") -> Float[np.ndarray, " n"]:
    """The numbers of a column ``vector``, as float32.

    Args:
        stored: as they are stored.
        dtype: what the metadata of the file says; files without it hold float32.
    """
    if dtype == BFLOAT16:  # the upper half of a float32
        return np.left_shift(stored.astype(np.uint32), 16).view(np.float32)
    return stored.astype(np.float32, copy=False)
