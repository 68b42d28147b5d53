"""``kg.reading_layers``: the layers and heads whose attention to the image decides the answer.

How much attention a layer gives the image does not say whether the answer depends on it. So text is
kept from looking at the image at one layer, and the margin of the right answer tells what was lost.
If the same samples named the layers and measured them, effects would be too large. So one half of
the samples names the layers, and the other half tests them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats

from keygap import defaults, gap, random_streams
from keygap.arguments import MOST_RESAMPLINGS, whole
from keygap.benchmarks import Benchmark, Sample, SampleSet
from keygap.benchmarks.sample_set import UNSET, Unset, as_sample_set
from keygap.bias.candidates import candidates_of, why_not_scored
from keygap.bias.scoring import Scored, score
from keygap.bias.table import NO_MARGIN
from keygap.capture.batches import opened
from keygap.display import as_html, between, brief, counted, ranges
from keygap.errors import UserError
from keygap.models.attention_mask import add_bias
from keygap.models.attention_tap import AttentionCall
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.interventions import WHOLE_CALL, Intervention
from keygap.models.positions import Tokens
from keygap.models.vlm import VLM
from keygap.progress import track
from keygap.selfcheck.batches import read_size
from keygap.store import save_results
from keygap.store.run import READING

LEAST_SHARE = 0.1  # of the effect of all layers, from which a layer is named
MIN_SAMPLES = 2  # in each half
COLUMNS = (
    "masked", "layer", "head", "naming_effect", "named", "effect", "ci_low", "ci_high", "share",
    "share_low", "share_high", "p_value", "p_holm", "n_naming", "n_testing",
)  # fmt: skip
Masked = tuple[str, int, int]  # kind of row, layer, head; -1 for all
PLAIN, EVERY, NAMED, OTHERS = "none", "all", "named", "others"


class ReadingMask(Intervention):
    """Keeps text from attending to images at some layers; images still attend to each other.

    Args:
        layers: absolute indices.
        head: of the one query head that is masked; None for all heads.
    """

    name = "mask reading"
    sites = (WHOLE_CALL,)

    def __init__(self, layers: Sequence[int], head: int | None = None) -> None:
        self.layers, self.head = list(layers), head

    def identity(self) -> dict[str, Any]:
        """Name, layers, sites and the head."""
        return {**super().identity(), "head": self.head}

    def attend(
        self, call: AttentionCall, layer: DecoderLayer, queries: Tokens, keys: Tokens
    ) -> Any:
        """Carry out the call without attention of text to images."""
        heads = slice(None) if self.head is None else slice(self.head, self.head + 1)
        if layer.attends == "cross":  # all keys are image features
            output, *others = call.proceed()
            output = output.clone()
            output[:, :, heads] = 0
            return output, *others
        reads = queries.are(("text",))[:, :, None] & keys.are(("image", "video"))[:, None]
        count = 1 if self.head is None else call.query.shape[1]
        bias = call.query.new_zeros(len(reads), count, *reads.shape[1:])
        bias[:, heads] = bias[:, heads].masked_fill(reads[:, None], torch.finfo(bias.dtype).min)
        return add_bias(call, bias, queries.start - keys.start).proceed()


@dataclass(frozen=True)
class ReadingTable:
    """What ``reading_layers`` found.

    Attributes:
        frame: one row per layer that was masked alone (``masked`` is ``layer``), per head
            (``head``), and for the named layers together (``named``), all layers with attention but
            these (``others``) and all of them (``all``). ``naming_effect`` is by how many nats the
            margin of the right answer falls, mean over the naming half. ``effect`` is the same on
            the testing half, with a 95 % interval, and ``share`` its ratio to the effect of
            ``all``. ``p_holm`` is adjusted over layers, and over heads. ``layer`` and ``head`` are
            -1 where a row is about all of them.
        left_out: reason by sample id.
        naming: ids of the samples of the naming half.
        testing: ids of the samples of the testing half.
    """

    frame: pd.DataFrame
    left_out: Mapping[str, str] = field(default_factory=dict)
    naming: tuple[str, ...] = ()
    testing: tuple[str, ...] = ()

    @property
    def named(self) -> list[int]:
        """The layers named on the naming half, ascending."""
        rows = self.frame[(self.frame["masked"] == "layer") & self.frame["named"]]
        return sorted(rows["layer"].tolist())

    def summary(self) -> str:
        """Say in one line which layers read the image, and how much of the effect is theirs."""
        if not self.named:
            return self._why_none()
        rows = self.frame.set_index("masked")
        one, total = rows.loc[NAMED], rows.loc[EVERY]
        share = f", {one['share']:.0%} of what masking all layers loses"
        return (
            f"layers {', '.join(map(str, self.named))} read the image: on the other half of the "
            f"samples, masking them loses {one['effect']:.2f} nats ({one['ci_low']:.2f} to "
            f"{one['ci_high']:.2f}){share if total['effect'] > 0 else ''}"
        )

    def _why_none(self) -> str:
        """Why no layer is named, in one line."""
        total = self.frame.set_index("masked")["naming_effect"][EVERY]
        if total <= 0:
            return (
                "no layer can be named: masking all layers together does not lower the margin of "
                f"the right answer (it loses {total:.2f} nats on the half that names layers), so "
                "no layer has a share of it; the table has the effect of each"
            )
        alone = ranges(self.frame.loc[self.frame["masked"] == "layer", "layer"])
        return (
            f"no layer reads the image by itself: of the layers masked alone ({alone}), none loses "
            f"{LEAST_SHARE:.0%} of what masking all layers loses"
        )

    def __repr__(self) -> str:
        named = f"layers {ranges(self.named)} read the image" if self.named else "no layer named"
        sizes = f"{len(self.naming)} samples name layers, {len(self.testing)} test them"
        return brief(f"ReadingTable({named}; {sizes})")

    def _repr_html_(self) -> str:
        frame = self.frame
        shown = frame[frame["named"] | frame["masked"].isin([EVERY, NAMED, OTHERS])]
        numbers = {"effect": "effect (95 % interval)", "share": "share (95 % interval)"}
        cells = pd.DataFrame({"masked": shown["masked"]})
        for name in ("layer", "head"):
            cells[name] = ["" if index < 0 else str(index) for index in shown[name]]
        for name, low in (("effect", "ci_low"), ("share", "share_low")):
            ends = shown[[name, low, low.replace("low", "high")]].to_numpy(float)
            cells[numbers[name]] = [between(*row) for row in ends]
        cells["p_holm"] = shown["p_holm"]
        caption = (
            "Layers whose attention to the image decides the answer. effect: by how many nats the "
            "margin of the right answer falls when text may not attend to the image there, mean "
            f"over {len(self.testing)} samples that did not name the layers ({len(self.naming)} "
            "others did), with bootstrap intervals; share: of the effect of all layers. .frame "
            "has the layers that were not named too."
        )
        left = [f"{name}: left out: {why}" for name, why in self.left_out.items()]
        return as_html(caption, cells, (self.summary(), *left))

    def save(self, folder: str | Path) -> None:
        """Write ``reading.csv``.

        Args:
            folder: the run folder, or any other.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        save_results(folder, {READING: self.frame.to_csv(index=False)})


def reading_layers(
    vlm: VLM,
    source: Benchmark | SampleSet,
    *,
    samples: int | Unset | None = UNSET,
    layers: Sequence[str | int] = ("all",),
    heads: bool = False,
    batch_size: int = defaults.BATCH_SIZE,
    n_bootstraps: int = defaults.N_BOOTSTRAPS,
    seed: int | Unset = UNSET,
) -> ReadingTable:
    """Name the layers whose attention to the image decides the answer, and test them.

    A layer is named if masking it alone loses at least a tenth of what masking all layers loses,
    also where only some of them are masked alone.
    Where two layers read the same, neither is missed alone: compare the rows ``named`` and
    ``others``. Costs one pass over the samples for each layer and four more; with ``heads`` also
    one for each head of the named layers.

    Args:
        vlm: the model. Interventions that are applied to it stay.
        source: a benchmark or a sample set; questions need options or a closed set of answers.
        samples: how many to choose from a benchmark; None means all. Default: 200.
        layers: those that are masked alone: ``first``, ``middle``, ``last``, ``all`` and absolute
            indices, mixed.
        heads: whether the heads of the named layers are masked one by one, too.
        batch_size: samples in one forward pass.
        n_bootstraps: resamplings of samples behind the intervals.
        seed: of the choice of samples and of the halves. Default: 0.

    Returns:
        One row per layer or head that was masked alone, and for named layers, others and all.

    Raises:
        UserError: an unknown layer, or fewer than two samples that can be scored in one of the
            halves. Samples of one image (``image_key``) are in the same half.
    """
    n_bootstraps = whole(n_bootstraps, "n_bootstraps", 1, MOST_RESAMPLINGS)
    chosen = as_sample_set(source, samples, seed)
    indices = vlm.layer_indices(layers, with_shared=True)
    every = vlm.layer_indices(["all"], with_shared=True)
    reader = _Reader(vlm, chosen, batch_size)
    alone: dict[Masked, Intervention | None] = {(PLAIN, -1, -1): None}
    alone[EVERY, -1, -1] = ReadingMask(every)
    alone |= {("layer", index, -1): ReadingMask([index]) for index in indices}
    reader.read(alone)
    is_naming = _in_first_half(chosen, reader.ids)
    naming, _ = _places(reader.ids, is_naming, reader.left_out)
    named = _named(reader.effects(), indices, naming)
    together: dict[Masked, Intervention | None] = {}
    if named:
        together[NAMED, -1, -1] = ReadingMask(named)
    if others := sorted(set(every) - set(named)):
        together[OTHERS, -1, -1] = ReadingMask(others)
    for index in named if heads else ():
        for head in range(vlm.layers[index].heads):
            together["head", index, head] = ReadingMask([index], head)
    reader.read(together)
    ids = np.asarray(reader.ids)
    halves = _places(reader.ids, is_naming, reader.left_out)
    frame = _frame_of(reader.effects(), named, halves, n_bootstraps, chosen.seed)
    return ReadingTable(frame, reader.left_out, *(tuple(ids[half].tolist()) for half in halves))


class _Reader:
    """Margins of the right answer under masks, for the samples that can be scored."""

    def __init__(self, vlm: VLM, chosen: SampleSet, batch_size: int) -> None:
        self.vlm, self.chosen = vlm, chosen
        self.batches = chosen.batches(read_size(vlm, batch_size))
        self.left_out: dict[str, str] = {}
        self._margins: dict[Masked, dict[str, float]] = {}

    def read(self, masks: Mapping[Masked, Intervention | None]) -> None:
        """Score all samples once under each mask."""
        for batch in track(self.batches, len(self.batches), f"reading layers of {self.vlm.name}"):
            usable = self._usable(batch)
            for name, mask in masks.items():
                with self.vlm.interventions.applied(*([] if mask is None else [mask])):
                    self._margins.setdefault(name, {}).update(self._scored(usable))

    @property
    def ids(self) -> list[str]:
        """The samples that were scored under every mask."""
        known = self._margins.values()
        return [name for name in self._margins[PLAIN, -1, -1] if all(name in own for own in known)]

    def effects(self) -> dict[Masked, Float[np.ndarray, " n"]]:
        """By how much each mask lowers the margin of every sample."""
        ids = self.ids
        rows = {name: np.asarray([own[i] for i in ids]) for name, own in self._margins.items()}
        plain = rows.pop((PLAIN, -1, -1))
        return {name: plain - margins for name, margins in rows.items()}

    def _usable(self, batch: SampleSet) -> list[Sample]:
        samples, broken = opened(batch)
        self.left_out |= broken
        usable = []
        for sample in samples:
            if why := why_not_scored(sample, self._candidates(sample), least=2):
                self.left_out[sample.id] = why
            else:
                usable.append(sample)
        return usable

    def _candidates(self, sample: Sample) -> tuple[str, ...]:
        return candidates_of(sample, self.chosen.benchmark.answers)

    def _scored(self, samples: Sequence[Sample]) -> dict[str, float]:
        found, bad = score(self.vlm, samples, [self._candidates(each) for each in samples])
        self.left_out |= bad
        answers = {sample.id: str(sample.answer) for sample in samples}
        margins = {one.sample_id: _margin(one, answers[one.sample_id]) for one in found}
        infinite = [name for name, margin in margins.items() if not math.isfinite(margin)]
        self.left_out |= dict.fromkeys(infinite, f"no margin: {NO_MARGIN}")
        return {name: margin for name, margin in margins.items() if name not in infinite}


def _margin(scored: Scored, answer: str) -> float:
    """Log-probability of the right answer minus that of the best other, in nats."""
    at = scored.log_probability
    return at[answer] - max(value for name, value in at.items() if name != answer)


def _in_first_half(chosen: SampleSet, ids: Sequence[str]) -> dict[str, bool]:
    """Whether each sample names layers, or tests them; those of one image do the same."""
    key = {entry.id: entry.image_key or entry.id for entry in chosen.entries}
    keys = list(dict.fromkeys(key[name] for name in ids))
    rng = random_streams.generator(chosen.seed, "reading layers", "halves")
    first = {keys[place] for place in rng.permutation(len(keys))[: len(keys) // 2]}
    return {name: key[name] in first for name in ids}


def _places(
    ids: Sequence[str], is_naming: Mapping[str, bool], left_out: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the samples that name layers and of those that test them.

    Raises:
        UserError: there are too few of either.
    """
    names = np.asarray([is_naming[name] for name in ids], dtype=bool)
    halves = np.flatnonzero(names), np.flatnonzero(~names)
    if (fewest := min(map(len, halves))) < MIN_SAMPLES:
        first = next(iter(left_out.values()), "")
        why = f"; others were left out, the first because {first}" if first else ""
        raise UserError(
            f"only {counted(len(ids), 'sample')} can be scored, and a half of them has {fewest} "
            f"where {MIN_SAMPLES} are needed: ask for more samples{why}"
        )
    return halves


def _named(
    effects: Mapping[Masked, np.ndarray], indices: Sequence[int], naming: np.ndarray
) -> list[int]:
    total = float(effects[EVERY, -1, -1][naming].mean())
    if total <= 0:
        return []
    means = {index: float(effects["layer", index, -1][naming].mean()) for index in indices}
    return [index for index in indices if means[index] >= LEAST_SHARE * total]


def _frame_of(
    effects: Mapping[Masked, np.ndarray],
    named: Sequence[int],
    halves: tuple[np.ndarray, np.ndarray],
    n_bootstraps: int,
    seed: int,
) -> pd.DataFrame:
    naming, testing = halves
    rng = random_streams.generator(seed, "reading layers", "bootstrap")
    drawn = testing[rng.integers(len(testing), size=(n_bootstraps, len(testing)))]
    total = effects[EVERY, -1, -1]
    totals = total[drawn].mean(1)
    rows = []
    for (masked, layer, head), effect in effects.items():
        means = effect[drawn].mean(1)
        shares = _ratio(means, totals)
        low, high = np.quantile(means, [0.025, 0.975])
        share_low, share_high = np.quantile(shares, [0.025, 0.975])
        rows.append(
            {
                "masked": masked,
                "layer": layer,
                "head": head,
                "naming_effect": effect[naming].mean(),
                "named": masked == NAMED or layer in named,
                "effect": effect[testing].mean(),
                "ci_low": low,
                "ci_high": high,
                "share": float(_ratio(effect[testing].mean(), total[testing].mean())),
                "share_low": share_low,
                "share_high": share_high,
                "p_value": _p_value(effect[testing]),
                "n_naming": len(naming),
                "n_testing": len(testing),
            }
        )
    frame = pd.DataFrame(rows)
    adjusted = frame.groupby("masked")["p_value"].transform(lambda p: gap.holm(p.to_numpy()))
    return frame.assign(p_holm=adjusted)[list(COLUMNS)]


def _ratio(part: Any, total: Any) -> np.ndarray:
    """The share of a total; NaN where that is 0."""
    nothing = np.full(np.shape(part), np.nan)
    return np.divide(part, total, out=nothing, where=np.asarray(total != 0))


def _p_value(effect: Float[np.ndarray, " n"]) -> float:
    """Two-sided p of Student's t that the mean effect is 0; 1 if no sample was changed."""
    if not np.ptp(effect):
        return 1.0 if effect[0] == 0 else 0.0
    return float(stats.ttest_1samp(effect, 0.0).pvalue)
