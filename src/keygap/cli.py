"""The command line: parse the arguments, call the Python API, print.

Exit status: 0 done; 2 the user can fix it, one line on stderr; 1 a bug in keygap, with traceback;
3 (``check`` alone) nothing failed, but a check could not be run.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from keygap import defaults
from keygap.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from keygap.models import VLM

app = typer.Typer(
    name="keygap",
    help="Does a vision-language model keep image and text in the same attention key space?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
micro = typer.Typer(help="Train and evaluate the embedded model.", no_args_is_help=True)
app.add_typer(micro, name="micro")

LAYERS, SITES, TEXT = (
    ",".join(names) for names in (defaults.LAYERS, defaults.SITES, defaults.TEXT_ROLES)
)
Seed = Annotated[int, typer.Option(min=0, help="Seed of every random choice.")]
TextRoles = Annotated[
    str,
    typer.Option(
        help="Roles that count as text: question, option, hint, answer, template, system."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for the results.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")]
Connector = Annotated[str, typer.Option(help="linear, mlp or qformer.")]


@dataclass(frozen=True)
class ModelOptions:
    """The argument and the options of ``kg.load``, for every command that loads a model."""

    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Hub id, folder, or micro:CONNECTOR.")
    ]
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")] = "auto"
    device_map: Annotated[
        str | None, typer.Option(help="Placement by accelerate: auto, balanced, ...")
    ] = None
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run Python code from the model's repository.")
    ] = False
    system: Annotated[str | None, typer.Option(help="System message before every prompt.")] = None
    template_arguments: Annotated[
        list[str] | None,
        typer.Option(
            "--template-argument",
            metavar="NAME=VALUE",
            help="Argument of the chat template; may be repeated.",
        ),
    ] = None

    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            metavar="PART=PATH",
            help="Path of a part that was not found: decoder, embedding, vision, connector.",
        ),
    ] = None

    def load(self) -> VLM:
        """Load the model."""
        import keygap as kg

        options = asdict(self)
        options["template_arguments"] = _template_arguments(self.template_arguments or [])
        options["parts"] = dict(_named(item, "--part", "PART=PATH") for item in self.parts or [])
        return kg.load(options.pop("model"), **options)


def _template_arguments(given: list[str]) -> dict[str, Any] | None:
    """The arguments of a chat template, values read as YAML: ``enable_thinking=false``."""
    found: dict[str, Any] = {}
    for item in given:
        name, value = _named(item, "--template-argument", "NAME=VALUE")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--template-argument {item!r}: the value is not YAML") from error
    return found or None


def _named(item: str, option: str, form: str) -> tuple[str, str]:
    """The two sides of ``NAME=VALUE``."""
    name, equals, value = item.partition("=")
    if not (name and equals):
        raise UserError(f"{option} {item!r}: write {form}")
    return name, value


def takes_model(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``ModelOptions`` in place of its first parameter.

    Typer reads a command's options from its signature, so the fields are spread over it.
    """

    def run(**given: Any) -> None:
        options = ModelOptions(**{name: given.pop(name) for name in shared})
        command(options, **given)

    shared = inspect.signature(ModelOptions, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*shared.values(), *own)
    ]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


@app.command()
def demo(out: Out = Path("runs/demo")) -> None:
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
        Path | None, typer.Option(help="Folder for the results. Default: runs/NAME.")
    ] = None,
) -> None:
    """Run a study from a file."""
    _study(experiment, out)


@app.command()
@takes_model
def extract(
    model: ModelOptions,
    out: Out,
    benchmark: Annotated[str, typer.Option(help="See keygap benchmarks.")] = "easy-vqa",
    split: Annotated[str | None, typer.Option(help="Default: the split usually reported.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Local parquet or TSV files with the publisher's columns.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of your own questions.")] = None,
    layers: Annotated[
        str, typer.Option(help="first, middle, last, all and indices, such as 0,4,last.")
    ] = LAYERS,
    sites: Annotated[
        str, typer.Option(help="k_proj, q_proj, v_proj, key, query, value or hidden.")
    ] = SITES,
    samples: Annotated[int, typer.Option(min=1, help="Number of samples.")] = defaults.SAMPLES,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Samples in one forward pass.")
    ] = defaults.BATCH_SIZE,
    seed: Seed = 0,
) -> None:
    """Read the vectors of a benchmark's samples from a model."""
    import keygap as kg

    bench = kg.benchmark(benchmark, split=split, data=data, language=language)
    store = kg.extract(
        model.load(),
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
    folder: Folder,
    text_roles: TextRoles = TEXT,
    tokens_per_sample: Annotated[
        int, typer.Option(min=2, help="Most tokens of a sample on each side of a contrast.")
    ] = defaults.TOKENS_PER_SAMPLE,
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
    folder: Folder,
    tokens: Annotated[
        int, typer.Option(min=10, help="Most tokens of each modality.")
    ] = defaults.PROJECTION_TOKENS,
    text_roles: TextRoles = TEXT,
    seed: Seed = 0,
) -> None:
    """Project the tokens of a run by PCA to 50 and t-SNE to 2 dimensions: projection.parquet."""
    import keygap as kg

    roles = _listed(text_roles)
    kg.project(kg.Store(folder), tokens=tokens, text_roles=roles, seed=seed).save(folder)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run folders.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html. Default: the run folder, or its parent."),
    ] = None,
) -> None:
    """Write figures and report.html about one or several run folders."""
    import keygap as kg

    typer.echo(kg.report(*folders, out=out))


@app.command()
def benchmarks() -> None:
    """List the benchmarks."""
    from keygap.benchmarks import described

    for name, what in described():
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
    _print(frame_of(findings), ())
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
    out: Out = Path("runs/micro"),
) -> None:
    """Train a connector of the embedded model on the training split of easy-VQA."""
    from keygap.micro.training.train import train as train_connector

    typer.echo(train_connector(connector, out))


@micro.command()
def evaluate(
    connector: Connector,
    weights: Annotated[Path | None, typer.Option(help="Default: those of the package.")] = None,
) -> None:
    """Print accuracy on the test split of easy-VQA, by question type, with and without images."""
    from keygap.micro.training.evaluate import evaluate as evaluate_connector

    _print(evaluate_connector(connector, weights), ())


def _shown_prompt(vlm: VLM) -> str:
    """The form of a model's prompts, and one as an example."""
    prompt = vlm.prompter.description()
    template = prompt["template_sha256"]
    origin = f"chat template {template}" if template else "no chat template"
    return f"prompt: {prompt['form']}, {origin}; an example: {prompt['example']['text']!r}"


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
    """Format a cell of a printed table: nothing for NaN, and "no bound" for infinity."""
    if isinstance(value, float):
        if math.isinf(value):
            return "no bound"
        return "" if math.isnan(value) else f"{value:.3g}"
    return str(value)


def main() -> None:
    """Run the ``keygap`` command."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("keygap").setLevel(logging.INFO)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # hide its log of retries
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except UserError as error:
        typer.echo(f"keygap: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
