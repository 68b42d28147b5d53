"""MMMU: college questions of 30 subjects with up to seven images each.

Parquet with one row per question: ``image_1`` to ``image_7``, markers ``<image N>`` in the question
and in the options, options as a stringified list, and some open questions. The prompt is the one of
the publisher's own evaluation (``mmmu/configs/llava1.5.yaml``), images where their markers stand.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from keygap.benchmarks.formats.files import HubFiles, hub_files, local_files, origin
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
from keygap.errors import unknown

DATASET = "MMMU/MMMU"
REVISION = "98e6ac0cb9b7b2cd2c991b85a50762edc4aedc68"
SPLITS = ("dev", "validation", "test")
ID = re.compile(r"(?:dev|validation|test)_(.+)_\d+")
KINDS = ("multiple-choice", "open")
CHOICE = "Answer with the option's letter from the given choices directly."
OPEN = "Answer the question using a single word or phrase."


class MMMU(Benchmark):
    """All subjects of one split: dev (150 questions), validation (900) or test (10,500).

    Args:
        split: the split's name.
        data: a parquet file or a folder of them with the publisher's columns; None means the Hub.

    Raises:
        UserError: no such split, no data, or data of another schema.
    """

    name = "mmmu"
    scoring = "mmmu"

    def __init__(self, split: str = "validation", data: str | Path | None = None) -> None:
        if split not in SPLITS:
            raise unknown("split of mmmu", split, SPLITS)
        self.split, self.data = split, origin(data)
        hub = HubFiles(DATASET, REVISION, f"*/{split}-*.parquet")
        files = hub_files(hub) if data is None else local_files(data, (split, SPLITS))
        needs = ("id", "question", "options", "answer", "question_type", "image_1")
        self._rows = Tables(files, needs)

    @cached_property
    def _entries(self) -> list[Entry]:
        names = [row.get("id") for row in self._rows.scan(("id",))]
        ids = unique_ids(self.split, names)
        return [Entry(one, subject_of(text_of(name))) for one, name in zip(ids, names, strict=True)]

    def index(self) -> list[Entry]:
        return self._entries

    def sample(self, number: int) -> Sample:
        row, entry = self._rows.row(number), self._entries[number]
        question, kind = required_question(row["question"]), row["question_type"]
        if kind not in KINDS:
            raise BadSample(f"the question's type {kind!r} is none of {', '.join(KINDS)}")
        several = kind == "multiple-choice"
        options = parse_options(row["options"]) if several else ()
        letters = lettered(options)
        answer = checked_answer(row["answer"], letters) if several else open_answer(row["answer"])
        lines = option_lines(options, letters, "({}) {}")
        prompt, images = interleaved(row, question, lines, f"\n{CHOICE}" if several else OPEN)
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
    """The subject in a question's id, ``validation_Art_Theory_7``; empty where it has none."""
    match = ID.fullmatch(name)
    return match[1] if match else ""
