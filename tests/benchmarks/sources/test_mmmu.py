"""MMMU and MMMU-Pro in the publisher's parquet."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pyarrow.parquet as pq
import pytest
from PIL import Image

from keygap.benchmarks import BadSample, Benchmark, Sample, as_rgb, benchmark
from keygap.benchmarks.scoring import DISCIPLINES
from keygap.benchmarks.sources import mmmu, mmmu_pro
from keygap.errors import UserError

from .. import fixtures


def shape(sample: Sample) -> list[tuple[str, object]]:
    """The prompt as (role, text or image number)."""
    return [(part.role, part.text if part.kind == "text" else part.image) for part in sample.prompt]


def write_subjects(folder: Path) -> None:
    """A question of every subject, in the publisher's folders."""
    for subject in (name for names in DISCIPLINES.values() for name in names):
        rows = [fixtures.mmmu_row(f"validation_{subject}_1")]
        fixtures.write_mmmu(folder / subject / "validation-00000-of-00001.parquet", rows)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    path = tmp_path_factory.mktemp("mmmu") / "validation-00000-of-00001.parquet"
    rows = fixtures.mmmu_rows()
    return benchmark("mmmu", data=fixtures.write_mmmu(path, rows, group=4))


def test_the_index_has_ids_and_subjects(bench: Benchmark) -> None:
    entries = bench.index()
    assert [entry.id for entry in entries] == [row["id"] for row in fixtures.mmmu_rows()]
    assert [entry.subject for entry in entries[:2]] == ["Art", "Art_Theory"]


def test_the_prompt_is_the_publishers(bench: Benchmark) -> None:
    sample = bench.sample(0)
    assert shape(sample) == [
        ("question", "What does "),
        ("question", 0),
        ("question", " show?\n"),
        ("option", "(A) a red bar\n"),
        ("option", "(B) a blue bar\n"),
        ("option", "(C) the artist's name\n"),
        ("template", "\nAnswer with the option's letter from the given choices directly."),
    ]
    assert (sample.answer, sample.letters, sample.language) == ("A", ("A", "B", "C"), "en")
    assert sample.meta["subfield"] == "Drawing"


def test_two_options_ten_options_and_quotes(bench: Benchmark) -> None:
    two, ten, quotes = (bench.sample(number) for number in (1, 2, 3))
    assert two.options == ("yes", "no")
    assert (ten.letters[-1], ten.answer) == ("J", "J")
    assert quotes.options == ("“红色”，红。", 'say "no"', "it's", "a, b], ['c")
    assert ("option", "(A) “红色”，红。\n") in shape(quotes)


def test_markers_in_question_and_options_show_their_images(bench: Benchmark) -> None:
    sample = bench.sample(4)
    assert len(sample.images) == 3  # image 7, image 1, image 2; the other four are not shown
    assert shape(sample)[:11] == [
        ("question", "Rank "),
        ("question", 0),
        ("question", ", "),
        ("question", 1),
        ("question", " and "),
        ("question", 0),
        ("question", ".\n"),
        ("option", "(A) "),
        ("option", 1),
        ("option", ", "),
        ("option", 0),
    ]


def test_an_open_question_has_no_options(bench: Benchmark) -> None:
    sample = bench.sample(5)
    assert (sample.options, sample.answer) == ((), "1/64")
    assert sample.meta["question_type"] == "open"
    assert shape(sample)[-1] == (
        "template", "Answer the question using a single word or phrase."
    )  # fmt: skip


def test_without_a_marker_the_image_stands_first(bench: Benchmark) -> None:
    assert shape(bench.sample(10))[:2] == [("question", 0), ("question", "No marker at all?\n")]


def test_every_row_decodes(bench: Benchmark) -> None:
    modes = []
    for number in range(len(bench.index())):
        for image in bench.sample(number).images:
            modes.append(image.mode)
            assert as_rgb(image).mode == "RGB"
    assert {"RGB", "RGBA", "P", "CMYK", "L"} <= set(modes)


def test_a_second_row_of_one_id_keeps_its_subject(tmp_path: Path) -> None:
    path = fixtures.write_mmmu(tmp_path / "x.parquet", [fixtures.mmmu_row()] * 2)
    entries = benchmark("mmmu", data=path).index()
    assert [(entry.id, entry.subject) for entry in entries] == [
        ("validation_Art_1", "Art"), ("validation_Art_1#1", "Art")
    ]  # fmt: skip


@pytest.mark.parametrize("reason", fixtures.bad_mmmu_rows())
def test_a_bad_row_says_why_and_its_neighbours_live(reason: str, tmp_path: Path) -> None:
    rows = [fixtures.mmmu_row("dev_Art_1"), fixtures.bad_mmmu_rows()[reason]]
    bench = benchmark("mmmu", "dev", fixtures.write_mmmu(tmp_path / "x.parquet", rows))
    assert len(bench.index()) == 2
    assert bench.sample(0).id == "dev_Art_1"
    with pytest.raises(BadSample, match=reason):
        bench.sample(1)


def test_a_truncated_image_fails_where_it_is_decoded(tmp_path: Path) -> None:
    data = fixtures.picture(size=(300, 300))
    row = fixtures.mmmu_row(image_1=fixtures.cell(data[: len(data) // 2]))
    bench = benchmark("mmmu", data=fixtures.write_mmmu(tmp_path / "x.parquet", [row]))
    (image,) = bench.sample(0).images
    with pytest.raises(BadSample, match="cannot be decoded"):
        as_rgb(image)


def test_kept_answers_are_none(tmp_path: Path) -> None:
    rows = [fixtures.mmmu_row(answer="?"), fixtures.mmmu_row(answer="?", question_type="open")]
    bench = benchmark("mmmu", "test", fixtures.write_mmmu(tmp_path / "x.parquet", rows))
    assert [bench.sample(number).answer for number in (0, 1)] == [None, None]


def test_a_folder_of_subjects_and_splits(tmp_path: Path) -> None:
    for subject in ("Art", "Math"):
        for split in ("dev", "validation"):
            rows = [fixtures.mmmu_row(f"{split}_{subject}_{n}") for n in (1, 2)]
            fixtures.write_mmmu(tmp_path / subject / f"{split}-00000-of-00001.parquet", rows)
    bench = benchmark("mmmu", "dev", tmp_path)
    assert [entry.id for entry in bench.index()] == [
        "dev_Art_1", "dev_Art_2", "dev_Math_1", "dev_Math_2"
    ]  # fmt: skip
    assert bench.sample(3).id == "dev_Math_2"
    with pytest.raises(UserError, match="none of test"):
        benchmark("mmmu", "test", tmp_path)


def test_a_file_that_datasets_wrote(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    texts = {name: datasets.Value("string") for name in fixtures.MMMU_TEXTS}
    images = {f"image_{n}": datasets.Image() for n in range(1, 8)}
    row = fixtures.mmmu_row() | {"image_1": Image.open(io.BytesIO(fixtures.picture()))}
    data = datasets.Dataset.from_list([row], features=datasets.Features(texts | images))
    data.to_parquet(tmp_path / "x.parquet")
    assert as_rgb(benchmark("mmmu", data=tmp_path).sample(0).images[0]).size == (24, 16)


def test_data_of_another_schema(tmp_path: Path) -> None:
    path = fixtures.write_parquet(tmp_path / "x.parquet", [fixtures.vision_row()], fixtures.VISION)
    with pytest.raises(UserError, match="has no column question, question_type, image_1"):
        benchmark("mmmu", data=path)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [("x.parquet", "no", "not a readable parquet"), ("x.zip", "", "kind of data file")],
)
def test_data_that_is_no_table(name: str, content: str, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=match):
        benchmark("mmmu", data=tmp_path / name)


def test_a_damaged_row_group_is_a_bad_sample(tmp_path: Path) -> None:
    rows = [fixtures.mmmu_row(f"dev_Art_{n}") for n in range(4)]
    path = fixtures.write_mmmu(tmp_path / "x.parquet", rows, group=2)
    bench = benchmark("mmmu", "dev", path)
    assert len(bench.index()) == 4
    chunk = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    assert bench.sample(1).id == "dev_Art_1"
    with pytest.raises(BadSample, match="cannot be read"):
        bench.sample(2)


def test_pro_standard(tmp_path: Path) -> None:
    fixtures.write_all(tmp_path)
    bench = benchmark("mmmu-pro", data=tmp_path / "mmmu-pro")
    assert bench.index()[0].subject == "History"
    assert shape(bench.sample(0))[3:] == [
        ("option", "A. a red bar\n"),
        ("option", "B. a blue bar\n"),
        ("option", "C. the artist's name\n"),
        ("template", "Answer with the option letter from the given choices directly."),
    ]
    assert benchmark("mmmu-pro-4", data=tmp_path / "mmmu-pro").name == "mmmu-pro-4"


def test_pro_vision_has_the_question_in_the_picture(tmp_path: Path) -> None:
    fixtures.write_all(tmp_path)
    sample = benchmark("mmmu-pro-vision", data=tmp_path / "mmmu-pro").sample(0)
    assert (sample.question, sample.answer, sample.letters) == ("", "C", ("A", "B", "C"))
    assert [part.role for part in sample.prompt if part.kind == "text"] == ["template"]
    assert len(sample.images) == 1


@pytest.mark.parametrize(
    ("name", "module", "pattern"),
    [
        ("mmmu", mmmu, "*/validation-*.parquet"),
        ("mmmu-pro", mmmu_pro, "standard (10 options)/test-*.parquet"),
        ("mmmu-pro-4", mmmu_pro, "standard (4 options)/test-*.parquet"),
    ],
)
def test_the_hub_is_asked_for_a_pinned_revision(
    name: str, module: SimpleNamespace, pattern: str, tmp_path: Path, monkeypatch
) -> None:
    fixtures.write_all(tmp_path)
    write_subjects(tmp_path / "mmmu")
    asked: dict[str, object] = {}

    def download(dataset: str, **options: object) -> str:
        asked.update(options, dataset=dataset)
        return str(tmp_path / name.removesuffix("-4"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *_, **__: None)
    assert benchmark(name).index()
    assert asked == {
        "dataset": module.DATASET,
        "repo_type": "dataset",
        "revision": module.REVISION,
        "allow_patterns": [pattern],
    }
    assert len(module.REVISION) == 40


@pytest.mark.parametrize(
    ("lost", "missing"),
    [
        ("Art/validation-00001-of-00003.parquet", "Art/validation-00001-of-00003.parquet"),
        ("Math/validation-00000-of-00001.parquet", "Math/validation-*.parquet"),
    ],
)
def test_a_cache_with_a_part_of_the_split_is_not_the_benchmark(
    lost: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_subjects(tmp_path)
    for number in range(3):
        row = fixtures.mmmu_row(f"validation_Art_{number}")
        fixtures.write_mmmu(tmp_path / f"Art/validation-0000{number}-of-00003.parquet", [row])
    (tmp_path / "Art/validation-00000-of-00001.parquet").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *_, **__: None)
    assert len(benchmark("mmmu").index()) == 32
    (tmp_path / lost).unlink()
    with pytest.raises(UserError) as error:
        benchmark("mmmu")
    assert str(error.value).startswith(
        f"MMMU/MMMU is not complete: {missing} missing in {tmp_path}"
    )


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot reach\nthe Hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *_, **__: None)
    with pytest.raises(
        UserError, match=r"cannot get MMMU/MMMU .*\(cannot reach the Hub\).* --data PATH"
    ):
        benchmark("mmmu")


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("mmmu", {"split": "validate"}, "did you mean 'validation'"),
        ("mmmu-pro", {"split": "dev"}, "split of mmmu-pro"),
        ("mmmux", {}, "did you mean 'mmmu'"),
        ("mmmu", {"language": "zh"}, "no language to choose"),
        ("easy-vqa", {"data": "x"}, "no data to choose"),
        ("mmmu", {"data": "/no/such/place"}, "no data file or folder"),
    ],
)
def test_wrong_names(name: str, settings: dict[str, str], match: str) -> None:
    with pytest.raises(UserError, match=match):
        benchmark(name, **settings)
