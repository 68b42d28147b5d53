"""MMMU-Pro: harder questions of MMMU, with up to ten options, or as screenshots.

The publisher offers the same 1,730 questions in three configurations. "standard (10 options)" and
"standard (4 options)" have MMMU's columns. In "vision" the whole question is inside the image: the
only text of the prompt is the request for a letter, of role template, so measuring it needs
``text_roles`` to include that role. The prompts are the publisher's direct ones
(``mmmu-pro/prompts.yaml``).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from PIL import Image

from keygap.benchmarks.formats.files import HubFiles, origin, source_files
from keygap.benchmarks.formats.images import image_of
from keygap.benchmarks.formats.markers import interleaved
from keygap.benchmarks.formats.options import (
    checked_answer,
    lettered,
    option_lines,
    parse_options,
    required_question,
    text_of,
)
from keygap.benchmarks.formats.tables import Row, Tables
from keygap.benchmarks.sample import Entry, Piece, Sample, unique_ids
from keygap.benchmarks.sample_set import Benchmark
from keygap.errors import unknown

DATASET = "MMMU/MMMU_Pro"
REVISION = "563f3e84bb3b90893083a1f039cfa13077f2302b"
CONFIGS = {"10": "standard (10 options)", "4": "standard (4 options)", "vision": "vision"}
CHOICE = "Answer with the option letter from the given choices directly."
VISION = (
    f"{CHOICE} The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of options."
)


class MMMUPro(Benchmark):
    """Harder questions of MMMU with up to ten options.

    Args:
        split: "test", the only one.
        data: a parquet file with the publisher's columns, or a folder of such files; None means the
            Hub.

    Raises:
        UserError: there is no such split, or no data with the publisher's columns.
    """

    name = "mmmu-pro"
    scoring = "mmmu"
    config = "10"
    question_columns: tuple[str, ...] = ("question", "image_1")

    def __init__(self, split: str = "test", data: str | Path | None = None) -> None:
        if split != "test":
            raise unknown("split of mmmu-pro", split, ("test",))
        self.split, self.data = split, origin(data)
        hub = HubFiles(DATASET, REVISION, f"{CONFIGS[self.config]}/test-*.parquet")
        files = source_files(data, hub, (self.config, CONFIGS))
        needs = ("id", "options", "answer", "subject", *self.question_columns)
        self._rows = Tables(files, needs)

    @cached_property
    def _entries(self) -> list[Entry]:
        rows = [(row.get("id"), row.get("subject")) for row in self._rows.scan(("id", "subject"))]
        ids = unique_ids(self.split, (name for name, _ in rows))
        return [Entry(name, text_of(row[1])) for name, row in zip(ids, rows, strict=True)]

    def index(self) -> list[Entry]:
        """List every question."""
        return self._entries

    def sample(self, number: int) -> Sample:
        """Open the item at this position of the index."""
        row, entry = self._rows.row(number), self._entries[number]
        options = parse_options(row["options"])
        letters = lettered(options)
        answer = checked_answer(row["answer"], letters)
        question = self._question(row)
        prompt, images = self._shown(row, question, option_lines(options, letters, "{}. {}"))
        return Sample(
            id=entry.id,
            images=images,
            question=question,
            prompt=prompt,
            answer=answer,
            options=options,
            subject=entry.subject,
            meta={"difficulty": text_of(row.get("topic_difficulty"))},
        )

    def _question(self, row: Row) -> str:
        return required_question(row["question"])

    def _shown(
        self, row: Row, question: str, lines: list[str]
    ) -> tuple[tuple[Piece, ...], tuple[Image.Image, ...]]:
        """Build the prompt of a row, and the images that it shows."""
        return interleaved(row, question, lines, CHOICE)


class MMMUPro4(MMMUPro):
    """The questions of MMMU-Pro with four options."""

    name = "mmmu-pro-4"
    config = "4"


class MMMUProVision(MMMUPro):
    """The questions of MMMU-Pro as screenshots, without any question text."""

    name = "mmmu-pro-vision"
    config = "vision"
    question_columns = ("image",)

    def _question(self, row: Row) -> str:
        return ""

    def _shown(
        self, row: Row, question: str, lines: list[str]
    ) -> tuple[tuple[Piece, ...], tuple[Image.Image, ...]]:
        return (Piece("image"), Piece("text", "template", VISION)), (image_of(row["image"]),)
