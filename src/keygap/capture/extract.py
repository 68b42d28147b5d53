"""``kg.extract``: a benchmark through a model, its vectors onto disk.

Work goes in parts of a fixed number of samples in a fixed order, so that a run that was killed
continues at the first part that is missing and ends with the same rows. A bad sample is a row with
its reason; too many of them mean that something else is wrong, and stop the run.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from keygap.benchmarks import BadSample, Benchmark, Entry, Sample, choose
from keygap.capture.batches import labelled, on_device, opened
from keygap.capture.check import cheap_check
from keygap.capture.features import feature_labels, visible_features
from keygap.capture.hooks import Capture, Key
from keygap.capture.sites import SITES, site_of
from keygap.errors import UserError
from keygap.models.prompt import Batch, TokenLabels
from keygap.models.vlm import VLM
from keygap.progress import track
from keygap.store import Store, StoreWriter
from keygap.store.schema import TOKENS, vectors_schema

PART_READS = 192  # samples x layers x sites of one part: what a killed run loses, and memory holds
BAD_SHARE = 0.05  # more failures than this stop a run


def extract(
    vlm: VLM,
    benchmark: Benchmark,
    out: str | Path,
    *,
    layers: Sequence[str | int] = ("first", "middle", "last"),
    sites: Sequence[str] = ("k_proj",),
    samples: int | None = 200,
    batch_size: int = 8,
    seed: int = 0,
) -> Store:
    """Read vectors of a benchmark's samples at some sites and layers of a model.

    Args:
        vlm: the model.
        benchmark: where samples come from.
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
    names = [site_of(name).name for name in sites]
    if batch_size < 1 or (samples is not None and samples < 1):
        raise UserError("samples and batch_size must be at least 1")
    entries = benchmark.index()
    chosen = choose(entries, samples, seed)
    if not chosen:
        raise UserError(f"benchmark {benchmark.name}, split {benchmark.split}, has no samples")
    asked = {
        "model": vlm.name,
        "revision": vlm.revision,
        "benchmark": benchmark.name,
        "split": benchmark.split,
        # two of one name are told apart by their files and language, where they have any
        "data": getattr(benchmark, "data", None),
        "language": getattr(benchmark, "language", None),
        "samples": samples,
        "seed": seed,
        "layers": indices,
        "sites": names,
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "batch_size": batch_size,
    }
    writer = StoreWriter(Path(out), asked)
    per_part = batch_size * max(1, PART_READS // (len(indices) * len(names) * batch_size))
    parts = [chosen[start : start + per_part] for start in range(0, len(chosen), per_part)]
    done = writer.done
    missing = [
        (number, part)
        for number, part in enumerate(parts)
        if any(entries[place].id not in done for place in part)
    ]
    before = len(parts) - len(missing)
    if not done:
        _check_labels(vlm, benchmark, chosen)
    with Capture(vlm, names, indices, attention=True) as capture:
        what = f"{vlm.name} on {benchmark.name}"
        for number, part in track(missing, len(parts), what, done=before):
            rows, tokens, vectors = _run_part(capture, benchmark, part, entries, batch_size)
            _refuse_if_bad([*writer.rows, *rows], len(chosen), benchmark)
            writer.write_part(number, rows, tokens, vectors)
    writer.write_manifest(_manifest(vlm, asked, writer.rows))
    return Store(out)


def _check_labels(vlm: VLM, benchmark: Benchmark, places: Sequence[int]) -> None:
    """The cheap part of the self-check, on the first sample that can be used.

    Raises:
        UserError: the positions labelled image are not those that pixels change.
    """
    for place in places:
        try:
            batch = vlm.prompter([benchmark.sample(place)])
        except BadSample:
            continue
        cheap_check(vlm, batch)
        return


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
        features = _features(capture, batch, read)
        for place, (sample, labels) in enumerate(zip(usable, batch.labels, strict=True)):
            rows[sample.id] = _sample_row(sample, labels, features[place] if features else None)
            tokens.append(_token_table(sample.id, labels))
            if features:
                tokens.append(_token_table(sample.id, features[place], start=len(labels)))
        ids = [sample.id for sample in usable]
        for key, table in _vector_tables(capture, read, batch, features, ids):
            vectors.setdefault(key, []).append(table)
    ordered = [rows[entries[place].id] for place in places]
    joined = {key: pa.concat_tables(tables).unify_dictionaries() for key, tables in vectors.items()}
    return ordered, pa.concat_tables(tokens).unify_dictionaries() if tokens else None, joined


def _failed_row(entry: Entry, reason: str) -> dict[str, Any]:
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
) -> Iterator[tuple[Key, pa.Table]]:
    """One table per site and layer: the batch's tokens in order, padding left out."""
    across = {layer.index for layer in capture.layers if layer.attends == "cross"}
    prompts = [np.arange(len(labels)) for labels in batch.labels]
    for (site, layer), tensor in read.items():
        if site == "attention":
            continue
        of_features = layer in across and SITES[site].of_keys
        labels = features if of_features else batch.labels
        kept = prompts
        if of_features:
            visible = visible_features(batch.inputs, tensor.shape[1])
            kept = [np.flatnonzero(row) for row in visible.cpu().numpy()]
        starts = [len(own) if of_features else 0 for own in batch.labels]
        position = [start + np.arange(len(rows)) for start, rows in zip(starts, kept, strict=True)]
        names = np.repeat(np.asarray(sample_ids, dtype=object), [len(rows) for rows in kept])
        if layer in across and not of_features:  # nothing attends to queries
            received = np.full(len(names), np.nan, np.float32)
        else:
            received = _unpadded(read["attention", layer], kept)
        heads, head_dim = tensor.shape[-2:]
        schema = vectors_schema(heads, head_dim)
        columns = [
            pa.array(names).cast(schema.field("sample_id").type),
            pa.array(np.concatenate(position).astype(np.int32)),
            pa.array(np.concatenate([own.modality for own in labels])).cast(
                schema.field("modality").type
            ),
            pa.array(received),
            pa.FixedSizeListArray.from_arrays(
                pa.array(_unpadded(tensor, kept).reshape(-1)), heads * head_dim
            ),
        ]
        yield (site, layer), pa.table(columns, schema=schema)


def _unpadded(tensor: torch.Tensor, kept: Sequence[np.ndarray]) -> np.ndarray:
    rows = [tensor[row, torch.from_numpy(own).to(tensor.device)] for row, own in enumerate(kept)]
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
