"""The literal parser of option lists, and the check of answers, on untrusted text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keygap.benchmarks.formats.options import checked_answer, parse_options
from keygap.benchmarks.sample import LETTERS, BadSample

TEXTS = st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from("'\"\\，。“”[]")))


@given(st.lists(TEXTS))
@example(["it's", 'say "no"', "红色，蓝色。", "a\nb", "\\(x\\)", "', '"])
def test_a_list_of_any_strings_comes_back(options: list[str]) -> None:
    assert parse_options(repr(options)) == tuple(options)


@given(
    st.one_of(
        st.integers(),
        TEXTS,
        st.dictionaries(TEXTS, TEXTS),
        st.tuples(TEXTS),
        st.sets(TEXTS, min_size=1),
        st.lists(st.one_of(st.integers(), st.binary(), st.none(), st.lists(TEXTS)), min_size=1),
    )
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(BadSample):
        parse_options(repr(value))


@given(TEXTS)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        options = parse_options(text)
    except BadSample:
        return
    assert all(isinstance(option, str) for option in options)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "['a'] * 9",
        "[open('x')]",
        "[f'{1}']",
        "['a', b'b']",
        "['a'",
        "",
        "[" * 5_000 + "]" * 5_000,
        "['a'," + "(" * 50_000,
        "['" + "a" * 200_000 + "']",
        "['\0']",
    ],
)
def test_code_and_broken_lists_are_refused(text: str) -> None:
    with pytest.raises(BadSample):
        parse_options(text)


def test_a_reason_is_the_same_every_time() -> None:
    reasons = set()
    for _ in range(2):
        with pytest.raises(BadSample) as error:
            parse_options("['a'] * 9")
        reasons.add(str(error.value))
    assert reasons == {"the options \"['a'] * 9\" are not a list of literal strings"}


@pytest.mark.parametrize("value", [None, 3, ["a"], float("nan")])
def test_a_cell_that_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(BadSample, match="not a stringified list"):
        parse_options(value)


def test_latex_keeps_its_backslashes(recwarn: pytest.WarningsRecorder) -> None:
    assert parse_options(r"['\(x\)', '$\\mu$']") == (r"\(x\)", r"$\mu$")
    assert not recwarn.list


@pytest.mark.parametrize(("answer", "letter"), [("B", "B"), (" A ", "A"), ("?", None), ("", None)])
def test_answers(answer: str, letter: str | None) -> None:
    assert checked_answer(answer, LETTERS[:2]) == letter


@pytest.mark.parametrize("answer", ["C", "AB", "a", "red"])
def test_an_answer_that_is_no_option_is_refused(answer: str) -> None:
    with pytest.raises(BadSample, match="not among the options A, B"):
        checked_answer(answer, LETTERS[:2])
