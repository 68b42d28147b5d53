"""An experiment as a file: validated, every choice written out, an unknown key refused.

``experiments/*.yaml`` are these. The models and benchmarks of one experiment are crossed; each
pair is a run folder of its own. Paths of data are relative to the file's folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from keygap.contrasts import CONTRASTS, contrast_of
from keygap.contrasts.own import OwnContrast, TextRoles, refuse_twice
from keygap.errors import UserError, unknown
from keygap.reporting.published import Published

OWN_FILES = ("jsonl", "folder")  # benchmarks whose name is a path


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelChoice(_Section):
    """Which model, and how it is loaded."""

    name: str
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    revision: str | None = None
    device_map: str | None = None


class BenchmarkChoice(_Section):
    """Which benchmark, and where its files are (None: its own source)."""

    name: str
    split: str | None = None
    data: str | None = None
    language: str | None = None

    def beside(self, folder: Path) -> BenchmarkChoice:
        """The same with the place of its data, where relative from this folder, in full.

        Raises:
            UserError: there is nothing.
        """
        prefix, _, path = self.name.partition(":")
        data = self.data or (path if prefix in OWN_FILES else None)
        if not data:
            return self
        place = (folder / data).resolve()
        if not place.exists():
            raise UserError(f"no data at {place}: a path is relative to the experiment file")
        return self.model_copy(update={"data": str(place)})


class Extraction(_Section):
    """Which vectors are read."""

    samples: int | None = Field(default=200, ge=1)
    layers: list[str | int] = ["first", "middle", "last"]
    sites: list[str] = ["k_proj"]
    batch_size: int = Field(default=8, ge=1)


class Measurement(_Section):
    """How the gap is measured."""

    contrasts: list[str | OwnContrast] = list(CONTRASTS)
    text_roles: TextRoles = ["question"]
    tokens_per_sample: int | None = Field(default=64, ge=2)
    n_permutations: int = Field(default=1000, ge=1)
    n_bootstraps: int = Field(default=1000, ge=1)

    @field_validator("contrasts")
    @classmethod
    def _each_once(cls, contrasts: list[str | OwnContrast]) -> list[str | OwnContrast]:
        for item in contrasts:
            if isinstance(item, str):
                contrast_of(item)  # refused here, before anything is read out of a model
        refuse_twice(item if isinstance(item, str) else item.name for item in contrasts)
        return contrasts

    def options(self) -> dict[str, Any]:
        """Arguments of ``measure``."""
        chosen = [
            item.contrast() if isinstance(item, OwnContrast) else item for item in self.contrasts
        ]
        return {**dict(self), "contrasts": chosen}


class Picture(_Section):
    """How the t-SNE pictures are made."""

    tokens: int = Field(default=1000, ge=10)
    perplexity: float = Field(default=30.0, gt=1)


class Experiment(_Section):
    """One study from file to report."""

    name: str
    models: list[ModelChoice] = Field(min_length=1)
    benchmarks: list[BenchmarkChoice] = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    extraction: Extraction = Extraction()
    measurement: Measurement = Measurement()
    picture: Picture = Picture()
    answers: bool = Field(default=True, description="score multiple choice beside the gap")
    published: Published | None = None


def read_experiment(path: str | Path) -> Experiment:
    """An experiment file, validated.

    Raises:
        UserError: no such file, no YAML, an unknown key (the nearest known one is named) or a
            value that does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no experiment file at {path}")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is no experiment: it must be keys and values")
    try:
        experiment = Experiment.model_validate(values)
    except ValidationError as error:
        raise _explained(error, path) from error
    places = [place.beside(path.parent) for place in experiment.benchmarks]
    return experiment.model_copy(update={"benchmarks": places})


def _explained(error: ValidationError, path: Path) -> UserError:
    """One problem in one line, with the place in the file.

    A key that is not known comes first: where one is misspelt, the right one is missing too. Then
    what our own checks say; that a contrast of the user's own is no name comes last.
    """
    kinds = ("extra_forbidden", "value_error")
    first = min(
        error.errors(),
        key=lambda one: (*(one["type"] != kind for kind in kinds), one["loc"][-1:] == ("str",)),
    )
    place = ".".join(str(step) for step in first["loc"])
    if first["type"] != "extra_forbidden":
        said = first["msg"].removeprefix("Value error, ")
        return UserError(f"{path}: {place}: {said}")
    *steps, key = first["loc"]
    section: type[BaseModel] = Experiment
    for step in steps:
        if step in section.model_fields:  # the others are places in lists, and names of types
            section = _section(section.model_fields[str(step)].annotation) or section
    return UserError(f"{path}: {unknown('key', key, section.model_fields)} (at {place})")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section class in a field's type, also inside a list or a choice."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section(inner))), None)
