"""``kg.align.causes``: does the gap matter, or the attention that changes with it?

Every point of a plan is measured on the same samples and kept in a file of its own as soon as it is
done, so an interrupted experiment continues with the next point. Maps are fitted, and the layers
that read the image are named, on other samples with other images.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from keygap import defaults
from keygap.align.baselines import build, settings_of
from keygap.align.causes.judging import Judge, Judged
from keygap.align.causes.points import BY_LAYER, READING, Plan, Point, layer_sets
from keygap.align.causes.tables import (
    FRAME_COLUMNS,
    SAMPLE_COLUMNS,
    CausesTable,
    point_rows,
)
from keygap.align.fitting import fit, fit_layer_by_layer
from keygap.align.map import Map
from keygap.align.steering import steer
from keygap.align.vectors import FitVectors, read_vectors
from keygap.arguments import whole
from keygap.benchmarks import Benchmark
from keygap.bias.probes.prompts import HINTS, checked_phrasings
from keygap.bias.reading import reading_layers
from keygap.errors import UserError
from keygap.models.fingerprint import fingerprint
from keygap.models.vlm import VLM
from keygap.progress import track
from keygap.selfcheck.batches import read_size
from keygap.store.files import write_bytes
from keygap.store.reading import read_json
from keygap.store.run import CAUSES_POINTS

logger = logging.getLogger("keygap")

READING_SAMPLES = 80  # of those that maps are fitted on
PHRASINGS = HINTS[:2]
IDENTITY = "identity.json"
LAYERS = "reading_layers.json"
OTHER = "name another folder, or remove this one"


def causes(
    vlm: VLM,
    source: Benchmark,
    out: str | Path,
    *,
    plan: Plan | None = None,
    samples: int = defaults.CAUSES_SAMPLES,
    fit_samples: int = defaults.FIT_SAMPLES,
    subjects: Sequence[str] | None = None,
    phrasings: Sequence[str] = PHRASINGS,
    text_roles: Sequence[str] = defaults.TEXT_ROLES,
    batch_size: int = defaults.CAUSES_BATCH_SIZE,
    n_bootstraps: int = defaults.N_BOOTSTRAPS,
    seed: int = 0,
) -> CausesTable:
    """Steer a model's keys and its attention, apart and together, and measure what follows.

    Args:
        vlm: the model, without interventions.
        source: a benchmark whose questions have options or a closed set of answers.
        out: the folder for the results. If it holds a part of the same experiment, that is kept.
        plan: what is compared.
        samples: how many are judged.
        fit_samples: how many others, with other images, maps are fitted on.
        subjects: of the samples; None means all.
        phrasings: of the wrong hint, each with ``{answer}`` once.
        text_roles: what counts as text.
        batch_size: samples in one forward pass.
        n_bootstraps: resamplings of whole samples behind intervals.
        seed: of the choice of samples and of all draws.

    Returns:
        The table, which is saved in the folder too.

    Raises:
        UserError: the model is steered already, its image keys are in layers of their own, there
            are too few samples, or the folder holds another experiment.
    """
    experiment = _Experiment(
        vlm, source, Path(out), plan or Plan(), samples, fit_samples, subjects,
        checked_phrasings(phrasings), text_roles, batch_size, n_bootstraps, seed,
    )  # fmt: skip
    return experiment.run()


class _Experiment:
    """One model, one benchmark, one folder; arguments as ``causes``."""

    def __init__(
        self,
        vlm: VLM,
        source: Benchmark,
        out: Path,
        plan: Plan,
        samples: int,
        fit_samples: int,
        subjects: Sequence[str] | None,
        phrasings: Sequence[str],
        roles: Sequence[str],
        batch_size: int,
        n_bootstraps: int,
        seed: int,
    ) -> None:
        _refuse(vlm)
        self.vlm, self.out, self.plan, self.seed = vlm, out, plan, seed
        self.phrasings, self.roles = list(phrasings), list(roles)
        self.n_bootstraps = n_bootstraps
        self.batch_size = read_size(vlm, batch_size)
        wanted = whole(samples, "samples", 2) + whole(fit_samples, "fit_samples", 2)
        chosen = source.choose(wanted, seed, subjects)
        self.judged, rest = chosen.apart(samples)
        self.fitting = rest[:fit_samples]
        if len(self.fitting) < 2:
            raise UserError(
                f"{source.name} has {len(chosen)} samples of {len(chosen) - len(rest)} and more "
                "images: none are left to fit maps on, so ask for fewer samples"
            )
        self.notes: list[str] = []
        self._vectors: dict[str, FitVectors] = {}
        self._maps: dict[tuple[str, str, int], Map] = {}

    def run(self) -> CausesTable:
        """Measure every point that is not there yet, and make the table."""
        folder = self.out / CAUSES_POINTS
        self._claim(folder)
        reading = self._reading(folder)
        attending = [each.index for each in self.vlm.layers if each.calls_function]
        self.sets = layer_sets(attending, reading)
        points = self.plan.points([name for name in self.plan.layers if name in self.sets])
        judge = self._judge(attending, reading)
        found: dict[Point, dict[str, Any]] = {}
        for point in track(points, len(points), f"causes of {self.vlm.name}"):
            file = folder / f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', point.id)}.json"
            if file.is_file() and point.kind != "none":
                found[point] = read_json(file, f"remove {file} and run again", None)
                continue
            try:
                judged = judge.measure(self._steered(point), self.plan.probes_at(point))
            except UserError as reason:  # the other points stand without it
                if point.kind == "none":
                    raise
                self.notes.append(f"{point.id} is not measured: {reason}")
                continue
            found[point] = _as_plain(judged)
            write_bytes(file, json.dumps(found[point]).encode())
        table = self._table(found, judge, reading)
        table.save(self.out)
        return table

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the numbers of every point, as plain values.

        Which points there are is not among it, so that a plan can be extended.
        """
        vlm, benchmark = self.vlm, self.judged.benchmark
        return {
            "model": vlm.name,
            "revision": vlm.revision,
            "fingerprint": fingerprint(vlm.model),
            "dtype": str(vlm.dtype).removeprefix("torch."),
            "benchmark": benchmark.name,
            "split": benchmark.split,
            "seed": self.seed,
            "samples": len(self.judged),
            "fit_samples": len(self.fitting),
            "sample_ids": _digest([each.id for each in self.judged.entries]),
            "fit_ids": _digest([each.id for each in self.fitting.entries]),
            "phrasings": self.phrasings,
            "text_roles": self.roles,
            "n_bootstraps": self.n_bootstraps,
            "site": self.plan.sites[0],
            "has_reading_layers": READING in self.plan.layers,
        }

    def _claim(self, folder: Path) -> None:
        """Record what the folder is for, or refuse one that is for something else."""
        mine = json.loads(json.dumps(self.identity))
        file = folder / IDENTITY
        if file.is_file():
            other = read_json(file, OTHER, None)
            changed = [name for name, value in mine.items() if other.get(name) != value]
            if changed:
                raise UserError(
                    f"{folder} holds an experiment with another {changed[0]} "
                    f"({other.get(changed[0])}): {OTHER}"
                )
        else:
            write_bytes(file, json.dumps(mine, indent=1).encode())

    def _reading(self, folder: Path) -> list[int]:
        """The layers that read the image, named on samples that are not judged."""
        if READING not in self.plan.layers:
            return []
        file = folder / LAYERS
        if not file.is_file():
            table = reading_layers(
                self.vlm, self.fitting[:READING_SAMPLES], batch_size=self.batch_size
            )
            table.save(self.out)
            logger.info("%s: %s", self.vlm.name, table.summary())
            write_bytes(file, json.dumps({"layers": table.named}).encode())
        named = read_json(file, f"remove {file} and run again", None)["layers"]
        if not named:
            self.notes.append("no layer reads the image by itself, so that set is left out")
        return list(named)

    def _judge(self, attending: Sequence[int], reading: Sequence[int]) -> Judge:
        middle, last = attending[len(attending) // 2], attending[-1]
        return Judge(
            self.vlm,
            self.judged,
            self.phrasings,
            site=self.plan.sites[0],
            gap_layers=sorted({attending[0], middle, last, *reading}),
            state_layers=sorted({middle, last}),
            reading=reading or attending,
            roles=self.roles,
            batch_size=self.batch_size,
            n_bootstraps=self.n_bootstraps,
        )

    def _steered(self, point: Point) -> AbstractContextManager[None]:
        """The intervention of a point."""
        if point.kind == "none":
            return nullcontext()
        if point.baseline is None:
            return steer(
                self.vlm,
                self._map(point.map_key),
                layers=self.sets[point.layers],
                strength=point.strength,
                mass=point.mass,  # type: ignore[arg-type]
            )
        settings = dict(point.baseline.settings)
        known = settings_of(point.baseline.of)
        if "layers" in known:
            settings["layers"] = self.sets[point.layers]
        if "source" in known:  # from late in the stack to early in it
            attending = self.sets["all"]
            settings["source"] = attending[2 * len(attending) // 3]
            settings["target"] = attending[len(attending) // 6]
        return self.vlm.interventions.applied(build(point.baseline.of, **settings))

    def _map(self, key: tuple[str, str, int]) -> Map:
        if key not in self._maps:
            name, site, draw = key
            kind, _, how = name.partition(", ")
            options: dict[str, Any] = {"site": site, "text_roles": self.roles, "draw": draw}
            if how == BY_LAYER:
                make = partial(fit_layer_by_layer, self.vlm, kind, self.fitting)
                options["batch_size"] = self.batch_size
            else:
                make = partial(fit, kind, self._read(site))
                options["seed"] = self.seed
            with torch.inference_mode():
                self._maps[key] = make(**options)
        return self._maps[key]

    def _read(self, site: str) -> FitVectors:
        if site not in self._vectors:
            self._vectors[site] = read_vectors(
                self.vlm, self.fitting, sites=[site], batch_size=self.batch_size
            )
        return self._vectors[site]

    def _table(
        self, found: Mapping[Point, Mapping[str, Any]], judge: Judge, reading: Sequence[int]
    ) -> CausesTable:
        frames, rows = [], []
        place = {"model": self.vlm.name, "benchmark": self.judged.name}
        for point, own in found.items():
            samples = pd.DataFrame(own["samples"]).assign(point=point.id)[list(SAMPLE_COLUMNS)]
            described = {**place, **point.columns()}
            frames.append(
                point_rows(samples, described, n_bootstraps=self.n_bootstraps, seed=self.seed)
            )
            further = pd.DataFrame(own["rows"]).assign(**described)
            frames.append(further[list(FRAME_COLUMNS)])
            rows.append(samples)
        settings = {
            **self.identity,
            "plan": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in vars(self.plan).items()
            },
            "reading_layers": list(reading),
            "layer_sets": {name: list(own) for name, own in self.sets.items()},
            "left_out": dict(judge.left_out),
            "notes": self.notes,
        }
        for note in self.notes:
            logger.info("%s: %s", self.vlm.name, note)
        return CausesTable(
            pd.concat(frames, ignore_index=True), pd.concat(rows, ignore_index=True), settings
        )


def _refuse(vlm: VLM) -> None:
    if vlm.interventions.identity:
        raise UserError(
            f"{vlm.name} is steered already: leave the block, the experiment steers by itself"
        )
    if vlm.fusion == "cross-attention":
        raise UserError(
            f"the image keys of {vlm.name} are in cross-attention layers of their own, whose "
            "attention to the image is always 1: the experiment needs image and text in one layer"
        )
    for layer in vlm.layers:
        if layer.attention is not None and not layer.calls_function:
            raise UserError(
                f"layer {layer.index} of {vlm.name} ({layer.kind}) computes attention by itself: "
                "attention to the image cannot be held there"
            )


def _as_plain(judged: Judged) -> dict[str, Any]:
    """A point's results as JSON values."""
    return {
        "samples": json.loads(judged.samples.to_json(orient="records", double_precision=12)),
        "rows": json.loads(judged.rows.to_json(orient="records", double_precision=12)),
        "left_out": judged.left_out,
    }


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:16]
