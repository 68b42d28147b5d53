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

from keygap.benchmarks import Benchmark, benchmark
from keygap.bias.answers import answer, first_tokens
from keygap.capture.batches import opened
from keygap.engines.extract import extract
from keygap.errors import UserError
from keygap.measurement.measure import measure
from keygap.measurement.tables import GapTable
from keygap.models import load
from keygap.projection.project import project
from keygap.reporting import read_run, report
from keygap.store import Store, write_text
from keygap.store.run import FIGURES, FORMER, GAP, REPORT, STUDY, study_file
from keygap.study.experiment import Experiment

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
    # opened before any model is loaded: what is wrong with the last one should not wait for hours
    benches = [benchmark(**source.model_dump()) for source in experiment.benchmarks]
    for bench in benches:
        _refuse_without_text(bench, experiment)
    for model in experiment.models:
        vlm = None
        for source, bench in zip(experiment.benchmarks, benches, strict=True):
            folder = out / folder_name(model.name, source.name)
            if vlm is None:
                vlm = load(
                    model.name,
                    dtype=model.dtype,
                    revision=model.revision,
                    device_map=model.device_map,
                )
            if experiment.answers and bench.answers:
                first_tokens(vlm.prompter.tokenizer, bench.answers)  # or it stops here, not later
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
                if answers.left_out:
                    logger.info("%s on %s: %s", vlm.name, bench.name, answers.what_is_left_out())
        del vlm
        torch.cuda.empty_cache()
    tables = [read_run(folder).table.frame for folder in folders]
    write_text(out / GAP, pd.concat(tables, ignore_index=True).to_csv(index=False))
    write_text(out / STUDY, asked)
    return report(*folders, out=out)


def _refuse_without_text(bench: Benchmark, experiment: Experiment) -> None:
    """Refuse a benchmark none of whose prompts has text of the roles that count as text.

    Raises:
        UserError: it is so; names the roles that there are.
    """
    asked = set(experiment.measurement.text_roles)
    if asked & {"system", "template"}:  # a model's chat template may have these
        return
    found: set[str] = set()
    for one in bench.choose(experiment.extraction.samples, experiment.seed).batches(1):
        samples, _ = opened(one)
        roles = {part.role for sample in samples for part in sample.prompt if part.kind == "text"}
        if roles & asked:
            return
        found |= roles
    if found:
        raise UserError(
            f"the prompts of {bench.name} have no text of role {', '.join(sorted(asked))}, only of "
            f"{', '.join(sorted(found))}: choose among these with measurement.text_roles"
        )


def _refuse_other(out: Path, folders: Iterable[Path], asked: str) -> None:
    """Refuse a folder that holds another study, or anything that is not of this one.

    Raises:
        UserError: it does.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file: name a folder with --out")
    ours = {folder.name for folder in folders} | {STUDY, FORMER, GAP, FIGURES, REPORT}
    strange = sorted({path.name for path in out.iterdir()} - ours)
    if strange:
        raise UserError(
            f"{out} holds something else ({strange[0]}): name another folder with --out"
        )
    if study_file(out).is_file() and study_file(out).read_text() != asked:
        raise UserError(f"{out} holds another experiment: name another folder with --out")


def summary_of(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Where ``image_text`` stands in every run, one table."""
    return pd.concat([read_run(folder).summary() for folder in folders], ignore_index=True)


def folders_of(experiment: Experiment, out: str | Path) -> list[Path]:
    """The run folders of an experiment, models by benchmarks.

    Raises:
        UserError: two of them would be one folder.
    """
    folders = [
        Path(out) / folder_name(model.name, source.name)
        for model in experiment.models
        for source in experiment.benchmarks
    ]
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise UserError(
                f"two runs of the experiment would share the folder {folder.name}: a model and a "
                "benchmark may stand together once; put the other into an experiment of its own"
            )
    return folders


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
