"""An experiment that repeats runs, written from what they recorded, and what it cannot say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keygap.contrasts import CONTRASTS
from keygap.display import counted
from keygap.reporting.run import Run
from keygap.store.results import is_recorded
from keygap.store.run import ALIGNMENT, ATTENTION, BIAS, CHOICES, LINK, READING

CAPTIONS = "+captions"  # ends the name of a benchmark with captions, which is no name to run
_EXTRACTION = ("samples", "layers", "sites", "batch_size", "tokens", "thumbnails")
_MEASUREMENT = ("text_roles", "tokens_per_sample", "n_permutations", "n_bootstraps")
_BESIDE = (BIAS, ATTENTION, LINK, READING, ALIGNMENT, CHOICES)  # tables with settings of their own


def plan_of(runs: Sequence[Run]) -> dict[str, Any]:
    """An experiment that makes the runs again, as far as ``missing_in`` does not say otherwise.

    Settings are those of the first run.
    """
    first = runs[0].manifest
    asked = runs[0].table.settings
    extraction = {
        name: first[name]
        for name in _EXTRACTION
        if name in first and (first[name] is not None or name == "samples")  # null: all samples
    }
    known = [item["name"] for item in asked["contrasts"] if item["name"] in CONTRASTS]
    return {
        "name": "again",
        "models": _distinct(_model(run.manifest) for run in runs),
        "benchmarks": _distinct(_benchmark(run.manifest) for run in runs),
        "seed": first.get("seed", 0),
        "extraction": extraction,
        "measurement": {**{name: asked[name] for name in _MEASUREMENT}, "contrasts": known},
    }


def missing_in(runs: Sequence[Run]) -> list[str]:
    """What the experiment of some runs cannot say, a line for each; empty if it says everything."""
    return [*_of_settings(runs), *_of_pairs(runs), *_of_single(runs)]


def _of_settings(runs: Sequence[Run]) -> list[str]:
    """What not all runs share."""
    asked = [
        {name: run.manifest.get(name) for name in ("seed", *_EXTRACTION)}
        | {name: run.table.settings[name] for name in _MEASUREMENT}
        | {"contrasts": [item["name"] for item in run.table.settings["contrasts"]]}
        for run in runs
    ]
    differ = [name for name in asked[0] if any(one[name] != asked[0][name] for one in asked)]
    if not differ:
        return []
    return [f"the runs differ in {', '.join(differ)}: the values are those of {_named(runs[0])}"]


def _of_pairs(runs: Sequence[Run]) -> list[str]:
    """What keeps the runs from being every model on every benchmark, each named once."""
    plan = plan_of(runs)
    lines = []
    for what, key in (("model", "models"), ("benchmark", "benchmarks")):
        names = [item["name"] for item in plan[key]]
        twice = dict.fromkeys(name for name in names if names.count(name) > 1)
        lines += [
            f"the {what} {name} was run with different settings: make an experiment of each"
            for name in twice
        ]
    pairs = {(run.manifest["model"], run.manifest["benchmark"]) for run in runs}
    crossed = len(plan["models"]) * len(plan["benchmarks"])
    if not lines and crossed != len(pairs):
        lines.append(
            f"the experiment runs every model on every benchmark, {counted(crossed, 'run')}: the "
            f"report has only {', '.join(dict.fromkeys(map(_named, runs)))}"
        )
    return lines


def _of_single(runs: Sequence[Run]) -> list[str]:
    """What an experiment has no key for, by run."""
    lines: dict[str, list[str]] = {}
    for run in runs:
        for line in _not_said(run):
            lines.setdefault(line, []).append(_named(run))
    return [f"{line} ({', '.join(dict.fromkeys(where))})" for line, where in lines.items()]


def _not_said(run: Run) -> list[str]:
    manifest, asked = run.manifest, run.table.settings
    lines = []
    if str(manifest["benchmark"]).endswith(CAPTIONS):
        lines.append("captions in the prompts, as keygap extract --captions writes them")
    if applied := manifest.get("interventions"):
        lines.append(counted(len(applied), "intervention") + " on the model")
    seed = manifest.get("seed", 0)
    if (own := asked.get("seed", seed)) != seed:
        lines.append(f"the seed of the measurement, {own}, which is not that of the extraction")
    if names := [item["name"] for item in asked["contrasts"] if item["name"] not in CONTRASTS]:
        lines.append(
            "contrasts of your own, because a run does not record their selections: "
            + ", ".join(names)
        )
    if tables := [name for name in _BESIDE if is_recorded(run.root, name)]:
        lines.append(f"what was asked for these tables: {', '.join(tables)}")
    return lines


def _named(run: Run) -> str:
    return f"{run.model} on {run.manifest['benchmark']}"


def _model(manifest: Mapping[str, Any]) -> dict[str, Any]:
    prompt = manifest.get("prompt") or {}
    return {
        "name": manifest["model"],
        "dtype": manifest.get("dtype"),
        "revision": manifest.get("revision"),
        "system": prompt.get("system"),
        "template_arguments": prompt.get("template_arguments") or None,
    }


def _benchmark(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": str(manifest["benchmark"]).removesuffix(CAPTIONS),
        **{name: manifest.get(name) for name in ("split", "data", "language")},
    }


def _distinct(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Dictionaries without repetition, and without what is None."""
    kept: list[dict[str, Any]] = []
    for item in items:
        given = {name: value for name, value in item.items() if value is not None}
        if given not in kept:
            kept.append(given)
    return kept
