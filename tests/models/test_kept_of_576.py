"""What is lost by keeping 64 of 576 image tokens: nothing that a reader of numbers would see."""

from __future__ import annotations

import pytest
import torch

import keygap as kg
from keygap.benchmarks import Sample, image_then_question
from made import bench_of

from .test_real_shape import llava as llava  # the fixture

SAMPLES = 60
LAYER = 16


@pytest.fixture(scope="module")
def bench(easy_vqa):
    """Questions about shapes, on pictures of another size."""
    samples = []
    for number in range(SAMPLES):
        one = easy_vqa.sample(97 * number)
        picture = one.images[0].resize((336, 336))
        prompt = image_then_question(one.question)
        samples.append(Sample(str(number), (picture,), one.question, prompt))
    return bench_of(samples)


@pytest.mark.slow
def test_the_gap_is_the_same_within_its_intervals(llava, bench, tmp_path):
    tables = {}
    for tokens in ("all", 64):
        store = kg.extract(
            llava, bench, tmp_path / str(tokens), layers=[LAYER], samples=None, tokens=tokens
        )
        tables[tokens] = kg.measure(store, n_permutations=99, n_bootstraps=400).frame
    every, kept = tables["all"], tables[64]
    keys = ["site", "layer", "head", "contrast", "confound"]
    both = every.merge(kept, on=keys, suffixes=("", "_kept"), validate="one_to_one")
    assert len(both) == len(every) == len(kept)
    assert (both["n_samples"] == both["n_samples_kept"]).all()
    for name, interval in (("mmd2", "mmd2"), ("jsd_nats", "jsd"), ("ratio", "ratio")):
        low, high = both[f"{interval}_ci_low"], both[f"{interval}_ci_high"]
        own = both[f"{name}_kept"]
        known = low.notna() & own.notna()
        assert known.any()
        outside = known & ~own.between(low - 1e-9, high + 1e-9)
        assert not outside.any(), both[outside][[*keys, name, f"{name}_kept"]]
        width = both[f"{interval}_ci_high_kept"] - both[f"{interval}_ci_low_kept"]
        wider = (width / (high - low))[known & (high > low)]
        by_contrast = wider.groupby(both["contrast"]).median()
        assert by_contrast.max() <= 1.10, by_contrast


@pytest.mark.slow
def test_a_store_is_at_most_15_percent_of_all_tokens_in_float32(llava, bench, tmp_path):
    llava.model.to(torch.bfloat16)
    try:
        store = kg.extract(llava, bench, tmp_path / "kept", layers=["all"], samples=16)
    finally:
        llava.model.float()
    size = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
    tokens = int(store.samples["n_tokens"].sum())
    numbers = tokens * sum(2 * 128 for _ in store.layers("k_proj"))
    assert size <= 0.15 * 4 * numbers
