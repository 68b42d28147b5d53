"""``kg.answer``: what a model answers, so that accuracy can be compared with the gap.

Multiple choice is scored by likelihood, without parsing any generated text: one forward pass gives
the log-probability of each option's letter (or of each answer of a closed set) as the next token,
and the benchmark's own rule turns choices into accuracies. Open questions, questions without a
published answer and bad samples are not scored; they are counted by reason.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from keygap import defaults
from keygap.benchmarks import UNSET, Benchmark, Sample, SampleSet, Unset, as_sample_set
from keygap.benchmarks.scoring import Accuracy, Judged, judge, scores
from keygap.capture.batches import labelled, opened
from keygap.errors import UserError
from keygap.models import VLM
from keygap.models.batch import Batch
from keygap.progress import track
from keygap.selfcheck.batches import read_size
from keygap.store import save_results
from keygap.store.run import ACCURACY, ANSWERS

COLUMNS = ("sample_id", "subject", "chosen", "answer", "correct", "log_probability")
OPEN, UNPUBLISHED, BAD = "open question", "answer not published", "bad sample"
NOT_SCORED = "not scored: "


@dataclass(frozen=True)
class Answers:
    """What a model chose.

    Attributes:
        frame: one row for each scored sample, columns ``COLUMNS``. ``log_probability`` is that of
            the chosen candidate, in nats.
        accuracy: columns rule, correct, total, accuracy. The row ``overall`` comes first and is
            what the benchmark reports. If samples were left out, rows ``not scored: REASON`` count
            them.
        left_out: reason by sample id, for open questions, questions without a published answer and
            bad samples.
    """

    frame: pd.DataFrame
    accuracy: pd.DataFrame
    left_out: dict[str, str]

    def what_is_left_out(self) -> str:
        """Say in one line how many samples were not scored, by reason."""
        return NOT_SCORED + ", ".join(f"{n} ({why})" for why, n in _counted(self.left_out))

    def save(self, folder: str | Path) -> None:
        """Write ``answers.csv`` and ``accuracy.csv``, both or none.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        tables = {ANSWERS: self.frame, ACCURACY: self.accuracy}
        save_results(folder, {name: frame.to_csv(index=False) for name, frame in tables.items()})


def answer(
    vlm: VLM,
    source: Benchmark | SampleSet,
    *,
    samples: int | Unset | None = UNSET,
    batch_size: int = defaults.BATCH_SIZE,
    seed: int | Unset = UNSET,
) -> Answers:
    """Let a model answer a benchmark's questions.

    With the same sample set, or the same number of samples and seed, these are the samples that
    ``extract`` reads.

    Args:
        vlm: the model.
        source: a benchmark, or a sample set that was chosen from one. In circular evaluation, all
            copies of a chosen question are answered.
        samples: how many to choose from a benchmark; None means all. Default: 200.
        batch_size: samples in one forward pass.
        seed: seed of the choice. Default: 0.

    Raises:
        UserError: two of the possible answers begin with the same token.
    """
    asked = as_sample_set(source, samples, seed).with_copies()
    judged: list[Judged] = []
    left_out: dict[str, str] = {}
    batches = asked.batches(read_size(vlm, batch_size))
    for batch in track(batches, len(batches), f"answers of {vlm.name}"):
        answered, unscored = _answer_batch(vlm, batch)
        judged += answered
        left_out |= unscored
    accuracies = scores(asked.benchmark.scoring, judged)
    return Answers(_frame_of(judged), _accuracy_of(accuracies, left_out), left_out)


def _answer_batch(vlm: VLM, asked: SampleSet) -> tuple[list[Judged], dict[str, str]]:
    """Judge the samples of one batch, and give the reason for each that is not scored."""
    closed = asked.benchmark.answers
    read, broken = opened(asked)
    unscored = {sample.id: why for sample in read if (why := _why_not_scored(sample, closed))}
    usable, batch, refused = labelled(vlm, [item for item in read if item.id not in unscored])
    left_out = broken | unscored | refused
    if batch is None:
        return [], left_out
    questions = {entry.id: entry.question_key for entry in asked.entries}
    found = _likelihoods(vlm, batch, [sample.letters or closed for sample in usable])
    judged = [
        judge(item.id, likelihoods, str(item.answer), item.subject, questions[item.id])
        for item, likelihoods in zip(usable, found, strict=True)
    ]
    return judged, left_out


def _frame_of(judged: Sequence[Judged]) -> pd.DataFrame:
    rows = [
        (item.id, item.subject, item.chosen, item.answer, item.correct, item.log_probability)
        for item in judged
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _accuracy_of(accuracies: Mapping[str, Accuracy], left_out: Mapping[str, str]) -> pd.DataFrame:
    rows: list[dict[str, object]] = [
        {"rule": rule, "correct": score.correct, "total": score.total, "accuracy": score.value}
        for rule, score in accuracies.items()
    ]
    rows += [{"rule": f"{NOT_SCORED}{why}", "total": n} for why, n in _counted(left_out)]
    frame = pd.DataFrame(rows, columns=["rule", "correct", "total", "accuracy"])
    return frame.astype({"correct": "Int64", "total": "Int64"})


def _counted(left_out: Mapping[str, str]) -> list[tuple[str, int]]:
    """Count samples by reason; all faults of bad samples count as one reason."""
    known = (OPEN, UNPUBLISHED)
    return sorted(Counter(why if why in known else BAD for why in left_out.values()).items())


def _why_not_scored(sample: Sample, closed: Sequence[str]) -> str | None:
    """Give the reason why a sample cannot be scored; None if it can."""
    if not (sample.letters or closed):
        return OPEN
    return UNPUBLISHED if sample.answer is None else None


@torch.inference_mode()
def _likelihoods(
    vlm: VLM, batch: Batch, candidates: Sequence[Sequence[str]]
) -> list[dict[str, float]]:
    """Log-probability of each sample's candidates as the next token, in nats."""
    found = []
    for logits, wanted in zip(next_logits(vlm, batch), candidates, strict=True):
        log_probability = logits.float().log_softmax(-1)
        forms = first_tokens(vlm.prompter.tokenizer, wanted)
        found.append(
            {name: float(log_probability[ids].logsumexp(0)) for name, ids in forms.items()}
        )
    return found


def next_logits(vlm: VLM, batch: Batch) -> Float[Tensor, "b vocabulary"]:
    """Compute the logits of the token after each prompt.

    If the model supports it, no logits of other positions are computed: with a vocabulary of
    150,000 and images of thousands of tokens they would take gigabytes.
    """
    if vlm.model.config.is_encoder_decoder:  # the decoder has read only its start token
        return vlm.forward(batch).logits[:, -1]
    rows = torch.arange(len(batch.labels), device=vlm.device)
    last = torch.tensor([len(labels) - 1 for labels in batch.labels], device=vlm.device)
    named = inspect.signature(vlm.model.forward).parameters
    if "logits_to_keep" in named and "labels" not in batch.inputs:  # a loss needs every position
        kept = last.unique()
        logits = vlm.forward(batch, logits_to_keep=kept).logits
        return logits[rows.to(logits.device), torch.searchsorted(kept, last).to(logits.device)]
    logits = vlm.forward(batch).logits
    # a model that inserts image features returns more positions than the prompt has tokens; the
    # insertions precede the last token, so it is counted from the end
    last = last + logits.shape[1] - batch.inputs["input_ids"].shape[1]
    return logits[rows.to(logits.device), last.to(logits.device)]


def first_tokens(
    tokenizer: PreTrainedTokenizerBase, candidates: Sequence[str]
) -> dict[str, list[int]]:
    """Find the tokens that each candidate can begin with, alone and after a space.

    Returns:
        Token ids by candidate.

    Raises:
        UserError: two candidates begin with the same token, so that the next token cannot tell them
            apart.
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
