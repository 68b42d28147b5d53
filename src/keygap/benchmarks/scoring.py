"""Multiple choice by likelihood: which option a model chose, and accuracy by each benchmark's rule.

Pure functions. A model's log-likelihoods of the option letters come in, one mapping per sample;
chosen letters and accuracies come out. MMMU pools questions within a discipline and over all (micro
average). MMBench's circular evaluation counts a question only if it is right in every shifted copy.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from keygap.errors import unknown

# the publisher's six, of thirty subjects
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
    """One answered sample. ``question`` is what the circular copies of a question share."""

    id: str
    subject: str
    chosen: str
    answer: str
    letters: tuple[str, ...]
    question: str = ""

    @property
    def correct(self) -> bool:
        return self.chosen == self.answer


@dataclass(frozen=True)
class Accuracy:
    """How many of how many; ``value`` is not a number where there was none."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        return self.correct / self.total if self.total else math.nan


def choose_option(likelihoods: Mapping[str, float]) -> str:
    """The letter of the highest log-likelihood; of equal ones the first in the mapping.

    Raises:
        ValueError: no letter, or a likelihood that is not a number.
    """
    if not likelihoods:
        raise ValueError("no option to choose from")
    broken = [letter for letter, value in likelihoods.items() if math.isnan(value)]
    if broken:
        raise ValueError(f"the log-likelihood of {', '.join(broken)} is not a number")
    return max(likelihoods, key=lambda letter: likelihoods[letter])


def judge(
    sample_id: str,
    likelihoods: Mapping[str, float],
    answer: str,
    subject: str = "",
    question: str = "",
) -> Judged:
    """A sample's chosen letter beside its answer.

    Args:
        sample_id: the sample's id.
        likelihoods: the log-likelihood of every option's letter.
        answer: the right letter.
        subject: the sample's subject.
        question: for circular evaluation, ``sample.meta["question"]``.

    Raises:
        ValueError: as ``choose_option``, or the answer is not among the letters.
    """
    if answer not in likelihoods:
        raise ValueError(f"the answer {answer!r} of {sample_id} is not among {list(likelihoods)}")
    chosen = choose_option(likelihoods)
    return Judged(sample_id, subject, chosen, answer, tuple(likelihoods), question)


def accuracy(judged: Iterable[Judged]) -> Accuracy:
    """Right samples of all."""
    right = [item.correct for item in judged]
    return Accuracy(sum(right), len(right))


def by_discipline(judged: Sequence[Judged]) -> dict[str, Accuracy]:
    """MMMU's table: each discipline's questions pooled over its subjects (micro average).

    Disciplines without a question are left out.
    """
    pooled = {
        name: accuracy(item for item in judged if item.subject in subjects)
        for name, subjects in DISCIPLINES.items()
    }
    return {name: score for name, score in pooled.items() if score.total}


def circular(judged: Iterable[Judged]) -> Accuracy:
    """MMBench's circular evaluation: right in every copy of the question, or wrong.

    A question of N options has N copies. One with copies missing (a bad row, a choice of samples)
    can be judged only if a copy is already wrong, so it is left out altogether.
    """
    copies: dict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        copies[item.question].append(item)
    whole = [group for group in copies.values() if len(group) == len(group[0].letters)]
    return Accuracy(sum(all(item.correct for item in group) for group in whole), len(whole))


def _plain(judged: Sequence[Judged]) -> dict[str, Accuracy]:
    return {"overall": accuracy(judged)}


def _mmmu(judged: Sequence[Judged]) -> dict[str, Accuracy]:
    return {"overall": accuracy(judged), **by_discipline(judged)}


def _circular(judged: Sequence[Judged]) -> dict[str, Accuracy]:
    return {"overall": circular(judged), "plain": accuracy(judged)}


RULES: dict[str, Callable[[Sequence[Judged]], dict[str, Accuracy]]] = {
    "plain": _plain,
    "mmmu": _mmmu,
    "circular": _circular,
}


def scores(rule: str, judged: Sequence[Judged]) -> dict[str, Accuracy]:
    """Accuracies by a benchmark's own rule; ``overall`` is the one that it reports.

    Args:
        rule: one of ``RULES``, the ``scoring`` of a benchmark.
        judged: its answered samples (open questions and kept answers cannot be judged).

    Raises:
        UserError: there is no such rule.
    """
    if rule not in RULES:
        raise unknown("scoring rule", rule, RULES)
    return RULES[rule](judged)
