"""Readers other than keygap's own see plain columns, with site and layer among them."""

from __future__ import annotations

import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from keygap.store import StoreWriter, write_part

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
