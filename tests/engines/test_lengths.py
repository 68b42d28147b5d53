"""Batches of similar lengths compute less padding; a store's rows are those of other batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from PIL import Image

import keygap as kg
from keygap.benchmarks import Piece
from keygap.engines import ahead
from keygap.engines.lengths import longest_first
from keygap.models.load import wrap
from made import bench_of, files_of, made_sample
from models.zoo import BY_FAMILY

WORDS = ("the", "shape", "of", "picture", "whose", "colour", "is", "not", "that", "other", "round")


def of_all_sizes(count: int):
    """Samples whose images have 32 to 200 pixels a side, and whose questions 3 to 60 words."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count):
        width, height = np.exp(rng.uniform(np.log(32), np.log(200), 2)).astype(int).tolist()
        words = rng.choice(WORDS, int(np.exp(rng.uniform(np.log(3), np.log(60)))))
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        samples.append(replace(made_sample(f"s{number:02}", " ".join(words)), images=(picture,)))
    return samples


def padding(lengths: list[int]) -> int:
    """Tokens that are computed beside the given ones, in batches of eight."""
    batches = [lengths[start : start + 8] for start in range(0, len(lengths), 8)]
    return sum(max(batch) * len(batch) - sum(batch) for batch in batches)


def tiny(family: str):
    """A model of a family; those that read images at their own resolution, up to 200 x 200."""
    entry = BY_FAMILY[family]
    if family == "qwen2_vl":
        size = {"shortest_edge": 256, "longest_edge": 200 * 200}
        entry = replace(entry, image={**entry.image, "size": size})
    return wrap(*entry.build(), name=family)


@pytest.fixture(scope="module")
def qwen():
    return tiny("qwen2_vl")


# fixed: every image has as many tokens; native: by its area; tiles: by its shape
@pytest.mark.parametrize(
    ("family", "factor"), [("llava", 6), ("qwen2_vl", 4), ("internvl", 4), ("llava_next", 2)]
)
def test_less_padding_is_computed_whatever_way_a_model_reads_images(family, factor):
    vlm = tiny(family)
    samples = of_all_sizes(64)
    given = {sample.id: len(vlm.prompter([sample]).labels[0]) for sample in samples}
    found = [given[sample.id] for sample in longest_first(vlm, samples)]
    assert sorted(found) == sorted(given.values())
    assert padding(found) * factor < padding(list(given.values()))


def test_no_image_is_decoded_to_sort_and_equal_samples_keep_their_order(qwen, tmp_path):
    samples = [made_sample(f"s{n}", "what is it?" * (1 + n % 2)) for n in range(6)]
    opened = []
    for number, sample in enumerate(samples):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (64, 64 + 64 * (number == 4))).save(path)
        opened.append(replace(sample, images=(Image.open(path),)))
    found = longest_first(qwen, opened)
    assert [sample.id for sample in found] == ["s4", "s1", "s3", "s5", "s0", "s2"]  # s4 is large
    assert all(
        getattr(sample.images[0], "fp", None) for sample in found
    )  # closed once it is decoded
    assert longest_first(qwen, []) == []


def test_images_that_the_prompt_does_not_show_have_no_length(qwen):
    large = Image.new("RGB", (640, 640))
    one, other = made_sample("one", "what is it?"), made_sample("other", "what is it then?")
    hidden = replace(one, images=(*one.images, large))
    assert longest_first(qwen, [hidden, other])[0].id == "other"
    shown = replace(hidden, prompt=(*hidden.prompt, Piece("image", image=1)))
    assert longest_first(qwen, [other, shown])[0].id == "one"
    film = replace(one, videos=((large,) * 3,), prompt=(*one.prompt, Piece("video")))
    assert longest_first(qwen, [other, film])[0].id == "one"


def test_a_store_of_sorted_batches_is_that_of_others_but_for_rounding(qwen, tmp_path, monkeypatch):
    asked: dict[str, Any] = {"source": bench_of(of_all_sizes(24)), "layers": ["all"], "tokens": 8}
    widths: list[int] = []

    real = type(qwen).forward

    def forward(self, batch, **keywords):
        widths.append(batch.inputs["attention_mask"].numel())
        return real(self, batch, **keywords)

    monkeypatch.setattr(type(qwen), "forward", forward)
    kg.extract(qwen, out=tmp_path / "warm", **{**asked, "layers": [0]})  # the self-check
    widths.clear()
    found = kg.extract(qwen, out=tmp_path / "sorted", **asked)
    computed = sum(widths)
    widths.clear()
    monkeypatch.setattr(ahead, "longest_first", lambda vlm, samples: samples)
    expected = kg.extract(qwen, out=tmp_path / "given", **asked)
    real = int(expected.samples["n_tokens"].sum())
    assert computed - real < (sum(widths) - real) / 2
    one, other = (
        {name: data for name, data in files_of(store.root).items() if "vectors" not in name}
        for store in (found, expected)
    )
    differ = {name for name in one if one[name] != other[name]}
    assert differ <= {"manifest.json", "checksums.sha256", "commits.jsonl"}
    for layer in expected.layers("k_proj"):
        a, b = (store.vectors("k_proj", layer) for store in (found, expected))
        assert_frame_equal(a.labels, b.labels, check_exact=False, atol=1e-5)  # of attention
        np.testing.assert_allclose(a.array, b.array, atol=1e-4)


def test_a_continued_run_of_samples_of_all_lengths_has_the_same_files(qwen, tmp_path, monkeypatch):
    monkeypatch.setattr("keygap.engines.plan.PART_SAMPLES", 16)
    asked: dict[str, Any] = {
        "source": bench_of(of_all_sizes(40)),
        "layers": [0, 1],
        "batch_size": 4,
    }
    whole = kg.extract(qwen, out=tmp_path / "whole", **asked)
    seen = []

    real = type(qwen).forward

    def forward(self, batch, **keywords):
        seen.append(batch)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return real(self, batch, **keywords)

    monkeypatch.setattr(type(qwen), "forward", forward)
    with pytest.raises(KeyboardInterrupt):
        kg.extract(qwen, out=tmp_path / "stopped", **asked)
    monkeypatch.undo()
    monkeypatch.setattr("keygap.engines.plan.PART_SAMPLES", 16)
    assert 0 < len(kg.Store(tmp_path / "stopped").samples) < 40
    continued = kg.extract(qwen, out=tmp_path / "stopped", **asked)
    assert files_of(continued.root) == files_of(whole.root)
