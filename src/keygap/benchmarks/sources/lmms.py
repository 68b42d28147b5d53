"""Any task of lmms-eval by its name, through its own task objects: ``lmms:NAME``.

The task loads its dataset, builds its prompt and opens its images with its own code; keygap takes
the messages. They have no roles, so all text of the user's turn is the question's, and no options,
so accuracy by letters is not scored. Tested with tasks that show images; video is refused.
"""

from __future__ import annotations

import importlib.util
from functools import cached_property
from typing import Any

from PIL import Image

from keygap.benchmarks.sample import BadSample, Entry, Piece, Role, Sample
from keygap.benchmarks.sample_set import Benchmark
from keygap.errors import UserError, unknown

SUBJECTS = ("subject", "category", "topic")  # what datasets call it


class LmmsTask(Benchmark):
    """One task on the split that it evaluates.

    Args:
        task: its name, as ``lmms-eval --tasks list`` prints it.

    Raises:
        UserError: lmms-eval is not installed, or has no such task.
    """

    split = "evaluation"

    def __init__(self, task: str) -> None:
        if importlib.util.find_spec("lmms_eval") is None:
            raise UserError(
                f"benchmark lmms:{task} needs the package lmms-eval: pip install 'keygap[lmms]'"
            )
        from lmms_eval.tasks import (  # type: ignore[import-not-found]
            TaskManager,
            get_task_dict,
        )

        manager = TaskManager()
        if task not in manager.all_subtasks:
            raise unknown("task of lmms-eval", task, manager.all_subtasks, "groups are not tasks")
        self.name = f"lmms:{task}"
        self._task: Any = get_task_dict([task], manager, "chat")[task]

    @cached_property
    def _entries(self) -> list[Entry]:
        docs = self._task.eval_docs_no_media
        columns = [name for name in SUBJECTS if name in docs.column_names]
        subjects = map(str, docs[columns[0]]) if columns else [""] * len(docs)
        return [Entry(f"{self.name}-{number}", name) for number, name in enumerate(subjects)]

    def index(self) -> list[Entry]:
        return self._entries

    def sample(self, number: int) -> Sample:
        entry = self._entries[number]
        try:
            doc = self._task.eval_docs[number]
            messages = self._task.doc_to_messages(doc)
            target = self._task.doc_to_target(doc)
        # what tasks' code raises on a row that it does not expect
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise BadSample(f"lmms-eval cannot read the row: {error!r}") from error
        prompt: list[Piece] = []
        images: list[Image.Image] = []
        for message in messages:
            role: Role = "question" if message["role"] == "user" else "system"
            for content in message["content"]:
                if content["type"] == "text":
                    prompt.append(Piece("text", role, content["text"]))
                elif isinstance(content.get("url"), Image.Image):
                    prompt.append(Piece("image", role, image=len(images)))
                    images.append(content["url"])
                else:
                    raise BadSample(f"keygap reads images, and this row shows {content['type']}")
        question = "".join(part.text for part in prompt if part.role == "question")
        if not question.strip():
            raise BadSample("no question text")
        return Sample(
            id=entry.id,
            images=tuple(images),
            question=question,
            prompt=tuple(prompt),
            answer=str(target),
            subject=entry.subject,
        )
