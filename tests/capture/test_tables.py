"""What is kept of a forward pass is every real token of every good sample, in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from keygap.capture import Capture
from keygap.capture.keeping import Keeper
from keygap.capture.tables import (
    CapturedBatch,
    failed_row,
    sample_row,
    token_table,
    vector_tables,
)
from keygap.store.schema import TOKENS_SCHEMA, as_float32, numbers_in

SITES, LAYERS = ["k_proj", "query"], [0, 29]


@pytest.fixture(scope="module")
def read(vlm, batch):
    """Three samples of different length in one padded batch, as the model computes them."""
    with Capture(vlm, SITES, LAYERS, attention=True) as capture:
        return capture(batch)


@pytest.fixture(scope="module")
def captured(vlm, samples, batch) -> CapturedBatch:
    with Capture(vlm, SITES, LAYERS, attention=True) as capture:
        return CapturedBatch.read(capture, samples, batch)


def kept_of(vlm, samples, batch, read) -> CapturedBatch:
    """What is kept of vectors that a test changed."""
    keeper = Keeper(vlm, samples, batch)
    for layer in LAYERS:
        keeper(layer, {site: tensor for (site, own), tensor in read.items() if own == layer})
    one_each = [1] * len(samples)
    return CapturedBatch(samples, one_each, batch.labels, {}, keeper.vectors(), keeper.failures)


def test_tokens_are_the_labels_of_the_batch(captured, batch):
    tables = captured.token_tables()
    assert list(tables) == ["s0", "s1", "s2"]
    for (name, table), labels in zip(tables.items(), batch.labels, strict=True):
        assert table.schema == TOKENS_SCHEMA
        assert set(table["sample_id"].to_pylist()) == {name}
        assert table["position"].to_pylist() == list(range(len(labels)))
        for column in ("token_id", "token", "modality", "role", "image", "patch_row"):
            assert table[column].to_pylist() == getattr(labels, column).tolist()


def test_positions_may_begin_behind_those_of_the_prompt(batch):
    table = token_table("s", batch.labels[0], start=100)
    assert table["position"].to_pylist()[:2] == [100, 101]


def test_vectors_and_attention_are_those_read_without_padding(captured, batch, read):
    lengths = [len(labels) for labels in batch.labels]
    assert len(set(lengths)) == 3
    tables = dict(vector_tables([captured]))
    assert set(tables) == {(site, layer) for site in SITES for layer in LAYERS}
    for (site, layer), table in tables.items():
        vectors = np.array(table["vector"].to_pylist(), np.float32)
        whole = read[site, layer]
        kept = torch.cat([whole[row, :length] for row, length in enumerate(lengths)])
        np.testing.assert_array_equal(vectors, kept.flatten(1).numpy())
        shares = read["attention", layer]
        kept = torch.cat([shares[row, :length] for row, length in enumerate(lengths)])
        np.testing.assert_array_equal(table["attention"].to_numpy(), kept.numpy())
        assert table["position"].to_pylist() == [p for length in lengths for p in range(length)]
        modality = [str(m) for labels in batch.labels for m in labels.modality]
        assert table["modality"].to_pylist() == modality
        assert all(table["drawn"].to_pylist())
        heads, head_dim = whole.shape[-2:]
        assert table.schema.metadata == {
            b"heads": str(heads).encode(),
            b"head_dim": str(head_dim).encode(),
            b"dtype": b"float32",
        }


def test_the_order_of_the_samples_is_that_of_the_run(captured):
    usual = dict(vector_tables([captured]))["k_proj", 0].to_pandas()
    turned = dict(vector_tables([captured], ["s2", "s0", "s1"]))["k_proj", 0].to_pandas()
    assert list(dict.fromkeys(turned["sample_id"].astype(str))) == ["s2", "s0", "s1"]
    for name in ("s0", "s1", "s2"):
        one, other = (
            frame[frame["sample_id"] == name].drop(columns="sample_id").reset_index(drop=True)
            for frame in (usual, turned)
        )
        assert np.array_equal(np.stack(one.pop("vector")), np.stack(other.pop("vector")))
        assert one.astype({"modality": str}).equals(other.astype({"modality": str}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_no_precision_is_lost(vlm, samples, batch, read, dtype):
    lower = {key: tensor.to(dtype) for key, tensor in read.items() if key[0] != "attention"}
    for key, table in vector_tables([kept_of(vlm, samples, batch, lower)]):
        stored = numbers_in(table["vector"].combine_chunks())
        assert stored.dtype.itemsize == dtype.itemsize
        found = as_float32(stored, table.schema.metadata[b"dtype"].decode())
        rows = [lower[key][row, : len(labels)] for row, labels in enumerate(batch.labels)]
        np.testing.assert_array_equal(found, torch.cat(rows).float().flatten().numpy())


def test_a_sample_with_a_vector_that_is_not_finite_is_left_out(vlm, samples, batch, read, captured):
    length = len(batch.labels[0])
    broken = {key: tensor.clone() for key, tensor in read.items()}
    broken["query", 29][1, 3, 0, 0] = torch.inf
    broken["k_proj", 29][0, length] = torch.nan  # padding of the first sample
    found = kept_of(vlm, samples, batch, broken)
    reason = "query of layer 29 is not finite in float32: try another dtype"
    assert found.failures == {1: reason}
    assert found.good == [0, 2]
    rows = found.sample_rows()
    assert rows["s1"] == {"sample_id": "s1", "subject": "", "failure": reason}
    assert rows["s2"] == captured.sample_rows()["s2"]
    assert list(found.token_tables()) == ["s0", "s2"]
    for _, table in vector_tables([found]):
        assert dict.fromkeys(table["sample_id"].to_pylist()) == {"s0": None, "s2": None}

    broken["attention", 0][:] = torch.nan
    none = kept_of(vlm, samples, batch, broken)
    assert (none.token_tables(), list(vector_tables([none]))) == ({}, [])
    assert {row["failure"][:20] for row in none.sample_rows().values()} == {"attention of layer 0"}


def test_rows_of_samples(samples, batch):
    sample, labels = samples[0], batch.labels[0]
    assert sample_row(sample, 1, labels) == {
        "sample_id": "s0",
        "subject": "",
        "language": "en",
        "question": "is it red? ",
        "answer": "red",
        "n_images": 1,
        "n_tokens": len(labels),
        "n_image_tokens": 16,
        "failure": None,
    }
    assert sample_row(sample, 1, labels, labels)["n_image_tokens"] == 32
    assert failed_row(sample, "why") == {"sample_id": "s0", "subject": "", "failure": "why"}
