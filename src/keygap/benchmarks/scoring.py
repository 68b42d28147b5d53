"""Which answer a model chose, and accuracy by each benchmark's rule.

The functions are pure: they take a model's log-likelihoods of the options, one mapping for each
sample, or what it generated for an open question, and return chosen options and accuracies. MMMU
pools questions within a discipline and over all disciplines (micro average). MMBench's circular
evaluation counts a question as correct only if the model is right in every shifted copy.

A rule takes the judged samples of a benchmark and returns accuracies by name, ``overall`` first. A
benchmark names its rule in its attribute ``scoring``; other packages add rules through the
entry-point group ``keygap.scoring``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from keygap.benchmarks.formats.options import parse_options
from keygap.benchmarks.sample import BadSample
from keygap.registry import Registry

# MMMU's six disciplines and their thirty subjects, as published
DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}


@dataclass(frozen=True)
class Judged:
    """One answered sample.

    Attributes:
        id: the sample's id.
        subject: the sample's subject.
        chosen: the candidate that the model finds likeliest: a letter, or an answer of a closed
            set; for an open question what the model generated.
        answer: the correct candidate, or the answer to an open question.
        candidates: all that could be chosen; empty for an open question.
        question: shared by the circular copies of a question (``Entry.question_key``).
        log_probability: of the chosen candidate, in nats; NaN for an open question.
    """

    id: str
    subject: str
    chosen: str
    answer: str
    candidates: tuple[str, ...]
    question: str = ""
    log_probability: float = math.nan

    @property
    def correct(self) -> bool:
        """Whether the chosen candidate is the answer; open answers are compared normalised."""
        return is_correct(self.chosen, self.answer, self.candidates)


@dataclass(frozen=True)
class Accuracy:
    """How many answers of how many are correct."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """The share of correct answers; NaN if there is no answer."""
        return self.correct / self.total if self.total else math.nan


def is_correct(chosen: str, answer: str, candidates: Sequence[str]) -> bool:
    """Whether what was chosen is the answer.

    Args:
        chosen: a candidate, or what a model generated.
        answer: the correct candidate, or the answer to an open question (see ``accepted``).
        candidates: all that could be chosen; empty for an open question, whose answers are
            compared normalised.
    """
    if candidates:
        return chosen == answer
    # the whole text counts too, because a list may also be the answer itself
    return normalised(chosen) in map(normalised, (answer, *accepted(answer)))


def normalised(text: str) -> str:
    """An answer as it is compared: lower case, single spaces, no full stop at the end."""
    return " ".join(text.lower().split()).removesuffix(".").rstrip()


def accepted(answer: str) -> tuple[str, ...]:
    """The answers to an open question that count as correct.

    Args:
        answer: the answer, or several as the text of a list of strings, as MMMU publishes them.
            A list of anything else, such as "[10, 20]", is one answer.
    """
    if not answer.startswith("["):
        return (answer,)
    try:
        return parse_options(answer) or (answer,)
    except BadSample:
        return (answer,)


Rule = Callable[[Sequence[Judged]], dict[str, Accuracy]]
RULES: Registry[Rule] = Registry(
    "scoring rule",
    "keygap.scoring",
    {
        "plain": "keygap.benchmarks.scoring:score_plain",
        "mmmu": "keygap.benchmarks.scoring:score_mmmu",
        "circular": "keygap.benchmarks.scoring:score_circular",
    },
)


def choose_option(likelihoods: Mapping[str, float]) -> str:
    """Return the candidate with the highest log-likelihood; of equal ones the first.

    Raises:
        ValueError: there is no candidate, or a log-likelihood is NaN.
    """
    if not likelihoods:
        raise ValueError("no option to choose from")
    broken = [candidate for candidate, value in likelihoods.items() if math.isnan(value)]
    if broken:
        raise ValueError(f"the log-likelihood of {', '.join(broken)} is not a number")
    return max(likelihoods, key=lambda candidate: likelihoods[candidate])


def judge(
    sample_id: str,
    likelihoods: Mapping[str, float],
    answer: str,
    subject: str = "",
    question: str = "",
) -> Judged:
    """Compare what a model chose for a sample with the answer.

    Args:
        sample_id: the sample's id.
        likelihoods: log-likelihood of every candidate, in nats.
        answer: the correct candidate.
        subject: the sample's subject.
        question: for circular evaluation, the ``question_key`` of the sample's entry.

    Raises:
        ValueError: as ``choose_option``, or the answer is not among the candidates.
    """
    if answer not in likelihoods:
        raise ValueError(f"the answer {answer!r} of {sample_id} is not among {list(likelihoods)}")
    chosen = choose_option(likelihoods)
    candidates = tuple(likelihoods)
    return Judged(sample_id, subject, chosen, answer, candidates, question, likelihoods[chosen])


def accuracy(judged: Iterable[Judged]) -> Accuracy:
    """Count the correct samples."""
    correct = [item.correct for item in judged]
    return Accuracy(sum(correct), len(correct))


def by_discipline(judged: Sequence[Judged]) -> dict[str, Accuracy]:
    """Pool each MMMU discipline's questions over its subjects (micro average).

    Disciplines without a question are left out.
    """
    pooled = {
        name: accuracy(item for item in judged if item.subject in subjects)
        for name, subjects in DISCIPLINES.items()
    }
    return {name: score for name, score in pooled.items() if score.total}


def circular(judged: Iterable[Judged]) -> Accuracy:
    """Count the questions that are answered correctly in every circular copy (MMBench).

    A question of N options has N copies. A question with missing copies is left out, because it
    could only be judged if one of the others is already wrong.
    """
    copies: dict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        copies[item.question].append(item)
    whole = [group for group in copies.values() if len(group) == len(group[0].candidates)]
    return Accuracy(sum(all(item.correct for item in group) for group in whole), len(whole))


def score_plain(judged: Sequence[Judged]) -> dict[str, Accuracy]:
    """Score every sample alike."""
    return {"overall": accuracy(judged)}


def score_mmmu(judged: Sequence[Judged]) -> dict[str, Accuracy]:
    """Score as MMMU does: over all questions, and over those of each discipline."""
    return {"overall": accuracy(judged), **by_discipline(judged)}


def score_circular(judged: Sequence[Judged]) -> dict[str, Accuracy]:
    """Score as MMBench does: circular evaluation, and beside it every row alike."""
    return {"overall": circular(judged), "plain": accuracy(judged)}


def scores(rule: str, judged: Sequence[Judged]) -> dict[str, Accuracy]:
    """Compute accuracies by a benchmark's own rule.

    Args:
        rule: a name in ``RULES``; a benchmark declares its own as ``scoring``.
        judged: the benchmark's answered samples. Questions without a published answer cannot be
            judged and are not among them.

    Returns:
        Accuracies by name; ``overall`` is the one that the benchmark reports.

    Raises:
        UserError: there is no such rule.
    """
    return RULES[rule](judged)
