"""When a chart is sent through the processor, and what sizes that no one expects come to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from keygap.benchmarks import BadSample
from keygap.models.load import wrap
from keygap.models.patches import charts
from made import made_sample

from ..zoo import BY_FAMILY

SIZES = [(64, 48), (33, 90), (200, 150), (32, 32)]
STRIPS = [(300, 2), (2, 300), (2000, 3), (1, 1), (7, 900)]


def prompter_of(family):
    return wrap(*BY_FAMILY[family].build(), name=f"tiny {family}").prompter


def sample_of(*sizes):
    pictures = tuple(Image.new("RGB", size, "red") for size in sizes)
    return replace(made_sample("s"), images=pictures)


@pytest.fixture
def charted(monkeypatch):
    """The sizes of which a chart was made."""
    sizes = []
    real = charts.chart

    def counted(width, height):
        sizes.append((width, height))
        return real(width, height)

    monkeypatch.setattr(charts, "chart", counted)
    return sizes


@pytest.mark.parametrize("family", ["paligemma", "gemma3"])
def test_a_processor_of_one_square_view_needs_no_chart(family, charted, monkeypatch):
    prompter = prompter_of(family)
    prompter([sample_of((50, 40))])
    charted.clear()
    found = [prompter([sample_of(size)]).labels[0] for size in SIZES]
    assert charted == []
    monkeypatch.setattr(charts.Charts, "fixed", lambda *_: None)
    for labels, size in zip(found, SIZES, strict=True):
        by_chart = prompter([sample_of(size)]).labels[0]
        for name in ("role", "patch_row", "patch_column"):
            assert (getattr(labels, name) == getattr(by_chart, name)).all(), (size, name)
    assert set(charted) == set(SIZES)
    assert (found[0].patch_row >= 0).any()


@pytest.mark.parametrize("family", ["llava", "llava_next", "internvl", "llama4", "mistral3"])
def test_a_processor_that_cuts_by_size_needs_one_for_each(family, charted):
    prompter = prompter_of(family)
    for _ in range(2):
        for size in SIZES:
            labels = prompter([sample_of(size)]).labels[0]
    assert len(charted) == len(set(charted))
    if family != "mistral3":  # which has a separator in place of a chart
        assert (200, 150) in charted
    assert (labels.modality == "image").any()


@pytest.mark.parametrize(
    "family", ["llava", "llava_next", "llava_onevision", "internvl", "llama4", "qwen2_5_vl"]
)
def test_a_strip_is_labelled_or_is_one_bad_sample(family):
    prompter = prompter_of(family)
    for size in STRIPS:
        try:
            labels = prompter([sample_of(size)]).labels[0]
        except BadSample:
            continue
        assert (labels.modality == "image").any(), size


def test_a_strip_among_pictures_of_llava_is_labelled():
    """Its crop shows one colour of a chart, which said nothing but stopped the run."""
    labels = prompter_of("llava")([sample_of((300, 2))]).labels[0]
    assert np.unique(labels.patch_row[labels.modality == "image"]).tolist() == [0, 1, 2, 3]


def test_what_a_processor_raises_of_a_chart_is_a_bad_sample():
    def read(picture, images):
        raise OverflowError("too wide")

    with pytest.raises(BadSample, match="300 x 2 pixels: OverflowError: too wide"):
        charts.Charts(read).cut((300, 2), 1)
