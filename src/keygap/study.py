"""One experiment from file to report: extract, measure, project, report, in that order.

Every step reads what the one before wrote, so each is also a command of its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch
import yaml

from keygap.answering import answer
from keygap.benchmarks import benchmark
from keygap.capture import extract
from keygap.errors import UserError
from keygap.experiment import Experiment
from keygap.gap_table import GapTable, measure
from keygap.models import load
from keygap.reporting import read_run, report
from keygap.store import Store, write_text
from keygap.store.writer import EXPERIMENT
from keygap.token_plane import project

logger = logging.getLogger("keygap")


def run_study(experiment: Experiment, out: str | Path) -> Path:
    """Run every model on every benchmark and write one report over all.

    Returns:
        The report.

    Raises:
        UserError: what any of the steps raises.
    """
    out, folders = Path(out), folders_of(experiment, out)
    asked = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)
    _refuse_other(out, folders, asked)
    for model in experiment.models:
        vlm = None
        for source in experiment.benchmarks:
            folder = out / folder_name(model.name, source.name)
            bench = benchmark(**source.model_dump())
            if vlm is None:
                vlm = load(
                    model.name,
                    dtype=model.dtype,
                    revision=model.revision,
                    device_map=model.device_map,
                )
            store = extract(
                vlm, bench, folder, seed=experiment.seed, **experiment.extraction.model_dump()
            )
            measure_run(store, experiment)
            if experiment.answers and not (folder / "accuracy.csv").is_file():
                size = experiment.extraction
                answers = answer(
                    vlm,
                    bench,
                    samples=size.samples,
                    batch_size=size.batch_size,
                    seed=experiment.seed,
                )
                answers.save(folder)
        del vlm
        torch.cuda.empty_cache()
    tables = [read_run(folder).table.frame for folder in folders]
    write_text(out / "gap.csv", pd.concat(tables, ignore_index=True).to_csv(index=False))
    write_text(out / EXPERIMENT, asked)
    return report(*folders, out=out)


def _refuse_other(out: Path, folders: Iterable[Path], asked: str) -> None:
    """Refuse a folder that holds another study, or anything that is not of this one.

    Raises:
        UserError: it does.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file: name a folder with --out")
    ours = {folder.name for folder in folders} | {EXPERIMENT, "gap.csv", "figures", "report.html"}
    strange = sorted({path.name for path in out.iterdir()} - ours)
    if strange:
        raise UserError(
            f"{out} holds something else ({strange[0]}): name another folder with --out"
        )
    if (out / EXPERIMENT).is_file() and (out / EXPERIMENT).read_text() != asked:
        raise UserError(f"{out} holds another experiment: name another folder with --out")


def summary_of(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Where ``image_text`` stands in every run, one table."""
    return pd.concat([read_run(folder).summary() for folder in folders], ignore_index=True)


def folders_of(experiment: Experiment, out: str | Path) -> list[Path]:
    """The run folders of an experiment, models by benchmarks."""
    return [
        Path(out) / folder_name(model.name, source.name)
        for model in experiment.models
        for source in experiment.benchmarks
    ]


def measure_run(store: Store, experiment: Experiment) -> GapTable:
    """Measure and project one run, and write both beside its vectors."""
    table = measure(store, seed=experiment.seed, **experiment.measurement.options())
    table.save(store.root)
    for note in table.notes:
        logger.info(note)
    plane = project(
        store,
        text_roles=experiment.measurement.text_roles,
        seed=experiment.seed,
        **experiment.picture.model_dump(),
    )
    plane.save(store.root)
    return table


def folder_name(model: str, bench: str) -> str:
    """A run folder's name out of a model's and a benchmark's: no separators, nothing hidden."""
    return re.sub(r"[^\w.-]+", "-", f"{model}-{bench}").strip("-.")
