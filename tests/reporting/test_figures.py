"""Figures: each states what it is of, and marks values that are not reliable."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import cast

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from keygap.contrasts import CONTRASTS
from keygap.measurement.tables import GapTable
from keygap.reporting import Run, figures, heads, read_run, shape
from keygap.reporting.run import contrasts_of


@pytest.fixture(scope="module")
def run(two_sites: Path) -> Run:
    return read_run(two_sites)


def heading(figure: Figure) -> str:
    return " ".join(figure.get_suptitle().split())


@pytest.mark.parametrize("site", ["k_proj", "key"])
def test_every_figure_names_its_site(run: Run, site: str) -> None:
    drawn = [f(run, site) for f in (heads.heads, figures.jsd_profile, figures.gap_by_layer)]
    for figure in (*drawn, shape.figure(run, site, "image_text")):
        assert heading(figure).endswith(f"micro:linear on easy-vqa, {site}")
    for draw_all in (figures.ladder, figures.projections):
        assert f" at {site}" in heading(draw_all([run], site))


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
    drawn = figures.ladder([run, other], "key")
    titles = {" ".join(axes.get_title().split()) for axes in drawn.axes}
    assert {"micro:linear on easy-vqa, layer 0", "micro:linear on mmmu, layer 29"} <= titles
    assert figures.ladder([run], "key").axes[0].get_title() == "micro:linear, layer 0"


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
    drawn = figures.ladder([run, Run(run.root, run.manifest, short, None, None)], "key")
    assert [axes.get_visible() for axes in drawn.axes] == [True, True, True, False]


def test_own_contrasts_are_on_the_ladder_in_colours_of_their_own(run: Run) -> None:
    names = contrasts_of([run])
    # keygap's own first, then in the order asked; verbs was asked before all of them
    assert names == [*CONTRASTS, "verbs", "articles"]
    colours = figures.colours_of([run])
    assert len(set(colours.values())) == len(names)
    axes = figures.ladder([run], "k_proj").axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    measured = set(run.table.frame.query("site == 'k_proj'")["contrast"])
    assert shown == [name for name in names if name in measured][::-1]
    assert {"verbs", "articles"} <= set(shown)
    bar = axes.patches[shown.index("verbs")]
    assert mpl.colors.to_hex(bar.get_facecolor()) == colours["verbs"].lower()


def test_a_contrast_with_one_word_is_hatched_and_explained(run: Run) -> None:
    def with_frame(frame: pd.DataFrame) -> Run:
        table = type(run.table)(frame, run.table.profile, (), run.table.shape, run.table.settings)
        return Run(run.root, run.manifest, table, run.projection, None)

    frame = run.table.frame[run.table.frame["rung"] != "single"].copy()
    assert not figures.ladder([with_frame(frame)], "key").legends
    frame.loc[(frame["contrast"] == "verbs") & (frame["layer"] == 29), "rung"] = "single"
    one = with_frame(frame)
    drawn = figures.ladder([one], "key")
    names = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    for axes, hatched in zip(drawn.axes, ([], ["verbs"]), strict=True):
        assert [n for n, bar in zip(names, axes.patches, strict=True) if bar.get_hatch()] == hatched
    assert drawn.legends[0].get_texts()[0].get_text() == figures.SINGLE
    (legend,) = (axes.get_legend() for axes in figures.gap_by_layer(one, "key").axes)
    assert legend is not None
    assert any("one word against the rest" in text.get_text() for text in legend.get_texts())


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
