"""The sections of an experiment file.

Every key says in one line what it is. The documentation shows these lines, with types, limits and
defaults from the JSON schema of the sections.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    field_validator,
    model_validator,
)

from keygap import defaults
from keygap.align.causes.points import Plan
from keygap.arguments import MOST, MOST_RESAMPLINGS, name_of
from keygap.bias.condition import Probe
from keygap.bias.probes import build
from keygap.bias.probes.prompts import checked_phrasings
from keygap.capture.choice import named_layers, named_sites
from keygap.choices.levels import Plan as ChoicesPlan
from keygap.contrasts import CONTRASTS, contrast_of
from keygap.contrasts.own import OwnContrast, TextRoles, refuse_twice
from keygap.errors import UserError, unknown
from keygap.projection.tsne import MOST_PERPLEXITY
from keygap.strict_yaml import STRICT
from keygap.workers import workers_of

OWN_FILES = ("jsonl", "folder")  # benchmarks whose name contains a path


def _text(value: str) -> str:
    return name_of(value, "value")


def whole_number(least: int, most: int = MOST) -> Any:
    """The limits of an integer, both included."""
    return Field(ge=least, le=most)


Text = Annotated[str, AfterValidator(_text)]


class Section(BaseModel):
    """A part of the file."""

    model_config = STRICT


class ModelChoice(Section):
    """A model and how to load it."""

    name: Text
    """As ``keygap extract`` takes it: a name on the Hub, a folder, or ``micro:NAME``."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Precision of the weights; ``auto`` is that of the checkpoint."""
    revision: Text | None = None
    """Branch, tag or commit on the Hub."""
    device_map: Text | None = None
    """Passed to transformers; ``auto`` spreads the model over all GPUs."""
    system: str | None = None
    """System prompt in place of the template's own; an empty text removes it."""
    template_arguments: dict[str, Any] | None = None
    """Variables of the model's chat template, such as ``enable_thinking: false``."""
    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint."""
    parts: dict[str, str] | None = None
    """Module names of parts that keygap does not find by itself, as ``--part`` takes them."""


class BenchmarkChoice(Section):
    """A benchmark and the location of its files."""

    name: Text
    """As ``keygap benchmarks`` lists it."""
    split: Text | None = None
    """Split of the benchmark; omitted: its default."""
    data: Text | None = None
    """File or folder with the publisher's files, beside the experiment file; omitted: the Hub."""
    language: Text | None = None
    """Language of the samples; omitted: its default."""

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


class Extraction(Section):
    """Which vectors to read."""

    samples: Annotated[int, whole_number(1)] | None = defaults.SAMPLES
    """Largest number of samples of each benchmark, stratified by subject; ``null``: all."""
    layers: list[str | int] = list(defaults.LAYERS)
    """Layers by index or name: ``first``, ``middle``, ``last`` or ``all``."""
    sites: list[str] = list(defaults.SITES)
    """Where vectors are read, as ``--sites`` of ``keygap extract`` lists them."""
    batch_size: Annotated[int, whole_number(1)] | Literal["auto"] = defaults.AUTO
    """Samples in one forward pass; ``auto`` finds it."""
    tokens: Annotated[int, whole_number(1)] | Literal["all"] = defaults.IMAGE_TOKENS
    """Image tokens of each sample whose vectors are kept, or ``all``."""
    thumbnails: bool = True
    """Keep small images for the report."""

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


class Engine(Section):
    """Where extraction and measurement are done, which changes no result."""

    name: str = defaults.ENGINE
    """``local``, or ``ray`` for several processes or machines."""
    workers: Annotated[int, whole_number(1)] | None = None
    """Number of workers; ``ray`` only."""
    gpus_per_worker: Annotated[int, whole_number(0)] | None = None
    """GPUs that each worker holds; ``ray`` only."""

    @model_validator(mode="after")
    def _possible(self) -> Engine:
        workers_of(**self.options())
        return self

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``extract``."""
        given = self.model_dump()
        return {"engine": given.pop("name"), **given}


class Measurement(Section):
    """How to measure the gap."""

    contrasts: list[str | OwnContrast] = Field(default_factory=_registered)
    """Names of contrasts, or contrasts of your own; omitted: every one that is registered."""
    text_roles: TextRoles = list(defaults.TEXT_ROLES)
    """Roles of the tokens that count as text."""
    tokens_per_sample: Annotated[int, whole_number(2)] | None = defaults.TOKENS_PER_SAMPLE
    """Largest number of tokens of a sample on each side; ``null``: all."""
    n_permutations: Annotated[int, whole_number(1, MOST_RESAMPLINGS)] = defaults.N_PERMUTATIONS
    """Permutations of each test."""
    n_bootstraps: Annotated[int, whole_number(1, MOST_RESAMPLINGS)] = defaults.N_BOOTSTRAPS
    """Bootstrap samples of each interval."""

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


class Projection(Section):
    """How to compute the t-SNE projection."""

    tokens: Annotated[int, whole_number(10)] = defaults.PROJECTION_TOKENS
    """Tokens of each modality in the projection."""
    perplexity: float = Field(default=defaults.PERPLEXITY, gt=1, le=MOST_PERPLEXITY)
    """Perplexity of t-SNE."""


class Bias(Section):
    """Which probes of text bias to ask, with their settings, and of how many samples."""

    probes: dict[str, dict[str, Any]] = {name: {} for name in defaults.PROBES}
    """Names of probes with their settings; ``keygap probes`` lists them."""
    samples: Annotated[int, whole_number(1)] = defaults.BIAS_SAMPLES
    """Number of samples that are asked."""
    attention: bool = True
    """Measure the attention to the image too."""

    @field_validator("probes")
    @classmethod
    def _possible(cls, probes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        build(probes)
        return probes

    def chosen(self) -> list[Probe]:
        """The probes."""
        return build(self.probes)


class Causes(Section):
    """Change keys and attention separately; what is compared (see ``keygap causes``)."""

    samples: Annotated[int, whole_number(2)] = defaults.CAUSES_SAMPLES
    """Samples that are asked at every point."""
    fit_samples: Annotated[int, whole_number(2)] = defaults.FIT_SAMPLES
    """Samples that maps are fitted to."""
    subjects: list[Text] | None = None
    """Only samples of these subjects."""
    phrasings: list[Text] | None = None
    """Phrasings of the hint, each with ``{answer}``."""
    batch_size: Annotated[int, whole_number(1)] = defaults.CAUSES_BATCH_SIZE
    """Samples in one forward pass."""
    plan: dict[str, Any] = {}
    """What is compared: fields of ``kg.align.Plan`` and their values."""

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


class Choices(Section):
    """Which choices to measure the gap under (see ``keygap choices``); omitted: all."""

    layers: list[str] | None = None
    """``first``, ``middle``, ``last`` or ``mean`` (over all layers of the store)."""
    heads: list[str] | None = None
    """``together`` (concatenated), ``mean`` (of the numbers of all heads) or ``each``."""
    text: list[str] | None = None
    """``question``, ``user`` (question, options and hint) or ``all``."""
    outliers: list[str] | None = None
    """``kept``, ``without_sinks`` or ``without_massive`` (dimensions)."""
    tokens: list[int] | None = None
    """Numbers of image tokens, with as many text tokens."""
    units: list[str] | None = None
    """``sample`` or ``token``: which of them count as independent."""
    spaces: list[str] | None = None
    """``raw``, ``standardised`` or ``pca_50``."""
    estimators: list[str] | None = None
    """Names of kernels for the MMD and of estimators of the JSD."""

    @model_validator(mode="after")
    def _possible(self) -> Choices:
        self.plan()
        return self

    def plan(self) -> ChoicesPlan:
        """The plan of these levels."""
        given = {name: levels for name, levels in dict(self).items() if levels is not None}
        return ChoicesPlan(**given)
