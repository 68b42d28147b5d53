"""The report: one file that needs no other, and in which no text runs as a script."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest
from matplotlib.axes import Axes

import keygap as kg
from keygap import progress
from keygap.errors import UserError
from keygap.reporting import figures, heads, read_run, shape
from keygap.reporting.page import definitions, fixed
from made import as_of_keygap_0_1
from measurement.outside import IMAGE_TEMPLATE

from .conftest import BENCHMARK, LAST, MODEL


def test_the_report_needs_no_other_file(whole, whole_page):
    page = whole_page.read_text()
    assert not re.findall(r"<img[^>]*image/png", page)  # every figure is an SVG of the page
    files = {path.stem for path in (whole / "figures").glob("*.svg")}
    assert (
        len(re.findall('<svg role="(?:img|group)" aria-label="[^"]{40,}"', page)) == len(files) > 12
    )
    assert len(scripts_of(page)) == 3  # data, the library, and the explorer's own
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    for name in (
        "ladder-k_proj",
        "tsne-k_proj",
        "gap-by-layer-k_proj",
        "heads-k_proj",
        "shape-k_proj",
    ):
        assert (whole / "figures" / f"{name}.svg").stat().st_size > 1000
    assert "What kind of gap: image_text at k_proj" in page
    assert re.search(r"<td>0\.\d+ null 0\.\d+ in \d+ dims|<td>0\.\d+ null 0\.\d+</td>", page)


def test_captions_say_what_numbers_mean(whole_page):
    words = " ".join(html.unescape(whole_page.read_text()).split())
    for said in (
        "A ratio of 1 means that the gap is as large as the largest distance measured inside one "
        "modality.",
        "counts only samples for which the image alone and the text alone give different answers.",
        "What depends on analysis choices?",
    ):
        assert said in words


def test_a_run_measured_by_another_version_says_what_to_do(two_sites, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two_sites, folder)
    as_of_keygap_0_1(folder)
    frame = pd.read_csv(folder / "gap.csv").drop(columns="mmd2_null_low")
    frame.to_csv(folder / "gap.csv", index=False)
    with pytest.raises(UserError, match=r"no column mmd2_null_low.*run keygap measure"):
        kg.report(folder)


@pytest.mark.usefixtures("not_drawn")
def test_hostile_text_is_shown_and_not_run(two_sites, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two_sites, folder)
    as_of_keygap_0_1(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["failures"] = {"<script>alert(1)</script>": "<img src=x onerror=alert(1)>"}
    manifest["n_failed"] = 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    page = kg.report(folder).read_text()
    assert len(scripts_of(page)) == 3
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page


class Scripts(HTMLParser):
    """The type and text of every script of a page, and its Content Security Policy."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str | None, str]] = []
        self.policy, self.inside = "", False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        self.inside = tag == "script"
        if self.inside:
            assert not set(given) - {"type", "id"}
            self.found.append((given.get("type"), ""))

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            kind, text = self.found[-1]
            self.found[-1] = (kind, text + data)


def scripts_of(page: str) -> list[str]:
    """The scripts of a page, each of which is data or allowed by its hash and nothing else."""
    parsed = Scripts(page)
    assert "'unsafe-eval'" not in parsed.policy
    allowed = parsed.policy.partition("script-src ")[2].split()
    digests = []
    for kind, text in parsed.found:
        if kind == "application/json":
            json.loads(text)
            continue
        assert kind is None
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        digests.append(f"'sha256-{digest}'")
    assert digests == allowed
    return [text for _, text in parsed.found]


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def first_table(page: str) -> tuple[list[str], list[list[str]]]:
    """The headings and cells of the first table."""
    part = page[page.index("The gap at every layer") :]
    rows = part[: part.index("</table>")].split("<tr")[1:]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return cells[0], cells[1:]


@pytest.mark.usefixtures("not_drawn")
def test_the_first_table_is_short_and_a_number_that_rounds_to_0_has_no_sign(run_folder):
    headings, rows = first_table(kg.report(run_folder).read_text())
    assert headings == [
        "model", "where", "MMD², image and text", "largest inside one modality", "ratio",
        "samples", "accuracy",
    ]  # fmt: skip
    assert len(rows) == 4
    frame = pd.read_csv(run_folder / "gap.csv", dtype={"head": str})
    frame = frame[frame["rung"] != "same"]
    gap = (frame["contrast"] == "image_text") & (frame["head"] == "all") & frame["confound"].isna()
    frame.loc[gap, "mmd2"] = -0.00001
    frame.to_csv(run_folder / "gap.csv", index=False)
    page = kg.report(run_folder).read_text()
    assert first_table(page)[1][0][2].startswith("0.000 (")
    assert not re.search(r"\bnan\b", re.sub(r'src="data:[^"]*"', "", page))
    assert "-0.0000" not in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.00001, "0.0000"), (-0.0002, "-0.0002"), (None, ""), (float("nan"), ""), (1.5, "1.5000")],
)
def test_numbers_have_fixed_decimals(value, text):
    assert fixed(value, 4) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(130.4, "130"), (float("inf"), "no bound"), (float("nan"), "")]
)
def test_the_least_that_a_ratio_can_be(ratio, text):
    assert fixed(ratio, 0) == text


@pytest.mark.usefixtures("not_drawn")
def test_definitions_are_those_that_the_run_recorded(run_folder):
    page = html.unescape(kg.report(run_folder).read_text())
    assert "<dt>openers</dt><dd>modality text; role question; token is, Ġthe, against" in page
    assert "<dt>image_text</dt><dd>image tokens, text of the chosen roles (between)</dd>" in page
    assert "<dd>text is question; at most 8 tokens of a sample on each side; 20 label" in page
    (run_folder / "measurement.yaml").unlink()
    with pytest.raises(UserError, match=r"does not say how it was measured.*run keygap measure"):
        kg.report(run_folder)


def test_a_name_with_two_meanings_lists_the_runs_of_each(two_sites, run_folder):
    path = run_folder / "measurement.yaml"
    path.write_text(path.read_text().replace("token is, Ġthe", "token was"))
    runs = [read_run(two_sites), read_run(run_folder)]
    openers = [item for item in definitions(runs) if item["name"] == "openers"]
    assert ["token was" in item["what"] for item in openers] == [False, True]
    assert all(item["where"] == f"{MODEL} on {BENCHMARK}" for item in openers)
    assert not any(item["where"] for item in definitions(runs) if item["name"] == "image_text")


@pytest.mark.usefixtures("not_drawn")
def test_a_contrast_with_one_word_is_marked_in_the_page(run_folder):
    frame = pd.read_csv(run_folder / "gap.csv", dtype={"head": str})
    frame = frame[frame["rung"] != "single"]
    frame.loc[frame["contrast"] == "openers", "rung"] = "single"
    frame.to_csv(run_folder / "gap.csv", index=False)
    page = kg.report(run_folder).read_text()
    appendix = page[page.index('<section id="appendix"') :]
    rows = frame[(frame["rung"] == "single") & (frame["head"] == "all")]
    assert len(rows) > 2
    assert page.count('<tr class="single">') == appendix.count('<tr class="single">') == len(rows)
    assert '<td class="name">openers</td>' not in page[: page.index('<section id="appendix"')]
    assert appendix.count('<td class="name">openers</td>') == len(rows)
    assert "in part one word against the rest: large by construction, not a reference)" in page


@pytest.fixture(scope="module")
def two_gaps(explored, tmp_path_factory):
    """A run with a second contrast between modalities, which only its own name tells apart."""
    folder = tmp_path_factory.mktemp("gaps") / "run"
    shutil.copytree(explored, folder)
    table = kg.measure(
        kg.Store(folder),
        contrasts=(IMAGE_TEMPLATE, "image_text", "text_vocabulary", "text_text"),
        sites=["k_proj"],
        layers=[LAST],
        tokens_per_sample=8,
        n_permutations=9,
        n_bootstraps=9,
    )
    table.save(folder)
    return folder


def test_a_second_contrast_between_modalities_is_in_every_table(two_gaps, tmp_path, not_drawn):
    path = kg.report(two_gaps, two_gaps, out=tmp_path)  # a comparison needs several runs
    page = html.unescape(path.read_text())
    headings, rows = first_table(page)
    column = headings.index("where")
    asked = [row[column].partition(",")[0] for row in rows]
    assert asked == ["image_template", "image_text"] * 2
    for name in ("image_text", "image_template"):
        assert page.count(f"<th>{name}: ratio, at least</th>") == 1
        assert page.count(f"What kind of gap: {name} at k_proj") == 2
        assert f'<td class="name">{name}</td><td class="name">equal_counts</td>' in page
        assert two_gaps / f"shape-{name}-k_proj" in not_drawn
    assert "<th>image_text</th><th>image_template</th><th>text_text</th>" in page


def test_figures_show_every_contrast_between_modalities(two_gaps):
    run = read_run(two_gaps)
    drawn = heads.heads(run, "k_proj")
    titles = [axes.get_title() for axes in drawn.axes if axes.get_title()]
    assert titles == ["image_text", "image_template"]
    (axes,) = figures.gap_by_layer(run, "k_proj").axes
    bands = [label for label in legend(axes) if "swapped" in label]
    assert bands == [f"{name}, labels swapped (95 %)" for name in titles]
    sides = [legend(shape.figure(run, "k_proj", name).axes[1]) for name in titles]
    assert sides == [["image", "text"], ["image", "template"]]


@pytest.mark.usefixtures("not_drawn")
def test_a_ratio_without_a_bound_reads_the_same_in_every_table(two_sites, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two_sites, folder)
    as_of_keygap_0_1(folder)
    frame = pd.read_csv(folder / "gap.csv", dtype={"head": str})
    frame.loc[frame["rung"] == "same", "mmd2_ci_high"] = -0.001
    frame.to_csv(folder / "gap.csv", index=False)
    page = kg.report(folder, folder, out=tmp_path).read_text()
    assert page.count("<td>no bound</td>") == 8  # four sites and layers of each run


def test_runs_of_different_sites_share_a_report(two_sites, tmp_path, not_drawn):
    for folder, site in (("k", "k_proj"), ("q", "key")):
        shutil.copytree(two_sites, tmp_path / folder)
        as_of_keygap_0_1(tmp_path / folder)
        for name in ("gap.csv", "jsd.csv", "shape.csv", "dimensions.csv"):
            table = pd.read_csv(tmp_path / folder / name)
            table[table["site"] == site].to_csv(tmp_path / folder / name, index=False)
    path = kg.report(tmp_path / "k", tmp_path / "q", out=tmp_path / "out")
    assert path == tmp_path / "out" / "report.html"
    drawn = {figure.name for figure in not_drawn if figure.parent == tmp_path / "out"}
    kinds = ("ratio", "ladder", "tsne", "single-word")
    assert drawn == {f"{kind}-{site}" for kind in kinds for site in ("k_proj", "key")}


@pytest.mark.usefixtures("not_drawn")
def test_a_run_with_nothing_measured_has_a_report_that_says_why(explored, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(explored, folder)
    kg.measure(kg.Store(folder), contrasts=["image_sink"], sites=["k_proj"], layers=[0]).save(
        folder
    )
    page = kg.report(folder).read_text()
    assert re.search(
        r"no image token receives 5 times [^<]* \(image_sink; k_proj at layer 0\)", page
    )
    assert "No gap between modalities was measured" in page
    assert first_table(page)[1] == []


@pytest.mark.slow
@pytest.mark.usefixtures("not_drawn")
def test_several_runs_share_one_report(two_sites, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        shutil.copytree(two_sites, folder)
    as_of_keygap_0_1(folder)
    path = kg.report(*folders)
    assert path == tmp_path / "report.html"
    assert len(re.findall(rf'<h2 id="run-[01]">{MODEL}', path.read_text())) == 2


def test_a_run_that_was_not_measured_says_what_to_do(explored, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(explored, folder, ignore=shutil.ignore_patterns("gap.csv"))
    as_of_keygap_0_1(folder)
    with pytest.raises(UserError, match="was not measured: run keygap measure"):
        kg.report(folder)


@pytest.mark.usefixtures("not_drawn")
def test_a_report_says_how_many_figures_are_drawn(run_folder, monkeypatch):
    """Every loop and step is begun once, with what it is and how long it will be."""
    begun: list[tuple[str, int | None]] = []
    work = progress.Work

    class Heard(work):  # type: ignore[misc, valid-type]
        def __init__(self, what: str, total: int | None = None, done: int = 0) -> None:
            begun.append((what, total))
            super().__init__(what, total, done)

    monkeypatch.setattr(progress, "Work", Heard)
    kg.report(run_folder)
    assert begun[0] == ("report", None)
    figures = [total for what, total in begun if what == "figures of run"]
    assert sum(total or 0 for total in figures) == 16  # eight at each of two sites
