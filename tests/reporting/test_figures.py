"""Figures: each states what it is of, and marks values that are not reliable."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from keygap.contrasts import CONTRASTS
from keygap.measurement.tables import GapTable
from keygap.reporting import Run, figures, heads, read_run, shape
from keygap.reporting.run import contrasts_of

from .conftest import BENCHMARK, LAST, MODEL


@pytest.fixture(scope="module")
def run(two_sites: Path) -> Run:
    return read_run(two_sites)


def laddered(run: Run, site: str, *others: Run) -> Figure:
    drawn = figures.ladder([run, *others], site)
    assert drawn is not None
    return drawn


def heading(figure: Figure) -> str:
    return " ".join(figure.get_suptitle().split())


@pytest.mark.parametrize("site", ["k_proj", "key"])
def test_every_figure_names_its_site(run: Run, site: str) -> None:
    drawn = [f(run, site) for f in (heads.heads, figures.jsd_profile, figures.gap_by_layer)]
    for figure in (*drawn, shape.figure(run, site, "image_text")):
        assert heading(figure).endswith(f"{MODEL} on {BENCHMARK}, {site}")
    for draw_all in (figures.ladder, figures.projections):
        drawn_all = draw_all([run], site)
        assert drawn_all is not None
        assert f" at {site}" in heading(drawn_all)


HOSTILE = r"$\frac{x [red]y[/red] <b>&amp;</b> {0} %s" + " \u56fd \u05e2\u05d1"


def test_names_are_text_whatever_they_are(caplog) -> None:
    manifest = {"model": f"{HOSTILE}\x1b[31m\n\u202e", "benchmark": HOSTILE}
    run = Run(Path(), manifest, cast(GapTable, None), None, None)
    with (
        caplog.at_level("INFO", "keygap"),
        warnings.catch_warnings(),
        mpl.rc_context(figures.STYLE),
    ):
        warnings.simplefilter("error")
        with figures.missing_glyphs_noted():
            drawn, grid = figures.canvas(1, 1, 8, 3)
            grid[0, 0].plot([0, 1], label=HOSTILE)
            grid[0, 0].legend()
            figures.named(drawn, run, "key", "MMD²")
            for kind in ("png", "svg"):
                drawn.savefig(io.BytesIO(), format=kind)
    assert heading(drawn).startswith(f"MMD²: {HOSTILE}" + r"\x1b[31m")
    assert r"\u202e" in heading(drawn)
    notes = [record.message for record in caplog.records if record.name == "keygap"]
    assert len(notes) <= 1  # none where a font has the characters
    assert all("no installed font has: " in note for note in notes)


def test_panels_name_the_benchmark_if_there_are_several(run: Run) -> None:
    other = Run(run.root, {**run.manifest, "benchmark": "mmmu"}, run.table, run.projection, None)
    drawn = laddered(run, "key", other)
    titles = {" ".join(axes.get_title().split()) for axes in drawn.axes}
    assert {f"{MODEL} on {BENCHMARK}, layer 0", f"{MODEL} on mmmu, layer {LAST}"} <= titles
    assert laddered(run, "key").axes[0].get_title() == f"{MODEL}, layer 0"


def test_titles_break_at_hyphens_only_if_they_must() -> None:
    lines = figures.fitted("micro:linear on easy-vqa, k_proj", 1.6).splitlines()
    assert lines == ["micro:linear on", "easy-vqa, k_proj"]
    lines = figures.fitted("llava-hf/llava-onevision-qwen2-7b-ov-hf, layer 0", 2.6).splitlines()
    assert lines == ["llava-hf/llava-onevision-", "qwen2-7b-ov-hf, layer 0"]


def test_a_model_of_fewer_layers_leaves_no_empty_axes(run: Run) -> None:
    frame = run.table.frame
    short = type(run.table)(
        frame[frame["layer"] == 0], run.table.profile, (), run.table.shape, run.table.settings
    )
    drawn = laddered(run, "key", Run(run.root, run.manifest, short, None, None))
    assert [axes.get_visible() for axes in drawn.axes] == [True, True, True, False]


def test_own_contrasts_are_on_the_ladder_in_colours_of_their_own(run: Run) -> None:
    names = contrasts_of([run])
    # keygap's own first, then in the order asked; openers was asked before all of them
    assert names == [*CONTRASTS, "openers", "letters"]
    colours = figures.colours_of([run])
    assert len(set(colours.values())) == len(names)
    axes = laddered(run, "k_proj").axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    frame = run.table.frame.query("site == 'k_proj' and rung != 'single'")
    measured = set(frame["contrast"])
    assert shown == [name for name in names if name in measured][::-1]
    assert {"openers", "letters"} <= set(shown)
    bar = axes.patches[shown.index("openers")]
    assert mpl.colors.to_hex(bar.get_facecolor()) == colours["openers"].lower()


def test_a_contrast_with_one_word_has_a_ladder_of_its_own(run: Run) -> None:
    def with_frame(frame: pd.DataFrame) -> Run:
        table = type(run.table)(frame, run.table.profile, (), run.table.shape, run.table.settings)
        return Run(run.root, run.manifest, table, run.projection, None)

    frame = run.table.frame[run.table.frame["rung"] != "single"].copy()
    assert figures.ladder([with_frame(frame)], "key", single=True) is None
    frame.loc[(frame["contrast"] == "openers") & (frame["layer"] == LAST), "rung"] = "single"
    one = with_frame(frame)

    def bars(drawn: Figure) -> list[list[str]]:
        names = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
        return [
            [
                n
                for n, bar in zip(names, cast(Any, axes.patches), strict=True)
                if bar.get_width() > 0
            ]
            for axes in drawn.axes
        ]

    first, last = bars(laddered(one, "key"))
    assert "openers" in first
    assert "openers" not in last
    alone = figures.ladder([one], "key", single=True)
    assert alone is not None
    assert bars(alone) == [["openers"]]
    lines = {line.get_label() for line in figures.gap_by_layer(one, "key").axes[0].containers}
    assert "openers" in lines
    points: list[Any] = list(figures.gap_by_layer(one, "key").axes[0].containers)
    (drawn,) = [each for each in points if each.get_label() == "openers"]
    assert list(drawn.lines[0].get_xdata()) == [0]


def profile(nats: list[float], saturates_at: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"jsd_dim": [2, 5, 10, 50], "jsd_nats": nats, "jsd_saturates_at": saturates_at}
    )


@pytest.mark.parametrize(
    ("nats", "hollow", "styles"),
    [
        ([0.1, 0.2, 0.3, 0.4], [], ["-", "-", "-"]),
        ([0.1, 0.3, 0.2, 0.4], [10], ["-", "--", "--"]),
        ([0.1, 0.3, 0.2, 0.25], [10, 50], ["-", "--", "--"]),  # 0.25 is below 0.3 as well
        ([0.1, 0.3, 0.299, 0.4], [], ["-", "-", "-"]),  # too small to see
    ],
)
def test_a_decrease_of_the_jsd_is_hollow_and_dashed(nats, hollow, styles) -> None:
    _, grid = figures.canvas(1, 1, 3, 3)
    axes = grid[0, 0]
    assert figures._curve(axes, profile(nats, np.nan), "x", "#123456") is bool(hollow)
    drawn = [line for line in axes.lines if len(line.get_xdata())]
    assert [line.get_linestyle() for line in drawn if line.get_marker() == "None"] == styles
    white = [line for line in drawn if line.get_markerfacecolor() == "#FFFFFF"]
    assert [x for line in white for x in line.get_xdata()] == hollow


def test_the_ring_has_the_colour_of_its_line() -> None:
    _, grid = figures.canvas(1, 1, 3, 3)
    figures._curve(grid[0, 0], profile([0.1, 0.68, 0.69, 0.69], 5), "x", "#123456")
    (ring,) = (line for line in grid[0, 0].lines if line.get_markersize() == 9)
    assert (list(ring.get_xdata()), ring.get_markeredgecolor()) == ([5], "#123456")
