"""Questions and images of other samples, read from files as their publishers have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

import keygap as kg
from benchmarks import fixtures
from keygap.benchmarks import BadSample, Benchmark, Sample
from keygap.bias import PROBES, Samples, Unfit

BAR = "Which colour is the bar?"
LINES = ["(A) a red bar\n", "(B) a blue bar\n", "(C) the artist's name\n"]
RED, BLUE = (fixtures.picture(colour=colour) for colour in ((200, 30, 30), (30, 30, 200)))


def written(sample: Sample) -> list[str]:
    """The pieces of a prompt without the last one, which asks for the letter."""
    shown = [piece.text if piece.kind == "text" else "[image]" for piece in sample.prompt]
    return shown[:-1]


def variant(condition: str, benchmark: Benchmark, number: int = 0) -> Sample:
    samples = Samples(benchmark.choose(None), 0)
    (made,) = (each for each in PROBES["shuffle"]().conditions if each.name == condition)
    return made.make(benchmark.sample(number), samples).sample


def mmmu(folder: Path, questions: Sequence[str]) -> Benchmark:
    """MMMU with these questions, each with two pictures, in turn the one or the other first."""
    cells = [fixtures.cell(RED), fixtures.cell(BLUE)]
    rows = []
    for number, question in enumerate(questions):
        one, other = cells if number % 2 == 0 else reversed(cells)
        name = f"validation_Art_{number}"
        rows.append(fixtures.mmmu_row(name, question=question, image_1=one, image_2=other))
    return kg.benchmark("mmmu", data=fixtures.write_mmmu(folder / "rows.parquet", rows))


@pytest.mark.parametrize("condition", ["image_only", "neither"])
@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (f"<image 1> {BAR}", "Which shape?", ["[image]", " Which shape?\n"]),
        (
            f"<image 1> {BAR}",
            "Which shape does <image 1> show?",
            ["[image]", " Which shape does  show?\n"],
        ),
        (
            "Compare <image 1> with <image 2>.",
            "Which shape?",
            ["Which shape? ", "[image]", "  ", "[image]", "\n"],
        ),
        ("<image 1> <image 2> Which?", "A shape?", ["[image]", " ", "[image]", " A shape?\n"]),
        ("What does it show?", "Which shape?", ["[image]", "[image]", "Which shape?\n"]),
    ],
)
def test_only_the_words_of_a_question_are_another_ones(tmp_path, condition, own, other, expected):
    """The line break before the options stays, and no marker of an image comes as text."""
    benchmark = mmmu(tmp_path, [own, other])
    changed = variant(condition, benchmark)
    assert written(changed) == [*expected, *LINES]
    assert "<image" not in changed.question
    assert changed.options == benchmark.sample(0).options


@pytest.mark.parametrize("name", ["mmmu-pro", "mmbench", "jsonl"])
def test_the_line_break_before_the_options_stays(tmp_path, name):
    if name == "mmmu-pro":
        rows = [fixtures.pro_row("a", question=BAR), fixtures.pro_row("b", question="A shape?")]
        path = fixtures.write_parquet(tmp_path / "pro.parquet", rows, fixtures.PRO)
        benchmark = kg.benchmark(name, data=path)
    elif name == "mmbench":
        rows = [fixtures.bench_row(1), fixtures.bench_row(2, question="A shape?")]
        path = fixtures.write_bench_tsv(tmp_path / "MMBench_DEV_EN.tsv", rows)
        benchmark = kg.benchmark(name, data=path)
    else:
        (tmp_path / "a.png").write_bytes(RED)
        given = {"image": "a.png", "options": ["red", "blue"], "answer": "A"}
        rows = [{**given, "question": BAR}, {**given, "image": "./a.png", "question": "A shape?"}]
        benchmark = kg.benchmark(f"jsonl:{fixtures.write_jsonl(tmp_path / 'q.jsonl', rows)}")
    before = written(benchmark.sample(0))
    assert f"{BAR}\n" in before
    expected = [text.replace(BAR, "A shape?") for text in before]
    assert written(variant("image_only", benchmark)) == expected


def test_questions_that_differ_in_their_markers_alone_are_the_same(tmp_path):
    benchmark = mmmu(tmp_path, ["What does <image 1> show?", "What does <image 2> show?"])
    with pytest.raises(Unfit, match="no other sample asks another question"):
        variant("image_only", benchmark)


def questions(folder: Path, *names: str) -> Benchmark:
    """A file of questions that show these images."""
    rows = [{"image": name, "question": f"Question {name}?", "answer": "red"} for name in names]
    return kg.benchmark(f"jsonl:{fixtures.write_jsonl(folder / 'questions.jsonl', rows)}")


def test_an_image_that_cannot_be_decoded_is_no_other_image(tmp_path):
    (tmp_path / "own.png").write_bytes(RED)
    (tmp_path / "cut.png").write_bytes(fixtures.picture(size=(64, 32))[:80])
    (tmp_path / "cut too.png").write_bytes(BLUE[: len(BLUE) // 2])  # of the same size
    with pytest.raises(Unfit, match="no other sample shows another image"):
        variant("text_only", questions(tmp_path, "own.png", "cut.png", "cut too.png"))
    (tmp_path / "blue.png").write_bytes(BLUE)
    benchmark = questions(tmp_path, "own.png", "cut.png", "cut too.png", "blue.png")
    shown = variant("text_only", benchmark).images[0]
    assert shown.tobytes() == benchmark.sample(3).images[0].tobytes()
    with pytest.raises(BadSample, match="cannot be decoded"):  # of the sample itself
        variant("text_only", benchmark, 1)


def test_probing_goes_on_where_the_image_of_another_sample_is_truncated(vlm, tmp_path):
    (tmp_path / "own.png").write_bytes(RED)
    (tmp_path / "blue.png").write_bytes(BLUE)
    names = [f"cut {number}.png" for number in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(BLUE[: len(BLUE) // 2])
    asked = questions(tmp_path, "own.png", *names, "blue.png")
    found = kg.probe(vlm, asked, probes=["shuffle"], n_bootstraps=1)
    changed = found.samples[found.samples["condition"] == "text_only"]
    assert sorted(changed["sample_id"]) == ["questions-0", "questions-6"]


def test_a_photograph_that_is_held_otherwise_is_the_same_image(tmp_path):
    """One file has its pixels upright, the other turned, with a note in EXIF."""
    picture = Image.effect_mandelbrot((32, 24), (-2, -1, 1, 1), 50).convert("RGB")
    picture.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "turned.png", exif=exif)
    picture.convert("RGBA").save(tmp_path / "with alpha.png")
    benchmark = questions(tmp_path, "upright.png", "turned.png", "with alpha.png")
    for number in range(3):
        with pytest.raises(Unfit, match="no other sample shows another image"):
            variant("text_only", benchmark, number)


def test_a_question_about_the_image_of_the_same_key_is_never_taken(tmp_path):
    (tmp_path / "own.png").write_bytes(RED)
    rows = [{"image": "own.png", "question": question} for question in (BAR, "Which shape?")]
    benchmark = kg.benchmark(f"jsonl:{fixtures.write_jsonl(tmp_path / 'q.jsonl', rows)}")
    with pytest.raises(Unfit, match="no other sample asks another question"):
        variant("image_only", benchmark)
