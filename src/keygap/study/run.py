"""Run an experiment: extract, measure, project, answer and report, for every model and benchmark.

Each step reads the files that the step before it wrote, so every step is also a command of its own
and an interrupted study continues where it stopped.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from keygap import interrupts, strict_yaml
from keygap.align.causes.running import causes
from keygap.align.causes.tables import FILES as CAUSES_FILES
from keygap.arguments import MOST_BYTES, folder_of
from keygap.benchmarks import BadSample, SampleSet, benchmark
from keygap.bias.answers import answer
from keygap.choices.running import specifications
from keygap.choices.tables import FILES as CHOICES_FILES
from keygap.defaults import first_batch
from keygap.engines.extract import extract
from keygap.errors import NothingToAsk, UserError
from keygap.measurement.keeping import forget_layers
from keygap.measurement.measure import measure
from keygap.measurement.tables import GapTable
from keygap.models import VLM, load
from keygap.projection.project import project
from keygap.reporting import read_run, report
from keygap.store import Store
from keygap.store.checksums import read_checksums
from keygap.store.files import temporary_files
from keygap.store.lock import at_work
from keygap.store.reading import read_text, read_yaml
from keygap.store.results import is_whole, record_results
from keygap.store.run import (
    ACCURACY,
    ANSWERS,
    CAUSES_SETTINGS,
    CHECKSUMS,
    CHOICES_SETTINGS,
    FIGURES,
    FORMER,
    GAP,
    LOCK,
    REPORT,
    STUDY,
    run_folder_name,
)
from keygap.study.bias import bias_of_run
from keygap.study.experiment import BenchmarkChoice, Experiment, ModelChoice, read_experiment
from keygap.study.one_run import agrees
from keygap.workers import workers_of

logger = logging.getLogger("keygap")


def run_study(experiment: Experiment, out: str | Path) -> Path:
    """Run every model on every benchmark and write one report about all of them.

    Args:
        experiment: what to run.
        out: the folder of the study. A study that was interrupted is continued.

    Returns:
        The path of the report.

    Raises:
        UserError: the folder holds something else, a benchmark has no text to measure, or one of
            the steps fails.
    """
    out = folder_of(out, "out")
    folders = folders_of(experiment, out)
    study = strict_yaml.dump(experiment.asked())
    _refuse_other(out, folders, study)
    # Open every benchmark before any model is loaded: a mistake in the last one must not surface
    # after hours of work.
    sample_sets = [_chosen(source, experiment) for source in experiment.benchmarks]
    with at_work(out), workers_of(**experiment.engine.options()):  # one connection for all steps
        interrupts.keep(f"the steps that finished are kept in {out}")
        for model in experiment.models:
            _run_model(model, sample_sets, experiment, out)
        tables = [read_run(folder).table.frame for folder in folders]
        together = pd.concat(tables, ignore_index=True).to_csv(index=False)
        record_results(out, {GAP: together, STUDY: study}, begin=True)
        _try_choices(experiment, folders, out)
        page = report(*folders, out=out)
        for folder in folders:
            forget_layers(folder)
        return page


def _try_choices(experiment: Experiment, folders: Sequence[Path], out: Path) -> None:
    """Measure the gap of all runs together under every choice, where the experiment asks for it."""
    if experiment.choices is None:
        return
    plan = experiment.choices.plan()
    asked = {"levels": plan.as_settings(), "seed": experiment.seed}
    there = all(is_whole(out, name) for name in CHOICES_FILES)
    if there and agrees(_settings_in(out / CHOICES_SETTINGS), asked):
        return
    stores = [Store(folder) for folder in folders]
    table = specifications(*stores, plan=plan, seed=experiment.seed)
    record_results(out, table.files())


def _chosen(source: BenchmarkChoice, experiment: Experiment) -> SampleSet:
    """Open a benchmark and choose its samples."""
    sample_set = benchmark(**source.model_dump()).choose(
        experiment.extraction.samples, experiment.seed
    )
    sample_set.first_readable()
    _refuse_without_text(sample_set, experiment.measurement.text_roles)
    return sample_set


def _run_model(
    model: ModelChoice, sample_sets: Sequence[SampleSet], experiment: Experiment, out: Path
) -> None:
    """Load one model and run it on every benchmark. The model is freed on return."""
    options = model.model_dump()
    vlm = load(options.pop("name"), **options)
    for source, sample_set in zip(experiment.benchmarks, sample_sets, strict=True):
        folder = out / run_folder_name(model.name, source.name)
        with at_work(folder):
            _run_pair(vlm, sample_set, experiment, folder)
    del vlm
    torch.cuda.empty_cache()


def _run_pair(vlm: VLM, sample_set: SampleSet, experiment: Experiment, folder: Path) -> None:
    """Run one model on one benchmark, into one run folder."""
    extraction = experiment.extraction
    size = first_batch(extraction.batch_size)
    store = extract(
        vlm,
        sample_set,
        folder,
        layers=extraction.layers,
        sites=extraction.sites,
        batch_size=extraction.batch_size,
        tokens=extraction.tokens,
        thumbnails=extraction.thumbnails,
        **experiment.engine.options(),
    )
    measure_run(store, experiment)
    if experiment.answers and not all(is_whole(folder, name) for name in (ANSWERS, ACCURACY)):
        scored = answer(vlm, sample_set, batch_size=size)
        scored.save(folder)
        if scored.left_out:
            logger.info("%s on %s: %s", vlm.name, sample_set.name, scored.what_is_left_out())
    _try_bias(vlm, sample_set, experiment, folder, store)
    if experiment.causes is not None and not _has_causes(folder, experiment):
        causes(
            vlm,
            sample_set.benchmark,
            folder,
            seed=experiment.seed,
            n_bootstraps=experiment.measurement.n_bootstraps,
            text_roles=experiment.measurement.text_roles,
            **experiment.causes.options(),
        )


def _try_bias(
    vlm: VLM, sample_set: SampleSet, experiment: Experiment, folder: Path, store: Store
) -> None:
    """Ask the probes, where the experiment has some and the benchmark has a sample for them."""
    if (asked := experiment.bias) is None:
        return
    if asked.samples > len(sample_set):
        logger.info(
            "%s: probes are asked of its %d samples, not of %d (extraction.samples)",
            sample_set.name, len(sample_set), asked.samples,
        )  # fmt: skip
    try:
        bias_of_run(
            vlm,
            sample_set[: asked.samples],
            folder,
            asked.chosen(),
            attention=asked.attention,
            batch_size=first_batch(experiment.extraction.batch_size),
            n_bootstraps=experiment.measurement.n_bootstraps,
            store=store,
            text_roles=experiment.measurement.text_roles,
            resume=True,
        )
    except NothingToAsk as reason:
        logger.warning("%s on %s has no text bias: %s", vlm.name, sample_set.name, reason)


def _has_causes(folder: Path, experiment: Experiment) -> bool:
    """Whether a run has the experiment on causes that is asked for."""
    assert experiment.causes is not None
    if not all(is_whole(folder, name) for name in CAUSES_FILES):
        return False
    asked = experiment.causes.options()
    known: dict[str, Any] = {
        "plan": vars(asked.pop("plan")),
        "seed": experiment.seed,
        "n_bootstraps": experiment.measurement.n_bootstraps,
        "text_roles": experiment.measurement.text_roles,
        **{name: asked[name] for name in ("samples", "fit_samples", "phrasings") if name in asked},
    }
    return agrees(_settings_in(folder / CAUSES_SETTINGS), known)


def _settings_in(file: Path) -> dict[str, Any]:
    return read_yaml(file, f"remove {file} and run again")


def measure_run(store: Store, experiment: Experiment) -> GapTable:
    """Measure and project one run, and save both tables in its folder.

    The layers stay kept, so that a study that was interrupted later need not measure them again.
    """
    asked, engine = experiment.measurement.options(), experiment.engine
    table = measure(
        store,
        seed=experiment.seed,
        engine=engine.name,
        workers=engine.workers,
        resume=True,
        **asked,
    )
    table.save(store.root)
    for note in table.notes:
        logger.info(note)
    projection = project(
        store,
        text_roles=experiment.measurement.text_roles,
        seed=experiment.seed,
        **experiment.projection.model_dump(),
    )
    projection.save(store.root)
    return table


def runs_in(folder: str | Path) -> list[Path]:
    """List the run folders of a study in the order of its file, or the one run that a folder is.

    Raises:
        UserError: the folder holds neither, or its study is damaged.
    """
    folder = Path(folder)
    if not (folder / STUDY).is_file():
        return [folder]
    return folders_of(read_experiment(folder / STUDY), folder)


def summary_of(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Summarise several runs in one table: the gap at every layer against its ladder."""
    return pd.concat([read_run(folder).summary() for folder in folders], ignore_index=True)


def folders_of(experiment: Experiment, out: str | Path) -> list[Path]:
    """List the run folders of an experiment, model by model.

    Raises:
        UserError: two runs would share a folder.
    """
    folders = [
        Path(out) / run_folder_name(model.name, source.name)
        for model in experiment.models
        for source in experiment.benchmarks
    ]
    for number, folder in enumerate(folders):
        if (size := len(folder.name.encode())) > MOST_BYTES:
            raise UserError(
                f"the run folder {folder.name[:60]}... would have a name of {size} bytes, and at "
                f"most {MOST_BYTES} are possible: use shorter names or paths"
            )
        if folder in folders[:number]:
            raise UserError(
                f"two runs of the experiment would share the folder {folder.name}: name each pair "
                "of model and benchmark once, and move the other to an experiment of its own"
            )
    return folders


def _refuse_without_text(sample_set: SampleSet, text_roles: Sequence[str]) -> None:
    """Refuse samples whose prompts have no text of the roles that count as text.

    Raises:
        UserError: no prompt has such text; names the roles that the prompts have.
    """
    asked = set(text_roles)
    if asked & {"system", "template"}:  # the model's chat template may add these
        return
    found: set[str] = set()
    for number in range(len(sample_set)):
        try:
            sample = sample_set.sample(number)
        except BadSample:
            continue
        roles = {piece.role for piece in sample.prompt if piece.kind == "text"}
        if roles & asked:
            return
        found |= roles
    if found:
        raise UserError(
            f"the prompts of {sample_set.name} have no text of role {', '.join(sorted(asked))}, "
            f"only of {', '.join(sorted(found))}: choose among these with measurement.text_roles"
        )


def _refuse_other(out: Path, folders: Iterable[Path], study: str) -> None:
    """Refuse a folder that holds another study or unrelated files.

    Raises:
        UserError: it does.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file: name a folder with --out")
    if (out / FORMER).is_file():
        raise UserError(
            f"{out} holds a study of an earlier version of keygap (its file is {FORMER}, not "
            f"{STUDY}): name another folder with --out"
        )
    ours = {folder.name for folder in folders} | {STUDY, GAP, FIGURES, REPORT, CHECKSUMS, LOCK}
    ours |= {*CHOICES_FILES, *(path.name for path in temporary_files(out))}
    if others := sorted({path.name for path in out.iterdir()} - ours):
        raise UserError(f"{out} holds something else ({others[0]}): name another folder with --out")
    if (out / STUDY).is_file() and not _is_study(out, study):
        raise UserError(f"{out} holds another study: name another folder with --out")


def _is_study(out: Path, study: str) -> bool:
    """Whether a folder holds this study; a damaged file of it is recognised by its checksum."""
    try:
        recorded = read_checksums(out) or {}
    except UserError:
        recorded = {}
    if hashlib.sha256(study.encode()).hexdigest() in recorded.get(STUDY, ()):
        return True
    return read_text(out / STUDY, "name another folder with --out") == study
