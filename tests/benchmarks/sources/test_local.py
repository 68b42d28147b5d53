"""The user's own questions in JSON lines and folders, which are untrusted input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from keygap.benchmarks import BadSample, as_rgb, benchmark
from keygap.errors import UserError

from .. import fixtures

ROW = {"image": "pictures/a.png", "question": "What is it?"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two images, beside a secret that no data file may reach."""
    (tmp_path / "own/pictures").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(fixtures.picture())
    for name in ("a.png", "b.png"):
        (tmp_path / "own/pictures" / name).write_bytes(fixtures.picture())
    return tmp_path / "own"


def lines(folder: Path, *rows: dict[str, Any], **settings: str):
    path = fixtures.write_jsonl(folder / "questions.jsonl", rows)
    return benchmark(f"jsonl:{path}", **settings)


def test_a_row_with_everything(folder: Path) -> None:
    row = {
        "id": "q1", "subject": "tools", "images": ["pictures/a.png", "pictures/b.png"],
        "question": "哪一个？", "options": ["锤子", "钉子"], "answer": "钉子", "hint": "看图。",
        "language": "zh", "caption": "两把工具",
    }  # fmt: skip
    bench = lines(folder, row)
    sample = bench.sample(0)
    assert (bench.index()[0].id, bench.index()[0].subject) == ("q1", "tools")
    assert (sample.answer, sample.language, len(sample.images)) == ("B", "zh", 2)
    assert sample.caption == "两把工具"  # which the prompt leaves out
    assert [(part.role, part.text) for part in sample.prompt[2:]] == [
        ("hint", "看图。\n"),
        ("question", "哪一个？\n"),
        ("option", "A. 锤子\n"),
        ("option", "B. 钉子\n"),
        ("template", "请直接回答选项字母。"),
    ]


def test_a_row_with_only_an_image_and_a_question(folder: Path) -> None:
    sample = lines(folder, ROW).sample(0)
    assert [part.text for part in sample.prompt] == ["", "What is it?"]
    assert (sample.options, sample.answer, sample.id) == ((), None, "questions-0")
    assert as_rgb(sample.images[0]).size == (24, 16)


def test_items_of_one_image_are_known_as_such(folder: Path) -> None:
    entries = lines(folder, ROW, ROW | {"image": "pictures/b.png"}, ROW).index()
    assert entries[0].image_key == entries[2].image_key != entries[1].image_key
    assert len({entry.id for entry in entries}) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": "../secret.png"}, "leads out"),
        ({"image": "pictures/../../secret.png"}, "leads out"),
        ({"image": "/etc/hostname"}, "leads out"),
        ({"image": "link.png"}, "leads out"),
        ({"image": "links/secret.png"}, "leads out"),
        ({"image": "circle.png"}, "cannot be followed|no file"),
        ({"image": "a\0.png"}, "cannot be followed"),
        ({"image": "a" * 5_000}, "cannot be followed"),
        ({"image": "pipe.png"}, "no file"),
        ({"image": "pictures"}, "no file"),
        ({"image": "none.png"}, "no file 'none.png'"),
        ({"image": "https://example.org/a.png"}, "no file"),
        ({"image": None}, "missing image"),
        ({"image": 3}, "missing image"),
        ({"image": None, "images": []}, "missing image"),
        ({"image": None, "images": "pictures/a.png"}, "not a list"),
        ({"images": ["pictures/b.png"]}, "both 'image' and 'images'"),
        ({"question": ""}, "no question text"),
        ({"question": ["x"]}, "no question text"),
        ({"question": "\ud800"}, "not Unicode"),
        ({"options": "['a', 'b']"}, "not a list"),
        ({"options": ["a", 2]}, "not text but int"),
        ({"options": ["a"]}, "of 1 options"),
        ({"options": ["a"] * 30}, "of 30 options"),
        ({"options": {"A": "a", "B": "b"}}, "not a list but dict"),
        ({"image": "bomb.png"}, "the image is too large"),
        ({"options": ["a", "b"], "answer": "c"}, "not among the options"),
        ({"options": ["a", "a"], "answer": "a"}, "not among the options"),
        ({"language": "tlh"}, "language 'tlh'"),
    ],
)
def test_a_bad_row_says_why(change: dict[str, Any], reason: str, folder: Path) -> None:
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "links").symlink_to(folder.parent)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "bomb.png").write_bytes(fixtures.bomb())
    rows = [json.dumps(ROW), json.dumps(ROW | change), json.dumps(ROW)]
    (folder / "x.jsonl").write_text("\n".join(rows))
    bench = benchmark(f"jsonl:{folder / 'x.jsonl'}")
    assert len(bench.index()) == 3
    assert bench.sample(2).question == "What is it?"
    with pytest.raises(BadSample, match=reason):
        bench.sample(1)


def test_broken_lines(folder: Path) -> None:
    good = json.dumps(ROW).encode()
    path = folder / "x.jsonl"
    path.write_bytes(b"\n".join([b"{", b"", b"[1]", b"\xff", b"[" * 9_999, good]))
    bench = benchmark(f"jsonl:{path}")
    assert len(bench.index()) == 5
    for number, reason in enumerate(["not JSON", "object is wanted", "not UTF-8", "not JSON"]):
        with pytest.raises(BadSample, match=reason):
            bench.sample(number)
    assert bench.sample(4).question == "What is it?"


def test_a_link_inside_the_folder_is_fine(folder: Path) -> None:
    (folder / "same.png").symlink_to("pictures/a.png")
    assert lines(folder, ROW | {"image": "same.png"}).sample(0).images


def test_a_folder_of_pictures(folder: Path) -> None:
    (folder / "pictures/a.txt").write_text("What is it?", encoding="utf-8")
    more = {"question": "哪一个？", "options": ["锤子", "钉子"], "answer": "A", "language": "zh"}
    (folder / "pictures/b.json").write_text(json.dumps(more), encoding="utf-8")
    (folder / "c.jpg").write_bytes(fixtures.picture("CMYK", kind="JPEG"))
    (folder / "d.png").symlink_to(folder.parent / "secret.png")
    bench = benchmark(f"folder:{folder}")
    assert [(entry.id, entry.subject) for entry in bench.index()] == [
        ("c.jpg", ""), ("d.png", ""), ("pictures/a.png", "pictures"), ("pictures/b.png", "pictures")
    ]  # fmt: skip
    assert bench.sample(2).question == "What is it?"
    assert (bench.sample(3).answer, bench.sample(3).language) == ("A", "zh")
    with pytest.raises(BadSample, match="no question"):
        bench.sample(0)
    with pytest.raises(BadSample, match="leads out"):
        bench.sample(1)


def test_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    for name in (b"\xff/a\xfe.png", b"\xff/a\xfd.png"):
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(fixtures.picture())
    path.with_suffix(".txt").write_text("What is it?")
    chosen = benchmark(f"folder:{tmp_path}").choose(None)
    assert chosen.digest
    entries = chosen.benchmark.index()
    assert [(entry.id, entry.subject) for entry in entries] == [
        ("?/a?.png", "?"),
        ("?/a?.png#1", "?"),
    ]
    assert chosen.benchmark.sample(0).id == "?/a?.png"
    with pytest.raises(BadSample, match="no question") as reason:
        chosen.benchmark.sample(1)
    assert str(reason.value).encode()


@pytest.mark.parametrize(
    ("key", "value"), [("id", "x"), ("subject", "x"), ("image", "a.png"), ("images", ["a.png"])]
)
def test_keys_that_a_folder_gives_are_refused(key: str, value: object, folder: Path) -> None:
    (folder / "pictures/b.json").write_text(json.dumps({"question": "What?", key: value}))
    with pytest.raises(UserError, match=rf"pictures/b\.json: .*'{key}'.* leave it out"):
        benchmark(f"folder:{folder}").index()


def test_a_question_beside_the_picture_stays_inside(folder: Path) -> None:
    (folder.parent / "secret.txt").write_text("secret")
    (folder / "pictures/a.txt").symlink_to(folder.parent / "secret.txt")
    (folder / "pictures/b.txt").write_text("What is it?")
    with pytest.raises(BadSample, match="leads out"):
        benchmark(f"folder:{folder / 'pictures'}").sample(0)
    (folder / "pictures/b.txt").unlink()
    with pytest.raises(UserError, match=r"no image of .* can be used; a.png: .* leads out"):
        benchmark(f"folder:{folder / 'pictures'}").index()


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("jsonl:none.jsonl", {}, "no file of questions at none.jsonl"),
        ("folder:none", {}, "no folder of images at none"),
        ("jsonl:", {}, "unknown benchmark 'jsonl:'"),
        ("jsonl:own/x.jsonl", {"language": "german"}, "unknown language"),
        ("jsonl:own/x.jsonl", {"split": "test"}, "no split to choose"),
        ("folder:own/empty", {}, "has no image"),
    ],
)
def test_wrong_names(
    name: str, settings: dict[str, str], match: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "empty").mkdir()
    fixtures.write_jsonl(folder / "x.jsonl", [ROW])
    monkeypatch.chdir(folder.parent)
    with pytest.raises(UserError, match=match):
        benchmark(name, **settings)
