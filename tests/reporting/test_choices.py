"""The choices in the report: sentences first, curves that lead to rows, and tables behind them."""

from __future__ import annotations

import html
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import keygap as kg
from choices.simulated import NOTES, PUBLISHED, RULES, SOURCE, choices_table, statements_of
from keygap.choices.sentences import moved_most, sentences
from keygap.choices.tables import FACTORS, FILES, ChoicesTable
from keygap.reporting import choices, drawing
from keygap.reporting import page as report
from keygap.reporting.choices_curve import curve_of
from made import as_of_keygap_0_1

from .conftest import BENCHMARK, MODEL

HEADING = "What depends on analysis choices?"
HOSTILE = "org/<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def table() -> ChoicesTable:
    return choices_table()


@pytest.fixture(scope="module", autouse=True)
def others_not_drawn():
    """Draw the figures of this section only: the others take most of the time of a report."""
    drawn = drawing.saved

    def saved(figure, root, name):
        if name.startswith("choices"):
            return drawn(figure, root, name)
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "saved", saved)
        patch.setattr(report, "_figures", lambda run, site, top: [])
        yield


@pytest.fixture
def study(run_folder: Path, table: ChoicesTable) -> Path:
    """A study folder with a run, and the choices of the study."""
    table.save(run_folder.parent)
    return run_folder.parent


@pytest.fixture(scope="module")
def page(two_sites: Path, table: ChoicesTable, tmp_path_factory) -> tuple[str, Path]:
    """The report of a run with the choices of a study, and the folder of the study."""
    folder = tmp_path_factory.mktemp("a study")
    table.save(folder)
    shutil.copytree(two_sites, folder / "run")
    as_of_keygap_0_1(folder / "run")
    return kg.report(folder / "run", out=folder).read_text(), folder


class Cells(HTMLParser):
    """The rows of every table, and the ids of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "a" and "xlink:href" in values:  # of a drawing; others are of the page
            self.links.append(str(values["xlink:href"]))

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data


def parsed(page: str) -> Cells:
    found = Cells()
    found.feed(page)
    return found


def table_with(cells: Cells, *headings: str) -> pd.DataFrame:
    """The one table that has these headings."""
    (rows,) = [rows for rows in cells.tables if set(headings) <= set(rows[0])]
    return pd.DataFrame(rows[1:], columns=rows[0])


def test_the_study_has_sentences_curves_tables_and_files(page, table):
    text, study = page
    plain = html.unescape(text)
    said = sentences(table.statements, SOURCE)
    assert (
        plain.count(f'<h2 id="choices">{HEADING}</h2>\n<p><strong>{said[0]}</strong> {said[1]}</p>')
        == 1
    )
    assert moved_most(table.variance) in plain
    assert text.index(HEADING) < text.index(f"{MODEL} on {BENCHMARK}</h2>")
    for measure in ("mmd", "jsd"):
        for kind in ("png", "svg", "pdf"):
            assert (study / "figures" / f"choices-{measure}.{kind}").stat().st_size > 20_000
    assert not list((study / "run" / "figures").glob("choices*"))
    assert plain.count('<svg role="group" aria-label="Specification curve of ') == 2
    for rule in RULES:
        assert f"<li>{rule['rule']}: {rule['reason']}</li>" in plain
    assert f"<li>{NOTES[0]}</li>" in plain
    section = re.sub(r"<svg.*?</svg>", "", text[text.index(HEADING) :], flags=re.DOTALL)
    assert "nan" not in section.split("<h2")[0]


def test_every_mark_of_a_curve_leads_to_its_row(page, table):
    found = parsed(page[0])
    assert len(found.links) == 14
    assert len(found.ids) == len(set(found.ids))
    assert set(found.links) <= {f"#{name}" for name in found.ids}
    assert "<metadata>" not in found.tags
    ids = [link.removeprefix("#row-") for link in found.links]
    assert set(ids) <= set(table.frame["row"])


def rows_table(found: Cells, first: str) -> pd.DataFrame:
    """The table of marked rows whose first number is this: a row for each, as they are numbered."""
    (rows,) = [rows for rows in found.tables if len(rows) > 1 and rows[1][0] == first]
    columns = [row[0] for row in rows]
    return pd.DataFrame(list(zip(*(row[1:] for row in rows), strict=True)), columns=columns)


@pytest.mark.parametrize(
    ("measure", "number", "first"), [("mmd", "ratio", "ratio"), ("jsd", "cross", "JSD")]
)
def test_rows_have_their_choices_values_and_command(page, table, measure, number, first):
    text, study = page
    found = parsed(text)
    shown = rows_table(found, first)
    own = table.frame[table.frame["measure"] == measure]
    assert list(shown["quantile"]) == [f"{q} %" for q in (0, 5, 25, 50, 75, 95, 100)]
    assert {"model", *FACTORS} - set(shown.columns) == ({"bias"} if measure == "jsd" else set())
    weights = own.set_index("row")["weight"]
    sorted_by = own.set_index("row")[number]
    for row, q in zip(shown.to_dict("records"), (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), strict=True):
        (expected,) = own[own["row"] == row["row"]].to_dict("records")
        at_most = weights[sorted_by <= expected[number]].sum() / weights.sum()
        below = weights[sorted_by < expected[number]].sum() / weights.sum()
        assert below <= q <= at_most + 1e-9
        assert row["model"] == expected["model"]
        assert row["tokens"] == row["image tokens"] == f"{expected['tokens']:,}"
        assert row["samples"] == "200"
        values = {"within image": "image_image", "within text": "text_text", "JSD": "cross"}
        values |= {"between image and text": "cross", "ratio": "ratio"}
        for heading in values.keys() & row.keys():
            numbers = re.findall(r"[-\d.,∞]+", row[heading])
            ends = ["", "_low", "_high"][: len(numbers)]
            for one, end in zip(numbers, ends, strict=True):
                value = float(one.replace(",", "").replace("∞", "inf"))
                assert value == pytest.approx(expected[values[heading] + end], rel=0.01, abs=6e-4)
        words = shlex.split(row["command"])
        assert words == ["keygap", "choices", str(study), "--row", expected["row"]]
    assert set(shown["row"]) == {name.removeprefix("row-") for name in found.ids} & set(own["row"])


def test_statements_and_variance_are_those_of_the_table(page, table):
    found = parsed(page[0])
    shown = table_with(found, "statement", "verdict")
    assert len(shown) == len(table.statements)
    for row, expected in zip(
        shown.to_dict("records"), table.statements.to_dict("records"), strict=True
    ):
        assert row["what"] == expected["what"]
        assert row["model"] == expected["model"]
        assert row["choices"] == f"{expected['n_choices']:,}"
        cell = re.fullmatch(
            r"(\S+ ?\d*) % \((.+) to (.+)\)", row["% of the choices (95 % interval)"]
        )
        assert cell is not None
        for text, name in zip(cell.groups(), ("share", "share_low", "share_high"), strict=True):
            assert abs(float(text.strip("<> ")) - 100 * expected[name]) <= 1
    (rows,) = [rows for rows in found.tables if rows[0][0] == "choice"]
    assert {row[0] for row in rows[1:]} == {"model", *FACTORS}
    ratio = table.variance[table.variance["number"] == "log10 ratio"].set_index("factor")
    for cells in rows[1:]:
        for text, name in zip(cells[1:3], ("alone", "with_interactions"), strict=True):
            assert abs(float(text.strip("<> ")) - 100 * ratio.loc[cells[0], name]) <= 0.1
    strongest = [max(float(cell.strip("<> ")) for cell in cells[2::2]) for cells in rows[1:]]
    assert strongest == sorted(strongest, reverse=True)


@pytest.mark.usefixtures("in_all_formats")
def test_a_run_has_a_section_of_its_own_and_once(run_folder):
    choices_table({"mmd": 60}).save(run_folder)
    page = kg.report(run_folder).read_text()
    assert page.count(f"<h3>{HEADING}</h3>") == 1
    assert f">{HEADING}</h2>" not in page
    assert (run_folder / "figures" / "choices-mmd.pdf").is_file()


@pytest.mark.slow
def test_rows_of_a_run_and_its_study_have_one_id(run_folder):
    small = choices_table({"mmd": 200, "jsd": 100})
    small.save(run_folder)
    small.save(run_folder.parent)
    found = parsed(kg.report(run_folder, out=run_folder.parent).read_text())
    assert len(found.links) == 28
    assert len(found.ids) == len(set(found.ids))
    assert set(found.links) <= {f"#{name}" for name in found.ids}


@pytest.mark.usefixtures("not_drawn")
def test_without_choices_the_page_has_no_such_section(run_folder):
    assert HEADING not in kg.report(run_folder, out=run_folder.parent).read_text()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_in_one_line(study, run_folder, name):
    (study / name).write_bytes(b"")
    with pytest.raises(kg.UserError, match=name.replace(".", r"\.")):
        kg.report(run_folder, out=study)
    assert not (study / "report.html").exists()


def hostile(table: ChoicesTable) -> ChoicesTable:
    frame = table.frame.assign(benchmark=HOSTILE)
    return ChoicesTable(
        frame,
        table.statements.assign(what=HOSTILE, benchmark=HOSTILE),
        table.variance.assign(number=HOSTILE),
        {
            **table.settings,
            "rules": [{"rule": HOSTILE, "reason": HOSTILE}],
            "notes": [HOSTILE],
            "published": {**PUBLISHED, "source": HOSTILE},
        },
    )


def test_hostile_text_is_shown_and_not_run(page, run_folder):
    usual, _ = page
    made = hostile(choices_table({"mmd": 200, "jsd": 100}, models={HOSTILE: 0.1, "b": 0.2}))
    folder = run_folder.parent / "a 'study' & <b>more"
    made.save(folder)
    text = kg.report(run_folder, out=folder).read_text()
    assert set(parsed(text).tags) == set(parsed(usual).tags)
    for tag in ("script", "img"):
        assert parsed(text).tags.count(tag) == parsed(usual).tags.count(tag)
    shown = table_with(parsed(text), "statement", "verdict")
    assert set(shown["what"]) == {HOSTILE}
    for command in rows_table(parsed(text), "ratio")["command"]:
        assert shlex.split(command)[2] == str(folder)


@pytest.mark.slow
def test_a_table_of_one_model_without_jsd(run_folder):
    made = choices_table({"mmd": 500}, models={"micro:mlp": 0.1}, published=None)
    made.save(run_folder)
    page = kg.report(run_folder).read_text()
    found = parsed(page)
    assert len(found.links) == 7
    assert "model" not in rows_table(found, "ratio").columns
    assert page.count("<svg ") == 1
    assert "Jensen-Shannon divergence (JSD)" not in page
    assert not (run_folder / "figures" / "choices-jsd.svg").exists()
    assert "Of 4 statements, " in page


def test_an_empty_table_says_so(run_folder, table):
    ChoicesTable(
        table.frame.head(0), table.statements.head(0), table.variance.head(0), table.settings
    ).save(run_folder)
    page = kg.report(run_folder).read_text()
    assert "No statement was tested" in page
    assert "<svg " not in page


def test_a_statement_without_an_interval_is_not_judged(run_folder, table):
    none = table.statements.assign(share_low=np.nan, share_high=np.nan)
    frame = table.frame.head(20)
    ChoicesTable(frame, none, table.variance, table.settings).save(run_folder)
    shown = table_with(parsed(kg.report(run_folder).read_text()), "statement", "verdict")
    assert set(shown["verdict"]) == {"no interval"}
    assert set(shown["% of the choices (95 % interval)"].str.contains(r"\(")) == {False}


def test_the_alternative_text_has_the_quantiles(table):
    curve = curve_of(table.frame, "mmd")
    assert curve is not None
    text = choices.alternative_text(curve)
    infinite = int(np.isinf(table.frame["ratio"]).sum())
    assert text.startswith("Specification curve of 6,000 choices sorted by ratio of MMD")
    assert text.endswith(f"to ∞; {infinite} are infinite")
    (middle,) = re.findall(r"below ([\d.]+),", text)
    own = table.frame[table.frame["measure"] == "mmd"]
    copied = own["ratio"].repeat((3 * own["weight"]).round().astype(int))
    assert float(middle) == pytest.approx(np.median(copied), rel=0.01)


def test_factors_say_what_their_levels_are(table):
    found = {each["name"]: each["levels"] for each in choices.factors_of(table.frame)}
    assert list(found) == list(FACTORS)
    assert found["tokens"] == "200, 1,000, 5,000"
    assert found["bias"] == "unbiased, biased"


@pytest.mark.slow
@pytest.mark.usefixtures("in_all_formats")
def test_figures_are_the_same_files_when_they_are_drawn_again(page, table, two_sites, tmp_path):
    _, study = page
    shutil.copytree(two_sites, tmp_path / "run")
    as_of_keygap_0_1(tmp_path / "run")
    table.save(tmp_path)
    kg.report(tmp_path / "run", out=tmp_path)
    names = {path.name for path in (tmp_path / "figures").glob("choices*")}
    assert names == {f"choices-{m}.{k}" for m in ("mmd", "jsd") for k in ("png", "svg", "pdf")}
    for name in names:
        one, two = ((folder / "figures" / name).read_bytes() for folder in (study, tmp_path))
        assert one == two, name


def test_simulated_statements_are_counted(table):
    one = statements_of(table.frame)
    row = one[(one["statement"] == "tenfold") & (one["model"] == "micro:mlp")].iloc[0]
    own = table.frame[(table.frame["model"] == "micro:mlp") & (table.frame["measure"] == "mmd")]
    assert row["share"] == sum(ratio >= 10 for ratio in own["ratio"]) / len(own)
