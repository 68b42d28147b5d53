"""The specification curve: what is drawn is what the table has, and all of it can be read."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from choices.simulated import PUBLISHED, choices_table
from keygap.choices.tables import FACTORS
from keygap.reporting import figures
from keygap.reporting.choices_curve import Curve, curve_of, short
from keygap.reporting.choices_figure import colours_of, shaded, specification_curve

HOSTILE = "org/<script>alert(1)</script>\"'&$x$\n\u202e-7b"


@pytest.fixture(scope="module", autouse=True)
def style():
    with mpl.rc_context(figures.STYLE):
        yield


@pytest.fixture(scope="module")
def weighted() -> pd.DataFrame:
    """Three single heads count as one choice."""
    return choices_table().frame


@pytest.fixture(scope="module")
def frame(weighted) -> pd.DataFrame:
    return weighted.assign(weight=1.0)


def curve(frame: pd.DataFrame, measure: str = "mmd") -> Curve:
    found = curve_of(frame, measure)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def drawn(frame) -> Figure:
    return specification_curve(curve(frame), PUBLISHED)


def panel(figure: Figure, label: str) -> Axes:
    (found,) = [axes for axes in figure.axes if axes.get_label() == label]
    return found


def part(axes: Axes, label: str) -> PathCollection:
    (found,) = [each for each in axes.collections if each.get_label() == label]
    assert isinstance(found, PathCollection)
    return found


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def columns_of(frame: pd.DataFrame, number: str) -> list[pd.DataFrame]:
    """The rows of each of 150 columns; 150 divides their number."""
    rows = frame.sort_values(number, kind="stable")
    size = len(rows) // 150
    return [rows.iloc[start : start + size] for start in range(0, len(rows), size)]


@pytest.mark.parametrize(("measure", "number"), [("mmd", "ratio"), ("jsd", "cross")])
def test_points_are_the_sorted_numbers_of_the_table(frame, measure, number):
    own = frame[frame["measure"] == measure]
    figure = specification_curve(curve(frame, measure), PUBLISHED)
    axes = panel(figure, "curve")
    points = np.asarray(part(axes, "choices").get_offsets())
    expected = np.sort(own[number].to_numpy())
    at = (points[:, 0] / 100 * len(own) - 0.5).round().astype(int)
    assert (at[0], at[-1]) == (0, len(own) - 1)
    assert np.diff(at).max() <= len(own) // 900 + 2
    known = np.isfinite(expected[at])
    assert points[known, 1] == pytest.approx(expected[at][known])
    assert (points[~known, 1] == axes.get_ylim()[1]).all()
    assert (~known).any() == (measure == "mmd")
    notes = " ".join(texts(figure)).replace("\n", " ")
    assert f" Only {len(points)} evenly spaced choices are drawn as points." in notes


def test_points_have_the_colour_of_their_model(frame, drawn):
    points = part(panel(drawn, "curve"), "choices")
    shown = np.asarray(points.get_facecolor())[:, :3]
    values = np.asarray(points.get_offsets())[:, 1]
    by_value = frame[frame["measure"] == "mmd"].set_index("ratio")["model"]
    palette = colours_of(["micro:linear", "micro:mlp", "micro:qformer"])
    for value, colour in [*zip(values, shown, strict=True)][:700:13]:
        nearest = by_value.iloc[np.abs(np.log(by_value.index / value)).argmin()]
        assert tuple(colour) == to_rgb(palette[nearest])


def test_every_model_has_a_colour_of_its_own():
    names = [f"m{n}" for n in range(8)]
    assert len(set(colours_of(names).values())) == 8


def test_the_band_is_the_median_interval_of_every_column(frame, drawn):
    axes = panel(drawn, "curve")
    (band,) = [each for each in axes.collections if each.get_label() == "interval"]
    corners = np.asarray(band.get_paths()[0].vertices)
    groups = columns_of(frame[frame["measure"] == "mmd"], "ratio")
    for number in (0, 40, 100, 120):
        own = groups[number]
        inside = corners[np.isclose(corners[:, 0], 100 * (number + 1) / 150)][:, 1]
        for name in ("ratio_low", "ratio_high"):
            median = np.sort(own[name].to_numpy())[[19, 20]]  # of 40 rows
            assert any(np.isclose(inside, end).any() for end in median)


def test_lines_of_the_matrix_are_the_shares_of_their_level(frame):
    own = frame[frame["measure"] == "mmd"]
    finite = own[np.isfinite(own["ratio"])]
    finite = finite.head(len(finite) // 150 * 150)
    groups = columns_of(finite, "ratio")
    lanes = curve(finite).lanes()
    names = {lane.factor for lane in lanes}
    assert names == {"model", *FACTORS}
    for name in names:
        shares = [lane.shares for lane in lanes if lane.factor == name]
        assert len(shares) == own[name].nunique()
        assert np.sum(shares, axis=0) == pytest.approx(np.ones(150))
    for name, level, label in (
        ("estimator", "gaussian_1", "Gaussian, 1"),
        ("tokens", 5000, "5,000"),
        ("heads", "2", "head 2"),
        ("model", "micro:mlp", "micro:mlp"),
    ):
        (lane,) = [lane for lane in lanes if (lane.factor, lane.label) == (name, label)]
        expected = [float((group[name] == level).mean()) for group in groups]
        assert lane.shares == pytest.approx(expected)
        median = np.sort(finite.loc[finite[name] == level, "ratio"])
        assert abs(np.searchsorted(median, lane.median) - len(median) / 2) <= 1


def test_the_matrix_draws_its_lines(frame, drawn):
    lanes = curve(frame).lanes()
    axes = panel(drawn, "levels")
    (image,) = axes.get_images()
    pixels = np.asarray(image.get_array())
    assert pixels.shape[1:] == (150, 3)
    assert tuple(image.get_extent()) == (0, 100, len(pixels), 0)
    names = {
        text.get_text(): text.get_position()[1]
        for text in axes.texts
        if text.get_horizontalalignment() == "right"
    }
    for lane in lanes:
        shades = pixels[int(names[lane.label])].sum(axis=1)
        assert (np.diff(shades[np.argsort(lane.shares)]) <= 1e-9).all()  # darker, the more it is
        assert np.ptp(shades) > 0
    shown = texts(drawn)
    assert all(lane.label in shown and short(lane.median) in shown for lane in lanes)
    assert all(name in shown for name in FACTORS)


def test_shades_reach_from_white_to_the_colour():
    assert shaded(np.array([0.0, 1.0]), "#0072B2") == pytest.approx(
        np.array([[1, 1, 1], to_rgb("#0072B2")])
    )


def test_marks_are_the_quantiles_and_link_to_their_rows(frame, drawn):
    own = frame[frame["measure"] == "mmd"].sort_values(["ratio", "row"])
    ids = [own["row"].iloc[n] for n in (0, 299, 1499, 2999, 4499, 5699, 5999)]
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg")
    assert re.findall(r'<a xlink:href="([^"]*)"', buffer.getvalue()) == [f"#row-{i}" for i in ids]
    marks = np.asarray(part(panel(drawn, "curve"), "marks").get_offsets())
    values = own.set_index("row").loc[ids, "ratio"].to_numpy()
    finite = np.isfinite(values)
    assert marks[finite, 1] == pytest.approx(values[finite])
    assert marks[:, 0] == pytest.approx([0, 5, 25, 50, 75, 95, 100], abs=0.02)


def test_infinite_ratios_and_those_not_above_0_are_counted(frame):
    own = frame[frame["measure"] == "mmd"].reset_index(drop=True)
    own.loc[::100, "ratio"] = -0.5
    infinite = int(np.isinf(own["ratio"]).sum())
    figure = specification_curve(curve(own), PUBLISHED)
    shown = texts(figure)
    assert f"infinite: {infinite} ({infinite / 60:.1f} %)" in shown
    assert "not above 0: 60 (1.0 %)" in shown
    points = np.asarray(part(panel(figure, "curve"), "choices").get_offsets())
    bottom, top = panel(figure, "curve").get_ylim()
    on_edges = (points[:, 1] == bottom).sum(), (points[:, 1] == top).sum()
    assert on_edges == pytest.approx((9, infinite / 6000 * 900), abs=2)  # of 900 points
    own.loc[5, "ratio"] = np.nan
    lines = " ".join(texts(specification_curve(curve(own), PUBLISHED))).replace("\n", " ")
    assert "1 choice without a number" in lines


def published_lines(figure: Figure, label: str) -> list[float]:
    return [
        float(np.asarray(line.get_ydata())[0])
        for line in panel(figure, label).lines
        if str(line.get_label()).startswith("published")
    ]


def test_published_numbers_are_marked_where_they_are_known(frame, drawn):
    assert published_lines(drawn, "curve") == [pytest.approx(34)]
    assert published_lines(drawn, "values") == [0.408, 0.012]
    assert {"published: 34", "published\n0.408", "published\n0.012"} <= set(texts(drawn))
    jsd = specification_curve(curve(frame, "jsd"), PUBLISHED)
    assert published_lines(jsd, "curve") == [0.3]
    for measure in ("mmd", "jsd"):
        figure = specification_curve(curve(frame, measure), {"source": "x", "cross": None})
        assert not any("published" in text for text in texts(figure))


def test_values_are_the_medians_of_both_comparisons(frame, drawn):
    groups = columns_of(frame[frame["measure"] == "mmd"], "ratio")
    between, within = panel(drawn, "values").lines[:2]
    for number in (0, 60, 120):
        own = groups[number]
        for line, values in (
            (between, own["cross"]),
            (within, (own["image_image"] + own["text_text"]) / 2),
        ):
            x, y = (np.asarray(each)[number] for each in line.get_data())
            assert x == pytest.approx(100 * (number + 0.5) / 150)
            assert y in values.to_numpy()
            assert abs((values < y).sum() - 20) <= 1  # of 40 rows


def tables() -> dict[str, tuple[pd.DataFrame, str]]:
    many = choices_table(
        {"mmd": 900}, models={f"organisation/model-{n}-7b": n / 9 for n in range(9)}
    )
    wide = many.frame.assign(heads=[str(n % 32) for n in range(900)], weight=1.0)
    hostile = choices_table({"mmd": 90, "jsd": 60}, models={HOSTILE: 0.1}).frame
    usual = choices_table({"mmd": 300, "jsd": 200}).frame
    return {
        "usual": (usual, "mmd"),
        "jsd": (usual, "jsd"),
        "many models and heads": (wide, "mmd"),
        "one model": (hostile, "mmd"),
        "one model, jsd": (hostile, "jsd"),
        "one choice": (usual.head(1), "mmd"),
        "infinite": (usual[np.isinf(usual["ratio"])], "mmd"),
        "no interval": (usual.assign(ratio_low=np.nan, ratio_high=np.nan), "mmd"),
        "below 0": (usual.assign(cross=-usual["cross"], ratio=-usual["ratio"].abs()), "mmd"),
        "jsd below 0": (usual.assign(cross=-0.01), "jsd"),
    }


@pytest.mark.parametrize("name", tables())
def test_all_text_can_be_read_and_lies_on_the_page(name):
    table, measure = tables()[name]
    figure = specification_curve(curve(table, measure), PUBLISHED)
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    assert figure.get_figwidth() == 5.5
    for text in visible(figure):
        assert float(text.get_fontsize()) >= 7, text.get_text()
        box = text.get_window_extent()
        assert box.x0 >= 0, text.get_text()
        assert box.x1 <= width, text.get_text()
        assert box.y0 >= 0, text.get_text()
        assert box.y1 <= height, text.get_text()


def visible(figure: Figure) -> list[Text]:
    """All text but the numbers of ticks that lie outside of their axis."""
    outside = {
        label
        for axes in figure.axes
        for label in axes.get_yticklabels()
        if not axes.get_ylim()[0] <= label.get_position()[1] <= axes.get_ylim()[1]
    }
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    return [text for text in found if text not in outside]


def test_names_of_levels_do_not_overlap():
    table, measure = tables()["many models and heads"]
    figure = specification_curve(curve(table, measure), PUBLISHED)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in panel(figure, "levels").texts]
    for number, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[number + 1 :])


@pytest.mark.parametrize(("measure", "number"), [("mmd", "ratio"), ("jsd", "cross")])
def test_heads_count_as_one_choice_as_if_others_were_there_three_times(weighted, measure, number):
    own = weighted[weighted["measure"] == measure]
    times = (3 * own["weight"]).round().astype(int)
    assert set(times) == {1, 3}
    copied = own.loc[own.index.repeat(times)].assign(weight=1.0)
    one, other = curve(own, measure), curve(copied, measure)
    for lane, same in zip(one.lanes(), other.lanes(), strict=True):
        assert (lane.factor, lane.label) == (same.factor, same.label)
        assert lane.shares == pytest.approx(same.shares)
        assert lane.median == same.median
    for q in (0.05, 0.5, 0.95):
        for name in (f"{number}_low", "cross"):
            assert one.by_column(one.rows[name], q) == pytest.approx(
                other.by_column(other.rows[name], q), nan_ok=True
            )
    rows = [[c.rows["row"].iloc[at] for at in c.marked()] for c in (one, other)]
    assert rows[0] == rows[1]
    texts_of = [texts(specification_curve(each, PUBLISHED)) for each in (one, other)]
    notes = [
        "Single heads of a model count as one" in " ".join(t).replace("\n", " ") for t in texts_of
    ]
    assert notes == [True, False]


def test_shares_of_infinite_ratios_count_single_heads_together(weighted):
    own = weighted[weighted["measure"] == "mmd"]
    infinite = own[np.isinf(own["ratio"])]
    share = 100 * infinite["weight"].sum() / own["weight"].sum()
    shown = texts(specification_curve(curve(own), PUBLISHED))
    assert f"infinite: {len(infinite)} ({share:.1f} %)" in shown


def test_a_few_rows_of_different_weight_are_as_wide_as_they_count(weighted):
    own = weighted[(weighted["measure"] == "mmd") & np.isfinite(weighted["ratio"])].head(2)
    own = own.assign(weight=[1.0, 0.25], heads=["mean", "1"], ratio=[5.0, 2.0])
    found = curve(own)
    (mean,) = [lane for lane in found.lanes() if lane.label == "mean of heads"]
    assert len(mean.shares) == 150
    assert mean.shares[:30] == pytest.approx(0)  # a fifth of the width
    assert mean.shares[30:] == pytest.approx(1)
    assert found.middles == pytest.approx([10, 60])


def test_many_heads_share_a_line():
    table, _ = tables()["many models and heads"]
    heads = [lane for lane in curve(table).lanes() if lane.factor == "heads"]
    assert [lane.label for lane in heads] == ["each of 32 heads"]
    table.loc[::3, "heads"] = "together"
    heads = [lane for lane in curve(table).lanes() if lane.factor == "heads"]
    assert [lane.label for lane in heads] == ["together", "each of 32 heads"]
    assert np.mean(heads[0].shares) == pytest.approx(1 / 3)


def test_what_is_the_same_in_every_choice_has_no_line_and_is_named(frame):
    own = frame[(frame["tokens"] == 200) & (frame["measure"] == "jsd")]
    found = curve(own, "jsd")
    assert found.fixed() == {"tokens": "200"}  # the bias of a JSD is no choice
    assert "tokens" not in {lane.factor for lane in found.lanes()}
    assert any("The same in every choice: tokens 200." in t for t in texts(
        specification_curve(found, PUBLISHED)
    ))  # fmt: skip


def test_equal_tables_give_equal_figures(frame):
    drawings = []
    for table in (frame, frame.sample(frac=1, random_state=1)):
        buffer = io.BytesIO()
        figure = specification_curve(curve(table), PUBLISHED)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        drawings.append(buffer.getvalue())
    assert drawings[0] == drawings[1]


def test_a_measure_without_choices_has_no_curve(frame):
    assert curve_of(frame[frame["measure"] == "mmd"], "jsd") is None
    assert curve_of(frame.assign(ratio=np.nan), "mmd") is None
