"""The schema of an experiment file.

A file in ``experiments/`` names models, benchmarks and settings. It is validated as a whole before
anything runs: every omitted setting gets its default and an unknown key is an error. Models and
benchmarks are crossed, and each pair gets a run folder of its own. Data paths are relative to the
folder of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from keygap import defaults, strict_yaml
from keygap.align.causes.points import Plan
from keygap.arguments import (
    MOST,
    MOST_RESAMPLINGS,
    MOST_SEEDS,
    folder_name_of,
    name_of,
)
from keygap.bias.condition import Probe
from keygap.bias.probes import build
from keygap.bias.probes.prompts import checked_phrasings
from keygap.capture.choice import named_layers, named_sites
from keygap.choices.levels import Plan as ChoicesPlan
from keygap.contrasts import CONTRASTS, contrast_of
from keygap.contrasts.own import OwnContrast, TextRoles, refuse_twice
from keygap.errors import UserError, unknown
from keygap.projection.tsne import MOST_PERPLEXITY
from keygap.reporting.published import Published
from keygap.workers import workers_of

OWN_FILES = ("jsonl", "folder")  # benchmarks whose name contains a path
RENAMED = {"picture": "projection"}  # former keys of an experiment file


def _text(value: str) -> str:
    return name_of(value, "value")


def _whole(least: int, most: int = MOST) -> Any:
    return Field(ge=least, le=most)


Text = Annotated[str, AfterValidator(_text)]


class _Section(BaseModel):
    # strict: the file says 3 where a number is meant, not "3" or true
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelChoice(_Section):
    """A model and how to load it."""

    name: Text
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    revision: Text | None = None
    device_map: Text | None = None
    system: str | None = None
    template_arguments: dict[str, Any] | None = None
    trust_remote_code: bool = False
    parts: dict[str, str] | None = None


class BenchmarkChoice(_Section):
    """A benchmark and the location of its files (None: the publisher's source)."""

    name: Text
    split: Text | None = None
    data: Text | None = None
    language: Text | None = None

    def beside(self, folder: Path) -> BenchmarkChoice:
        """Resolve the data path against the folder of the experiment file.

        Raises:
            UserError: the path does not exist.
        """
        prefix, _, path = self.name.partition(":")
        data = self.data or (path if prefix in OWN_FILES else None)
        if not data:
            return self
        place = folder / data
        try:
            place = place.resolve()
            found = place.exists()
        except (OSError, RuntimeError):  # a name that is too long, a cycle of links
            found = False
        if not found:
            raise UserError(f"no data at {place}: a path is relative to the experiment file")
        return self.model_copy(update={"data": str(place)})


class Extraction(_Section):
    """Which vectors to read."""

    samples: Annotated[int, _whole(1)] | None = defaults.SAMPLES
    layers: list[str | int] = list(defaults.LAYERS)
    sites: list[str] = list(defaults.SITES)
    batch_size: Annotated[int, _whole(1)] | Literal["auto"] = defaults.AUTO
    tokens: Annotated[int, _whole(1)] | Literal["all"] = defaults.IMAGE_TOKENS
    thumbnails: bool = True

    @field_validator("layers")
    @classmethod
    def _named_layers(cls, layers: list[str | int]) -> list[str | int]:
        return named_layers(layers)

    @field_validator("sites")
    @classmethod
    def _named_sites(cls, sites: list[str]) -> list[str]:
        return named_sites(sites)


def _registered() -> list[str | OwnContrast]:
    return list(CONTRASTS)


class Engine(_Section):
    """Where extraction and measurement are done, which changes no result."""

    name: str = defaults.ENGINE
    workers: Annotated[int, _whole(1)] | None = None
    gpus_per_worker: Annotated[int, _whole(0)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Engine:
        workers_of(**self.options())
        return self

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``extract``."""
        given = self.model_dump()
        return {"engine": given.pop("name"), **given}


class Measurement(_Section):
    """How to measure the gap."""

    contrasts: list[str | OwnContrast] = Field(default_factory=_registered)
    text_roles: TextRoles = list(defaults.TEXT_ROLES)
    tokens_per_sample: Annotated[int, _whole(2)] | None = defaults.TOKENS_PER_SAMPLE
    n_permutations: Annotated[int, _whole(1, MOST_RESAMPLINGS)] = defaults.N_PERMUTATIONS
    n_bootstraps: Annotated[int, _whole(1, MOST_RESAMPLINGS)] = defaults.N_BOOTSTRAPS

    @field_validator("contrasts")
    @classmethod
    def _each_once(cls, contrasts: list[str | OwnContrast]) -> list[str | OwnContrast]:
        for item in contrasts:
            if isinstance(item, str):
                contrast_of(item)  # an unknown name fails here, before any model is loaded
        refuse_twice(item if isinstance(item, str) else item.name for item in contrasts)
        if not contrasts:
            raise UserError("no contrast: name at least one, such as image_text")
        return contrasts

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``measure``."""
        chosen = [
            item.contrast() if isinstance(item, OwnContrast) else item for item in self.contrasts
        ]
        return {**dict(self), "contrasts": chosen}


class Projection(_Section):
    """How to compute the t-SNE projection."""

    tokens: Annotated[int, _whole(10)] = defaults.PROJECTION_TOKENS
    perplexity: float = Field(default=defaults.PERPLEXITY, gt=1, le=MOST_PERPLEXITY)


class Bias(_Section):
    """Which probes of text bias to ask, with their settings, and of how many samples."""

    probes: dict[str, dict[str, Any]] = {name: {} for name in defaults.PROBES}
    samples: Annotated[int, _whole(1)] = defaults.BIAS_SAMPLES
    attention: bool = True

    @field_validator("probes")
    @classmethod
    def _possible(cls, probes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        build(probes)
        return probes

    def chosen(self) -> list[Probe]:
        """The probes."""
        return build(self.probes)


class Causes(_Section):
    """Steer keys and attention apart; what is compared (see ``keygap causes``)."""

    samples: Annotated[int, _whole(2)] = defaults.CAUSES_SAMPLES
    fit_samples: Annotated[int, _whole(2)] = defaults.FIT_SAMPLES
    subjects: list[Text] | None = None
    phrasings: list[Text] | None = None
    batch_size: Annotated[int, _whole(1)] = defaults.CAUSES_BATCH_SIZE
    plan: dict[str, Any] = {}

    @field_validator("plan")
    @classmethod
    def _possible(cls, plan: dict[str, Any]) -> dict[str, Any]:
        for name in plan:
            if name not in Plan.__dataclass_fields__:
                raise unknown("key", name, Plan.__dataclass_fields__)
        Plan(**plan)
        return plan

    @field_validator("phrasings")
    @classmethod
    def _with_answer(cls, phrasings: list[str] | None) -> list[str] | None:
        return None if phrasings is None else checked_phrasings(phrasings)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``causes``."""
        given = {name: value for name, value in dict(self).items() if value is not None}
        return {**given, "plan": Plan(**self.plan)}


class Choices(_Section):
    """Which choices to measure the gap under (see ``keygap choices``); omitted: all."""

    layers: list[str] | None = None
    heads: list[str] | None = None
    text: list[str] | None = None
    outliers: list[str] | None = None
    tokens: list[int] | None = None
    units: list[str] | None = None
    spaces: list[str] | None = None
    estimators: list[str] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Choices:
        self.plan()
        return self

    def plan(self) -> ChoicesPlan:
        """The plan of these levels."""
        given = {name: levels for name, levels in dict(self).items() if levels is not None}
        return ChoicesPlan(**given)


class Experiment(_Section):
    """A complete study."""

    name: str
    models: list[ModelChoice] = Field(min_length=1)
    benchmarks: list[BenchmarkChoice] = Field(min_length=1)
    seed: Annotated[int, _whole(0, MOST_SEEDS - 1)] = 0
    extraction: Extraction = Extraction()
    measurement: Measurement = Measurement()
    projection: Projection = Projection()
    answers: bool = Field(default=True, description="score the answers")
    bias: Bias | None = None
    causes: Causes | None = None
    choices: Choices | None = None
    published: Published | None = None
    engine: Engine = Engine()

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
