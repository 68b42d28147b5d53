"""Vectors that maps are fitted on, read out of a model into memory.

They have the rows and labels of an extraction (``keygap.store.Store``), without padding, so that a
map is fitted in the same way on both. Reading them anew is needed where no store can have them:
while maps act at the layers before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from keygap import defaults
from keygap.arguments import whole
from keygap.benchmarks import Benchmark, Sample, SampleSet
from keygap.benchmarks.sample_set import UNSET, Unset, as_sample_set
from keygap.capture.batches import labelled, opened
from keygap.capture.choice import named_layers, named_sites
from keygap.capture.hooks import Capture, Key
from keygap.capture.tables import CapturedBatch, vector_tables
from keygap.display import as_html, brief, ranges
from keygap.errors import UserError, unknown
from keygap.models.batch import Batch
from keygap.models.fingerprint import fingerprint
from keygap.models.vlm import VLM
from keygap.progress import track
from keygap.selfcheck.batches import read_size
from keygap.store import LabelledVectors, Store
from keygap.store.schema import as_float32, numbers_in

logger = logging.getLogger("keygap")

Prepared = tuple[list[Sample], Batch]
Failures = dict[str, str]  # sample id -> why it was not read


@dataclass(frozen=True)
class FitVectors:
    """Labelled vectors in memory.

    Attributes:
        read: the vectors by site and layer. Their labels have the columns of a store's.
        facts: what is known of model and samples, as plain values (see ``facts_of_model``).
        failures: the samples that could not be read, and why.
    """

    read: Mapping[Key, LabelledVectors]
    facts: Mapping[str, Any] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        sites = [f"{site} at layers {ranges(self.layers(site))}" for site in self.sites]
        return brief(f"FitVectors({', '.join(sites)}, {len(self.failures)} samples failed)")

    def _repr_html_(self) -> str:
        rows = [
            {
                "site": site,
                "layer": str(layer),
                "vectors": len(one),
                "samples": len({*one.sample_ids}),
            }
            for (site, layer), one in self.read.items()
        ]
        caption = (
            f"Vectors of {self.facts.get('model')} in memory, to fit maps on: how many, and of how "
            "many samples. They are data, so they have no interval."
        )
        notes = [f"{name} failed: {reason}" for name, reason in self.failures.items()]
        return as_html(caption, pd.DataFrame(rows), notes)

    @property
    def sites(self) -> list[str]:
        """The sites that were read, sorted by name."""
        return sorted({site for site, _ in self.read})

    def layers(self, site: str) -> list[int]:
        """The absolute indices of the layers at which a site was read, ascending."""
        return sorted(layer for found, layer in self.read if found == site)

    def vectors(self, site: str, layer: int) -> LabelledVectors:
        """The vectors of a site and layer.

        Raises:
            UserError: they were not read.
        """
        if site not in self.sites:
            raise unknown("site", site, self.sites, hint="of these vectors")
        if layer not in self.layers(site):
            raise unknown("layer", layer, self.layers(site), hint=f"of {site} in these vectors")
        return self.read[site, layer]


def read_vectors(
    vlm: VLM,
    source: Benchmark | SampleSet,
    *,
    sites: Sequence[str] = defaults.SITES,
    layers: Sequence[str | int] = ("all",),
    samples: int | Unset | None = UNSET,
    batch_size: int = defaults.BATCH_SIZE,
    seed: int | Unset = UNSET,
) -> FitVectors:
    """Read the vectors of some samples into memory.

    They are what attention uses after the interventions that are applied to the model. All vectors
    of all layers are held: for large models, extract to a store instead.

    Args:
        vlm: the model.
        source: a benchmark, or the samples already chosen from one.
        sites: names of ``keygap.capture.sites.SITES``.
        layers: ``first``, ``middle``, ``last``, ``all`` and absolute indices, mixed.
        samples: how many to choose from a benchmark; None means all. Default: 200.
        batch_size: samples in one forward pass.
        seed: of the choice of samples. Default: 0.

    Returns:
        The vectors with their labels, by site and layer.

    Raises:
        UserError: an unknown site or layer, or no sample can be read.
    """
    chosen = as_sample_set(source, samples, seed)
    names, indices = named_sites(sites), vlm.layer_indices(named_layers(layers))
    failures: Failures = {}
    batches = prepared(vlm, chosen, batch_size, failures)
    shown = track(batches, len(batches), f"vectors of {vlm.name} on {chosen.name}")
    read = read_batches(vlm, shown, names, indices, failures)
    return FitVectors(read, facts_of_model(vlm, chosen), failures)


def prepared(vlm: VLM, chosen: SampleSet, batch_size: int, failures: Failures) -> list[Prepared]:
    """The batches of a sample set, which can be read any number of times.

    Args:
        vlm: the model.
        chosen: the samples.
        batch_size: samples in a batch.
        failures: gets the samples that cannot be used, and why.

    Raises:
        UserError: none can be used.
    """
    found = []
    for part in chosen.batches(read_size(vlm, whole(batch_size, "batch_size", 1))):
        samples, broken = opened(part)
        usable, batch, refused = labelled(vlm, samples)
        failures.update(broken | refused)
        if batch is not None:
            found.append((usable, batch))
    if not found:
        raise _none_read(chosen.name, failures)
    if failures:
        name, reason = next(iter(failures.items()))
        logger.warning(
            "%d of %d samples of %s are left out; the first is %s: %s",
            len(failures), len(chosen), chosen.name, name, reason,
        )  # fmt: skip
    return found


def read_batches(
    vlm: VLM,
    batches: Iterable[Prepared],
    sites: Sequence[str],
    layers: Sequence[int],
    failures: Failures,
) -> dict[Key, LabelledVectors]:
    """The labelled vectors of some batches. Each pass ends at the last of the layers.

    Args:
        vlm: the model.
        batches: samples with their inputs and labels.
        sites: names of sites.
        layers: absolute indices.
        failures: gets the samples whose vectors are not finite, and where.

    Raises:
        UserError: a layer does not have a site, or no sample has finite vectors.
    """
    tokens: list[pa.Table] = []
    read: list[CapturedBatch] = []
    with Capture(vlm, sites, layers, attention=True) as capture:
        for samples, batch in batches:
            captured = CapturedBatch.read(capture, samples, batch)
            failures.update({samples[row].id: why for row, why in captured.failures.items()})
            tokens += captured.token_tables().values()
            read.append(captured)
    if not tokens:
        raise _none_read(vlm.name, failures)
    labels = pa.concat_tables(tokens).unify_dictionaries().to_pandas()
    return {key: _labelled(table, labels) for key, table in vector_tables(read)}


def facts_of_model(vlm: VLM, chosen: SampleSet) -> dict[str, Any]:
    """What vectors that are read from a model depend on, as plain values.

    Args:
        vlm: the model.
        chosen: the samples.
    """
    benchmark = chosen.benchmark
    return {
        "model": vlm.name,
        "revision": vlm.revision,
        "fingerprint": fingerprint(vlm.model),
        "architecture": vlm.architecture,
        "n_layers": len(vlm.layers),
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "prompt": vlm.prompter.identity,
        "interventions": vlm.interventions.identity,
        "benchmark": benchmark.name,
        "split": benchmark.split,
        "data": benchmark.data,
        "language": benchmark.language,
        "seed": chosen.seed,
    }


def facts_of(source: Store | FitVectors) -> dict[str, Any]:
    """What is known of the model and samples behind vectors, with the same names for both sources.

    Args:
        source: an extraction, or vectors in memory.

    Raises:
        UserError: the extraction has not finished.
    """
    if isinstance(source, FitVectors):
        return dict(source.facts)
    known = {**source.manifest, **source.identity}
    known["fingerprint"] = known.get("weights")
    names = (
        "model", "revision", "fingerprint", "architecture", "n_layers", "dtype", "prompt",
        "interventions", "benchmark", "split", "data", "language", "seed",
    )  # fmt: skip
    return {name: known.get(name) for name in names}


def _labelled(table: pa.Table, tokens: pd.DataFrame) -> LabelledVectors:
    """The vectors of a layer with the labels of their tokens, as a store gives them."""
    shape = [int(table.schema.metadata[name]) for name in (b"heads", b"head_dim")]
    flat = numbers_in(table["vector"].combine_chunks())
    array = as_float32(flat, table.schema.metadata[b"dtype"].decode()).reshape(-1, *shape)
    index = ["sample_id", "position"]
    rows = table.select(index).to_pandas().astype({"sample_id": str})
    labels = tokens.astype({"sample_id": str}).merge(rows, on=index, validate="one_to_one")
    assert np.array_equal(labels[index], rows), "vectors and tokens are in different orders"
    return LabelledVectors(array, labels.assign(attention=table["attention"].to_numpy()))


def _none_read(name: str, failures: Failures) -> UserError:
    sample, reason = next(iter(failures.items()), ("none", "there are no samples"))
    return UserError(f"no sample of {name} can be read; the first is {sample}: {reason}")
