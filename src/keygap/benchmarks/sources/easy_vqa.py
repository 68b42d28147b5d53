"""easy-VQA: 64 x 64 pictures of one coloured shape and short questions, from its own package.

Small enough for two cores and hard enough that a model without the image fails. The subject is the
question's type: yes/no, shape or colour.
"""

from __future__ import annotations

import importlib.util
from functools import cached_property

from PIL import Image

from keygap.benchmarks.sample import Entry, Sample, image_then_question
from keygap.benchmarks.sample_set import Benchmark
from keygap.errors import UserError, unknown

SHAPES = ("circle", "rectangle", "triangle")


def subject(answer: str) -> str:
    """The question's type, which its answer tells."""
    return "yes/no" if answer in ("yes", "no") else "shape" if answer in SHAPES else "colour"


class EasyVQA(Benchmark):
    """The train (38,575 questions on 4,000 images) or test split (9,673 on 1,000)."""

    name = "easy-vqa"

    def __init__(self, split: str = "test") -> None:
        if split not in ("train", "test"):
            raise unknown("split of easy-vqa", split, ("train", "test"))
        if importlib.util.find_spec("easy_vqa") is None:
            raise UserError(
                "benchmark easy-vqa needs the package easy-vqa: pip install 'keygap[micro]'"
            )
        self.split = split

    @cached_property
    def _rows(self) -> list[tuple[str, str, int]]:
        import easy_vqa

        return list(zip(*getattr(easy_vqa, f"get_{self.split}_questions")(), strict=True))

    @cached_property
    def _paths(self) -> dict[int, str]:
        import easy_vqa

        return getattr(easy_vqa, f"get_{self.split}_image_paths")()

    @property
    def answers(self) -> tuple[str, ...]:
        """The 13 answers that exist, in the publisher's order."""
        import easy_vqa

        return tuple(easy_vqa.get_answers())

    def index(self) -> list[Entry]:
        return [
            Entry(f"{self.split}-{number}", subject(answer), image_key=str(image))
            for number, (_, answer, image) in enumerate(self._rows)
        ]

    def sample(self, number: int) -> Sample:
        question, answer, image = self._rows[number]
        return Sample(
            id=f"{self.split}-{number}",
            images=(Image.open(self._paths[image]),),
            question=question,
            prompt=image_then_question(question),
            answer=answer,
            subject=subject(answer),
            meta={"image": str(image)},
        )
