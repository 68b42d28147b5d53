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
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keygap import defaults, interrupts
from keygap.arguments import MOST, MOST_RESAMPLINGS, distinct, folder_of
from keygap.cli_align import align
from keygap.cli_causes import causes
from keygap.cli_choices import choices
from keygap.cli_options import (
    LAYERS,
    PROBES,
    SITES,
    TEXT,
    BatchSize,
    BenchmarkName,
    Bootstraps,
    Captions,
    Connector,
    Data,
    Folder,
    Language,
    Out,
    Samples,
    Seed,
    Split,
    TextRoles,
    Thumbnails,
    listed,
)
from keygap.cli_view import view
from keygap.errors import UserError
from keygap.model_options import ModelOptions, as_yaml, assigned, takes_model
from keygap.terminal import Commands, LineFormatter, print_table, refused_files
from keygap.text import printable

if TYPE_CHECKING:
    from keygap.models import VLM
    from keygap.store import Store

app = typer.Typer(
    name="keygap",
    cls=Commands,
    help="Does a vision-language model keep image and text in the same attention key space?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
micro = typer.Typer(help="Train and evaluate the embedded model.", no_args_is_help=True)
app.add_typer(micro, name="micro")
for command in (causes, choices, align, view):
    app.command()(command)


@app.command()
def demo(out: Out = "runs/demo") -> None:
    """Run the whole study on the embedded model, with each of its three connectors."""
    from importlib.resources import as_file, files

    with as_file(files("keygap.micro") / "demo.yaml") as path:
        _study(path, out)


@app.command()
def run(
    experiment: Annotated[
        Path, typer.Argument(metavar="EXPERIMENT.yaml", help="See experiments/ for examples.")
    ],
    out: Annotated[
        str | None, typer.Option(help="Folder for the results. Default: runs/NAME.")
    ] = None,
) -> None:
    """Run a study from a file."""
    _study(experiment, out)


@app.command()
@takes_model
def extract(
    model: ModelOptions,
    out: Out,
    benchmark: BenchmarkName = "easy-vqa",
    split: Split = None,
    data: Data = None,
    language: Language = None,
    layers: Annotated[
        str, typer.Option(help="first, middle, last, all and indices, such as 0,4,last.")
    ] = LAYERS,
    sites: Annotated[
        str, typer.Option(help="k_proj, q_proj, v_proj, key, query, value or hidden.")
    ] = SITES,
    samples: Samples = defaults.SAMPLES,
    batch_size: BatchSize = defaults.BATCH_SIZE,
    captions: Captions = False,
    thumbnails: Thumbnails = True,
    seed: Seed = 0,
) -> None:
    """Read the vectors of a benchmark's samples from a model."""
    import keygap as kg
    from keygap.capture.choice import named_layers, named_sites

    place = folder_of(out, "--out")
    asked_sites, asked_layers = named_sites(listed(sites)), named_layers(listed(layers))
    bench = kg.benchmark(benchmark, split=split, data=data, language=language)
    chosen = bench.choose(samples, seed)
    chosen = chosen.with_captions() if captions else chosen
    chosen.first_readable()
    store = kg.extract(
        model.load(),
        chosen,
        place,
        layers=asked_layers,
        sites=asked_sites,
        batch_size=batch_size,
        thumbnails=thumbnails,
    )
    typer.echo(printable(store))


@app.command()
@takes_model
def bias(
    model: ModelOptions,
    out: Out,
    benchmark: BenchmarkName = "easy-vqa",
    split: Split = None,
    data: Data = None,
    language: Language = None,
    subjects: Annotated[
        str | None, typer.Option(help="Subjects of the benchmark. Default: all.")
    ] = None,
    probes: Annotated[str, typer.Option(help="See keygap probes.")] = PROBES,
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
) -> None:
    """Ask the same questions under several conditions: does the model follow image or text?"""
    import keygap as kg
    from keygap.bias.probe import named_probes
    from keygap.store.lock import refuse_unwritable
    from keygap.store.run import MANIFEST
    from keygap.study.bias import bias_of_run

    place = folder_of(out, "--out")
    given = assigned(settings or [], "--setting", "PROBE.SETTING=VALUE")
    chosen = named_probes(listed(probes), as_yaml(given, "--setting"))
    bench = kg.benchmark(benchmark, split=split, data=data, language=language)
    asked = bench.choose(samples, seed, None if subjects is None else listed(subjects))
    asked.first_readable()
    refuse_unwritable(place)
    store = _opened(out) if (place / MANIFEST).is_file() else None
    table = bias_of_run(
        model.load(),
        asked,
        place,
        chosen,
        attention=attention,
        batch_size=batch_size,
        n_bootstraps=n_bootstraps,
        store=store,
    )
    print_table(table.summary(), table.notes)


@app.command()
def measure(
    folder: Folder,
    text_roles: TextRoles = TEXT,
    tokens_per_sample: Annotated[
        int,
        typer.Option(min=2, max=MOST, help="Most tokens of a sample on each side of a contrast."),
    ] = defaults.TOKENS_PER_SAMPLE,
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
) -> None:
    """Measure the gap and its ladder in a run folder: gap.csv, jsd.csv, measurement.yaml."""
    import keygap as kg
    from keygap.capture.choice import layers_of_run

    table = kg.measure(
        _opened(folder),
        sites=None if sites is None else listed(sites),
        layers=None if layers is None else layers_of_run(listed(layers)),
        contrasts=None if contrasts is None else listed(contrasts),
        text_roles=listed(text_roles),
        tokens_per_sample=tokens_per_sample,
        n_permutations=n_permutations,
        n_bootstraps=n_bootstraps,
        seed=seed,
    )
    table.save(folder)
    print_table(table.summary(), table.notes)


@app.command()
def project(
    folder: Folder,
    tokens: Annotated[
        int, typer.Option(min=10, max=MOST, help="Most tokens of each modality.")
    ] = defaults.PROJECTION_TOKENS,
    text_roles: TextRoles = TEXT,
    seed: Seed = 0,
) -> None:
    """Project the tokens of a run by PCA to 50 and t-SNE to 2 dimensions: projection.parquet."""
    import keygap as kg

    roles = listed(text_roles)
    store = _opened(folder)
    kg.project(store, tokens=tokens, text_roles=roles, seed=seed).save(store.root)


@app.command()
def report(
    folders: Annotated[list[str], typer.Argument(metavar="DIR...", help="Run folders.")],
    out: Annotated[
        str | None,
        typer.Option(help="Folder for report.html. Default: the run folder, or its parent."),
    ] = None,
) -> None:
    """Write figures and report.html about one or several run folders."""
    import keygap as kg

    places = distinct([folder_of(folder, "DIR") for folder in folders], "DIR", "runs/x")
    typer.echo(kg.report(*places, out=None if out is None else folder_of(out, "--out")))


@app.command()
def benchmarks() -> None:
    """List the benchmarks."""
    from keygap.benchmarks import described

    for name, what in described():
        typer.echo(f"{name:20} {what}")


@app.command()
def probes() -> None:
    """List the probes of text bias."""
    from keygap.bias.probes import PROBES as known

    for name, what in known.described():
        typer.echo(f"{name:20} {what}")


@app.command()
def maps() -> None:
    """List the maps that steer vectors, and their controls."""
    from keygap.align.maps import MAPS as known

    for name, what in known.described():
        typer.echo(f"{name:20} {what}")


@app.command()
def models() -> None:
    """List what can be named as MODEL."""
    from keygap.micro.connectors import CONNECTORS

    for connector in CONNECTORS:
        typer.echo(f"micro:{connector}")
    typer.echo("any Hub id or folder that transformers loads for image-text-to-text")


@app.command()
@takes_model
def check(model: ModelOptions) -> None:
    """Check that keygap reads a model correctly.

    Exit status 2 if it does not, 3 if a check could not be run.
    """
    from keygap.selfcheck.check import check as check_model
    from keygap.selfcheck.check import frame_of, summary

    vlm = model.load()
    typer.echo(summary(vlm))
    typer.echo(_shown_prompt(vlm))
    findings = check_model(vlm)
    print_table(frame_of(findings), ())
    if wrong := [finding.check for finding in findings if finding.passed is False]:
        raise UserError(f"{model.model} is not read correctly: {', '.join(wrong)}")
    if unknown := [finding.check for finding in findings if finding.result == "not run"]:
        typer.echo(
            f"keygap: not known, because it could not be run: {', '.join(unknown)}", err=True
        )
        raise typer.Exit(3)


@micro.command()
def train(
    connector: Connector,
    out: Out = "runs/micro",
) -> None:
    """Train a connector of the embedded model on the training split of easy-VQA."""
    from keygap.micro.training.train import train as train_connector

    typer.echo(train_connector(connector, folder_of(out, "--out")))


@micro.command()
def evaluate(
    connector: Connector,
    weights: Annotated[Path | None, typer.Option(help="Default: those of the package.")] = None,
) -> None:
    """Print accuracy on the test split of easy-VQA, by question type, with and without images."""
    from keygap.micro.training.evaluate import evaluate as evaluate_connector

    print_table(evaluate_connector(connector, weights), ())


def _shown_prompt(vlm: VLM) -> str:
    """The form of a model's prompts, and one as an example."""
    prompt = vlm.prompter.description()
    template = prompt["template_sha256"]
    origin = f"chat template {template}" if template else "no chat template"
    return f"prompt: {prompt['form']}, {origin}; an example: {prompt['example']['text']!r}"


def _study(experiment: Path, out: str | None) -> None:
    from keygap.study.experiment import read_experiment
    from keygap.study.run import folders_of, run_study, summary_of

    place = None if out is None else folder_of(out, "--out")
    asked = read_experiment(experiment)
    place = place or folder_of(Path("runs") / asked.name, "the folder of the study")
    path = run_study(asked, place)
    print_table(summary_of(folders_of(asked, place)), ())
    typer.echo(f"report: {path}")


def _opened(folder: str) -> Store:
    """Open a run for long work: damage, and a folder that cannot be written, end it before."""
    from keygap.store import Store
    from keygap.store.lock import refuse_unwritable

    store = Store(folder_of(folder, "DIR"))
    refuse_unwritable(store.root)
    store.verify()
    return store


def main() -> None:
    """Run the ``keygap`` command."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with an image is recorded
    logging.getLogger("keygap").setLevel(logging.INFO)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # hide its log of retries
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with interrupts.handled(), refused_files():
            app()
    except UserError as error:
        typer.echo(f"keygap: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
