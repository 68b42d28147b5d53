"""easy-VQA: questions about 64 x 64 images of one coloured shape, from the package easy-vqa.

It is small enough for two CPU cores, and a model that does not see the image fails on it. A
question's subject is its type: yes/no, shape or colour. A sample's caption, such as "a red circle",
is derived from the published questions about its image and their answers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from keygap.benchmarks.sample import Entry, Sample, image_then_question
from keygap.benchmarks.sample_set import Benchmark
from keygap.errors import unknown
from keygap.optional import require

SPLITS = ("train", "test")
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
NEGATED = re.compile(r"\b(not|no)\b")
WORD = re.compile(r"[a-z]+")


def subject(answer: str) -> str:
    """Return the type of the question that has this answer."""
    return "yes/no" if answer in ("yes", "no") else "shape" if answer in SHAPES else "colour"


def caption_of(asked: Iterable[tuple[str, str]]) -> str | None:
    """Say what an image shows, from the questions about it and their answers.

    "is there not a red shape?" with the answer "no" tells that the shape is red, and "what color is
    the circle?" tells that it is a circle. A value is also known if all others are ruled out.

    Args:
        asked: pairs of question and answer.

    Returns:
        Colour and shape, such as "a red circle"; None if the questions do not determine both.
    """
    colours, shapes = set(COLOURS), set(SHAPES)
    for question, answer in asked:
        told = {*WORD.findall(question), answer}
        ruled_out = answer == ("yes" if NEGATED.search(question) else "no")
        for possible in (colours, shapes):
            if named := told & possible:
                possible -= named if ruled_out else possible - named
    return f"a {min(colours)} {min(shapes)}" if len(colours) == len(shapes) == 1 else None


class EasyVQA(Benchmark):
    """Questions about the colour and shape in small synthetic images.

    Args:
        split: "train" (38,575 questions on 4,000 images) or "test" (9,673 on 1,000).

    Raises:
        UserError: there is no such split, or the package easy-vqa is not installed.
    """

    name = "easy-vqa"

    def __init__(self, split: str = "test") -> None:
        if split not in SPLITS:
            raise unknown("split of easy-vqa", split, SPLITS)
        require("easy_vqa", "micro", "benchmark easy-vqa")
        self.split = split

    @cached_property
    def questions(self) -> list[tuple[str, str, int]]:
        """Question, answer and image number of every item."""
        return list(zip(*self._published("questions"), strict=True))

    @cached_property
    def image_paths(self) -> dict[int, Path]:
        """File of every image by its number."""
        return {number: Path(path) for number, path in self._published("image_paths").items()}

    @property
    def answers(self) -> tuple[str, ...]:
        """The 13 answers that exist, in the publisher's order."""
        import easy_vqa

        return tuple(easy_vqa.get_answers())

    def index(self) -> list[Entry]:
        """List every item; questions about one image share its key."""
        return self._entries

    def sample(self, number: int) -> Sample:
        """Open the item at this position of the index."""
        question, answer, image = self.questions[number]
        return Sample(
            id=f"{self.split}-{number}",
            images=(Image.open(self.image_paths[image]),),
            question=question,
            prompt=image_then_question(question),
            answer=answer,
            subject=subject(answer),
            meta={"image": str(image)},
            caption=caption_of(self._asked[image]),
        )

    @cached_property
    def _asked(self) -> dict[int, list[tuple[str, str]]]:
        """The questions about every image, with their answers."""
        asked = defaultdict(list)
        for question, answer, image in self.questions:
            asked[image].append((question, answer))
        return asked

    @cached_property
    def _entries(self) -> list[Entry]:
        return [
            Entry(f"{self.split}-{number}", subject(answer), image_key=str(image))
            for number, (_, answer, image) in enumerate(self.questions)
        ]

    def _published(self, what: str) -> Any:
        import easy_vqa

        return getattr(easy_vqa, f"get_{self.split}_{what}")()
