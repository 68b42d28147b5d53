"""Measures a model under one intervention: answers, attention, the gap, and what images tell.

Everything is measured on the same samples under every intervention, and everything that defines the
measures is fixed on the unmodified model: the standardisation and the bandwidths of the gap, the
tokens that are compared, and the folds of the linear probe.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from keygap import gap
from keygap.align.causes.readout import readout
from keygap.align.causes.tables import NO_LAYER, SAMPLE_COLUMNS
from keygap.align.causes.watching import Chosen, Seen, Watch
from keygap.benchmarks import Sample, SampleSet
from keygap.benchmarks.scoring import normalised
from keygap.bias.candidates import candidates_of, why_not_scored
from keygap.bias.condition import Samples, Unfit
from keygap.bias.intervals import Interval, mean
from keygap.bias.probe import probe, row_of
from keygap.bias.probes.hint import hinted
from keygap.bias.probes.prompts import SEPARATORS
from keygap.bias.scoring import Prepared, Scored, prepare, score_prepared
from keygap.bias.table import ALL
from keygap.capture.batches import labelled, opened
from keygap.errors import UserError
from keygap.gap.core.inputs import two_sides
from keygap.gap.core.kernels import grid_around
from keygap.gap.core.median import median_distance
from keygap.models.vlm import VLM


@dataclass(frozen=True)
class Asked:
    """Samples of one batch, their variants, and the tokens that are watched.

    Attributes:
        samples: without a hint.
        plain: what is scored without a hint.
        hinted: what is scored with a wrong hint, by phrasing.
        suggested: the answer that the hint names, by sample.
        chosen: the watched tokens of each group of ``plain``.
    """

    samples: list[Sample]
    plain: Prepared
    hinted: dict[str, Prepared]
    suggested: dict[str, str]
    chosen: list[Chosen]


@dataclass(frozen=True)
class Yardstick:
    """How the gap of a layer is measured at every point.

    Attributes:
        centre: mean of each dimension over image and text together, on the model as it is.
        scale: standard deviation of each dimension, 1 for a constant one.
        bandwidths: of the Gaussian kernel.
    """

    centre: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    bandwidths: tuple[float, ...]


@dataclass(frozen=True)
class Judged:
    """What was measured at one point.

    Attributes:
        samples: rows of ``SAMPLE_COLUMNS`` without ``point``.
        rows: further measures: measure, layer, variant, value, ci_low, ci_high, n.
        left_out: reason by sample.
    """

    samples: pd.DataFrame
    rows: pd.DataFrame
    left_out: dict[str, str]


class Judge:
    """Measures a model under interventions, on the same samples.

    Args:
        vlm: the model.
        judged: the samples.
        phrasings: of the wrong hint.
        site: of the keys whose gap is measured.
        gap_layers: where it is measured.
        state_layers: where a linear probe reads the image tokens.
        reading: the layers over which a sample's attention and gap are averaged; without any,
            attention is not measured.
        roles: what counts as text.
        batch_size: samples in one pass.
        n_bootstraps: resamplings behind intervals.

    Raises:
        UserError: no sample has a published answer among its candidates, and a wrong one to hint.
    """

    def __init__(
        self,
        vlm: VLM,
        judged: SampleSet,
        phrasings: Sequence[str],
        *,
        site: str,
        gap_layers: Sequence[int],
        state_layers: Sequence[int],
        reading: Sequence[int],
        roles: Sequence[str],
        batch_size: int,
        n_bootstraps: int,
    ) -> None:
        self.vlm, self.judged, self.phrasings = vlm, judged, tuple(phrasings)
        self.site, self.gap_layers = site, tuple(gap_layers)
        self.state_layers, self.reading = tuple(state_layers), tuple(reading)
        self.roles, self.n_bootstraps = tuple(roles), n_bootstraps
        self.batch_size = batch_size
        self.left_out: dict[str, str] = {}
        self.batches = [
            asked for part in judged.batches(batch_size) if (asked := self._asked(part)) is not None
        ]
        if not self.batches:
            reason = next(iter(self.left_out.values()), "there are none")
            raise UserError(f"no sample of {judged.name} can be judged: {reason}")
        self._yardsticks: dict[int, Yardstick] = {}

    @property
    def n_samples(self) -> int:
        """How many samples are judged."""
        return sum(len(each.samples) for each in self.batches)

    def measure(self, steered: AbstractContextManager[None], probes: Sequence[str] = ()) -> Judged:
        """Measure the model inside a block. The first call is the model as it is.

        Args:
            steered: applies the interventions.
            probes: names of probes that are asked besides the hint.

        Raises:
            UserError: no sample can be scored.
        """
        began = time.perf_counter()
        attending = [each.index for each in self.vlm.layers if each.calls_function]
        places = self.gap_layers, self.state_layers, attending if self.reading else ()
        watch = Watch(self.vlm, self.site, *places)
        rows: list[dict[str, Any]] = []
        left_out: dict[str, str] = {}
        with steered, watch.entered():
            for asked in self.batches:
                rows += self._answers(asked, watch, left_out)
            further = self._probed(probes) if probes else []
        samples = pd.DataFrame(rows)
        if samples.empty:
            reason = next(iter(left_out.values()))
            raise UserError(f"no sample of {self.judged.name} can be scored: {reason}")
        seen = watch.seen
        if not self._yardsticks:
            self._yardsticks = {layer: _yardstick(seen, layer) for layer in self.gap_layers}
        samples = self._with_places(samples, seen)
        found = [*self._gap(seen), *self._attention(seen), *self._readout(seen), *further]
        took = Interval(time.perf_counter() - began, math.nan, math.nan, 1)
        found.append(_row("seconds", NO_LAYER, "", took))
        return Judged(samples, pd.DataFrame(found), left_out)

    def _asked(self, part: SampleSet) -> Asked | None:
        """The samples of a batch that can be judged, and their variants."""
        read, broken = opened(part)
        self.left_out |= broken
        known = Samples(self.judged, self.judged.seed)
        samples: list[Sample] = []
        suggested: dict[str, str] = {}
        variants: dict[str, list[Sample]] = {phrasing: [] for phrasing in self.phrasings}
        for sample in read:
            own = candidates_of(sample, self.judged.benchmark.answers)
            if why := why_not_scored(sample, own, least=2):
                self.left_out[sample.id] = why
            else:
                try:
                    made = [self._hinted(sample, known, text) for text in self.phrasings]
                except Unfit as reason:
                    self.left_out[sample.id] = str(reason)
                    continue
                samples.append(sample)
                for phrasing, variant in zip(self.phrasings, made, strict=True):
                    variants[phrasing].append(variant.sample)
                suggested[sample.id] = str(made[0].suggested)
        samples, batch, refused = labelled(self.vlm, samples)
        self.left_out |= refused
        if batch is None:
            return None
        kept = {sample.id for sample in samples}
        variants = {
            name: [each for each in own if each.id in kept] for name, own in variants.items()
        }
        closed = self.judged.benchmark.answers
        candidates = [candidates_of(sample, closed) for sample in samples]
        plain = prepare(self.vlm, samples, candidates)
        chosen = Chosen.of_passes(self.vlm, plain, self.roles, self.judged.seed)
        ready = {name: prepare(self.vlm, own, candidates) for name, own in variants.items()}
        return Asked(samples, plain, ready, suggested, chosen)

    @staticmethod
    def _hinted(sample: Sample, known: Samples, text: str) -> Any:
        between = SEPARATORS["newline"]
        return hinted(sample, known, text=text, position="after", separator=between, right=False)

    def _answers(
        self, asked: Asked, watch: Watch, left_out: dict[str, str]
    ) -> list[dict[str, Any]]:
        """Rows of the samples of one batch."""
        before: dict[str, Scored] = {}
        for group, chosen in zip(asked.plain.groups, asked.chosen, strict=True):
            with watch.reading(chosen):
                plain, bad = score_prepared(self.vlm, replace(asked.plain, groups=(group,)))
            left_out |= bad
            before |= {each.sample_id: each for each in plain}
        samples = {sample.id: sample for sample in asked.samples}
        rows = []
        for phrasing, ready in asked.hinted.items():
            found, bad = score_prepared(self.vlm, ready)
            left_out |= bad
            rows += [
                self._row(samples[each.sample_id], phrasing, before, each, asked.suggested)
                for each in found
                if each.sample_id in before
            ]
        return rows

    def _row(
        self,
        sample: Sample,
        phrasing: str,
        before: Mapping[str, Scored],
        scored: Scored,
        suggested: Mapping[str, str],
    ) -> dict[str, Any]:
        alone = row_of(sample, before[sample.id], None, None)
        under = row_of(sample, scored, before[sample.id], suggested[sample.id])
        return {
            "sample_id": sample.id,
            "variant": phrasing,
            "correct": alone["correct"],
            "followed": under["followed"],
            "correct_conflict": under["correct"],
            "margin": alone["margin"],
            "hint_margin": under.get("hint_margin", np.nan),
            "hint_effect": under.get("hint_effect", np.nan),
        }

    def _probed(self, probes: Sequence[str]) -> list[dict[str, Any]]:
        """Accuracy, following and margin under the conditions of probes."""
        found = probe(
            self.vlm,
            self.judged,
            probes=probes,
            batch_size=self.batch_size,
            n_bootstraps=self.n_bootstraps,
        ).frame
        rows = []
        for _, row in found[found["variant"].isin(["", ALL])].iterrows():
            for measure in ("accuracy", "followed", "margin"):
                value, low, high = (row[f"{measure}{end}"] for end in ("", "_low", "_high"))
                if not math.isnan(value):
                    where = f"{row['probe']}/{row['condition']}"
                    interval = Interval(value, low, high, int(row["n"]))
                    rows.append(_row(f"probe_{measure}", NO_LAYER, where, interval))
        return rows

    def _with_places(self, samples: pd.DataFrame, seen: Seen) -> pd.DataFrame:
        """Add each sample's attention to the image and gap, means over the reading layers."""
        attention = [np.concatenate(seen.attention[i]) for i in self.reading if seen.attention[i]]
        owners = sorted({self.vlm.shared.get(i, i) for i in self.reading})
        gaps = [self._sample_gaps(seen, i) for i in owners if i in self._yardsticks]
        table = pd.DataFrame(index=seen.ids)
        nothing = np.full(len(table), np.nan)
        table["image_attention"] = np.mean(attention, 0) if attention else nothing
        table["gap"] = np.mean(gaps, 0) if gaps else nothing
        joined = samples.join(table, on="sample_id")
        return joined[[name for name in SAMPLE_COLUMNS if name != "point"]]

    def _sample_gaps(self, seen: Seen, layer: int) -> Float[np.ndarray, " n"]:
        """Distance of each sample's mean image and text vector, in deviations of a dimension."""
        sides = [_scaled(side[layer], self._yardsticks[layer]) for side in (seen.image, seen.text)]
        with np.errstate(invalid="ignore"):
            image, text = (np.nanmean(side, 1) for side in sides)
        return np.sqrt(((image - text) ** 2).mean(-1))

    def _gap(self, seen: Seen) -> list[dict[str, Any]]:
        """MMD squared of image and text by layer, with the frozen kernel."""
        rows = []
        for layer in self.gap_layers:
            yardstick = self._yardsticks[layer]
            x, ids_x = _flat(_scaled(seen.image[layer], yardstick), seen.ids)
            y, ids_y = _flat(_scaled(seen.text[layer], yardstick), seen.ids)
            found = gap.mmd(
                x, y, ids_x, ids_y, bandwidth=yardstick.bandwidths, n_permutations=1, n_bootstraps=1
            )
            interval = Interval(found.mmd2, *found.ci, found.n_samples_x)
            rows.append(_row("mmd_squared", layer, "", interval))
        return rows

    def _attention(self, seen: Seen) -> list[dict[str, Any]]:
        """Share of the last position's attention that the image gets, by layer."""
        rows = []
        ids = np.asarray(seen.ids, dtype=object)
        for layer, parts in sorted(seen.attention.items()):
            found = mean(np.concatenate(parts), ids, self.n_bootstraps, self.judged.seed)
            rows.append(_row("image_attention", layer, "", found))
        return rows

    def _readout(self, seen: Seen) -> list[dict[str, Any]]:
        """Cross-validated accuracy of a linear probe on the image tokens, by subject."""
        known = {
            sample.id: (sample.subject, normalised(str(sample.answer)))
            for asked in self.batches
            for sample in asked.samples
        }
        shown = {each.id: each.image_key or each.id for each in self.judged.entries}
        subjects = np.asarray([known[each][0] for each in seen.ids])
        answers = np.asarray([known[each][1] for each in seen.ids])
        images = np.asarray([shown[each] for each in seen.ids])
        rows = []
        for layer, parts in sorted(seen.states.items()):
            states = np.concatenate(parts)
            for subject in sorted(set(subjects.tolist())):
                own = subjects == subject
                found = readout(states[own], answers[own], images[own], self.judged.seed)
                if found is not None:
                    rows.append(_row("readout", layer, subject, found))
        return rows


def _yardstick(seen: Seen, layer: int) -> Yardstick:
    """Standardisation and bandwidths of a layer, each modality with the same weight."""
    sides = [_flat(np.concatenate(side[layer]), seen.ids) for side in (seen.image, seen.text)]
    if any(len(vectors) < 2 for vectors, _ in sides):
        raise UserError("the samples have no image tokens or no text tokens to compare")
    means = [vectors.mean(0) for vectors, _ in sides]
    centre = np.mean(means, 0)
    variance = np.mean([((vectors - centre) ** 2).mean(0) for vectors, _ in sides], 0)
    scale = np.where(variance > 0, np.sqrt(variance), 1.0)
    (x, ids_x), (y, ids_y) = (((vectors - centre) / scale, ids) for vectors, ids in sides)
    median = median_distance(two_sides(x, y, ids_x, ids_y, None), 0)
    return Yardstick(centre, scale, grid_around(median))


def _scaled(parts: Sequence[np.ndarray], yardstick: Yardstick) -> Float[np.ndarray, "n tokens d"]:
    return (np.concatenate(parts) - yardstick.centre) / yardstick.scale


def _flat(
    vectors: Float[np.ndarray, "n tokens d"], ids: Sequence[str]
) -> tuple[Float[np.ndarray, "m d"], np.ndarray]:
    """The vectors that exist, and the sample of each."""
    exist = ~np.isnan(vectors).any(-1)
    owners = np.repeat(np.asarray(ids, dtype=object)[:, None], vectors.shape[1], 1)
    return vectors[exist], owners[exist]


def _row(measure: str, layer: int, variant: str, found: Interval) -> dict[str, Any]:
    return {
        "measure": measure, "layer": layer, "variant": variant, "value": found.value,
        "ci_low": found.low, "ci_high": found.high, "n": found.n,
    }  # fmt: skip
