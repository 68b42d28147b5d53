"""What is kept of a forward pass is every real token of every good sample, in order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from keygap.capture import Capture
from keygap.capture.tables import CapturedBatch, failed_row, sample_row, token_table
from keygap.store.schema import TOKENS_SCHEMA
from made import made_sample

SITES, LAYERS = ["k_proj", "query"], [0, 29]


@pytest.fixture(scope="module")
def reading(vlm) -> CapturedBatch:
    """Three samples of different length in one padded batch."""
    samples = [made_sample(f"s{n}", "is it red? " * (1 + n)) for n in range(3)]
    batch = vlm.prompter(samples)
    with Capture(vlm, SITES, LAYERS, attention=True) as capture:
        return CapturedBatch(vlm, samples, batch, capture(batch))


def test_tokens_are_the_labels_of_the_batch(reading):
    for table, sample, labels in zip(
        reading.token_tables(), reading.samples, reading.batch.labels, strict=True
    ):
        assert table.schema == TOKENS_SCHEMA
        assert set(table["sample_id"].to_pylist()) == {sample.id}
        assert table["position"].to_pylist() == list(range(len(labels)))
        for name in ("token_id", "token", "modality", "role", "image", "patch_row"):
            assert table[name].to_pylist() == getattr(labels, name).tolist()


def test_positions_may_begin_behind_those_of_the_prompt(reading):
    table = token_table("s", reading.batch.labels[0], start=100)
    assert table["position"].to_pylist()[:2] == [100, 101]


def test_vectors_and_attention_are_those_read_without_padding(reading):
    lengths = [len(labels) for labels in reading.batch.labels]
    assert len(set(lengths)) == 3
    tables = dict(reading.vector_tables())
    assert set(tables) == {(site, layer) for site in SITES for layer in LAYERS}
    for (site, layer), table in tables.items():
        vectors = np.array(table["vector"].to_pylist(), np.float32)
        read = reading.read[site, layer]
        kept = torch.cat([read[row, :length] for row, length in enumerate(lengths)])
        np.testing.assert_array_equal(vectors, kept.flatten(1).numpy())
        shares = reading.read["attention", layer]
        kept = torch.cat([shares[row, :length] for row, length in enumerate(lengths)])
        np.testing.assert_array_equal(table["attention"].to_numpy(), kept.numpy())
        assert table["position"].to_pylist() == [p for length in lengths for p in range(length)]
        heads, head_dim = read.shape[-2:]
        assert table.schema.metadata == {
            b"heads": str(heads).encode(),
            b"head_dim": str(head_dim).encode(),
        }


def test_a_sample_with_a_vector_that_is_not_finite_is_left_out(reading):
    length = len(reading.batch.labels[0])
    broken = {key: tensor.clone() for key, tensor in reading.read.items()}
    broken["query", 29][1, 3, 0, 0] = torch.inf
    broken["k_proj", 29][0, length] = torch.nan  # padding of the first sample
    found = replace(reading, read=broken)
    reason = "query of layer 29 is not finite in float32: try another dtype"
    assert found.failures == {1: reason}
    assert found.good == [0, 2]
    rows = found.sample_rows()
    assert rows["s1"] == {"sample_id": "s1", "subject": "", "failure": reason}
    assert rows["s2"] == reading.sample_rows()["s2"]
    assert [set(t["sample_id"].to_pylist()) for t in found.token_tables()] == [{"s0"}, {"s2"}]
    for _, table in found.vector_tables():
        assert dict.fromkeys(table["sample_id"].to_pylist()) == {"s0": None, "s2": None}

    broken["attention", 0][:] = torch.nan
    none = replace(reading, read=broken)
    assert (list(none.token_tables()), list(none.vector_tables())) == ([], [])
    assert {row["failure"][:20] for row in none.sample_rows().values()} == {"attention of layer 0"}


def test_rows_of_samples(reading):
    sample, labels = reading.samples[0], reading.batch.labels[0]
    assert sample_row(sample, labels) == {
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
    assert sample_row(sample, labels, labels)["n_image_tokens"] == 32
    assert failed_row(sample, "why") == {"sample_id": "s0", "subject": "", "failure": "why"}
