"""A complete study as one file.

A file in ``experiments/`` names models, benchmarks and settings. It is validated as a whole before
anything runs: every omitted setting gets its default and an unknown key is an error. Models and
benchmarks are crossed, and each pair gets a run folder of its own. Data paths are relative to the
folder of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator

from keygap import defaults, strict_yaml
from keygap.arguments import MOST_SEEDS, folder_name_of
from keygap.errors import UserError, unknown
from keygap.reporting.published import Published
from keygap.study.sections import (
    BenchmarkChoice,
    Bias,
    Causes,
    Choices,
    Engine,
    Extraction,
    Measurement,
    ModelChoice,
    Projection,
    Section,
    whole_number,
)

RENAMED = {"picture": "projection"}  # former keys of an experiment file


class Experiment(Section):
    """A complete study."""

    name: str
    """Name of the study's folder under ``runs``."""
    models: list[ModelChoice] = Field(min_length=1)
    """The models, each of which answers every benchmark."""
    benchmarks: list[BenchmarkChoice] = Field(min_length=1)
    """The benchmarks."""
    seed: Annotated[int, whole_number(0, MOST_SEEDS - 1)] = 0
    """Seed of the choice of samples and of everything else that is random."""
    extraction: Extraction = Extraction()
    """Which vectors are read."""
    measurement: Measurement = Measurement()
    """How the gap is measured."""
    projection: Projection = Projection()
    """How the t-SNE projection is computed."""
    answers: bool = True
    """Score the answers."""
    bias: Bias | None = None
    """Probes of text bias; omitted: none."""
    causes: Causes | None = None
    """Keys and attention changed separately, as ``keygap causes`` does; omitted: not done."""
    choices: Choices | None = None
    """The gap under every choice, as ``keygap choices`` measures it; omitted: not done."""
    published: Published | None = None
    """Published numbers that the report shows beside those of the study."""
    engine: Engine = Engine()
    """Where extraction and measurement are done."""

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        return folder_name_of(name, "name")

    def on(self, engine: Mapping[str, Any]) -> Experiment:
        """The same experiment on another engine.

        Args:
            engine: keys and values that take the place of those of its engine.

        Raises:
            UserError: there is no such engine, its package is not installed, or it takes no number.
        """
        try:
            changed = Engine.model_validate(self.engine.model_dump() | dict(engine))
        except ValidationError as error:
            raise UserError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
        return self.model_copy(update={"engine": changed})

    def asked(self) -> dict[str, Any]:
        """What decides the results, as plain values: everything but the engine.

        A batch size that is found has the value with which it begins, as in an extraction.
        """
        asked = self.model_dump(mode="json", exclude={"engine"})
        asked["extraction"]["batch_size"] = defaults.first_batch(self.extraction.batch_size)
        return asked


def read_experiment(path: str | Path) -> Experiment:
    """Read and validate an experiment file.

    Raises:
        UserError: the file is missing, is not YAML, has an unknown key (the message names the
            nearest known one) or a value of the wrong type or range.
    """
    path = Path(path)
    values = strict_yaml.read(path, "experiment file")
    if not isinstance(values, dict):
        raise UserError(f"{path} is not an experiment: it must be a mapping of keys to values")
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        raise _explained(error, path) from error
    places = [place.beside(path.parent) for place in experiment.benchmarks]
    return experiment.model_copy(update={"benchmarks": places})


def _explained(error: ValidationError, path: Path) -> UserError:
    """Turn a validation error into one line about its most helpful problem.

    Unknown keys come first, because a misspelt key usually makes a required one missing as well.
    keygap's own checks come next. The complaint that a contrast of the user's own is not a string
    comes last.
    """
    kinds = ("extra_forbidden", "value_error")
    first = min(
        error.errors(),
        key=lambda one: (*(one["type"] != kind for kind in kinds), one["loc"][-1:] == ("str",)),
    )
    place = ".".join(str(step) for step in first["loc"])
    if first["type"] != "extra_forbidden":
        reason = first["msg"].removeprefix("Value error, ")
        return UserError(f"{path}: {place}: {reason}")
    *steps, key = first["loc"]
    if not steps and key in RENAMED:
        return UserError(f"{path}: the key {key!r} is now {RENAMED[str(key)]!r}: rename it")
    section: type[BaseModel] = Experiment
    for step in steps:
        if step in section.model_fields:  # other steps are list indices and names of types
            section = _section(section.model_fields[str(step)].annotation) or section
    return UserError(f"{path}: {unknown('key', key, section.model_fields)} (at {place})")


def _section(annotation: Any) -> type[BaseModel] | None:
    """Find the section class in a field's annotation, also inside a list or a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section(inner))), None)
