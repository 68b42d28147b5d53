"""``kg.probe``: a model under the conditions of probes, paired by sample.

Every condition of every probe is asked of the same samples, batch by batch, so each costs one
forward pass of each batch (where options begin with the same token, or answers are generated, one
for each option or token). A condition that does not exist for a sample leaves out that sample
there, and is counted with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import entr, logsumexp

from keygap import defaults
from keygap.arguments import MOST_RESAMPLINGS, listed, whole
from keygap.benchmarks import BadSample, Benchmark, Sample, SampleSet
from keygap.benchmarks.sample_set import UNSET, Unset, as_sample_set
from keygap.benchmarks.scoring import is_correct, normalised
from keygap.bias.candidates import candidates_of, why_not_scored
from keygap.bias.condition import AS_IS, Condition, Probe, Samples, Unfit
from keygap.bias.probes import build
from keygap.bias.scoring import Scored, score
from keygap.bias.table import NUMBERS, SAMPLE_COLUMNS, BiasTable, bias_table
from keygap.capture.batches import opened
from keygap.errors import NothingToAsk, UserError, unknown
from keygap.models.vlm import VLM
from keygap.progress import track
from keygap.selfcheck.batches import read_size


def probe(
    vlm: VLM,
    source: Benchmark | SampleSet,
    *,
    probes: Sequence[str | Probe] = defaults.PROBES,
    samples: int | Unset | None = UNSET,
    batch_size: int = defaults.BATCH_SIZE,
    seed: int | Unset = UNSET,
    n_bootstraps: int = defaults.N_BOOTSTRAPS,
) -> BiasTable:
    """Ask a model the same questions under several conditions.

    Args:
        vlm: the model. Interventions that are applied to it act under all conditions.
        source: a benchmark, or a sample set that was chosen from one.
        probes: names of registered probes, which get their default settings, or ``Probe`` objects
            (``kg.bias.PROBES["hint"](positions=["after"])``).
        samples: how many to choose from a benchmark; None means all. Default: 200.
        batch_size: samples in one forward pass.
        seed: of the choice of samples, and of every choice that a probe makes. Default: 0.
        n_bootstraps: resamplings of whole samples behind the intervals of means.

    Returns:
        The conditions with intervals, paired differences, and every answer.

    Raises:
        UserError: there is no such probe, or none of the probes has a condition for any sample.
        NothingToAsk: no sample can be used for any condition.
    """
    asked = as_sample_set(source, samples, seed)
    chosen = named_probes(probes)
    n_bootstraps = whole(n_bootstraps, "n_bootstraps", 1, MOST_RESAMPLINGS)
    asking = _Asking(vlm, Samples(asked, asked.seed))
    batches = asked.batches(read_size(vlm, batch_size))
    for batch in track(batches, len(batches), f"probes of {vlm.name}"):
        asking.ask(batch, chosen)
    asking.refuse_nothing()
    settings = settings_of(vlm, asked, chosen, n_bootstraps)
    rows = pd.DataFrame(asking.rows, columns=list(SAMPLE_COLUMNS))
    return bias_table(rows, asking.left_out, chosen, settings)


def settings_of(
    vlm: VLM, asked: SampleSet, probes: Sequence[Probe], n_bootstraps: int
) -> dict[str, Any]:
    """What ``probe`` is asked, as ``BiasTable.settings`` says it; arguments as there."""
    return {
        "model": vlm.name,
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "prompt": vlm.prompter.identity,
        "benchmark": asked.name,
        "split": asked.benchmark.split,
        "samples": len(asked),
        "sample_ids": asked.digest,
        "seed": asked.seed,
        "n_bootstraps": n_bootstraps,
        "interventions": vlm.interventions.identity,
        "probes": {each.name: dict(each.settings) for each in probes},
    }


def named_probes(
    probes: Sequence[str | Probe], settings: Mapping[str, Any] | None = None
) -> list[Probe]:
    """The probes of a list of names and probes.

    Args:
        probes: names of registered probes, or probes.
        settings: values by ``PROBE.SETTING``, such as ``hint.positions``, for probes that are
            named.

    Raises:
        UserError: there is none, one is unknown, two have the same name, or a setting is of
            another probe, unknown, or has a value that is not possible.
    """
    given: dict[str, dict[str, Any]] = {}
    for key, value in (settings or {}).items():
        name, _, setting = key.partition(".")
        given.setdefault(name, {})[setting] = value
    found: dict[str, Probe] = {}
    for each in listed(probes, "probes", "hint"):
        if isinstance(each, Probe):
            own = each
        else:
            (own,) = build({each: given.pop(each, {})})
        if own.name in found:
            raise UserError(f"probes has {own.name!r} twice: name each once")
        found[own.name] = own
    if given:
        raise unknown("probe in a setting", next(iter(given)), found, "those that are asked")
    return list(found.values())


@dataclass
class _Asking:
    """What was asked so far, and what was left out.

    Attributes:
        vlm: the model.
        samples: those of the probe.
        rows: one for each sample and condition, ``SAMPLE_COLUMNS``.
        left_out: the number of samples by probe, condition, variant and reason.
    """

    vlm: VLM
    samples: Samples
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[tuple[str, str, str, str], int] = field(default_factory=dict)

    def ask(self, batch: SampleSet, probes: Sequence[Probe]) -> None:
        """Ask all conditions of the samples of one batch."""
        read, broken = opened(batch)
        for reason in broken.values():
            self._leave_out("", "", "", reason)
        good = []
        closed = batch.benchmark.answers
        for sample in read:
            if why := why_not_scored(sample, candidates_of(sample, closed)):
                self._leave_out("", "", "", why)
            else:
                good.append(sample)
        unchanged: dict[str, Scored] | None = None
        for each in probes:
            answers: dict[tuple[str, str], dict[str, Scored]] = {}
            for condition in each.conditions:
                suggested: dict[str, str | None] = {}
                if condition.name == AS_IS and unchanged is not None:
                    scored = unchanged
                else:
                    scored, suggested = self._scored(each, condition, good)
                if condition.name == AS_IS:
                    unchanged = scored
                answers[condition.name, condition.variant] = scored
                before = answers.get((condition.image_only, condition.variant))
                before = before or answers.get((condition.image_only, ""), {})
                self._keep(each, condition, good, scored, before, suggested)

    def refuse_nothing(self) -> None:
        """Refuse a result in which nothing was changed.

        Raises:
            UserError: the probes have no other condition.
            NothingToAsk: no condition but the unchanged one could be asked of any sample.
        """
        if any(row["condition"] != AS_IS for row in self.rows):
            return
        if not self.left_out:
            raise UserError("the probes have no condition to ask")
        (name, condition, _, reason), count = max(self.left_out.items(), key=lambda item: item[1])
        where = f"condition {condition} of probe {name}" if name else "any condition"
        raise NothingToAsk(
            f"no sample of {self.samples.sample_set.name} can be used for {where}: {reason} "
            f"({count} samples)"
        )

    def _scored(
        self, of: Probe, condition: Condition, samples: Sequence[Sample]
    ) -> tuple[dict[str, Scored], dict[str, str | None]]:
        """Answers, and the suggested answer, by sample."""
        variants, candidates = [], []
        suggested: dict[str, str | None] = {}
        for sample in samples:
            try:
                variant = condition.make(sample, self.samples)
            except (Unfit, BadSample) as reason:
                self._leave_out(of.name, condition.name, condition.variant, str(reason))
                continue
            variants.append(variant.sample)
            closed = self.samples.sample_set.benchmark.answers
            candidates.append(candidates_of(sample, closed))
            suggested[sample.id] = variant.suggested
        if not variants:
            return {}, {}
        try:
            found, refused = score(self.vlm, variants, candidates, pictures=condition.pictures)
        except UserError as reason:
            if condition.pictures == "shown":
                raise
            # a model that does not run without its images can be asked the other conditions
            found, refused = [], {sample.id: str(reason) for sample in variants}
        for why in refused.values():
            self._leave_out(of.name, condition.name, condition.variant, why)
        return {each.sample_id: each for each in found}, suggested

    def _keep(
        self,
        of: Probe,
        condition: Condition,
        samples: Sequence[Sample],
        scored: Mapping[str, Scored],
        before: Mapping[str, Scored],
        suggested: Mapping[str, str | None],
    ) -> None:
        for sample in samples:
            if sample.id in scored:
                self.rows.append(
                    {
                        "probe": of.name,
                        "condition": condition.name,
                        "variant": condition.variant,
                        **row_of(
                            sample,
                            scored[sample.id],
                            before.get(sample.id),
                            suggested.get(sample.id),
                        ),
                    }
                )

    def _leave_out(self, name: str, condition: str, variant: str, reason: str) -> None:
        key = (name, condition, variant, reason)
        self.left_out[key] = self.left_out.get(key, 0) + 1


def row_of(
    sample: Sample, scored: Scored, before: Scored | None, suggested: str | None
) -> dict[str, Any]:
    """What one answer says, as the columns of ``SAMPLE_COLUMNS`` that follow the variant.

    Args:
        sample: the original sample.
        scored: the answer under a condition.
        before: the answer to the same image without the text, if there is one.
        suggested: the answer that the condition's text suggests.
    """
    right = str(sample.answer)
    row: dict[str, Any] = {
        "sample_id": sample.id,
        "subject": sample.subject,
        "answer": right,
        "chosen": scored.chosen,
        "correct": is_correct(scored.chosen, right, list(scored.log_probability)),
        "suggested": suggested,
        "followed": None
        if suggested is None
        else normalised(scored.chosen) == normalised(suggested),
    }
    nothing = dict.fromkeys(NUMBERS, math.nan)
    if not scored.log_probability:
        return row | nothing
    names = list(scored.log_probability)
    logs = np.fromiter(scored.log_probability.values(), float)
    logs = logs - logsumexp(logs)
    at = dict(zip(names, logs.tolist(), strict=True))
    others = [value for name, value in at.items() if name != right]
    numbers = {
        "log_probability": at[right],
        "margin": at[right] - max(others) if others else math.nan,
        "entropy": float(entr(np.exp(logs)).sum()),
        "confidence": math.exp(at[scored.chosen]),
    }
    if suggested is not None and suggested in at and suggested != right:
        numbers["hint_margin"] = at[suggested] - at[right]
        if before is not None and before.log_probability:
            without = before.log_probability
            numbers["margin_without"] = without[right] - without[suggested]
            numbers["hint_effect"] = numbers["hint_margin"] + numbers["margin_without"]
    finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
    return row | nothing | finite
