"""The command line: parse the arguments, call the Python API, print.

Exit status: 0 done; 2 the user can fix it, one line on stderr; 130 or 143 interrupted, one line
that says what is kept; 1 a bug in keygap, with traceback; 3 (``check`` alone) nothing failed, but a
check could not be run.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take a while
    from keygap.interrupts import install

    install()

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keygap import defaults, interrupts
from keygap.arguments import MOST, MOST_RESAMPLINGS, distinct, folder_of
from keygap.cli_align import align
from keygap.cli_causes import causes
from keygap.cli_choices import choices
from keygap.cli_doctor import doctor
from keygap.cli_extract import answer, extract, extraction_of
from keygap.cli_lists import benchmarks, maps, models, probes
from keygap.cli_micro import micro
from keygap.cli_options import (
    PROBES,
    TEXT,
    BatchSize,
    BenchmarkName,
    Bootstraps,
    Data,
    Engine,
    Folder,
    GpusPerWorker,
    Language,
    Out,
    Samples,
    Seed,
    Split,
    TextRoles,
    TokensPerSample,
    Workers,
    listed,
    probe_names,
)
from keygap.cli_output import Output, options, quoted, with_output
from keygap.cli_view import view
from keygap.errors import UserError
from keygap.model_options import ModelOptions, as_yaml, assigned, takes_model
from keygap.terminal import (
    Commands,
    LineFormatter,
    StderrHandler,
    adopt_library_logs,
    library_warnings,
    refused_files,
)

if TYPE_CHECKING:
    from keygap.models import VLM
    from keygap.store import Store

DESCRIPTION = "Does a vision-language model keep image and text in the same attention key space?"
Subjects = Annotated[str | None, typer.Option(help="Subjects of the benchmark. Default: all.")]
Probes = Annotated[str, typer.Option(help="See keygap probes.", autocompletion=probe_names)]

app = typer.Typer(
    name="keygap",
    cls=Commands,
    help=DESCRIPTION,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut long options, and take [brackets] for markup
    context_settings={"help_option_names": ["-h", "--help"]},
)


@with_output
def demo(say: Output, out: Out = "runs/demo") -> None:
    """Run the whole study on the embedded model, with each of its three connectors."""
    from importlib.resources import as_file, files

    with as_file(files("keygap.micro") / "demo.yaml") as path:
        _study(path, out, say)


@with_output
def run(
    experiment: Annotated[
        Path, typer.Argument(metavar="EXPERIMENT.yaml", help="See experiments/ for examples.")
    ],
    say: Output,
    out: Annotated[
        str | None, typer.Option(help="Folder for the results. Default: runs/NAME.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="local or ray, in place of the file's engine. See docs/cluster.md."),
    ] = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
) -> None:
    """Run a study from a file."""
    given = {"name": engine, "workers": workers, "gpus_per_worker": gpus_per_worker}
    _study(
        experiment, out, say, {name: value for name, value in given.items() if value is not None}
    )


@with_output
@takes_model
def bias(
    model: ModelOptions,
    out: Out,
    benchmark: BenchmarkName = "easy-vqa",
    split: Split = None,
    data: Data = None,
    language: Language = None,
    subjects: Subjects = None,
    probes: Probes = PROBES,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--setting",
            metavar="PROBE.SETTING=VALUE",
            help="Setting of a probe, such as hint.positions=[after]; may be repeated.",
        ),
    ] = None,
    samples: Samples = defaults.SAMPLES,
    batch_size: BatchSize = defaults.BATCH_SIZE,
    attention: Annotated[
        bool, typer.Option(help="Also measure attention, at all layers, and the link to the gap.")
    ] = True,
    n_bootstraps: Bootstraps = defaults.N_BOOTSTRAPS,
    seed: Seed = 0,
    *,
    say: Output,
) -> None:
    """Ask the same questions under several conditions: does the model follow image or text?"""
    import keygap as kg
    from keygap.bias.probe import named_probes
    from keygap.store.lock import at_work
    from keygap.store.run import MANIFEST
    from keygap.study.bias import bias_of_run
    from keygap.study.one_run import refuse_other

    place = folder_of(out, "--out")
    given = assigned(settings or [], "--setting", "PROBE.SETTING=VALUE")
    chosen = named_probes(listed(probes), as_yaml(given, "--setting"))
    source = {"split": split, "data": data, "language": language}
    wanted = None if subjects is None else listed(subjects)
    asked = kg.benchmark(benchmark, **source).choose(samples, seed, wanted)
    asked.first_readable()
    refuse_other(place, model.model, asked.name)
    with _opened(out) if (place / MANIFEST).is_file() else at_work(place) as store:
        numbers: dict[str, Any] = {"batch_size": batch_size, "n_bootstraps": n_bootstraps}
        loaded = model.load()
        table = bias_of_run(
            loaded, asked, place, chosen, attention=attention, store=store, **numbers
        )
    same = options(benchmark=benchmark, samples=samples, **source, seed=seed or None)
    say.result(
        table=table.summary(),
        notes=table.notes,
        rows=table.frame,
        then=quoted("report", place) if store else None if subjects else extraction_of(model, same),
        facts={"folder": place},
    )


@with_output
def measure(
    folder: Folder,
    text_roles: TextRoles = TEXT,
    tokens_per_sample: TokensPerSample = defaults.TOKENS_PER_SAMPLE,
    sites: Annotated[str | None, typer.Option(help="Sites of the run. Default: all.")] = None,
    layers: Annotated[
        str | None, typer.Option(help="Indices of layers, such as 0,15. Default: all of the run.")
    ] = None,
    contrasts: Annotated[
        str | None, typer.Option(help="Names, such as image_text,text_text. Default: all.")
    ] = None,
    n_permutations: Annotated[
        int,
        typer.Option(min=1, max=MOST_RESAMPLINGS, help="Least number of label swaps of a test."),
    ] = defaults.N_PERMUTATIONS,
    n_bootstraps: Bootstraps = defaults.N_BOOTSTRAPS,
    seed: Seed = 0,
    engine: Engine = defaults.ENGINE,
    workers: Workers = None,
    *,
    say: Output,
) -> None:
    """Measure the gap and its ladder in a run folder: gap.csv, jsd.csv, measurement.yaml."""
    import keygap as kg
    from keygap.capture.choice import layers_of_run
    from keygap.measurement.keeping import forget_layers

    with _opened(folder) as store:
        table = kg.measure(
            store,
            sites=None if sites is None else listed(sites),
            layers=None if layers is None else layers_of_run(listed(layers)),
            contrasts=None if contrasts is None else listed(contrasts),
            text_roles=listed(text_roles),
            tokens_per_sample=tokens_per_sample,
            n_permutations=n_permutations,
            n_bootstraps=n_bootstraps,
            seed=seed,
            engine=engine,
            workers=workers,
            resume=True,
        )
        table.save(folder)
        forget_layers(store.root)
    whole = table.main[table.main["head"] == "all"]
    then = quoted("project", folder)
    facts = {"folder": folder}
    say.result(table=table.summary(), notes=table.notes, rows=whole, then=then, facts=facts)


@with_output
def project(
    folder: Folder,
    tokens: Annotated[
        int, typer.Option(min=10, max=MOST, help="Most tokens of each modality.")
    ] = defaults.PROJECTION_TOKENS,
    text_roles: TextRoles = TEXT,
    seed: Seed = 0,
    *,
    say: Output,
) -> None:
    """Project the tokens of a run by PCA to 50 and t-SNE to 2 dimensions: projection.parquet."""
    import keygap as kg

    roles = listed(text_roles)
    with _opened(folder) as store:
        found = kg.project(store, tokens=tokens, text_roles=roles, seed=seed)
        found.save(store.root)
    then = quoted("report", folder)
    say.result(found, then=then, facts={"folder": folder, "tokens": len(found.frame)})


@with_output
def report(
    folders: Annotated[
        list[str], typer.Argument(metavar="DIR", help="Run folders, or folders of studies.")
    ],
    say: Output,
    out: Annotated[
        str | None,
        typer.Option(help="Folder for report.html. Default: that of the run or study."),
    ] = None,
) -> None:
    """Write figures and report.html about one or several run folders."""
    import keygap as kg
    from keygap.study.run import runs_in

    named = distinct([folder_of(folder, "DIR") for folder in folders], "DIR", "runs/x")
    places = [run for folder in named for run in runs_in(folder)]
    path = kg.report(*places, out=None if out is None else folder_of(out, "--out"))
    say.result(path, then=f"open {path} in a browser", facts={"report": path})


@with_output
@takes_model
def check(model: ModelOptions, say: Output) -> None:
    """Check that keygap reads a model correctly.

    Exit status 2 if it does not, 3 if a check could not be run.
    """
    from keygap.selfcheck.check import check as check_model
    from keygap.selfcheck.check import frame_of, summary

    vlm = model.load()
    about = {"model": summary(vlm), "prompt": _shown_prompt(vlm)}
    for line in about.values():
        say.line(line)
    findings = check_model(vlm)
    wrong = [finding.check for finding in findings if finding.passed is False]
    then = None if wrong else quoted("extract", model.model, "--out", "DIR")
    say.result(table=frame_of(findings), then=then, facts=about)
    if wrong:
        raise UserError(f"{model.model} is not read correctly: {', '.join(wrong)}")
    if unknown := [finding.check for finding in findings if finding.result == "not run"]:
        typer.echo(f"keygap: these checks could not be run: {', '.join(unknown)}", err=True)
        raise typer.Exit(3)


def _print_version(asked: bool) -> None:
    from importlib.metadata import version
    from platform import python_version

    from keygap import __version__

    if asked:
        used = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
        typer.echo(f"keygap {__version__} (Python {python_version()}, {used})")
        raise typer.Exit


@app.callback(help=DESCRIPTION)
def keygap(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print versions and exit."
        ),
    ] = False,
) -> None:
    """The options before the name of a command."""


for command in (
    *(demo, run, check, extract, measure, project, report, answer, bias, causes, align),
    *(choices, view),
    *(benchmarks, models, probes, maps, doctor),
):
    app.command()(command)
app.add_typer(micro, name="micro")


def _shown_prompt(vlm: VLM) -> str:
    """The form of a model's prompts, and one as an example."""
    prompt = vlm.prompter.description()
    template = prompt["template_sha256"]
    origin = f"chat template {template}" if template else "no chat template"
    return f"prompt: {prompt['form']}, {origin}; an example: {prompt['example']['text']!r}"


def _study(
    experiment: Path, out: str | None, say: Output, engine: Mapping[str, Any] | None = None
) -> None:
    from keygap.reporting.run import read_run
    from keygap.study.experiment import read_experiment
    from keygap.study.run import folders_of, run_study, summary_of

    place = None if out is None else folder_of(out, "--out")
    asked = read_experiment(experiment)
    asked = asked.on(engine) if engine else asked
    place = place or folder_of(Path("runs") / asked.name, "the folder of the study")
    adopt_library_logs()
    path = run_study(asked, place)
    rows = []
    for each in map(read_run, folders_of(asked, place)):
        whole = each.table.main[each.table.main["head"] == "all"]
        accuracy = None if each.accuracy is None else each.accuracy["accuracy"].iloc[0]
        rows += [{**row, "accuracy": accuracy} for row in whole.to_dict("records")]
    table = summary_of(folders_of(asked, place))
    then = f"open {path} in a browser"
    say.result(f"report: {path}", table=table, rows=rows, then=then, facts={"report": path})


@contextmanager
def _opened(folder: str) -> Iterator[Store]:
    """Open a run for long work: damage, and a folder that cannot be written, end it before."""
    from keygap.store import Store
    from keygap.store.lock import at_work

    store = Store(folder_of(folder, "DIR"))
    with at_work(store.root):
        store.verify()
        yield store


def main() -> None:
    """Run the ``keygap`` command."""
    handler = StderrHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with an image is recorded
    logging.getLogger("keygap").setLevel(logging.INFO)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # hide its log of retries
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with interrupts.handled(), refused_files(), library_warnings():
            app()
    except UserError as error:
        typer.echo(f"keygap: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
