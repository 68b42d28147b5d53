"""The identity of an extraction, and the manifest of what was done."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import numpy as np

from keygap.engines.plan import Plan
from keygap.models.fingerprint import fingerprint
from keygap.store import StoreWriter

PACKAGES = ("keygap", "torch", "transformers", "numpy", "pyarrow")


def identity_of(plan: Plan) -> dict[str, Any]:
    """Everything that a run's vectors depend on, as plain values.

    Two extractions with one identity are the same extraction, and one continues the other. The
    batch size is that of the beginning: a larger or smaller one, by the memory there is, changes
    vectors by rounding only.
    """
    vlm, benchmark = plan.vlm, plan.samples.benchmark
    return {
        "model": vlm.name,
        "revision": vlm.revision,
        "weights": fingerprint(vlm.model),  # models of one name and revision may differ in these
        "prompt": vlm.prompter.identity,
        "interventions": vlm.interventions.identity,
        "benchmark": benchmark.name,
        "split": benchmark.split,
        "data": benchmark.data,
        "language": benchmark.language,
        "samples": plan.samples.asked,
        "seed": plan.samples.seed,
        "layers": list(plan.layers),
        "sites": list(plan.sites),
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "batch_size": plan.batch_size,
        "part_size": plan.part_size,
        "tokens": "all" if plan.image_tokens is None else plan.image_tokens,
        "thumbnails": plan.thumbnails,
        "sample_ids": plan.samples.digest,
    }


def manifest_of(plan: Plan, identity: dict[str, Any], writer: StoreWriter) -> dict[str, Any]:
    """The facts of a finished extraction: identity, model, counts, failures, versions, checksums.

    Args:
        plan: of the extraction.
        identity: of the extraction.
        writer: of the extraction, after its last commit.
    """
    vlm, failures = plan.vlm, writer.failures
    image_tokens = np.array(writer.samples["n_image_tokens"].drop_null())
    drawn = image_tokens if plan.image_tokens is None else image_tokens.clip(max=plan.image_tokens)
    connector, limit = vlm.connector, plan.limit()
    attending = next(layer for layer in vlm.layers if layer.attention is not None)
    return {
        **identity,
        "prompt": vlm.prompter.description(),
        "architecture": vlm.architecture,
        "connector": str(connector) if connector else None,
        "connector_path": connector.path if connector else None,
        "connector_parameters": connector.parameters if connector else None,
        "fusion": vlm.fusion,
        "cross_attention_layers": vlm.indices("cross"),
        "shared_keys": {str(layer): source for layer, source in vlm.shared.items()},
        "sliding_windows": {
            str(layer.index): layer.window for layer in vlm.layers if layer.window is not None
        },
        "n_layers": len(vlm.layers),
        "heads": attending.heads,
        "key_heads": attending.key_heads,
        "head_dim": attending.head_dim,
        "device": str(vlm.device),
        "largest_batch": max(limit.samples, limit.most),
        "n_samples": len(writer.samples) - len(failures),
        "n_failed": len(failures),
        "n_image_tokens": int(image_tokens.sum()),
        "n_image_tokens_drawn": int(drawn.sum()),
        "failures": failures,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "checksums": writer.checksums,
    }
