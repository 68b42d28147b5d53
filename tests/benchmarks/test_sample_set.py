"""Sample sets: chosen once, divided into batches, completed by circular copies."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import keygap as kg
from keygap.benchmarks import (
    BadSample,
    Benchmark,
    Entry,
    InMemory,
    Piece,
    Sample,
    SampleSet,
    image_then_question,
)
from keygap.benchmarks.sample_set import UNSET, as_sample_set
from keygap.errors import UserError

from . import fixtures


class Numbers(Benchmark):
    """Items 0 to n - 1; item 3 is bad."""

    name, split = "numbers", "all"

    def __init__(self, items: int) -> None:
        self.items = items

    def index(self) -> list[Entry]:
        return [Entry(str(number), subject="ab"[number % 2]) for number in range(self.items)]

    def sample(self, number: int) -> Sample:
        if number == 3:
            raise BadSample("three")
        return Sample(str(number), (), f"what is {number}?", image_then_question("?", 0))


def test_a_benchmark_declares_what_others_ask_of_it() -> None:
    bench = Numbers(1)
    assert (bench.answers, bench.scoring, bench.language, bench.data) == ((), "plain", None, None)


@pytest.mark.parametrize(
    ("name", "scoring"),
    [
        ("mmmu", "mmmu"),
        ("mmmu-pro", "mmmu"),
        ("mmmu-pro-4", "mmmu"),
        ("mmmu-pro-vision", "mmmu"),
        ("mmbench", "plain"),
        ("mmbench-cn", "plain"),
        ("mmbench-circular", "circular"),
        ("mmbench-cn-circular", "circular"),
    ],
)
def test_names_and_scoring_rules(name: str, scoring: str, tmp_path: Path) -> None:
    fixtures.write_all(tmp_path)
    folder = {"mmbench": "mmbench", "mmmu-pro": "mmmu-pro"}.get("-".join(name.split("-")[:2]))
    folder = folder or name.split("-")[0]
    bench = kg.benchmark(name, data=tmp_path / folder)
    assert (bench.name, bench.scoring, bench.answers) == (name, scoring, ())
    assert bench.data == str(tmp_path / folder)


def test_a_choice_knows_what_was_asked_for() -> None:
    bench = Numbers(10)
    chosen = bench.choose(4, seed=7)
    assert (chosen.benchmark, chosen.name, chosen.asked, chosen.seed) == (bench, "numbers", 4, 7)
    assert len(chosen) == len(set(chosen.places)) == 4
    assert [entry.id for entry in chosen.entries] == [str(place) for place in chosen.places]
    assert sorted(entry.subject for entry in chosen.entries) == ["a", "a", "b", "b"]
    assert repr(chosen) == "SampleSet(4 of 10 samples of numbers, split all, seed 7)"
    assert chosen == bench.choose(4, seed=7)
    assert chosen.places == bench.choose(9, seed=7).places[:4]
    assert chosen.places != bench.choose(4, seed=8).places


@pytest.mark.parametrize("samples", [None, 10, 11])
def test_all_samples(samples: int | None) -> None:
    assert sorted(Numbers(10).choose(samples).places) == list(range(10))


def test_by_default_200_samples_of_seed_0() -> None:
    bench = Numbers(300)
    assert bench.choose() == bench.choose(200, seed=0) == as_sample_set(bench)


def test_samples_are_opened_in_the_order_of_the_choice() -> None:
    chosen = Numbers(10).choose(None)
    for number, place in enumerate(chosen.places):
        if place == 3:
            with pytest.raises(BadSample, match="three"):
                chosen.sample(number)
        else:
            assert chosen.sample(number).id == chosen.entries[number].id == str(place)


@pytest.mark.parametrize("samples", [0, -1])
def test_at_least_one_sample_is_needed(samples: int) -> None:
    with pytest.raises(UserError, match="at least 1"):
        Numbers(10).choose(samples)


def test_a_benchmark_without_samples_is_one_line() -> None:
    with pytest.raises(UserError, match="benchmark numbers, split all, has no samples"):
        Numbers(0).choose()


@pytest.mark.parametrize(("size", "sizes"), [(4, [4, 4, 2]), (5, [5, 5]), (99, [10])])
def test_batches_are_the_set_in_pieces(size: int, sizes: list[int]) -> None:
    chosen = Numbers(10).choose()
    batches = chosen.batches(size)
    assert [len(batch) for batch in batches] == sizes
    assert sum((batch.places for batch in batches), ()) == chosen.places
    assert all(batch.benchmark is chosen.benchmark for batch in batches)


def test_a_batch_has_at_least_one_sample() -> None:
    with pytest.raises(UserError, match="batch_size is 0"):
        Numbers(10).choose().batches(0)


def test_a_set_takes_slices_and_no_numbers() -> None:
    chosen = Numbers(10).choose()
    assert chosen[2:5].places == chosen.places[2:5]
    with pytest.raises(TypeError, match=r"sample\(number\)"):
        chosen[2]  # type: ignore[index]
    with pytest.raises(TypeError):
        list(chosen)  # type: ignore[call-overload]


def test_a_set_is_passed_on_and_a_benchmark_chosen_from() -> None:
    bench = Numbers(10)
    chosen = bench.choose(3, seed=2)
    assert as_sample_set(chosen) is chosen
    assert as_sample_set(bench, 3, 2) == chosen
    assert as_sample_set(bench, None) == bench.choose(None)
    for samples, seed in ((3, UNSET), (None, UNSET), (UNSET, 2)):
        with pytest.raises(UserError, match="chosen already"):
            as_sample_set(chosen, samples, seed)


def circular(folder: Path) -> Benchmark:
    path = fixtures.write_bench_tsv(folder / "x.tsv", fixtures.bench_rows())
    return kg.benchmark("mmbench-circular", data=path)


def test_copies_complete_their_question(tmp_path: Path) -> None:
    bench = circular(tmp_path)
    copies = {"1": ["1", "1000001"], "241": ["241", "1000241", "2000241"]}
    for seed in range(4):
        chosen = bench.choose(1, seed)
        (entry,) = chosen.entries
        whole = chosen.with_copies()
        assert [copy.id for copy in whole.entries] == copies[entry.question_key]
        assert (whole.asked, whole.seed) == (1, seed)
    assert sorted(bench.choose(2).with_copies().places) == [0, 1, 2, 3, 4]
    assert len(bench.choose(None).with_copies()) == 5


def test_a_set_without_copies_stays_the_same(tmp_path: Path) -> None:
    path = fixtures.write_bench_tsv(tmp_path / "x.tsv", fixtures.bench_rows())
    for bench in (Numbers(10), kg.benchmark("mmbench", data=path)):
        chosen = bench.choose(2)
        assert chosen.with_copies() == chosen


def test_items_of_one_image_are_no_copies() -> None:
    class OneImage(Numbers):
        def index(self) -> list[Entry]:
            return [Entry(str(number), image_key="same") for number in range(self.items)]

    chosen = OneImage(5).choose(2)
    assert chosen.with_copies() == chosen


class Photographs(Numbers):
    """Items 0 to 2 show one image, items 3 to 5 the next one, and so on."""

    def index(self) -> list[Entry]:
        return [Entry(str(n), image_key=f"photograph {n // 3}") for n in range(self.items)]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11, 12, 20])
def test_parts_that_are_apart_share_no_image(count: int) -> None:
    for seed in range(5):
        chosen = Photographs(12).choose(12, seed)
        first, rest = chosen.apart(count)
        images = [{int(entry.id) // 3 for entry in part.entries} for part in (first, rest)]
        assert len(first) == min(count, 12)
        assert len(rest) == 12 - 3 * min(4, -(-count // 3))  # of the images that are not begun
        assert not images[0] & images[1]
        order = {entry.id: place for place, entry in enumerate(chosen.entries)}
        for part in (first, rest):
            places = [order[entry.id] for entry in part.entries]
            assert places == sorted(set(places))


def test_items_without_an_image_key_have_an_image_each() -> None:
    first, rest = Numbers(10).choose(10).apart(4)
    assert (len(first), len(rest)) == (4, 6)
    assert not {entry.id for entry in first.entries} & {entry.id for entry in rest.entries}


def test_samples_in_memory() -> None:
    samples = [Sample(name, (), "?", (), subject="x") for name in "abc"]
    chosen = InMemory("mine", samples).choose()
    assert isinstance(chosen, SampleSet)
    assert {chosen.sample(number).id for number in range(3)} == {"a", "b", "c"}
    assert {entry.subject for entry in chosen.entries} == {"x"}


def captioned(name: str, caption: str | None) -> Sample:
    prompt = (Piece("image"), Piece("text", text="what is it?"))
    return Sample(name, (Image.new("RGB", (8, 8)),), "what is it?", prompt, caption=caption)


def test_captions_come_after_the_images(caplog: pytest.LogCaptureFixture) -> None:
    bench = InMemory("mine", [captioned("a", "a cup"), captioned("b", None)])
    plain = bench.choose(2, 5)
    with caplog.at_level("INFO", logger="keygap"):
        chosen = plain.with_captions()
    assert "1 of 2 samples have no caption" in caplog.text
    assert [entry.id for entry in chosen.entries] == ["a"]
    assert (chosen.name, chosen.asked, chosen.seed) == ("mine+captions", 2, 5)
    pieces = [(p.kind, p.role, p.text) for p in chosen.sample(0).prompt]
    assert pieces == [
        ("image", "question", ""),
        ("text", "caption", "a cup"),
        ("text", "template", "\n"),
        ("text", "question", "what is it?"),
    ]
    with pytest.raises(BadSample, match="no caption"):
        chosen.benchmark.sample(1)


def test_a_benchmark_without_captions_says_so() -> None:
    with pytest.raises(UserError, match="no sample of mine has a caption"):
        InMemory("mine", [captioned("b", None)]).choose().with_captions()
