"""``kg.answer``: what a model answers, so that accuracy can be compared with the gap.

Multiple choice and closed sets of answers are scored by likelihood, open questions by what the
model generates (``scoring``), and the benchmark's own rule turns answers into accuracies. Questions
without a published answer and bad samples are not scored; they are counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keygap import defaults
from keygap.arguments import whole
from keygap.benchmarks import Benchmark, Sample, SampleSet
from keygap.benchmarks.sample_set import UNSET, Unset, as_sample_set
from keygap.benchmarks.scoring import Accuracy, Judged, judge, scores
from keygap.bias.candidates import candidates_of, why_not_scored
from keygap.bias.intervals import NOTHING, Interval, proportion
from keygap.bias.scoring import Scored, score
from keygap.capture.batches import opened
from keygap.display import as_html, between, brief
from keygap.errors import UserError
from keygap.models import VLM
from keygap.progress import track
from keygap.selfcheck.batches import read_size
from keygap.store import save_results
from keygap.store.run import ACCURACY, ANSWERS

COLUMNS = ("sample_id", "subject", "chosen", "answer", "correct", "log_probability", "question")
OPEN, UNPUBLISHED, BAD = "no options and no answer", "answer not published", "bad sample"
NOT_ASKED = "not asked"
NOT_SCORED = "not scored: "


@dataclass(frozen=True)
class Answers:
    """What a model chose.

    Attributes:
        frame: one row for each scored sample, columns ``COLUMNS``. ``log_probability`` is that of
            the chosen candidate, in nats, and NaN where the answer was generated. ``question`` is
            shared by the copies of a question in circular evaluation; otherwise it is the sample.
        accuracy: columns rule, correct, total, accuracy. The row ``overall`` comes first and is
            what the benchmark reports. If samples were left out, rows ``not scored: REASON`` count
            them.
        left_out: reason by sample id, for questions without a published answer, bad samples, and
            ``not asked`` for those after ``max_bad`` was exceeded.
    """

    frame: pd.DataFrame
    accuracy: pd.DataFrame
    left_out: dict[str, str]

    def what_is_left_out(self) -> str:
        """Say in one line how many samples were not scored, by reason."""
        return NOT_SCORED + ", ".join(f"{n} ({why})" for why, n in _counted(self.left_out))

    def summary(self) -> pd.DataFrame:
        """The accuracies with 95 % Wilson intervals, and what was not scored.

        Copies of a question are no independent answers, so an accuracy that counts them has an
        interval over questions.

        Returns:
            ``accuracy`` with ``ci_low`` and ``ci_high``, NaN where nothing was scored.
        """
        counts = zip(self.accuracy["correct"], self.accuracy["total"], strict=True)
        found = [self._interval(*each) for each in counts]
        ends = {"ci_low": [one.low for one in found], "ci_high": [one.high for one in found]}
        return self.accuracy.assign(**ends)

    def _interval(self, correct: Any, total: Any) -> Interval:
        """The interval of one accuracy. Only one that counts all answers can count copies."""
        if pd.isna(correct):
            return NOTHING
        hits = self.frame["correct"].to_numpy(bool)
        if (int(correct), int(total)) == (hits.sum(), len(hits)):
            return proportion(hits, self.frame["question"].to_numpy())
        return proportion(np.arange(total) < correct)

    def __repr__(self) -> str:
        row = self.accuracy.iloc[0]
        left = f", {len(self.left_out)} not scored" if self.left_out else ""
        share = "no accuracy" if pd.isna(row["accuracy"]) else f"accuracy {row['accuracy']:.3f}"
        return brief(f"Answers({share}, {row['correct']} of {row['total']} right{left})")

    def _repr_html_(self) -> str:
        found = self.summary()
        rows = found[["accuracy", "ci_low", "ci_high"]].to_numpy(float)
        cells = found[["rule", "correct", "total"]].assign(
            **{"accuracy (95 % interval)": [between(*row) for row in rows]}
        )
        caption = (
            "Accuracy: share of right answers among those scored, with 95 % Wilson intervals over "
            "questions. overall is the rule of the benchmark. .frame has every answer."
        )
        return as_html(caption, cells, [f"{name}: {why}" for name, why in self.left_out.items()])

    def save(self, folder: str | Path) -> None:
        """Write ``answers.csv`` and ``accuracy.csv``, both or none.

        Args:
            folder: the run folder, or any other.

        Raises:
            UserError: another process writes in the folder, the disk is full, or the folder
                cannot be written.
        """
        tables = {ANSWERS: self.frame, ACCURACY: self.accuracy}
        save_results(folder, {name: frame.to_csv(index=False) for name, frame in tables.items()})


class TooManyBad(UserError):
    """More samples are bad than the user allowed.

    Args:
        message: what is wrong, in one line.
        answers: to the questions until then; the others are left out as ``not asked``.
    """

    def __init__(self, message: str, answers: Answers) -> None:
        super().__init__(message)
        self.answers = answers


def answer(
    vlm: VLM,
    source: Benchmark | SampleSet,
    *,
    samples: int | Unset | None = UNSET,
    batch_size: int = defaults.BATCH_SIZE,
    max_bad: int | None = None,
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
        max_bad: how many samples may be bad; None means any number. Questions without a published
            answer are not bad.
        seed: seed of the choice. Default: 0.

    Returns:
        Every answer, the accuracy by the benchmark's rule, and what was left out.

    Raises:
        TooManyBad: more samples are bad than ``max_bad``.
    """
    most = None if max_bad is None else whole(max_bad, "max_bad", 0)
    asked = as_sample_set(source, samples, seed).with_copies()
    judged: list[Judged] = []
    left_out: dict[str, str] = {}
    batches = asked.batches(read_size(vlm, batch_size))
    for batch in track(batches, len(batches), f"answers of {vlm.name}"):
        answered, unscored = _answer_batch(vlm, batch)
        judged += answered
        left_out |= unscored
        _refuse_if_bad(asked, judged, left_out, most)
    return _answers_of(asked, judged, left_out)


def _answers_of(asked: SampleSet, judged: Sequence[Judged], left_out: dict[str, str]) -> Answers:
    accuracies = scores(asked.benchmark.scoring, judged)
    return Answers(_frame_of(judged), _accuracy_of(accuracies, left_out), left_out)


def _refuse_if_bad(
    asked: SampleSet, judged: Sequence[Judged], left_out: dict[str, str], most: int | None
) -> None:
    """Stop if more samples are bad than may be.

    Raises:
        TooManyBad: it is so.
    """
    bad = {name: why for name, why in left_out.items() if why not in (OPEN, UNPUBLISHED)}
    if most is None or len(bad) <= most:
        return
    name, reason = next(iter(bad.items()))
    known = {item.id for item in judged} | set(left_out)
    rest = {entry.id: NOT_ASKED for entry in asked.entries if entry.id not in known}
    raise TooManyBad(
        f"{len(bad)} samples of {asked.name} are bad, more than {most}; the first is {name}: "
        f"{reason}; {len(rest)} of {len(asked)} were not asked",
        _answers_of(asked, judged, left_out | rest),
    )


def _answer_batch(vlm: VLM, asked: SampleSet) -> tuple[list[Judged], dict[str, str]]:
    """Judge the samples of one batch, and give the reason for each that is not scored."""
    closed = asked.benchmark.answers
    read, broken = opened(asked)
    candidates = {sample.id: candidates_of(sample, closed) for sample in read}
    unscored = {
        sample.id: why for sample in read if (why := _why_not_scored(sample, candidates[sample.id]))
    }
    usable = {sample.id: sample for sample in read if sample.id not in unscored}
    wanted = [candidates[name] for name in usable]
    scored, refused = score(vlm, list(usable.values()), wanted)
    questions = {entry.id: entry.question_key for entry in asked.entries}
    judged = [_judged(usable[item.sample_id], item, questions[item.sample_id]) for item in scored]
    return judged, broken | unscored | refused


def _judged(sample: Sample, scored: Scored, question: str) -> Judged:
    answer = str(sample.answer)
    if scored.log_probability:
        return judge(sample.id, scored.log_probability, answer, sample.subject, question)
    return Judged(sample.id, sample.subject, scored.chosen, answer, (), question)


def _frame_of(judged: Sequence[Judged]) -> pd.DataFrame:
    rows = [
        (
            *(item.id, item.subject, item.chosen, item.answer, item.correct, item.log_probability),
            item.question or item.id,
        )
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
    known = (OPEN, UNPUBLISHED, NOT_ASKED)
    return sorted(Counter(why if why in known else BAD for why in left_out.values()).items())


def _why_not_scored(sample: Sample, candidates: Sequence[str]) -> str | None:
    """Give the reason why a sample cannot be scored, as it is counted; None if it can."""
    if sample.answer is None:
        return UNPUBLISHED if candidates else OPEN
    return why_not_scored(sample, candidates)
