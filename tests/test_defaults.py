"""The API, the command line and the experiment file have the same default for every option."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

import keygap as kg
from keygap import cli, defaults
from keygap.benchmarks.sample_set import UNSET
from keygap.contrasts import CONTRASTS
from keygap.study.experiment import Engine, Experiment, Extraction, Measurement, Projection

NONE = inspect.Parameter.empty
OUTPUT = {"as_json", "quiet", "verbose"}  # what every command has: how it prints
WHEN_UNSET = {"samples": 200, "seed": 0}  # what a benchmark chooses if the caller says nothing


def plain(name: str, value: Any) -> Any:
    """A default in the form of the API: a command lists with commas, a schema in lists."""
    if value is UNSET:
        return WHEN_UNSET[name]
    if name in ("layers", "sites", "text_roles", "contrasts"):
        return tuple(value.split(",") if isinstance(value, str) else value)
    return value


def of_function(function: Callable[..., Any]) -> dict[str, Any]:
    """The defaults of the parameters that have one other than None."""
    found = inspect.signature(function).parameters.values()
    return {p.name: plain(p.name, p.default) for p in found if p.default not in (NONE, None)}


def of_schema(section: type[BaseModel]) -> dict[str, Any]:
    return {name: plain(name, value) for name, value in section().model_dump().items()}


API = {
    "extract": of_function(kg.extract),
    "answer": of_function(kg.answer),
    "measure": of_function(kg.measure),
    "project": of_function(kg.project),
}
SEED = {"seed": Experiment.model_fields["seed"].default}


@pytest.mark.parametrize(
    ("function", "command", "section"),
    [
        ("extract", cli.extract, Extraction),
        ("answer", None, Extraction),
        ("measure", cli.measure, Measurement),
        ("project", cli.project, Projection),
    ],
)
def test_an_option_has_one_default(function, command, section):
    api = API[function]
    schema = of_schema(section) | SEED
    shared = (api.keys() & schema.keys()) - ({"batch_size"} if function == "answer" else set())
    assert {name: api[name] for name in shared} == {name: schema[name] for name in shared}
    if command is not None:
        given = of_function(command)
        shared = api.keys() & given.keys()
        assert {name: api[name] for name in shared} == {name: given[name] for name in shared}


def test_every_option_of_the_schema_is_one_of_the_api():
    """A renamed parameter would otherwise drop out of the comparison above."""
    assert of_schema(Extraction).keys() <= API["extract"].keys()
    assert {"samples", "batch_size", "seed"} <= API["answer"].keys()
    assert of_schema(Measurement).keys() <= inspect.signature(kg.measure).parameters.keys()
    assert of_schema(Projection).keys() <= API["project"].keys()
    own = ("benchmark", "captions", "dtype", "trust_remote_code")  # of the benchmark, of kg.load
    assert {*of_function(cli.extract)} - {*own} - OUTPUT <= API["extract"].keys()
    assert of_function(cli.measure).keys() - OUTPUT <= API["measure"].keys()
    assert of_function(cli.project).keys() - OUTPUT <= API["project"].keys()


def test_answers_are_read_in_batches_of_the_size_with_which_extraction_begins():
    assert API["answer"]["batch_size"] == defaults.first_batch(Extraction().batch_size) == 8


def test_the_options_of_an_engine_are_the_same_everywhere():
    names = {"engine", "workers", "gpus_per_worker"}
    assert Engine().options().keys() == names
    assert Engine().name == API["extract"]["engine"] == API["measure"]["engine"]
    for command in (kg.extract, cli.extract, cli.run):
        assert names <= inspect.signature(command).parameters.keys()


def test_the_defaults_are_those_of_the_documentation():
    assert API["extract"]["tokens"] == 64
    assert API["extract"] | API["measure"] | API["project"] == {
        "layers": ("first", "middle", "last"),
        "sites": ("k_proj",),
        "samples": 200,
        "batch_size": "auto",
        "thumbnails": True,
        "seed": 0,
        "text_roles": ("question",),
        "tokens_per_sample": 64,
        "n_permutations": 1000,
        "n_bootstraps": 1000,
        "tokens": 1000,
        "perplexity": 30.0,
        "engine": "local",
        "resume": False,
    }


def test_the_models_options_are_those_of_load():
    load = of_function(kg.load)
    given = of_function(cli.ModelOptions)
    assert given == {name: load[name] for name in given}
    assert (
        inspect.signature(cli.ModelOptions).parameters.keys()
        <= inspect.signature(kg.load).parameters.keys()
    )


def test_a_measurement_and_an_experiment_have_all_registered_contrasts():
    assert inspect.signature(kg.measure).parameters["contrasts"].default is None  # all
    assert Measurement().contrasts == list(CONTRASTS)


def test_choosing_without_a_number_chooses_the_default(easy_vqa):
    assert len(easy_vqa.choose()) == defaults.SAMPLES == WHEN_UNSET["samples"]
