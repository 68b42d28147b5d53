"""``keygap micro``: train and evaluate the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keygap.arguments import folder_of
from keygap.cli_options import Connector, Out
from keygap.cli_output import Output, quoted, with_output
from keygap.terminal import Commands

micro = typer.Typer(
    cls=Commands,
    help="Train and evaluate the embedded model.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@micro.command()
@with_output
def train(connector: Connector, say: Output, out: Out = "runs/micro") -> None:
    """Train a connector of the embedded model on the training split of easy-VQA."""
    from keygap.micro.training.train import train as train_connector

    path = train_connector(connector, folder_of(out, "--out"))
    then = quoted("micro", "evaluate", "--connector", connector, "--weights", path)
    say.result(path, then=then, facts={"weights": path})


@micro.command()
@with_output
def evaluate(
    connector: Connector,
    say: Output,
    weights: Annotated[Path | None, typer.Option(help="Default: those of the package.")] = None,
) -> None:
    """Print accuracy on the test split of easy-VQA, by question type, with and without images."""
    from keygap.micro.training.evaluate import evaluate as evaluate_connector

    found = evaluate_connector(connector, weights)
    then = quoted("extract", f"micro:{connector}", "--out", f"runs/{connector}")
    say.result(table=found, then=then)
