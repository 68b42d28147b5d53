"""A run folder holds results of one model and one benchmark.

A report shows everything in a folder under the model and benchmark of its extraction, so a command
refuses a folder that holds results of something else. An extraction begins in an empty folder, and
needs no such check.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from keygap.benchmarks import SampleSet
from keygap.errors import UserError
from keygap.models import VLM
from keygap.store import Store
from keygap.store.reading import read_json, read_yaml
from keygap.store.results import is_whole
from keygap.store.run import BIAS_SETTINGS, CAUSES_SETTINGS, EXTRACTION, MANIFEST

NAMING = (MANIFEST, EXTRACTION, BIAS_SETTINGS, CAUSES_SETTINGS)  # the model and the benchmark


def agrees(saved: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether settings that were read from YAML have the values that are asked for.

    Args:
        saved: the settings, which may have more.
        asked: the values, in which a tuple is what YAML has as a list.
    """
    plain = yaml.safe_load(yaml.safe_dump(dict(asked)))
    return all(saved.get(name) == value for name, value in plain.items())


def refuse_other(folder: Path, model: str, benchmark: str) -> None:
    """Refuse a folder that holds results of another model or benchmark.

    Args:
        folder: the folder, which need not exist. Damaged files in it are passed over.
        model: the name of the model whose results are to be added.
        benchmark: the name of the benchmark.

    Raises:
        UserError: it does.
    """
    for file in NAMING:
        if not is_whole(folder, file):
            continue
        read = read_json if file == MANIFEST else read_yaml
        known = read(folder / file, "name another folder with --out")
        for what, asked in (("model", model), ("benchmark", benchmark)):
            if known.get(what, asked) != asked:
                raise UserError(
                    f"{folder} holds results of the {what} {known[what]} and not of {asked}: name "
                    "another folder with --out"
                )


def refuse_other_prompt(folder: Path, vlm: VLM) -> None:
    """Refuse a run folder whose vectors were read with other prompts, or in another precision.

    Raises:
        UserError: it is one.
    """
    if not is_whole(folder, EXTRACTION):
        return
    known = read_yaml(folder / EXTRACTION, "name another folder with --out")
    asked = {"dtype": str(vlm.dtype).removeprefix("torch."), "prompt": vlm.prompter.identity}
    for what, value in asked.items():
        if known.get(what, value) != value:
            raise UserError(
                f"{folder} is a run with the {what} {known[what]} and not {value}, and one report "
                "would show both: load the model as its extraction did, or name another folder "
                "with --out"
            )


def refuse_other_extraction(folder: Path, chosen: SampleSet) -> None:
    """Refuse a run folder whose vectors are of other samples.

    Raises:
        UserError: it is one.
    """
    if not (folder / MANIFEST).is_file():
        return
    if list(Store(folder).samples["sample_id"]) != [entry.id for entry in chosen.entries]:
        raise UserError(
            f"{folder} is a run of other samples, and one report would show both: give --samples "
            "and --seed of its extraction, or name another folder with --out"
        )
