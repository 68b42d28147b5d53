"""``kg.causes``: does the gap matter, or the attention that changes with it?

Every point of a plan is measured on the same samples and kept in a file of its own as soon as it is
done, so an interrupted experiment continues with the next point. Maps are fitted, and the layers
that read the image are named, on other samples with other images.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd

from keygap import defaults
from keygap.align.causes.acting import Acting, named_reading, refuse_unsuited
from keygap.align.causes.judging import Judge
from keygap.align.causes.keeping import (
    as_plain,
    claim,
    digest_of,
    point_file,
    read_point,
    write_point,
)
from keygap.align.causes.points import READING, Plan, Point, layer_sets
from keygap.align.causes.tables import (
    FRAME_COLUMNS,
    SAMPLE_COLUMNS,
    CausesTable,
    point_rows,
)
from keygap.arguments import seed_of, whole
from keygap.benchmarks import Benchmark
from keygap.bias.probes.prompts import TWO_HINTS, checked_phrasings
from keygap.errors import UserError
from keygap.models.fingerprint import fingerprint
from keygap.models.vlm import VLM
from keygap.progress import track
from keygap.selfcheck.batches import read_size
from keygap.store.run import CAUSES_POINTS
from keygap.tokens import known_roles

logger = logging.getLogger("keygap")


def causes(
    vlm: VLM,
    source: Benchmark,
    out: str | Path,
    *,
    plan: Plan | None = None,
    samples: int = defaults.CAUSES_SAMPLES,
    fit_samples: int = defaults.FIT_SAMPLES,
    subjects: Sequence[str] | None = None,
    phrasings: Sequence[str] = TWO_HINTS,
    text_roles: Sequence[str] = defaults.TEXT_ROLES,
    batch_size: int = defaults.CAUSES_BATCH_SIZE,
    n_bootstraps: int = defaults.N_BOOTSTRAPS,
    seed: int = 0,
) -> CausesTable:
    """Change a model's keys and attention separately and together, and measure what follows.

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
            are too few samples, an argument is not possible, or the folder holds another
            experiment.
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
        self.vlm, self.out, self.plan, self.seed = vlm, out, plan, seed_of(seed)
        self.phrasings, self.roles = list(phrasings), known_roles(roles)
        self.n_bootstraps = whole(n_bootstraps, "n_bootstraps", 1)
        self.batch_size = read_size(vlm, batch_size)
        wanted = whole(samples, "samples", 2) + whole(fit_samples, "fit_samples", 2)
        chosen = source.choose(wanted, self.seed, subjects)
        self.judged, rest = chosen.apart(samples)
        self.fitting = rest[:fit_samples]
        if len(self.fitting) < 2:
            raise UserError(
                f"of {len(chosen)} samples of {source.name}, {len(self.fitting)} show other images "
                "than those that are judged: none are left to fit maps on, so ask for fewer"
            )
        self.notes: list[str] = []
        self.acting = Acting(vlm, self.fitting, self.roles, self.batch_size, self.seed)

    def run(self) -> CausesTable:
        """Measure every point that is not there yet, and make the table."""
        folder = self.out / CAUSES_POINTS
        claim(folder, self.identity, "an experiment")
        reading = self._reading(folder)
        attending = [each.index for each in self.vlm.layers if each.calls_function]
        sets = self.acting.sets = layer_sets(attending, reading)
        points = self.plan.points([name for name in self.plan.layers if name in sets])
        self.acting.plan(each for each in points if not point_file(folder, each).is_file())
        judge = self._judge(attending, reading)
        found: dict[Point, dict[str, Any]] = {}
        for point in track(points, len(points), f"causes of {self.vlm.name}"):
            file, probes = point_file(folder, point), sorted(self.plan.probes_at(point))
            kept = read_point(file) if file.is_file() else None
            if kept is not None and kept.get("probes", []) == probes:
                if point.kind == "none":  # the yardsticks of the other points come from it
                    judge.measure(nullcontext())
                found[point] = kept
                continue
            try:
                judged = judge.measure(self.acting.steered(point), probes)
            except UserError as reason:  # the other points stand without it
                if point.kind == "none":
                    raise
                self.notes.append(f"{point.id} is not measured: {reason}")
                continue
            found[point] = as_plain(judged) | {"probes": probes}
            write_point(file, found[point])
        table = self._table(found, judge, reading)
        table.save(self.out)
        return table

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the numbers of every point, as plain values.

        Which points there are, and which probes are asked, is not among it, so that a plan can be
        extended. A point at which other probes were asked is measured again.
        """
        vlm, benchmark = self.vlm, self.judged.benchmark
        return {
            "model": vlm.name,
            "revision": vlm.revision,
            "fingerprint": fingerprint(vlm.model),
            "dtype": str(vlm.dtype).removeprefix("torch."),
            "prompt": vlm.prompter.identity,
            "benchmark": benchmark.name,
            "split": benchmark.split,
            "data": benchmark.data,
            "language": benchmark.language,
            "seed": self.seed,
            "samples": len(self.judged),
            "fit_samples": len(self.fitting),
            "sample_ids": digest_of([each.id for each in self.judged.entries]),
            "fit_ids": digest_of([each.id for each in self.fitting.entries]),
            "phrasings": self.phrasings,
            "text_roles": self.roles,
            "n_bootstraps": self.n_bootstraps,
            "site": self.plan.sites[0],
            "has_reading_layers": READING in self.plan.layers,
        }

    def _reading(self, folder: Path) -> list[int]:
        """The layers that read the image, named on samples that are not judged."""
        if READING not in self.plan.layers:
            return []
        named = named_reading(self.vlm, self.fitting, self.out, folder, self.batch_size)
        if not named:
            self.notes.append("no layer is named as reading the image, so that set is left out")
        return named

    def _judge(self, attending: Sequence[int], reading: Sequence[int]) -> Judge:
        shared = self.vlm.shared  # layers without keys of their own
        own = [index for index in attending if index not in shared]
        owners = {shared.get(index, index) for index in reading}
        middle, last = attending[len(attending) // 2], attending[-1]
        return Judge(
            self.vlm,
            self.judged,
            self.phrasings,
            site=self.plan.sites[0],
            gap_layers=sorted({own[0], own[len(own) // 2], own[-1], *owners}),
            state_layers=sorted({middle, last}),
            reading=reading or attending,
            roles=self.roles,
            batch_size=self.batch_size,
            n_bootstraps=self.n_bootstraps,
        )

    def _table(
        self, found: Mapping[Point, Mapping[str, Any]], judge: Judge, reading: Sequence[int]
    ) -> CausesTable:
        frames, rows = [], []
        place = {"model": self.vlm.name, "benchmark": self.judged.name}
        for point, own in found.items():
            if bad := own["left_out"]:
                self.notes.append(
                    f"{point.id}: {len(bad)} answers left out: {next(iter(bad.values()))}"
                )
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
            "layer_sets": {name: list(own) for name, own in self.acting.sets.items()},
            "left_out": dict(judge.left_out),
            "notes": self.notes,
        }
        for note in self.notes:
            logger.info("%s: %s", self.vlm.name, note)
        return CausesTable(
            pd.concat(frames, ignore_index=True), pd.concat(rows, ignore_index=True), settings
        )


def _refuse(vlm: VLM) -> None:
    refuse_unsuited(vlm, "experiment")
    for layer in vlm.layers:
        if layer.attention is not None and not layer.calls_function:
            raise UserError(
                f"layer {layer.index} of {vlm.name} ({layer.kind}) computes attention by itself: "
                "attention to the image cannot be held there"
            )
