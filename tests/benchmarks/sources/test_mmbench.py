"""MMBench in the publisher's TSV and in parquet, in both languages, with circular copies."""

from __future__ import annotations

import base64
import pickle
from pathlib import Path

import pytest

from keygap.benchmarks import BadSample, as_rgb, benchmark
from keygap.benchmarks.formats.tables import TsvTable
from keygap.errors import UserError

from .. import fixtures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mmbench")
    fixtures.write_all(path)
    return path


FORMATS = pytest.mark.parametrize("kind", ["mmbench", "hub"])


@FORMATS
def test_copies_count_only_when_asked_for(folder: Path, kind: str) -> None:
    assert [entry.id for entry in benchmark("mmbench", data=folder / kind).index()] == ["1", "241"]
    bench = benchmark("mmbench-circular", data=folder / kind)
    entries = bench.index()
    assert [entry.id for entry in entries] == ["1", "241", "1000001", "1000241", "2000241"]
    assert [entry.image_key for entry in entries] == ["1", "241", "1", "241", "241"]
    assert [entry.question_key for entry in entries] == ["1", "241", "1", "241", "241"]
    assert entries[1].subject == "logic"
    assert len(bench.choose(2).with_copies()) == 5


@FORMATS
@pytest.mark.parametrize(
    ("name", "language", "first", "last"),
    [
        ("mmbench", "en", "A. red\n",
         "Answer with the option's letter from the given choices directly."),
        ("mmbench-cn", "zh", "A. 红色\n", "请直接回答选项字母。"),
    ],
)  # fmt: skip
def test_prompts(folder: Path, kind: str, name: str, language: str, first: str, last: str) -> None:
    bench = benchmark(name, data=folder / kind)
    plain, hinted = bench.sample(0), bench.sample(1)
    assert plain.language == language
    roles = ["question", "question", "option", "option", "template"]
    assert [part.role for part in plain.prompt] == roles
    assert [part.kind for part in plain.prompt] == ["image", *["text"] * 4]
    assert [part.text for part in plain.prompt[2:]] == [first, plain.prompt[3].text, last]
    assert (plain.hint, plain.options[1:]) == (None, ("green",) if language == "en" else ("绿色",))
    assert hinted.hint == 'First line,\twith a tab.\nSecond line, with "quotes".'
    assert [part.role for part in hinted.prompt][1:3] == ["hint", "question"]
    assert (hinted.letters, hinted.answer) == (("A", "B", "C"), "C")
    assert hinted.meta["l2_category"] == "finegrained_perception"


@FORMATS
def test_a_copy_has_the_image_of_its_question(folder: Path, kind: str) -> None:
    bench = benchmark("mmbench-circular", data=folder / kind)
    copy = bench.sample(4)
    assert (copy.id, bench.index()[4].question_key, copy.answer) == ("2000241", "241", "A")
    assert as_rgb(copy.images[0]).tobytes() == as_rgb(bench.sample(1).images[0]).tobytes()


BAD = {
    "broken base64": {"image": "x" * 99},
    "missing image$": {"image": ""},
    "refers to row 77": {"image": "77"},
    "row 5 has none of its own": {"image": "5"},
    "not an image": {"image": base64.b64encode(b"no" * 50).decode()},
    "not among the options A, B": {"answer": "C"},
    "no question text": {"question": ""},
    "of 1 options": {"B": ""},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_says_why(reason: str, tmp_path: Path) -> None:
    rows = [fixtures.bench_row(4), fixtures.bench_row(5, **BAD[reason]), fixtures.bench_row(6)]
    bench = benchmark("mmbench", data=fixtures.write_bench_tsv(tmp_path / "x.tsv", rows))
    assert [bench.sample(number).id for number in (0, 2)] == ["4", "6"]
    with pytest.raises(BadSample, match=reason):
        bench.sample(1)


def test_a_missing_option_keeps_the_others_letters(tmp_path: Path) -> None:
    row = fixtures.bench_row(B="", C="blue", answer="C")
    sample = benchmark("mmbench", data=fixtures.write_bench_tsv(tmp_path / "x.tsv", [row])).sample(
        0
    )
    assert (sample.letters, sample.options) == (("A", "C"), ("red", "blue"))
    assert [part.text for part in sample.prompt if part.role == "option"] == [
        "A. red\n", "C. blue\n"
    ]  # fmt: skip


def test_an_index_that_pandas_made_a_float_of_is_the_same_index(tmp_path: Path) -> None:
    rows = [row | {"index": f"{row['index']}.0"} for row in fixtures.bench_rows()]
    path = fixtures.write_bench_tsv(tmp_path / "x.tsv", rows)
    assert [entry.id for entry in benchmark("mmbench", data=path).index()] == ["1", "241"]
    bench = benchmark("mmbench-circular", data=path)
    assert [entry.image_key for entry in bench.index()] == ["1", "241", "1", "241", "241"]
    assert bench.sample(4).images


def test_kept_answers_are_none(tmp_path: Path) -> None:
    row = fixtures.bench_row(answer="")
    path = fixtures.write_bench_tsv(tmp_path / "x.tsv", [row])
    assert benchmark("mmbench", "test", path).sample(0).answer is None


def test_another_language_of_the_folder_is_not_taken(tmp_path: Path) -> None:
    fixtures.write_bench_tsv(tmp_path / "MMBench_DEV_CN.tsv", fixtures.bench_rows("cn"))
    with pytest.raises(UserError, match="has files of cn, but none of en"):
        benchmark("mmbench", data=tmp_path)
    assert benchmark("mmbench-cn", data=tmp_path).index()


def test_broken_lines_do_not_hide_the_rows_after_them(tmp_path: Path) -> None:
    path = fixtures.write_bench_tsv(tmp_path / "x.tsv", [fixtures.bench_row(1)])
    good = path.read_bytes().splitlines(keepends=True)
    broken = [b"2\ttoo\tshort\n", b"\n", b"3\ta\rb" + b"\t" * 12 + b"\n",
              good[1].replace(b"\nWhich", b"\n").replace(b"bar?", b"b\xffr?")]  # fmt: skip
    path.write_bytes(b"\xef\xbb\xbf" + good[0] + b"".join(broken) + good[1].replace(b"1", b"9", 1))
    bench = benchmark("mmbench", data=path)
    assert len(bench.index()) >= 4
    assert bench.index()[-1].id == "9"
    assert bench.sample(len(bench.index()) - 1).question == "Which colour is the bar?"
    for number in range(len(bench.index()) - 1):
        with pytest.raises(BadSample, match=r"fields where|broken quoting|not UTF-8"):
            bench.sample(number)


@pytest.mark.parametrize("last", ["5\t{}\n", '5\t"red" and "blue"\n', '5\t"two\nlines"\n'])
def test_a_quote_that_is_not_closed_does_not_swallow_rows(last: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('index\tquestion\n1\t"one\ntwo"\n2\t"open\n3\tmore\n' + last)
    with pytest.raises(UserError, match=r"x\.tsv, line 4: a quote .* is not closed"):
        TsvTable(path)


def test_broken_quotes_in_one_line_concern_its_row(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('index\tquestion\n1\t"red" and blue\n2\tmore\n3\t"open')
    table = TsvTable(path)
    assert [row.get("index") for row in table.scan(("index",))] == [None, "2", None]
    for number in (0, 2):
        with pytest.raises(BadSample, match="broken quoting"):
            table.row(number)


def test_a_folder_with_the_same_questions_twice(tmp_path: Path) -> None:
    for name in ("MMBench_DEV_EN.tsv", "MMBench_DEV_EN_V11.tsv"):
        fixtures.write_bench_tsv(tmp_path / name, fixtures.bench_rows())
    bench = benchmark("mmbench", data=tmp_path)
    with pytest.raises(UserError, match=r"the same questions twice, such as index 1: name the"):
        bench.index()
    assert len(benchmark("mmbench", data=tmp_path / "MMBench_DEV_EN.tsv").index()) == 2


def test_files_with_different_options_are_not_one_benchmark(tmp_path: Path) -> None:
    fixtures.write_bench_tsv(tmp_path / "a.tsv", [fixtures.bench_row(1)])
    short = "\t".join(("index", "question", "A", "B", "image", "category"))
    (tmp_path / "b.tsv").write_text(f"{short}\n2\tWhich?\tred\tblue\tx\tlogic\n")
    with pytest.raises(UserError, match=r"b\.tsv has no column C, D, which .*a\.tsv has"):
        benchmark("mmbench", data=tmp_path)


def test_rows_of_a_tsv_begin_where_they_begin(tmp_path: Path) -> None:
    path = fixtures.write_bench_tsv(tmp_path / "x.tsv", fixtures.bench_rows())
    table = TsvTable(path)
    whole = list(table.scan(table.columns))
    assert len(table) == len(whole) == 5
    assert [table.row(number) for number in (4, 0, 3, 1, 2)] == [whole[n] for n in (4, 0, 3, 1, 2)]


@FORMATS
def test_a_benchmark_travels_to_another_process(folder: Path, kind: str) -> None:
    bench = benchmark("mmbench", data=folder / kind)
    there = pickle.loads(pickle.dumps(bench))  # noqa: S301, it is our own
    assert there.sample(1).prompt == bench.sample(1).prompt
