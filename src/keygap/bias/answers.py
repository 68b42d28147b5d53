"""``kg.answer``: what the model answers, so that accuracy stands beside the gap.

Multiple choice is scored by likelihood, with no text to parse: one forward pass, the
log-probability of each option's letter (or of each answer of a closed set) as the next token, and
the benchmark's own rule over the choices. Open questions, answers that the publisher keeps and bad
samples are not scored, and counted.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from keygap import defaults
from keygap.benchmarks import UNSET, Benchmark, Sample, SampleSet, Unset, as_sample_set
from keygap.benchmarks.scoring import Judged, judge, scores
from keygap.capture.batches import labelled, on_device, opened
from keygap.errors import UserError
from keygap.models import VLM
from keygap.models.batch import Batch
from keygap.progress import track
from keygap.store import write_text

COLUMNS = ("sample_id", "subject", "chosen", "answer", "correct", "log_probability")
OPEN, KEPT, BAD = "open question", "answer not published", "bad sample"
NOT_SCORED = "not scored: "


@dataclass(frozen=True)
class Answers:
    """What a model chose.

    Attributes:
        frame: ``COLUMNS``, log_probability that of the chosen, nats.
        accuracy: rule, correct, total, accuracy; ``overall`` comes first and is what the benchmark
            reports. Where samples were left out, a row ``not scored: REASON`` counts them.
        left_out: samples without options, without a published answer, or bad, with the reason.
    """

    frame: pd.DataFrame
    accuracy: pd.DataFrame
    left_out: dict[str, str]

    def what_is_left_out(self) -> str:
        """How many samples were not scored, by reason, in a line."""
        return NOT_SCORED + ", ".join(f"{n} ({why})" for why, n in _counted(self.left_out))

    def save(self, folder: str | Path) -> None:
        """Write ``answers.csv`` and ``accuracy.csv``."""
        write_text(Path(folder) / "answers.csv", self.frame.to_csv(index=False))
        write_text(Path(folder) / "accuracy.csv", self.accuracy.to_csv(index=False))


def answer(
    vlm: VLM,
    source: Benchmark | SampleSet,
    *,
    samples: int | Unset | None = UNSET,
    batch_size: int = defaults.BATCH_SIZE,
    seed: int | Unset = UNSET,
) -> Answers:
    """Let a model answer the samples that ``extract`` reads with the same seed.

    Args:
        vlm: the model.
        source: a benchmark, or the samples already chosen from one.
        samples: how many; None means all, 200 by default. Circular copies of a chosen question
            come with it.
        batch_size: samples in one forward pass.
        seed: of the choice of samples.

    Raises:
        UserError: two of the possible answers cannot be told apart by their first token.
    """
    asked = as_sample_set(source, samples, seed).with_copies()
    benchmark, places = asked.benchmark, asked.places
    closed = benchmark.answers
    rows: list[dict[str, object]] = []
    judged: list[Judged] = []
    left_out: dict[str, str] = {}
    starts = range(0, len(places), batch_size)
    for start in track(starts, len(starts), f"answers of {vlm.name}"):
        read, broken = opened(benchmark, places[start : start + batch_size])
        unscored = {s.id: why for s in read if (why := _not_scored(s, closed))}
        usable, batch, refused = labelled(vlm, [s for s in read if s.id not in unscored])
        left_out |= broken | unscored | refused
        if batch is None:
            continue
        candidates = [sample.letters or closed for sample in usable]
        found = _likelihoods(vlm, batch, candidates)
        for sample, likelihoods in zip(usable, found, strict=True):
            item = judge(
                sample.id,
                likelihoods,
                str(sample.answer),
                sample.subject,
                sample.meta.get("question", ""),
            )
            judged.append(item)
            rows.append(
                {
                    "sample_id": item.id,
                    "subject": item.subject,
                    "chosen": item.chosen,
                    "answer": item.answer,
                    "correct": item.correct,
                    "log_probability": likelihoods[item.chosen],
                }
            )
    table: list[dict[str, object]] = [
        {"rule": rule, "correct": score.correct, "total": score.total, "accuracy": score.value}
        for rule, score in scores(benchmark.scoring, judged).items()
    ]
    table += [{"rule": f"{NOT_SCORED}{why}", "total": n} for why, n in _counted(left_out)]
    return Answers(
        pd.DataFrame(rows, columns=list(COLUMNS)),
        pd.DataFrame(table, columns=["rule", "correct", "total", "accuracy"]).astype(
            {"correct": "Int64", "total": "Int64"}
        ),
        left_out,
    )


def _counted(left_out: dict[str, str]) -> list[tuple[str, int]]:
    """Reasons and how many samples have each; whatever is wrong with a bad sample is one reason."""
    counts = Counter(why if why in (OPEN, KEPT) else BAD for why in left_out.values())
    return sorted(counts.items())


def _not_scored(sample: Sample, closed: Sequence[str]) -> str | None:
    if not (sample.letters or closed):
        return OPEN
    return KEPT if sample.answer is None else None


@torch.inference_mode()
def _likelihoods(
    vlm: VLM, batch: Batch, candidates: Sequence[Sequence[str]]
) -> list[dict[str, float]]:
    """Log-probability (nats) of every candidate of every sample as the next token."""
    found = []
    for logits, wanted in zip(next_logits(vlm, batch), candidates, strict=True):
        log_probability = logits.float().log_softmax(-1)
        ids = first_tokens(vlm.prompter.tokenizer, wanted)
        found.append(
            {
                candidate: float(log_probability[forms].logsumexp(0))
                for candidate, forms in ids.items()
            }
        )
    return found


def next_logits(vlm: VLM, batch: Batch) -> Float[Tensor, "b vocabulary"]:
    """Logits of the token after each prompt.

    Of the other positions none are made where the model can be asked so: with a vocabulary of
    150,000 and images of thousands of tokens they would take gigabytes.
    """
    inputs = on_device(vlm, batch)
    if vlm.model.config.is_encoder_decoder:  # the decoder has read nothing but its start
        return vlm.forward(inputs).logits[:, -1]
    rows = torch.arange(len(batch.labels), device=vlm.device)
    last = torch.tensor([len(labels) - 1 for labels in batch.labels], device=vlm.device)
    named = inspect.signature(vlm.model.forward).parameters
    if "logits_to_keep" in named and "labels" not in inputs:  # a loss needs every position
        kept = last.unique()
        logits = vlm.forward({**inputs, "logits_to_keep": kept}).logits
        return logits[rows.to(logits.device), torch.searchsorted(kept, last).to(logits.device)]
    logits = vlm.forward(inputs).logits
    # counted from the end of a sequence padded on the right
    last = last + logits.shape[1] - inputs["input_ids"].shape[1]
    return logits[rows.to(logits.device), last.to(logits.device)]


def first_tokens(
    tokenizer: PreTrainedTokenizerBase, candidates: Sequence[str]
) -> dict[str, list[int]]:
    """The ids that a candidate can begin with, alone and after a space.

    Raises:
        UserError: two candidates begin with the same token, so the next one cannot tell them apart.
    """
    found: dict[str, list[int]] = {}
    taken: dict[int, str] = {}
    for candidate in candidates:
        ids = set()
        for text in (candidate, f" {candidate}"):
            spelled = tokenizer(text, add_special_tokens=False).input_ids
            ids.add(next(token for token in spelled if str(tokenizer.decode([token])).strip()))
        for token in ids:
            if token in taken:
                raise UserError(
                    f"the answers {taken[token]!r} and {candidate!r} begin with the same token, so "
                    "their likelihood as the next token cannot tell them apart; leave accuracy out "
                    "with answers: false in an experiment"
                )
            taken[token] = candidate
        found[candidate] = sorted(ids)
    return found
