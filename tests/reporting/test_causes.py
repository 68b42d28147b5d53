"""The experiment on causes in the report: verdict first, short tables, and a figure in words."""

from __future__ import annotations

import html
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import keygap as kg
from align.causes.simulated import BASELINES, all_points, causes_table, few_points, point, steered
from keygap.align.causes.mediation import UNCERTAIN, mediation
from keygap.align.causes.tables import CausesTable
from keygap.align.causes.verdict import verdict
from keygap.reporting import causes
from keygap.reporting.causes_figure import alternative_text, caption, dose_response, place_of

pytestmark = pytest.mark.usefixtures("not_drawn")
HEADING = "Is it the distance between keys, or attention?"


@pytest.fixture(scope="module")
def table() -> CausesTable:
    return causes_table("attention", n=60, n_bootstraps=60)


@pytest.fixture
def tested(run_folder: Path, table: CausesTable) -> Path:
    table.save(run_folder)
    return run_folder


def rows_of(page: str, after: str) -> list[str]:
    """The rows of the first table after a text."""
    part = page[page.index(after) :]
    return part[: part.index("</table>")].split("<tr")[1:]


def test_the_page_has_the_verdict_tables_and_figure(tested, table, not_drawn):
    page = html.unescape(kg.report(tested).read_text())
    model = table.settings["model"]  # the experiment's own, whatever the run is of
    decided = verdict(table.samples, table.points, model=model, n_bootstraps=60)
    assert decided.mechanism == "attention"
    assert f"<strong>{decided.sentences[0]}</strong>" in page
    assert all(f"<li>{sentence}</li>" in page for sentence in decided.sentences[1:])
    assert page.index(decided.sentences[-1]) < page.index("free (total)")
    effects = rows_of(page, HEADING)[1:]
    assert len(effects) == 3 * 2  # outcomes, strengths
    others = rows_of(page, "The same for other maps")[1:]
    assert len(others) == 2 * 3  # whitening at -1 and 1, mean-shift of the reading layers at 1
    baselines = rows_of(page, "Baselines:")[1:]
    assert ["as it is", *BASELINES] == [row.split('"name">')[1].split("<")[0] for row in baselines]
    assert f'aria-label="{alternative_text([table])}"' in page
    assert caption([table]) in page
    assert not_drawn.count(tested / "causes") == 1
    section = page[page.index(HEADING) : page.index("What kind of gap")]
    assert not re.search(r"\bnan\b", section)


def test_the_figure_in_words_has_the_numbers_of_one_strength_in_every_mode(table):
    text = alternative_text([table])
    rows = table.frame[(table.frame["layer"] == -1) & table.frame["variant"].isin(["all", ""])]
    rows = rows[
        (rows["name"] == "mean-shift") & (rows["site"] == "k_proj") & (rows["layers"] == "all")
    ]
    for measure, words in (("following", "wrong hint followed"), ("image_attention", "attention")):
        own = rows[rows["measure"] == measure]
        assert len(own[own["strength"] == 1]) == 3
        for value in own.loc[own["strength"] == 1, "value"]:
            assert re.search(rf"{words}[^;]* to {value:.2f} \(", text)
    assert "n = 240 samples" in caption([table])


def test_without_the_experiment_the_page_has_no_such_section(run_folder):
    assert HEADING not in kg.report(run_folder).read_text()


@pytest.mark.parametrize("name", ["alignment.csv", "alignment_samples.parquet", "causes.yaml"])
def test_a_damaged_file_is_refused_in_one_line(tested, name):
    (tested / name).write_bytes(b"")
    with pytest.raises(kg.UserError, match=name):
        kg.report(tested)


def test_names_of_maps_are_escaped(run_folder, table):
    frame = table.frame.assign(name=table.frame["name"].replace("whitening", "<b>white</b>"))
    CausesTable(frame, table.samples, table.settings).save(run_folder)
    page = kg.report(run_folder).read_text()
    assert "<b>white" not in page
    assert html.escape("<b>white</b>") in page


def test_an_experiment_without_a_map_has_baselines_and_no_figure(run_folder):
    points = [point(), *(point("baseline", name, strength=1.0) for name in BASELINES)]
    causes_table("attention", n=20, points=points, n_bootstraps=20).save(run_folder)
    table = causes.read(run_folder)
    assert table is not None
    section = causes.section(table)
    assert (section.drawn, section.effects, section.steered) == (None, [], [])
    assert len(section.baselines) == 4
    page = kg.report(run_folder).read_text()
    assert "no map was run free" in page
    assert "Baselines:" in page
    assert "figures/causes" not in page


def test_effects_are_shown_as_they_were_estimated(table):
    frame = mediation(table.samples, table.points, n_bootstraps=60)
    shown = causes.effects(frame)
    (row,) = [
        each
        for each in shown
        if (each["map"], each["layers"], each["strength"]) == ("mean-shift", "all", 1.0)
        and each["outcome"] == "hint margin"
    ]
    own = frame[
        (frame["name"] == "mean-shift")
        & (frame["layers"] == "all")
        & (frame["strength"] == 1)
        & (frame["outcome"] == "hint_margin")
    ].set_index("effect")
    for effect in ("total", "attention", "share"):
        value, low, high = own.loc[effect, ["value", "ci_low", "ci_high"]].astype(float)
        assert row[effect] == f"{value:.2f} ({low:.2f} to {high:.2f})"


def test_a_share_that_is_withheld_says_why(table):
    frame = mediation(table.samples, table.points, n_bootstraps=60)
    nothing = frame["effect"] == "share"
    frame.loc[nothing, ["value", "ci_low", "ci_high"]] = math.nan
    frame.loc[nothing, "note"] = UNCERTAIN
    assert {row["share"] for row in causes.effects(frame)} == {UNCERTAIN}


def test_generated_answers_have_no_rows_of_margins(table):
    samples = table.samples.assign(hint_margin=np.nan, margin=np.nan)
    shown = causes.effects(mediation(samples, table.points, n_bootstraps=20))
    assert {row["outcome"] for row in shown} == {"wrong hint followed"}


def test_baselines_are_told_apart_by_strength_and_layers():
    points = [
        point(),
        *(point("baseline", "attention-bias", "", "all", strength) for strength in (1.0, -2.0)),
    ]
    table = causes_table("neither", n=20, points=points, n_bootstraps=20)
    shown = [(row["name"], row["layers"], row["strength"]) for row in causes.baselines(table)]
    assert shown == [
        ("as it is", "", ""),
        ("attention-bias", "all", "1"),
        ("attention-bias", "all", "-2"),
    ]


def line(figure: Figure, panel: int, label: str) -> pd.Series:
    (found,) = [
        each for each in figure.axes[panel].lines if str(each.get_label()).startswith(label)
    ]
    return pd.Series(np.asarray(found.get_ydata()), index=np.asarray(found.get_xdata()))


def test_the_figure_draws_the_values_of_the_table(table):
    figure = dose_response([table])
    frame, points = table.frame, table.points
    reading = frame[
        (frame["measure"] == "mmd_squared") & frame["layer"].isin(table.settings["reading_layers"])
    ]
    gap = reading.groupby("point")["value"].mean()
    following = frame[(frame["measure"] == "following") & (frame["variant"] == "all")]
    values = following.set_index("point")["value"]
    for mode in ("free", "held", "only"):
        own = points[
            (points["kind"] == "none")
            | (
                (points["name"] == "mean-shift")
                & (points["site"] == "k_proj")
                & (points["layers"] == "all")
                & (points["mass"] == mode)
            )
        ].sort_values("strength")
        for panel, expected in ((0, gap), (2, values)):
            drawn = line(figure, panel, mode)
            assert list(drawn.index) == [-1.0, -0.5, 0.0, 0.5, 1.0]
            assert drawn.to_numpy() == pytest.approx(expected[own["point"]].to_numpy())
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "MMD², reading layers",
        "attention to the image",
        "wrong hint followed",
    ]


def test_the_gap_is_of_what_was_measured(table):
    elsewhere = {**table.settings, "reading_layers": [99]}
    figure = dose_response([CausesTable(table.frame, table.samples, elsewhere)])
    assert figure.axes[0].get_ylabel() == "MMD², mean of layers"
    without = table.frame[table.frame["measure"] != "mmd_squared"]
    figure = dose_response([CausesTable(without, table.samples, table.settings)])
    assert figure.axes[0].get_ylabel() == "distance of mean keys"


def test_several_models_have_a_column_each(table):
    other = causes_table("distance", n=20, points=few_points(), n_bootstraps=20, model="other")
    figure = dose_response(causes.drawable([table, None, other]))
    assert len(figure.axes) == 6
    assert [axes.get_title().split("\n")[0] for axes in figure.axes[:2]] == ["made:model", "other"]
    assert len(figure.legends[0].get_texts()) == 5  # each label once


def test_the_map_with_all_modes_is_drawn():
    one_mode = steered((1.0,), "first", modes=("free",))
    assert place_of(pd.DataFrame([*one_mode, *all_points()])) == ("mean-shift", "k_proj", "all")
    assert place_of(pd.DataFrame(one_mode)) == ("first", "k_proj", "all")
    assert place_of(pd.DataFrame([point()])) is None


@pytest.mark.slow
def test_a_report_of_several_runs_draws_their_models_side_by_side(tested, tmp_path, not_drawn):
    second = tmp_path / "second"
    shutil.copytree(tested, second)
    page = kg.report(tested, second, out=tmp_path / "both").read_text()
    assert tmp_path / "both" / "causes" in not_drawn
    assert page.count(f"<h3>{HEADING}") == 2
    assert page.count("made:model, mean-shift of key at all layers, from strength 0 to 1") == 4
