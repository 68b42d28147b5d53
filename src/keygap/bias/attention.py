"""``kg.measure_attention``: how attention is divided among image and text, by layer and head.

Query, key and mask of the attention function are read at chosen query positions only, so any
attention implementation can be measured (SDPA, flash) and the cost does not grow with the square of
the prompt's length. What is kept are sums over groups of keys: tokens of one modality, role, image
and frame, with attention sinks and the first token of the prompt apart. Everything else (shares of
modalities, MDI, AEI) is computed from the table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from keygap import defaults
from keygap.arguments import distinct, whole
from keygap.benchmarks import Benchmark, Sample, SampleSet
from keygap.benchmarks.sample_set import UNSET, Unset, as_sample_set
from keygap.bias.attention_pass import GenerationReader, PromptReader
from keygap.bias.attention_table import COLUMNS, AttentionTable
from keygap.bias.key_groups import GroupedAttention, KeyGroups
from keygap.capture.attention import QUERIES, QueryGroups
from keygap.capture.batches import Reasons, labelled, opened
from keygap.capture.choice import named_layers
from keygap.errors import UserError, unknown
from keygap.models.batch import Batch
from keygap.models.positions import PromptLabels
from keygap.models.vlm import VLM
from keygap.progress import track
from keygap.selfcheck.batches import read_size

QUESTION_ROLES = ("question", "option")
OF_PROMPT = ("question", "last")  # query groups in a pass over prompts
GENERATED = "generated"  # the query group of generated tokens
Columns = dict[str, Any]  # arrays of one length, by column


def measure_attention(
    vlm: VLM,
    source: Benchmark | SampleSet,
    *,
    samples: int | Unset | None = UNSET,
    layers: str | int | Sequence[str | int] = "all",
    queries: Sequence[str] = OF_PROMPT,
    generated: int = 0,
    batch_size: int = defaults.BATCH_SIZE,
    seed: int | Unset = UNSET,
) -> AttentionTable:
    """Measure how a model's attention is divided among the tokens of a benchmark's prompts.

    Interventions on the model act: attention is measured as it is used.

    Args:
        vlm: the model.
        source: a benchmark, or a sample set that was chosen from one.
        samples: how many to choose from a benchmark; None means all. Default: 200.
        layers: ``first``, ``middle``, ``last``, ``all`` and absolute indices, mixed.
        queries: which positions of the prompt attend: ``question``, ``last`` or both. It may be
            empty if tokens are generated.
        generated: how many generated tokens are measured as queries, at most; 0 for none.
        batch_size: samples in one forward pass.
        seed: seed of the choice. Default: 0.

    Returns:
        One row per sample, layer, head, group of queries and group of keys.

    Raises:
        UserError: an unknown layer or query group, nothing to measure, or no layer whose attention
            can be read.
    """
    queries = _known_queries(queries, generated := whole(generated, "generated", 0))
    chosen = as_sample_set(source, samples, seed)
    indices, notes = _readable(vlm, [layers] if isinstance(layers, (str, int)) else layers)
    if generated and vlm.fusion == "encoder":
        if not queries:
            raise UserError(
                "nothing is measured: generated tokens are not positions of the encoder of "
                f"{vlm.name}, so name question or last in queries"
            )
        notes.append("generated tokens are not positions of the encoder: they are not measured")
        generated = 0
    measurement = _Measurement(vlm, indices, queries, generated)
    batches = chosen.batches(read_size(vlm, batch_size))
    for asked in track(batches, len(batches), f"attention of {vlm.name}"):
        measurement.add(asked)
    return measurement.table(notes)


def _known_queries(queries: Sequence[str], generated: int) -> tuple[str, ...]:
    if not queries and generated:
        return ()
    for name in (names := distinct(queries, "queries", "question")):
        if name not in OF_PROMPT:
            raise unknown("query group", name, OF_PROMPT)
    return tuple(names)


def _readable(vlm: VLM, layers: Sequence[str | int]) -> tuple[list[int], list[str]]:
    """The wanted layers whose attention can be read, and notes on the others."""
    indices = vlm.layer_indices(named_layers(layers), with_shared=True)
    notes = []
    for kind in sorted({vlm.layers[i].kind for i in indices if not vlm.layers[i].calls_function}):
        own = [i for i in indices if vlm.layers[i].kind == kind]
        notes.append(
            f"{_not_measured(own)}: {kind} computes attention by itself and not through "
            "transformers' attention function"
        )
    readable = [index for index in indices if vlm.layers[index].calls_function]
    if not readable:
        raise UserError(f"the attention of {vlm.name} cannot be measured: {notes[0]}")
    return readable, notes


def _not_measured(layers: Sequence[int]) -> str:
    named = ", ".join(map(str, layers))
    return (
        f"layer {named} is not measured" if len(layers) == 1 else f"layers {named} are not measured"
    )


class _Measurement:
    """The table, as it grows batch by batch."""

    def __init__(
        self, vlm: VLM, layers: list[int], queries: tuple[str, ...], generated: int
    ) -> None:
        self.vlm, self.layers = vlm, layers
        self.queries, self.generated = queries, generated
        self._chunks: list[Columns] = []
        self._left_out: Reasons = {}
        self._odd: set[int] = set()

    def add(self, asked: SampleSet) -> None:
        """Measure the samples of one batch."""
        read, broken = opened(asked)
        usable, batch, refused = labelled(self.vlm, read)
        self._left_out |= broken | refused
        if batch is None:
            return
        if self.queries:
            self._add_prompts(usable, batch)
        if self.generated:
            for samples, same_length in _by_length(self.vlm, usable, batch):
                self._add_generated(samples, same_length)

    def table(self, notes: Sequence[str]) -> AttentionTable:
        """The table of what was measured."""
        notes = list(notes)
        if self._odd:
            notes.append(
                f"{_not_measured(sorted(self._odd))}: the keys are not the positions of the prompt"
            )
        chunks = self._chunks or [{name: np.empty(0) for name in COLUMNS}]
        columns = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in COLUMNS}
        frame = pd.DataFrame(columns)
        bad = frame["sample_id"].isin(self._left_out.keys())
        return AttentionTable(
            frame[~bad].reset_index(drop=True), tuple(notes), dict(self._left_out)
        )

    def _add_prompts(self, samples: Sequence[Sample], batch: Batch) -> None:
        queries = queries_of(batch, self.queries)
        reader = PromptReader(self.vlm, batch, queries)
        reader.run(self.layers)
        self._odd |= reader.odd
        present = queries.present[:, :-1].numpy()
        for layer, found in reader.found.items():
            self._keep(samples, layer, self.queries, present, found, reader.groups[layer])

    def _add_generated(self, samples: Sequence[Sample], batch: Batch) -> None:
        reader = GenerationReader(self.vlm, batch, queries_of(batch, ()))
        reader.run(self.layers, self.generated)
        self._odd |= reader.odd
        present = (reader.steps > 0).numpy()[:, None]
        for layer, found in reader.found.items():
            self._keep(samples, layer, (GENERATED,), present, found, reader.groups[layer])

    def _keep(
        self,
        samples: Sequence[Sample],
        layer: int,
        queries: Sequence[str],
        present: np.ndarray,
        found: GroupedAttention,
        groups: KeyGroups,
    ) -> None:
        """Keep the rows of one layer, of the samples whose attention is finite."""
        finite = found.sums.isfinite().flatten(2).all(-1).all(0).cpu().numpy()
        kind = str(self.vlm.dtype).removeprefix("torch.")
        for row in np.flatnonzero(~finite).tolist():
            why = f"attention of layer {layer} is not finite in {kind}: try another dtype"
            self._left_out.setdefault(samples[row].id, why)
        rows = _rows(found, present & finite[:, None], groups)
        names = np.asarray([sample.id for sample in samples], dtype=object)
        rows["sample_id"] = names[rows.pop("row")]
        rows["queries"] = np.asarray(queries, dtype=object)[rows.pop("query")]
        rows["layer"] = np.full(len(rows["head"]), layer, np.int32)
        self._chunks.append(rows)


def queries_of(batch: Batch, names: Sequence[str]) -> QueryGroups:
    """Query groups of a batch, and after them the last positions, which decide what is a sink.

    Args:
        batch: what the prompter made.
        names: ``question`` or ``last``, or both.
    """
    prompts = PromptLabels.of(batch)
    groups = []
    for start, labels in zip(prompts.starts, prompts.labels, strict=True):
        last = len(labels) - 1
        positions = {
            "question": np.flatnonzero(np.isin(labels.role, QUESTION_ROLES)),
            "last": np.asarray([last]),
        }
        recent = np.maximum(last - np.arange(QUERIES), 0)
        groups.append([start + own for own in (*(positions[name] for name in names), recent)])
    return QueryGroups.of(groups)


def _by_length(
    vlm: VLM, samples: Sequence[Sample], batch: Batch
) -> Iterator[tuple[list[Sample], Batch]]:
    """Batches of the samples whose prompts have one length, as generation needs them."""
    by_length: dict[int, list[Sample]] = defaultdict(list)
    for sample, labels in zip(samples, batch.labels, strict=True):
        by_length[len(labels)].append(sample)
    for same in by_length.values():
        yield same, batch if len(same) == len(samples) else vlm.prompter(same)


def _rows(found: GroupedAttention, present: np.ndarray, groups: KeyGroups) -> Columns:
    """One row per head, query group and key group of each prompt, where there are such tokens.

    Args:
        found: of one layer.
        present: (batch, query groups), whether a prompt has such queries.
        groups: what the keys are.
    """
    sums = found.sums.cpu().numpy()
    n_keys = found.seen.cpu().numpy()
    exists = present[:, :, None] & (found.size.cpu().numpy() > 0)[:, None, :]
    heads = sums.shape[2]
    row, query, number = (np.repeat(places, heads) for places in np.nonzero(exists))
    head = np.tile(np.arange(heads, dtype=np.int32), len(row) // heads)
    mass, relative, entropy, logit = sums[:, row, head, query, number]
    seen = n_keys[row, query, number]
    with np.errstate(invalid="ignore"):
        logit = np.where(seen > 0, logit / seen, np.nan)
    group, sink = number // 2, number % 2 == 1
    columns: Columns = {"row": row, "query": query, "head": head, "sink": sink}
    for place, name in enumerate(("modality", "role", "image", "frame", "first")):
        values = [each[place] for each in groups.groups]
        kind = object if isinstance(values[0], str) else bool if name == "first" else np.int32
        columns[name] = np.asarray(values, dtype=kind)[group]
    return columns | {
        "n_keys": seen, "mass": mass, "relative": relative, "logit": logit, "entropy": entropy
    }  # fmt: skip
