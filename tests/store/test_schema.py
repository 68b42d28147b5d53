"""Readers other than keygap's own see plain columns, with site and layer among them."""

from __future__ import annotations

from contextlib import chdir
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch

from documentation import ROOT, blocks
from keygap.store import StoreWriter, write_part
from keygap.store.files import write_table
from keygap.store.schema import as_float32, numbers_in, vectors_schema

from .made import IDENTITY, TOKENS, part, vector


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "run"
    with StoreWriter(root, IDENTITY) as writer:
        for number in range(2):
            tables = part(range(2 * number, 2 * number + 2))
            written = write_part(root, number, tables)
            writer.commit(number, tables.samples, written)
    return root


def test_pandas_reads_the_tables(root):
    samples = pd.read_parquet(root / "samples.parquet")
    assert list(samples) == [
        "sample_id", "subject", "language", "question", "answer",
        "n_images", "n_tokens", "n_image_tokens", "failure",
    ]  # fmt: skip
    tokens = pd.read_parquet(root / "tokens")
    assert list(tokens) == [
        "sample_id", "position", "token_id", "token", "modality", "role",
        "image", "frame", "patch_row", "patch_column",
    ]  # fmt: skip
    assert tokens["token"].tolist() == list(TOKENS) * 4
    assert tokens["sample_id"].tolist() == [f"s{n}" for n in range(4) for _ in TOKENS]


def test_site_and_layer_are_columns_for_readers_that_know_partitions(root):
    table = ds.dataset(root / "vectors", partitioning="hive").to_table()
    found = {tuple(row.values()) for row in table.select(["site", "layer"]).to_pylist()}
    assert found == {("k_proj", 0), ("k_proj", 3), ("hidden", 3)}
    chosen = table.filter((ds.field("site") == "k_proj") & (ds.field("layer") == 3))
    assert chosen["vector"].to_pylist() == [vector(n, p, 3) for n in range(4) for p in range(3)]


def test_a_part_says_how_its_vectors_are_divided_into_heads(root):
    schema = pq.read_schema(root / "vectors/site=k_proj/layer=0/part-00000.parquet")
    assert schema.metadata[b"heads"] == b"2"
    assert schema.metadata[b"head_dim"] == b"2"
    assert schema.metadata[b"dtype"] == b"float32"
    assert schema.names == ["sample_id", "position", "modality", "drawn", "attention", "vector"]


@pytest.fixture
def halves() -> tuple[torch.Tensor, pa.Table]:
    """Vectors in bfloat16, and their table."""
    vectors = torch.randn(300, 4, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    schema = vectors_schema(4, 64, "bfloat16")
    data = pa.py_buffer(vectors.view(torch.int16).numpy())
    column = pa.FixedSizeBinaryArray.from_buffers(schema.field("vector").type, 300, [None, data])
    names = pa.array(["s"] * 300).dictionary_encode()
    rest = [names, range(300), names, [True] * 300, [0.0] * 300]
    arrays = [pa.array(one).cast(field.type) for one, field in zip(rest, schema, strict=False)]
    return vectors, pa.table([*arrays, column], schema=schema)


def test_a_number_in_bfloat16_takes_two_bytes_and_is_read_as_it_was(halves, tmp_path):
    vectors, table = halves
    path = tmp_path / "part-00000.parquet"
    write_table(path, table)
    assert path.stat().st_size < 1.1 * 2 * vectors.numel()
    column = pq.read_table(path)["vector"].combine_chunks()
    expected = vectors.float().numpy()
    assert np.array_equal(as_float32(numbers_in(column), "bfloat16"), expected.ravel())
    part = as_float32(numbers_in(column.slice(7, 5)), "bfloat16")
    assert np.array_equal(part, expected[7:12].ravel())
    assert len(numbers_in(column.slice(0, 0))) == 0


def test_the_example_of_the_documentation_reads_a_file(halves, tmp_path):
    vectors, table = halves
    write_table(tmp_path / "run/vectors/site=k_proj/layer=0/part-00000.parquet", table)
    (example,) = blocks(ROOT / "docs/scale.md", "python")
    found: dict[str, Any] = {}
    with chdir(tmp_path):
        exec(example.text, found)
    assert np.array_equal(found["vectors"], vectors.float().numpy())


def test_integers_that_an_earlier_keygap_wrote_for_bfloat16_are_read(halves):
    vectors, _ = halves
    bits = vectors.view(torch.int16).numpy().view(np.uint16)
    column = pa.FixedSizeListArray.from_arrays(pa.array(bits.ravel()), 256)
    found = as_float32(numbers_in(column), "bfloat16")
    assert np.array_equal(found, vectors.float().numpy().ravel())


def test_a_column_of_something_else_has_no_numbers():
    with pytest.raises(TypeError, match="a column of string"):
        numbers_in(pa.array(["a"]))
