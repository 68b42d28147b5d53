"""Mistakes in the code of a benchmark: one line that names the item, before a model is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import keygap as kg
from keygap.benchmarks import REGISTRY, BadSample, Benchmark, Entry, InMemory, Piece, Sample
from keygap.errors import UserError
from made import made_sample


class Theirs(Benchmark):
    """Two items, made by a function of the test."""

    name, split = "theirs", "all"

    def __init__(self, data: str | Path, make: Callable[[int], Sample] | None = None) -> None:
        self.make = make or (lambda number: made_sample(f"item-{number}"))

    def index(self) -> list[Entry]:
        return [Entry("item-0"), Entry("item-1")]

    def sample(self, number: int) -> Sample:
        return self.make(number)


@pytest.fixture
def registered() -> Iterator[None]:
    REGISTRY.register("theirs", Theirs)
    yield
    REGISTRY.unregister("theirs")


def opened(make: Callable[[int], Sample]) -> list[Sample]:
    chosen = Theirs("folder", make).choose(None)
    return [chosen.sample(number) for number in range(len(chosen))]


@pytest.mark.usefixtures("registered")
def test_data_that_a_constructor_needs() -> None:
    with pytest.raises(UserError, match=r"benchmark 'theirs' needs data: give --data \(in Python"):
        kg.benchmark("theirs")
    found = kg.benchmark("theirs", data="folder")
    assert len(found.choose(None)) == 2
    assert repr(found) == "Theirs('theirs', split 'all')"


def test_ids_that_are_not_unique() -> None:
    twice = InMemory("twice", [made_sample("a"), made_sample("b"), made_sample("a")])
    with pytest.raises(UserError, match="benchmark twice: 2 items have the id 'a'; make it unique"):
        twice.choose(1)


def test_an_item_with_another_id_than_in_the_index() -> None:
    with pytest.raises(UserError, match=r"returns the id 'x' for the item .* calls 'item-[01]'"):
        opened(lambda number: made_sample("x"))


def test_an_error_of_their_own_code_names_the_item() -> None:
    def make(number: int) -> Sample:
        return made_sample(f"item-{number}", question=["a", "b"][number + 1])

    with pytest.raises(IndexError) as error:
        opened(make)
    assert error.value.__notes__ == ["while item 'item-1' of benchmark theirs was opened"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"images": ("a.png",)}, "sample one: an image is a str, and PIL.Image.Image is needed"),
        ({"videos": (("a.png",),)}, "sample one: an image is a str"),
        ({"prompt": (Piece("text", "questions", "x"),)}, "unknown role .questions.; did you mean"),  # type: ignore[arg-type]
    ],
)
def test_a_sample_that_cannot_be_one(change: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        replace(made_sample("one"), **change)


@pytest.mark.parametrize("answer", ["C", "a", "the ball", ""])
def test_an_answer_that_is_not_the_letter_of_an_option(answer: str) -> None:
    picture = Image.new("RGB", (8, 8))
    prompt = (Piece("image"), Piece("text", text="Which?"))
    asked: dict[str, Any] = {"options": ("a cube", "the ball")}
    with pytest.raises(BadSample, match=f"the answer '{answer}' is not among the options A, B"):
        Sample("one", (picture,), "Which?", prompt, answer, **asked)
    assert Sample("one", (picture,), "Which?", prompt, "B", **asked).letters == ("A", "B")
    assert Sample("one", (picture,), "Which?", prompt, None, **asked).answer is None
