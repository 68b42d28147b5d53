"""Tasks of lmms-eval by name, read through lmms-eval's own task objects: ``lmms:NAME``.

The task's code loads the dataset, builds the prompt and opens the images; keygap reads the messages
that it returns. Messages have no roles for pieces of text, so all text of the user's turn counts as
the question, and there are no options to score by letter. Video is refused.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from PIL import Image

from keygap.benchmarks.formats.options import open_answer
from keygap.benchmarks.sample import BadSample, Entry, Piece, Role, Sample
from keygap.benchmarks.sample_set import Benchmark
from keygap.errors import UserError, unknown
from keygap.hub import refuse_unreachable
from keygap.optional import require
from keygap.text import one_line

logger = logging.getLogger("keygap")

SUBJECTS = ("subject", "category", "topic")  # columns in which datasets name an item's subject
ROLES: dict[str, Role] = {"user": "question", "system": "system"}
TEMPLATE = re.compile(r"\{\{|\{%")  # Jinja's variable or statement


class LmmsTask(Benchmark):
    """A task of lmms-eval, on the split that it evaluates.

    Args:
        task: its name, as ``lmms-eval --tasks list`` prints it.

    Raises:
        UserError: lmms-eval is not installed, or has no such task.
    """

    split = "evaluation"

    def __init__(self, task: str) -> None:
        require("lmms_eval", "lmms", f"benchmark lmms:{task}")
        # lmms-eval logs by loguru, which prints the reading of every task's file if it is not told
        os.environ.setdefault("LOGURU_LEVEL", "WARNING")
        from lmms_eval.tasks import (  # type: ignore[import-not-found]
            TaskManager,
            get_task_dict,
        )

        manager = TaskManager()
        if task not in manager.all_subtasks:
            raise unknown("task of lmms-eval", task, manager.all_subtasks, "groups are not tasks")
        self.name = f"lmms:{task}"
        refuse_unreachable(self.name)
        try:
            self._task: Any = get_task_dict([task], manager, "chat")[task]
        # Tasks are code of many authors, which raises anything; "last_attempt" has the cause of
        # the error that their decorator raises after several attempts.
        except Exception as error:
            last = getattr(error, "last_attempt", None)
            cause = error if last is None else last.exception()
            raise UserError(
                f"lmms-eval cannot open {self.name}: {type(cause).__name__}: {cause}"
            ) from error

    @cached_property
    def _entries(self) -> list[Entry]:
        docs = self._task.eval_docs_no_media
        columns = [name for name in SUBJECTS if name in docs.column_names]
        subjects = map(str, docs[columns[0]]) if columns else [""] * len(docs)
        return [Entry(f"{self.name}-{number}", name) for number, name in enumerate(subjects)]

    @cached_property
    def _constant_target(self) -> bool:
        """Whether the task's answer is one word for every question; logged once.

        lmms-eval takes a text that names no column for a template. Without a variable or a
        statement it renders as itself, as where a publisher keeps the answers.
        """
        rule = self._task.config.doc_to_target
        columns = self._task.eval_docs.column_names
        constant = isinstance(rule, str) and rule not in columns and not TEMPLATE.search(rule)
        if constant:
            logger.warning(
                "%s has the same answer to every question, %r: taken as not published",
                self.name,
                one_line(rule, 80),
            )
        return constant

    def index(self) -> list[Entry]:
        """List every item, numbered in the task's order."""
        return self._entries

    def sample(self, number: int) -> Sample:
        """Open the item at this position of the index."""
        entry = self._entries[number]
        try:
            doc = self._task.eval_docs[number]
            messages = self._task.doc_to_messages(doc)
            target = self._task.doc_to_target(doc)
        # what the code of tasks raises on a row that it does not expect
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise BadSample(f"lmms-eval cannot read the row: {error!r}") from error
        prompt, images = _prompt_of(messages)
        question = "".join(piece.text for piece in prompt if piece.role == "question")
        if not question.strip():
            raise BadSample("no question text")
        return Sample(
            id=entry.id,
            images=images,
            question=question,
            prompt=prompt,
            answer=None if self._constant_target else open_answer(target),
            subject=entry.subject,
        )


def _prompt_of(
    messages: Iterable[Mapping[str, Any]],
) -> tuple[tuple[Piece, ...], tuple[Image.Image, ...]]:
    """Turn chat messages into a prompt and the images that it shows.

    Raises:
        BadSample: a message shows something other than text and images, or is not the user's or
            the system's.
    """
    prompt: list[Piece] = []
    images: list[Image.Image] = []
    for message in messages:
        if message["role"] not in ROLES:
            raise BadSample(
                f"a message of {message['role']!r}, as in examples with answers: keygap reads one "
                "question; set the task up without examples (num_fewshot: 0)"
            )
        role = ROLES[message["role"]]
        for content in message["content"]:
            if content["type"] == "text":
                prompt.append(Piece("text", role, content["text"]))
            elif isinstance(content.get("url"), Image.Image):
                prompt.append(Piece("image", role, image=len(images)))
                images.append(content["url"])
            else:
                raise BadSample(f"keygap reads images, and this row shows {content['type']}")
    return tuple(prompt), tuple(images)
