"""``kg.answer``: what the model answers, so that accuracy stands beside the gap.

Multiple choice is scored by likelihood, with no text to parse: one forward pass, the
log-probability of each option's letter (or of each answer of a closed set) as the next token, and
the benchmark's own rule over the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from keygap.benchmarks import BadSample, Benchmark, Sample, choose, with_copies
from keygap.errors import UserError
from keygap.models import VLM
from keygap.progress import track
from keygap.scoring import Judged, judge, scores
from keygap.store import write_text


@dataclass(frozen=True)
class Answers:
    """What a model chose.

    Attributes:
        frame: sample_id, subject, chosen, answer, correct, log_probability (of the chosen, nats).
        accuracy: rule, correct, total, accuracy; ``overall`` is what the benchmark reports.
        left_out: samples without options, without a published answer, or bad, with the reason.
    """

    frame: pd.DataFrame
    accuracy: pd.DataFrame
    left_out: dict[str, str]

    def save(self, folder: str | Path) -> None:
        """Write ``answers.csv`` and ``accuracy.csv``."""
        write_text(Path(folder) / "answers.csv", self.frame.to_csv(index=False))
        write_text(Path(folder) / "accuracy.csv", self.accuracy.to_csv(index=False))


def answer(
    vlm: VLM,
    benchmark: Benchmark,
    *,
    samples: int | None = 200,
    batch_size: int = 8,
    seed: int = 0,
) -> Answers:
    """Let a model answer the samples that ``extract`` reads with the same seed.

    Args:
        vlm: the model.
        benchmark: where samples come from.
        samples: how many; None means all. Circular copies of a chosen question come with it.
        batch_size: samples in one forward pass.
        seed: of the choice of samples.

    Raises:
        UserError: no sample has options and a published answer.
    """
    entries = benchmark.index()
    places = choose(entries, samples, seed)
    if benchmark.name.endswith("-circular"):
        places = with_copies(entries, places)
    closed = tuple(benchmark.answers()) if hasattr(benchmark, "answers") else ()
    rows: list[dict[str, object]] = []
    judged: list[Judged] = []
    left_out: dict[str, str] = {}
    starts = range(0, len(places), batch_size)
    for start in track(starts, len(starts), f"answers of {vlm.name}"):
        usable = []
        for place in places[start : start + batch_size]:
            try:
                sample = benchmark.sample(place)
                if not (sample.letters or closed) or sample.answer is None:
                    raise BadSample("it has no options, or its answer is not published")
                vlm.prompter([sample])
            except BadSample as reason:
                left_out[entries[place].id] = str(reason)
                continue
            usable.append(sample)
        for sample, likelihoods in _likelihoods(vlm, usable, closed):
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
    if not judged:
        raise UserError(
            f"no sample of {benchmark.name}, split {benchmark.split}, has options and a published "
            "answer, so there is nothing to score"
        )
    table = [
        {"rule": rule, "correct": score.correct, "total": score.total, "accuracy": score.value}
        for rule, score in scores(benchmark.name, judged).items()
    ]
    return Answers(pd.DataFrame(rows), pd.DataFrame(table), left_out)


@torch.inference_mode()
def _likelihoods(
    vlm: VLM, samples: Sequence[Sample], closed: Sequence[str]
) -> list[tuple[Sample, dict[str, float]]]:
    """Log-probability (nats) of every candidate of every sample as the next token."""
    if not samples:
        return []
    batch = vlm.prompter(samples)
    inputs = dict(batch.inputs.to(vlm.device, dtype=vlm.dtype))
    logits = vlm.model(**inputs, use_cache=False).logits
    found = []
    for row, (sample, labels) in enumerate(zip(samples, batch.labels, strict=True)):
        # the prompt's last position, counted from the end of a sequence padded on the right
        last = logits.shape[1] - (inputs["input_ids"].shape[1] - len(labels)) - 1
        log_probability = logits[row, last].float().log_softmax(-1)
        ids = first_tokens(vlm.prompter.tokenizer, sample.letters or closed)
        likelihoods = {
            candidate: float(log_probability[forms].logsumexp(0))
            for candidate, forms in ids.items()
        }
        found.append((sample, likelihoods))
    return found


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
                    "their likelihood as the next token cannot tell them apart"
                )
            taken[token] = candidate
        found[candidate] = sorted(ids)
    return found
