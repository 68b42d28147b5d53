"""``kg.extract``: a benchmark through a model, its vectors onto disk.

Work goes in parts of a fixed number of samples in a fixed order, so that a run that was killed
continues at the first part that is missing and ends with the same rows. A bad sample is a row with
its reason; too many of them mean that something else is wrong, and stop the run.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from keygap import defaults
from keygap.benchmarks import (
    UNSET,
    BadSample,
    Benchmark,
    Entry,
    Sample,
    SampleSet,
    Unset,
    as_sample_set,
)
from keygap.capture.batches import labelled, on_device, opened
from keygap.capture.features import feature_labels, visible_features
from keygap.capture.hooks import Capture, Key
from keygap.capture.sites import SITES, site_of
from keygap.errors import UserError
from keygap.models.batch import Batch
from keygap.models.fingerprint import fingerprint
from keygap.models.vlm import VLM
from keygap.progress import track
from keygap.selfcheck.check import cheap_check
from keygap.store import Store, StoreWriter
from keygap.store.schema import TOKENS, vectors_schema
from keygap.tokens import TokenLabels

PART_SAMPLES = 64  # of one part on disk, at most: what a killed run loses
PART_BYTES = 2**30  # that a part may hold in memory, beyond its first batch
BAD_SHARE = 0.05  # more failures than this stop a run


def extract(
    vlm: VLM,
    source: Benchmark | SampleSet,
    out: str | Path,
    *,
    layers: Sequence[str | int] = defaults.LAYERS,
    sites: Sequence[str] = defaults.SITES,
    samples: int | Unset | None = UNSET,
    batch_size: int = defaults.BATCH_SIZE,
    seed: int | Unset = UNSET,
) -> Store:
    """Read vectors of a benchmark's samples at some sites and layers of a model.

    Args:
        vlm: the model.
        source: a benchmark, or the samples already chosen from one.
        out: the run folder. One that holds part of the same extraction is continued.
        layers: ``first``, ``middle``, ``last``, ``all`` and absolute indices, mixed.
        sites: names of ``keygap.capture.sites.SITES``.
        samples: how many, chosen by ``seed`` and stratified by subject; None means all.
        batch_size: samples in one forward pass.
        seed: of the choice of samples.

    Returns:
        The store, finished.

    Raises:
        UserError: an unknown site or layer, a folder with another experiment, a full disk, or more
            than 5 % bad samples.
    """
    indices = vlm.layer_indices(layers)
    names = [site_of(name).name for name in dict.fromkeys(sites)]
    if batch_size < 1:
        raise UserError("batch_size must be at least 1")
    sample_set = as_sample_set(source, samples, seed)
    benchmark, chosen = sample_set.benchmark, sample_set.places
    entries = benchmark.index()
    asked = {
        "model": vlm.name,
        "revision": vlm.revision,
        "weights": fingerprint(vlm.model),  # of one name and revision there are many models
        "benchmark": benchmark.name,
        "split": benchmark.split,
        # two of one name are told apart by their files and language, where they have any
        "data": benchmark.data,
        "language": benchmark.language,
        "samples": sample_set.asked,
        "seed": sample_set.seed,
        "layers": indices,
        "sites": names,
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "batch_size": batch_size,
    }
    writer = StoreWriter(Path(out), asked)
    first = _first_batch(vlm, benchmark, chosen)
    per_part = _samples_of_a_part(vlm, names, indices, batch_size, first)
    parts = [chosen[start : start + per_part] for start in range(0, len(chosen), per_part)]
    done = writer.done
    missing = [
        (number, part)
        for number, part in enumerate(parts)
        if any(entries[place].id not in done for place in part)
    ]
    before = len(parts) - len(missing)
    if first is not None and not done:
        cheap_check(vlm, first)
    with Capture(vlm, names, indices, attention=True) as capture:
        what = f"{vlm.name} on {benchmark.name}"
        for number, part in track(missing, len(parts), what, done=before):
            rows, tokens, vectors = _run_part(capture, benchmark, part, entries, batch_size)
            _refuse_if_bad([*writer.rows, *rows], len(chosen), benchmark)
            writer.write_part(number, rows, tokens, vectors)
    writer.write_manifest(_manifest(vlm, asked, writer.rows))
    return Store(out)


def _first_batch(vlm: VLM, benchmark: Benchmark, places: Sequence[int]) -> Batch | None:
    """The first sample that can be used, alone: what the run's size and labels are told by."""
    for place in places:
        try:
            return vlm.prompter([benchmark.sample(place)])
        except BadSample:
            continue
    return None


def _samples_of_a_part(
    vlm: VLM, sites: Sequence[str], layers: Sequence[int], batch_size: int, first: Batch | None
) -> int:
    """Whole batches, at most ``PART_SAMPLES`` samples and about ``PART_BYTES``.

    By the first sample's length, so that a run that continues divides its samples the same way.
    """
    numbers = sum(
        (layer.key_heads if SITES[site].of_keys else layer.heads) * layer.head_dim
        for site in sites
        for layer in (vlm.layers[index] for index in layers)
    )
    tokens = len(first.labels[0]) if first is not None else 1
    fitting = PART_BYTES // max(1, 4 * numbers * tokens * batch_size)
    return batch_size * max(1, min(fitting, PART_SAMPLES // batch_size))


def _run_part(
    capture: Capture, benchmark: Benchmark, places: Sequence[int], entries: Any, batch_size: int
) -> tuple[list[dict[str, Any]], pa.Table | None, dict[Key, pa.Table]]:
    """Rows of samples (failed ones too), the token table and the vector tables of one part."""
    rows: dict[str, dict[str, Any]] = {}
    tokens: list[pa.Table] = []
    vectors: dict[Key, list[pa.Table]] = {}
    for start in range(0, len(places), batch_size):
        group = places[start : start + batch_size]
        samples, broken = opened(benchmark, group)
        usable, batch, refused = labelled(capture.vlm, samples)
        bad = broken | refused
        for entry in (entries[place] for place in group):
            if entry.id in bad:
                rows[entry.id] = _failed_row(entry, bad[entry.id])
        if batch is None:
            continue
        read = capture(on_device(capture.vlm, batch))
        overflowed = _not_finite(read, batch, capture.vlm)
        good = [row for row in range(len(usable)) if row not in overflowed]
        for row, reason in overflowed.items():
            rows[usable[row].id] = _failed_row(usable[row], reason)
        if not good:
            continue
        features = _features(capture, batch, read)
        for row in good:
            sample, labels = usable[row], batch.labels[row]
            rows[sample.id] = _sample_row(sample, labels, features[row] if features else None)
            tokens.append(_token_table(sample.id, labels))
            if features:
                tokens.append(_token_table(sample.id, features[row], start=len(labels)))
        ids = [sample.id for sample in usable]
        for key, table in _vector_tables(capture, read, batch, features, ids, good):
            vectors.setdefault(key, []).append(table)
    ordered = [rows[entries[place].id] for place in places]
    joined = {key: pa.concat_tables(tables).unify_dictionaries() for key, tables in vectors.items()}
    return ordered, pa.concat_tables(tokens).unify_dictionaries() if tokens else None, joined


def _not_finite(read: dict[Key, torch.Tensor], batch: Batch, vlm: VLM) -> dict[int, str]:
    """The rows of a batch whose vectors overflowed, and where first."""
    bad: dict[int, str] = {}
    for (site, layer), tensor in read.items():
        finite = tensor.isfinite().flatten(2).all(-1) if tensor.ndim > 2 else tensor.isfinite()
        for row, labels in enumerate(batch.labels):
            # keys of a cross-attention layer are of another length: all of them count, padding too
            size = len(labels) if vlm.layers[layer].attends == "self" else finite.shape[1]
            if row not in bad and not bool(finite[row, :size].all()):
                kind = str(vlm.dtype).removeprefix("torch.")
                bad[row] = f"{site} of layer {layer} is not finite in {kind}: try another dtype"
    return bad


def _failed_row(entry: Entry | Sample, reason: str) -> dict[str, Any]:
    return {"sample_id": entry.id, "subject": entry.subject, "failure": reason}


def _features(capture: Capture, batch: Batch, read: dict[Key, torch.Tensor]) -> list[TokenLabels]:
    """Labels of image features that stand in no prompt, if a layer of them was read."""
    across = [layer.index for layer in capture.layers if layer.attends == "cross"]
    if not across:
        return []
    known = capture.vlm.prompter.image_tokens
    count = read["attention", across[0]].shape[1]
    return [
        feature_labels(batch.inputs, row, count, known.ids[0], known.placeholder)
        for row in range(len(batch.labels))
    ]


def _sample_row(
    sample: Sample, labels: TokenLabels, features: TokenLabels | None
) -> dict[str, Any]:
    image = sum(int((part.modality != "text").sum()) for part in (labels, features) if part)
    return {
        "sample_id": sample.id,
        "subject": sample.subject,
        "language": sample.language,
        "question": sample.question,
        "answer": sample.answer,
        "n_images": len(sample.images),
        "n_tokens": len(labels),
        "n_image_tokens": image,
        "failure": None,
    }


def _token_table(sample_id: str, labels: TokenLabels, start: int = 0) -> pa.Table:
    columns = {
        "sample_id": [sample_id] * len(labels),
        "position": np.arange(start, start + len(labels), dtype=np.int32),
        **{name: getattr(labels, name) for name in TOKENS.names[2:]},
    }
    return pa.table(
        [pa.array(columns[field.name]).cast(field.type) for field in TOKENS], schema=TOKENS
    )


def _vector_tables(
    capture: Capture,
    read: dict[Key, torch.Tensor],
    batch: Batch,
    features: Sequence[TokenLabels],
    sample_ids: Sequence[str],
    good: Sequence[int],
) -> Iterator[tuple[Key, pa.Table]]:
    """One table per site and layer: the good rows' tokens in order, padding left out."""
    across = {layer.index for layer in capture.layers if layer.attends == "cross"}
    for (site, layer), tensor in read.items():
        if site == "attention":
            continue
        of_features = layer in across and SITES[site].of_keys
        labels = features if of_features else batch.labels
        kept = {row: np.arange(len(batch.labels[row])) for row in good}
        if of_features:
            visible = visible_features(batch.inputs, tensor.shape[1]).cpu().numpy()
            kept = {row: np.flatnonzero(visible[row]) for row in good}
        starts = {row: len(batch.labels[row]) if of_features else 0 for row in good}
        position = [starts[row] + np.arange(len(own)) for row, own in kept.items()]
        names = np.repeat(
            np.asarray([sample_ids[row] for row in good], dtype=object),
            [len(own) for own in kept.values()],
        )
        if layer in across and not of_features:  # nothing attends to queries
            received = np.full(len(names), np.nan, np.float32)
        else:
            received = _unpadded(read["attention", layer], kept)
        heads, head_dim = tensor.shape[-2:]
        schema = vectors_schema(heads, head_dim)
        columns = [
            pa.array(names).cast(schema.field("sample_id").type),
            pa.array(np.concatenate(position).astype(np.int32)),
            pa.array(np.concatenate([labels[row].modality for row in good])).cast(
                schema.field("modality").type
            ),
            pa.array(received),
            pa.FixedSizeListArray.from_arrays(
                pa.array(_unpadded(tensor, kept).reshape(-1)), heads * head_dim
            ),
        ]
        yield (site, layer), pa.table(columns, schema=schema)


def _unpadded(tensor: torch.Tensor, kept: Mapping[int, np.ndarray]) -> np.ndarray:
    rows = [tensor[row, torch.from_numpy(own).to(tensor.device)] for row, own in kept.items()]
    return torch.cat(rows).float().cpu().numpy()


def _refuse_if_bad(rows: Sequence[dict[str, Any]], planned: int, benchmark: Benchmark) -> None:
    bad = [row for row in rows if row.get("failure")]
    if len(bad) > BAD_SHARE * planned:
        raise UserError(
            f"{len(bad)} of {planned} samples of {benchmark.name} are bad, more than "
            f"{BAD_SHARE:.0%}; the first is {bad[0]['sample_id']}: {bad[0]['failure']}"
        )


def _manifest(vlm: VLM, asked: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    failed = {row["sample_id"]: row["failure"] for row in rows if row["failure"]}
    packages = ("keygap", "torch", "transformers", "numpy", "pyarrow")
    connector = vlm.connector
    attending = next(layer for layer in vlm.layers if layer.attention is not None)
    return {
        **asked,
        "architecture": vlm.architecture,
        "connector": str(connector) if connector else None,
        "connector_path": connector.path if connector else None,
        "connector_parameters": connector.parameters if connector else None,
        "fusion": vlm.fusion,
        "cross_attention_layers": vlm.indices("cross"),
        "sliding_windows": {
            str(layer.index): layer.window for layer in vlm.layers if layer.window is not None
        },
        "n_layers": len(vlm.layers),
        "heads": attending.heads,
        "key_heads": attending.key_heads,
        "head_dim": attending.head_dim,
        "device": str(vlm.device),
        "n_samples": len(rows) - len(failed),
        "n_failed": len(failed),
        "failures": failed,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
    }
