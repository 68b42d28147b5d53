"""The options of a command that loads a model, written once for all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keygap import strict_yaml
from keygap.errors import UserError
from keygap.terminal import adopt_library_logs

if TYPE_CHECKING:
    from keygap.models import VLM


def _model_names(incomplete: str) -> list[str]:
    """Names of embedded models that begin so, for the shell."""
    from keygap.micro.described import MODELS

    return [name for name in MODELS if name.startswith(incomplete) and ":" in name]


@dataclass(frozen=True)
class ModelOptions:
    """The argument and the options of ``kg.load``, for every command that loads a model."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Hub id, folder, or micro:CONNECTOR.",
            autocompletion=_model_names,
        ),
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

        adopt_library_logs()

        options = asdict(self)
        options["template_arguments"] = _template_arguments(self.template_arguments or [])
        options["parts"] = _parts(self.parts or [])
        return kg.load(options.pop("model"), **options)


def _template_arguments(given: list[str]) -> dict[str, Any] | None:
    """The arguments of a chat template, values read as YAML: ``enable_thinking=false``."""
    found = assigned(given, "--template-argument", "NAME=VALUE")
    for name in found:
        if not name.isidentifier():
            raise UserError(f"--template-argument {name!r}: write NAME=VALUE")
    return as_yaml(found, "--template-argument") or None


def _parts(given: list[str]) -> dict[str, str]:
    """The paths of a model's parts by name: ``decoder=model.text``."""
    found = assigned(given, "--part", "PART=PATH, such as decoder=model.text")
    for name, path in found.items():
        if not path:
            raise UserError(f"--part {name}=: write PART=PATH, such as decoder=model.text")
    return found


def assigned(given: Sequence[str], option: str, form: str) -> dict[str, str]:
    """The values of an option that is repeated as NAME=VALUE, by name.

    Args:
        given: what was written each time.
        option: its name, for messages.
        form: how it is written, for messages.

    Raises:
        UserError: an item without a name or a value, or a name given twice.
    """
    found: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise UserError(f"{option} {item!r}: write {form}")
        if name in found:
            raise UserError(f"{option} {name} is given twice: leave one out")
        found[name] = value
    return found


def as_yaml(found: Mapping[str, str], option: str) -> dict[str, Any]:
    """The same values, read as YAML.

    Raises:
        UserError: one is not YAML.
    """
    return {
        name: strict_yaml.parse(value, f"the value of {option} {name}")
        for name, value in found.items()
    }


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
