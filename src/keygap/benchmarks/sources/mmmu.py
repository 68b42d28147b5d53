"""MMMU: college questions of 30 subjects with up to seven images each.

The files are parquet with one row for each question: images in the columns ``image_1`` to
``image_7``, markers ``<image N>`` in the question and the options, options as a stringified list.
Some questions are open. The prompt is that of the publisher's own evaluation
(``mmmu/configs/llava1.5.yaml``), with the images at their markers.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from keygap.benchmarks.formats.files import HubFiles, origin, source_files
from keygap.benchmarks.formats.markers import interleaved
from keygap.benchmarks.formats.options import (
    checked_answer,
    lettered,
    open_answer,
    option_lines,
    parse_options,
    required_question,
    text_of,
)
from keygap.benchmarks.formats.tables import Tables
from keygap.benchmarks.sample import BadSample, Entry, Sample, unique_ids
from keygap.benchmarks.sample_set import Benchmark
from keygap.benchmarks.scoring import DISCIPLINES
from keygap.errors import unknown

DATASET = "MMMU/MMMU"
REVISION = "98e6ac0cb9b7b2cd2c991b85a50762edc4aedc68"
SPLITS = ("dev", "validation", "test")
ID = re.compile(r"(?:dev|validation|test)_(.+)_\d+")
SUBJECTS = tuple(name for names in DISCIPLINES.values() for name in names)
KINDS = ("multiple-choice", "open")
CHOICE = "Answer with the option's letter from the given choices directly."
OPEN = "Answer the question using a single word or phrase."


class MMMU(Benchmark):
    """College questions of 30 subjects, with up to seven images and some open questions.

    Args:
        split: "dev" (150 questions), "validation" (900) or "test" (10,500).
        data: a parquet file with the publisher's columns, or a folder of such files; None means the
            Hub.

    Raises:
        UserError: there is no such split, or no data with the publisher's columns.
    """

    name = "mmmu"
    scoring = "mmmu"

    def __init__(self, split: str = "validation", data: str | Path | None = None) -> None:
        if split not in SPLITS:
            raise unknown("split of mmmu", split, SPLITS)
        self.split, self.data = split, origin(data)
        hub = HubFiles(DATASET, REVISION, f"*/{split}-*.parquet", SUBJECTS)
        needs = ("id", "question", "options", "answer", "question_type", "image_1")
        self._rows = Tables(source_files(data, hub, (split, SPLITS)), needs)

    @cached_property
    def _entries(self) -> list[Entry]:
        names = [row.get("id") for row in self._rows.scan(("id",))]
        ids = unique_ids(self.split, names)
        return [Entry(one, subject_of(text_of(name))) for one, name in zip(ids, names, strict=True)]

    def index(self) -> list[Entry]:
        """List every question of the split."""
        return self._entries

    def sample(self, number: int) -> Sample:
        """Open the item at this position of the index."""
        row, entry = self._rows.row(number), self._entries[number]
        question, kind = required_question(row["question"]), row["question_type"]
        if kind not in KINDS:
            raise BadSample(f"the question's type {kind!r} is none of {', '.join(KINDS)}")
        has_options = kind == "multiple-choice"
        options = parse_options(row["options"]) if has_options else ()
        letters = lettered(options)
        answer = row["answer"]
        answer = checked_answer(answer, letters) if has_options else open_answer(answer)
        lines = option_lines(options, letters, "({}) {}")
        prompt, images = interleaved(row, question, lines, f"\n{CHOICE}" if has_options else OPEN)
        return Sample(
            id=entry.id,
            images=images,
            question=question,
            prompt=prompt,
            answer=answer,
            options=options,
            subject=entry.subject,
            meta={
                "question_type": kind,
                "subfield": text_of(row.get("subfield")),
                "difficulty": text_of(row.get("topic_difficulty")),
            },
        )


def subject_of(name: str) -> str:
    """Return the subject in an id such as ``validation_Art_Theory_7``; empty if it has none."""
    match = ID.fullmatch(name)
    return match[1] if match else ""
