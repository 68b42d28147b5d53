"""Probes, attention and the link between them, of one model and benchmark, in one run folder.

Each step writes its own files and is left out where they are whole, so an interrupted study
continues with the step that it was in. A step that is repeated removes what was computed from its
former files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keygap import defaults
from keygap.benchmarks import SampleSet
from keygap.bias.attention import measure_attention
from keygap.bias.attention_table import AttentionTable
from keygap.bias.condition import Probe
from keygap.bias.indices import attention_indices
from keygap.bias.link import link
from keygap.bias.link_table import read_link
from keygap.bias.probe import probe, settings_of
from keygap.bias.table import FILES, BiasTable, read_bias
from keygap.errors import CannotRead, CannotWrite, UserError
from keygap.models import VLM
from keygap.store import Store, save_results
from keygap.store.checksums import read_checksums, write_checksums
from keygap.store.files import remove
from keygap.store.lock import SHORT, locked
from keygap.store.results import is_whole
from keygap.store.run import ATTENTION, INDICES, LINK
from keygap.study.one_run import agrees, refuse_other, refuse_other_prompt

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
    text_roles: Sequence[str] = defaults.TEXT_ROLES,
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
        text_roles: what counts as text in the link.
        resume: whether files are kept that are whole and of the same probes, samples and roles.

    Raises:
        UserError: the folder holds results of another model or benchmark; or as ``probe``.
    """
    refuse_other(folder, vlm.name, asked.name)
    refuse_other_prompt(folder, vlm)
    table = _kept(folder, settings_of(vlm, asked, probes, n_bootstraps)) if resume else None
    if table is None:
        table = probe(vlm, asked, probes=probes, batch_size=batch_size, n_bootstraps=n_bootstraps)
        _remove(folder, (ATTENTION, INDICES, LINK))
        table.save(folder)
        for note in table.notes:
            logger.info("%s on %s: %s", vlm.name, asked.name, note)
    if attention:
        try:
            measured = _attention_of_run(vlm, asked, folder, table, batch_size, resume)
            if store is not None and not (resume and _is_linked(folder, text_roles)):
                _link_of_run(folder, table, measured, store, text_roles)
        except (CannotRead, CannotWrite):
            raise
        except UserError as reason:  # the answers stand without it
            logger.info("%s on %s: not measured: %s", vlm.name, asked.name, reason)
    _say_shared_images(vlm, asked)
    return table


def _say_shared_images(vlm: VLM, asked: SampleSet) -> None:
    """Say that intervals over samples may be too narrow, where samples show the same image."""
    images = len({entry.image_key or entry.id for entry in asked.entries})
    if images < len(asked.entries):
        logger.info(
            "%s on %s: %d samples show only %d images and count as independent: intervals may be "
            "too narrow",
            vlm.name, asked.name, len(asked.entries), images,
        )  # fmt: skip


def _kept(folder: Path, settings: Mapping[str, Any]) -> BiasTable | None:
    """The tables of a folder if they are whole and have these settings, else None."""
    if not all(is_whole(folder, name) for name in FILES):
        return None
    table = read_bias(folder)
    return table if agrees(table.settings, settings) else None


def _remove(folder: Path, names: Sequence[str]) -> None:
    """Remove computed files, and their checksums first."""
    with locked(folder, SHORT):
        if recorded := read_checksums(folder):
            write_checksums(folder, {n: sums for n, sums in recorded.items() if n not in names})
        for name in names:
            remove(folder / name)


def _attention_of_run(
    vlm: VLM,
    asked: SampleSet,
    folder: Path,
    table: BiasTable,
    batch_size: int,
    resume: bool,
) -> AttentionTable:
    """Measure attention and its indices.

    Raises:
        UserError: the attention of the model cannot be read.
    """
    seed, n_bootstraps = int(table.settings["seed"]), int(table.settings["n_bootstraps"])
    if resume and is_whole(folder, ATTENTION):
        measured = AttentionTable.read(folder)
    else:
        measured = measure_attention(vlm, asked, batch_size=batch_size)
        _remove(folder, (INDICES, LINK))
        measured.save(folder)
        for note in measured.notes:
            logger.info(note)
    if not (resume and is_whole(folder, INDICES)):
        indices = attention_indices(measured.frame, n_bootstraps=n_bootstraps, seed=seed)
        save_results(folder, {INDICES: indices.to_csv(index=False)})
    return measured


def _is_linked(folder: Path, text_roles: Sequence[str]) -> bool:
    """Whether there is a link of the same roles of text."""
    return is_whole(folder, LINK) and set(read_link(folder).text_roles) == set(text_roles)


def _link_of_run(
    folder: Path,
    table: BiasTable,
    measured: AttentionTable,
    store: Store,
    text_roles: Sequence[str],
) -> None:
    """Link the answers and the attention to the extraction.

    Raises:
        UserError: there is nothing to link: too few samples, generated answers without a margin, or
            vectors of another site.
    """
    _remove(folder, (LINK,))
    found = link(
        store,
        table,
        measured,
        text_roles=text_roles,
        n_bootstraps=int(table.settings["n_bootstraps"]),
        seed=int(table.settings["seed"]),
    )
    found.save(folder)
    for line in (f"answer: {found.outcome}", *found.summary(), *found.notes):
        logger.info(line)
