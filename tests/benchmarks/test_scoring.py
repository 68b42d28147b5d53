"""Chosen options and accuracies, compared with numbers computed by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keygap.benchmarks.scoring import (
    DISCIPLINES,
    Accuracy,
    Judged,
    accuracy,
    by_discipline,
    choose_option,
    circular,
    is_correct,
    judge,
    scores,
)
from keygap.errors import UserError


def judged(subject: str, right: int, wrong: int) -> list[Judged]:
    answers = ["A"] * right + ["B"] * wrong
    return [Judged(f"{subject}{n}", subject, "A", x, ("A", "B")) for n, x in enumerate(answers)]


def copies(question: str, chosen: str, answers: str, letters: str = "AB") -> list[Judged]:
    return [
        Judged(f"{n}{question}", "", one, answer, tuple(letters), question)
        for n, (one, answer) in enumerate(zip(chosen, answers, strict=True))
    ]


def test_the_likeliest_letter_is_chosen() -> None:
    assert choose_option({"A": -3.0, "B": -1.5, "C": -math.inf}) == "B"
    assert choose_option({"A": -1.0, "B": -1.0}) == "A"


@settings(deadline=None)  # a busy machine is no failure
@given(st.dictionaries(st.sampled_from("ABCDEFGHIJ"), st.floats(-50, 0), min_size=1))
def test_no_option_is_likelier_than_the_chosen(likelihoods: dict[str, float]) -> None:
    chosen = choose_option(likelihoods)
    assert all(value <= likelihoods[chosen] for value in likelihoods.values())
    raised = {letter: value + 7 for letter, value in likelihoods.items()}
    assert raised[choose_option(raised)] == max(raised.values())


@pytest.mark.parametrize("likelihoods", [{}, {"A": math.nan, "B": -1.0}])
def test_without_numbers_nothing_is_chosen(likelihoods: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"no option|not a number"):
        choose_option(likelihoods)


def test_a_sample_is_judged() -> None:
    item = judge("q1", {"A": -2.0, "B": -1.0}, "B", "Art", "7")
    assert item == Judged("q1", "Art", "B", "B", ("A", "B"), "7", -1.0)
    assert item.correct
    with pytest.raises(ValueError, match="'C' of q1 is not among"):
        judge("q1", {"A": -2.0, "B": -1.0}, "C")


def test_accuracy() -> None:
    assert accuracy(judged("Art", 3, 1)) == Accuracy(3, 4)
    assert Accuracy(3, 4).value == 0.75
    assert math.isnan(accuracy([]).value)


def test_there_are_six_disciplines_of_thirty_subjects() -> None:
    subjects = [subject for members in DISCIPLINES.values() for subject in members]
    assert (len(DISCIPLINES), len(subjects), len(set(subjects))) == (6, 30, 30)


def test_disciplines_pool_questions_and_not_subjects() -> None:
    items = judged("Art", 1, 0) + judged("Music", 0, 3) + judged("Math", 2, 2)
    table = by_discipline(items)
    # a mean of the subjects would be 0.5
    assert table == {"Art and Design": Accuracy(1, 4), "Science": Accuracy(2, 4)}
    assert scores("mmmu", items)["overall"] == Accuracy(3, 8)
    assert list(scores("mmmu", items)) == ["overall", "Art and Design", "Science"]


def test_circular_evaluation_wants_every_copy_right() -> None:
    items = copies("1", "AB", "AB") + copies("2", "AA", "AB") + copies("3", "ABC", "ABC", "ABC")
    assert circular(items) == Accuracy(2, 3)
    assert scores("circular", items) == {
        "overall": Accuracy(2, 3), "plain": Accuracy(6, 7)
    }  # fmt: skip


def test_a_question_with_copies_missing_is_left_out() -> None:
    assert circular(copies("1", "A", "A") + copies("2", "AB", "AB")) == Accuracy(1, 1)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=1))
def test_circular_is_never_above_plain(questions: list[list[bool]]) -> None:
    items = [
        item
        for n, pair in enumerate(questions)
        for item in copies(str(n), "AA", "".join("A" if right else "B" for right in pair))
    ]
    assert circular(items).value <= accuracy(items).value


def test_plain_accuracy() -> None:
    assert scores("plain", judged("x", 1, 1)) == {"overall": Accuracy(1, 2)}


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        ("[10, 20]", ["[10, 20]"], ["10", "20"]),
        ("['24', 'twenty-four']", ["24", "Twenty-four.", "['24', 'twenty-four']"], ["25"]),
        ("['a', 2]", ["['a', 2]"], ["a", "2"]),
        ("[]", ["[]"], [""]),
    ],
)
def test_an_open_answer_that_looks_like_a_list(
    answer: str, right: list[str], wrong: list[str]
) -> None:
    assert all(is_correct(chosen, answer, ()) for chosen in right)
    assert not any(is_correct(chosen, answer, ()) for chosen in wrong)


@pytest.mark.parametrize("depth", [3_000, 50_000, 100_000])
def test_an_answer_that_is_nested_deeply_is_text(depth: int) -> None:
    answer = "[" + "-" * depth + "1]"
    assert is_correct(answer, answer, ())
    assert not is_correct("1", answer, ())


def test_an_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown scoring rule 'circle'; did you mean 'circular'"):
        scores("circle", [])
