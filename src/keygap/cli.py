"""The command line: parse, call the API, print. No logic of its own.

Exit status: 0 done; 2 the user can fix it, one line on stderr; 1 a fault of ours, with traceback.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from keygap.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    name="keygap",
    help="Does a vision-language model keep image and text in the same attention key space?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
micro = typer.Typer(help="The embedded model.", no_args_is_help=True)
app.add_typer(micro, name="micro")

Seed = Annotated[int, typer.Option(min=0)]
TextRoles = Annotated[
    str, typer.Option(help="What counts as text: question, option, hint, answer, template, system.")
]
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, folder, or micro:CONNECTOR.")]
Dtype = Annotated[str, typer.Option(help="auto, bfloat16, float16, float32")]
DeviceMap = Annotated[str | None, typer.Option(help="accelerate's placement: auto, balanced, ...")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
TrustRemoteCode = Annotated[bool, typer.Option(help="Run the repository's own Python.")]


@app.command()
def demo(out: Out = Path("runs/demo")) -> None:
    """The embedded model with its three connectors: the whole study in a few minutes."""
    from importlib.resources import as_file, files

    with as_file(files("keygap.micro") / "demo.yaml") as path:
        _study(path, out)


@app.command()
def run(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml")],
    out: Annotated[Path | None, typer.Option(help="Default: runs/NAME.")] = None,
) -> None:
    """A study from a file."""
    _study(experiment, out)


@app.command()
def extract(
    model: Model,
    out: Out,
    benchmark: Annotated[str, typer.Option(help="See keygap benchmarks.")] = "easy-vqa",
    split: Annotated[str | None, typer.Option(help="Default: the one usually reported.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Local parquet or TSV in the publisher's columns.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Of questions of your own.")] = None,
    layers: Annotated[str, typer.Option(help="first, middle, last, all, numbers: 0,4,last")] = (
        "first,middle,last"
    ),
    sites: Annotated[str, typer.Option(help="k_proj, q_proj, v_proj, key, ...")] = "k_proj",
    samples: Annotated[int, typer.Option(min=1)] = 200,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device_map: DeviceMap = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Read vectors of a benchmark's samples out of a model."""
    import keygap as kg

    bench = kg.benchmark(benchmark, split=split, data=data, language=language)
    vlm = kg.load(
        model,
        dtype=dtype,
        device_map=device_map,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    store = kg.extract(
        vlm,
        bench,
        out,
        layers=_listed(layers),
        sites=_listed(sites),
        samples=samples,
        batch_size=batch_size,
        seed=seed,
    )
    typer.echo(store)


@app.command()
def measure(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    text_roles: TextRoles = "question",
    tokens_per_sample: Annotated[int, typer.Option(min=2, help="At most, of each side.")] = 64,
    seed: Seed = 0,
) -> None:
    """Measure the gap and its ladder in a run folder: gap.csv, jsd.csv, measurement.yaml."""
    import keygap as kg

    table = kg.measure(
        kg.Store(folder),
        text_roles=_listed(text_roles),
        tokens_per_sample=tokens_per_sample,
        seed=seed,
    )
    table.save(folder)
    _print(table.summary(), table.notes)


@app.command()
def project(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    tokens: Annotated[int, typer.Option(min=10, help="At most, of each modality.")] = 2000,
    text_roles: TextRoles = "question",
    seed: Seed = 0,
) -> None:
    """Standardise, PCA to 50, t-SNE to 2: projection.parquet."""
    import keygap as kg

    roles = _listed(text_roles)
    kg.project(kg.Store(folder), tokens=tokens, text_roles=roles, seed=seed).save(folder)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...")],
    out: Annotated[
        Path | None, typer.Option(help="Default: the run folder, or the parent of several.")
    ] = None,
) -> None:
    """Figures and report.html of one or several run folders."""
    import keygap as kg

    typer.echo(kg.report(*folders, out=out))


@app.command()
def benchmarks() -> None:
    """The benchmarks that keygap knows."""
    from keygap.benchmarks import described

    for name, what in described():
        typer.echo(f"{name:20} {what}")


@app.command()
def models() -> None:
    """What can stand for MODEL."""
    from keygap.micro.connectors import CONNECTORS

    for connector in CONNECTORS:
        typer.echo(f"micro:{connector}")
    typer.echo("any Hub id or folder that transformers loads for image-text-to-text")


@app.command()
def check(
    model: Model,
    dtype: Dtype = "auto",
    device_map: DeviceMap = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Does keygap read this model correctly? The self-check; exit status 2 if it does not."""
    import keygap as kg
    from keygap.selfcheck.check import check as check_model
    from keygap.selfcheck.check import frame_of, summary

    vlm = kg.load(
        model,
        dtype=dtype,
        device_map=device_map,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    typer.echo(summary(vlm))
    findings = check_model(vlm)
    _print(frame_of(findings), ())
    if wrong := [finding.check for finding in findings if finding.passed is False]:
        raise UserError(f"{model} is not read correctly: {', '.join(wrong)}")


@micro.command()
def train(
    connector: Annotated[str, typer.Option(help="linear, mlp or qformer")],
    out: Out = Path("runs/micro"),
) -> None:
    """Train a connector of the embedded model on easy-VQA's training split."""
    from keygap.micro.training.train import train as train_connector

    typer.echo(train_connector(connector, out))


@micro.command()
def evaluate(
    connector: Annotated[str, typer.Option(help="linear, mlp or qformer")],
    weights: Annotated[Path | None, typer.Option(help="Default: the weights that ship.")] = None,
) -> None:
    """Accuracy on easy-VQA's test split by question type, with and without the image."""
    from keygap.micro.training.evaluate import evaluate as evaluate_connector

    _print(evaluate_connector(connector, weights), ())


def _study(experiment: Path, out: Path | None) -> None:
    from keygap.study.experiment import read_experiment
    from keygap.study.run import folders_of, run_study, summary_of

    asked = read_experiment(experiment)
    out = out or Path("runs") / asked.name
    path = run_study(asked, out)
    _print(summary_of(folders_of(asked, out)), ())
    typer.echo(f"report: {path}")


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _print(frame: pd.DataFrame, notes: tuple[str, ...]) -> None:
    table = Table()
    for column in frame.columns:
        table.add_column(
            str(column), justify="right" if frame[column].dtype.kind in "iufb" else "left"
        )
    for row in frame.itertuples(index=False):
        table.add_row(*(_shown(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    for note in notes:
        typer.echo(note)


def _shown(value: object) -> str:
    """A cell of a printed table; what is not there is left blank."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return str(value)


def main() -> None:
    """Entry point of the ``keygap`` command."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("keygap").setLevel(logging.INFO)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its retries are not news
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except UserError as error:
        typer.echo(f"keygap: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
