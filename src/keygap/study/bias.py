"""Probes, attention and the link between them, of one model and benchmark, in one run folder.

Each step writes its own files and is left out where they are whole, so an interrupted study
continues with the step that it was in.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from keygap.benchmarks import SampleSet
from keygap.bias.attention import measure_attention
from keygap.bias.attention_table import AttentionTable
from keygap.bias.condition import Probe
from keygap.bias.indices import attention_indices
from keygap.bias.link import link
from keygap.bias.probe import probe
from keygap.bias.table import FILES, BiasTable, read_bias
from keygap.errors import CannotWrite, UserError
from keygap.models import VLM
from keygap.store import Store, save_results
from keygap.store.results import is_whole
from keygap.store.run import ATTENTION, INDICES, LINK

logger = logging.getLogger("keygap")


def bias_of_run(
    vlm: VLM,
    asked: SampleSet,
    folder: Path,
    probes: Sequence[Probe],
    *,
    attention: bool,
    batch_size: int,
    n_bootstraps: int,
    store: Store | None = None,
    resume: bool = False,
) -> BiasTable:
    """Probe a model and measure its attention, and link both to a gap that was extracted.

    Args:
        vlm: the model.
        asked: the samples.
        folder: where the files go.
        probes: the probes.
        attention: whether attention is measured too, at all layers. Where it cannot be, or there
            is nothing to link, a line says why.
        batch_size: samples in one forward pass.
        n_bootstraps: resamplings behind intervals.
        store: the extraction of the same samples; None if there is none, and so no link.
        resume: whether files that are whole are kept, because they are of the same probes.

    Raises:
        UserError: the extraction is of another model; or as ``probe``.
    """
    if store is not None and (other := store.manifest["model"]) != vlm.name:
        raise UserError(f"{folder} is a run of {other} and not of {vlm.name}: name another folder")
    if resume and all(is_whole(folder, name) for name in FILES):
        table = read_bias(folder)
    else:
        table = probe(vlm, asked, probes=probes, batch_size=batch_size, n_bootstraps=n_bootstraps)
        table.save(folder)
        for note in table.notes:
            logger.info("%s on %s: %s", vlm.name, asked.name, note)
    if attention:
        try:
            _attention_of_run(vlm, asked, folder, table, store, batch_size, resume)
        except CannotWrite:
            raise
        except UserError as reason:  # the answers stand without it
            logger.info("%s on %s: not measured: %s", vlm.name, asked.name, reason)
    return table


def _attention_of_run(
    vlm: VLM,
    asked: SampleSet,
    folder: Path,
    table: BiasTable,
    store: Store | None,
    batch_size: int,
    resume: bool,
) -> None:
    """Measure attention, its indices, and the link.

    Raises:
        UserError: the attention of the model cannot be read, or there is nothing to link: too few
            samples, generated answers without a margin, or vectors of another site.
    """
    seed, n_bootstraps = int(table.settings["seed"]), int(table.settings["n_bootstraps"])
    if resume and is_whole(folder, ATTENTION):
        measured = AttentionTable.read(folder)
    else:
        measured = measure_attention(vlm, asked, batch_size=batch_size)
        measured.save(folder)
        for note in measured.notes:
            logger.info(note)
    if not (resume and is_whole(folder, INDICES)):
        indices = attention_indices(measured.frame, n_bootstraps=n_bootstraps, seed=seed)
        save_results(folder, {INDICES: indices.to_csv(index=False)})
    if store is not None and not (resume and is_whole(folder, LINK)):
        found = link(store, table, measured, n_bootstraps=n_bootstraps, seed=seed)
        found.save(folder)
        for line in (*found.summary(), *found.notes):
            logger.info(line)
