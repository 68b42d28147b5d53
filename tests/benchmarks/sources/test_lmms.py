"""Tasks of lmms-eval, with a stand-in that has the interface of version 0.7's task objects."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants
from PIL import Image

from keygap.benchmarks import BadSample, benchmark
from keygap.errors import UserError

DOCS = [
    {"question": "What is it?", "answer": "a dog", "subject": "animals"},
    {"question": "", "answer": "x", "subject": "none"},
    {"question": "video", "answer": "x", "subject": "films"},
    {"answer": "x", "subject": "broken"},
]


class Docs(list):
    column_names = ("question", "answer", "subject")

    def __getitem__(self, key: Any) -> Any:
        return [doc[key] for doc in self] if isinstance(key, str) else super().__getitem__(key)


class Task:
    eval_docs = eval_docs_no_media = Docs(DOCS)
    config = SimpleNamespace(doc_to_target="answer")

    def doc_to_messages(self, doc: dict[str, str]) -> list[dict[str, Any]]:
        url = "film.mp4" if doc["question"] == "video" else Image.new("RGB", (2, 2))
        kind = "video" if isinstance(url, str) else "image"
        content = [{"type": kind, "url": url}, {"type": "text", "text": doc["question"]}]
        system = {"role": "system", "content": [{"type": "text", "text": "Be short."}]}
        return [system, {"role": "user", "content": content}]

    def doc_to_target(self, doc: dict[str, str]) -> str:
        return doc["answer"]


@pytest.fixture
def lmms_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    package: Any = ModuleType("lmms_eval")
    tasks: Any = ModuleType("lmms_eval.tasks")
    package.__spec__ = importlib.machinery.ModuleSpec("lmms_eval", None)
    package.__path__ = []
    tasks.TaskManager = lambda: SimpleNamespace(all_subtasks=["pets"])
    tasks.get_task_dict = lambda names, manager, kind: {names[0]: Task()}
    monkeypatch.setitem(sys.modules, "lmms_eval", package)
    monkeypatch.setitem(sys.modules, "lmms_eval.tasks", tasks)


@pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is not None, reason="it is installed")
def test_without_the_package_the_user_is_told() -> None:
    with pytest.raises(UserError, match=r"pip install 'keygap\[lmms\]'"):
        benchmark("lmms:mmmu_val")


@pytest.mark.usefixtures("lmms_eval")
def test_a_task_by_name() -> None:
    bench = benchmark("lmms:pets")
    assert [entry.subject for entry in bench.index()] == ["animals", "none", "films", "broken"]
    sample = bench.sample(0)
    assert (sample.id, sample.question, sample.answer) == ("lmms:pets-0", "What is it?", "a dog")
    assert [(part.kind, part.role) for part in sample.prompt] == [
        ("text", "system"), ("image", "question"), ("text", "question")
    ]  # fmt: skip


@pytest.mark.usefixtures("lmms_eval")
@pytest.mark.parametrize(
    ("number", "reason"), [(1, "no question"), (2, "shows video"), (3, "KeyError")]
)
def test_rows_that_cannot_be_used(number: int, reason: str) -> None:
    with pytest.raises(BadSample, match=reason):
        benchmark("lmms:pets").sample(number)


@pytest.mark.usefixtures("lmms_eval")
@pytest.mark.parametrize(
    ("target", "answer"),
    [
        (None, None),
        ("", None),
        (float("nan"), None),
        ("?", None),
        (3, "3"),
        (["a", "b"], "['a', 'b']"),
    ],
)
def test_an_answer_that_is_not_published_is_none(target, answer, monkeypatch) -> None:
    monkeypatch.setattr(Task, "doc_to_target", lambda self, doc: target)
    assert benchmark("lmms:pets").sample(0).answer == answer


@pytest.mark.usefixtures("lmms_eval")
@pytest.mark.parametrize(
    ("rule", "answer"), [("the answer", None), ("answer", "a dog"), ("{{answer}}", "a dog")]
)
def test_a_word_that_is_the_answer_to_every_question_is_none(
    rule, answer, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(Task, "config", SimpleNamespace(doc_to_target=rule))
    if answer is None:  # as lmms-eval renders a template without a variable
        monkeypatch.setattr(Task, "doc_to_target", lambda self, doc: rule)
    bench = benchmark("lmms:pets")
    assert [bench.sample(0).answer for _ in range(2)] == [answer] * 2
    told = [line for line in caplog.messages if "'the answer'" in line]
    assert len(told) == (answer is None)


@pytest.mark.usefixtures("lmms_eval")
def test_examples_with_answers_are_refused(monkeypatch) -> None:
    plain = Task.doc_to_messages
    shown = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
    monkeypatch.setattr(
        Task, "doc_to_messages", lambda self, doc: [*plain(self, doc), shown, *plain(self, doc)]
    )
    with pytest.raises(BadSample, match=r"a message of 'assistant', .* without examples"):
        benchmark("lmms:pets").sample(0)


@pytest.mark.usefixtures("lmms_eval")
def test_an_unknown_task() -> None:
    with pytest.raises(UserError, match="did you mean 'pets'"):
        benchmark("lmms:pet")
