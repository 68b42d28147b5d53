"""What public results show in a notebook: a caption, a table and notes, whatever names say."""

from __future__ import annotations

import inspect
import typing
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

import keygap as kg
from align.causes.simulated import causes_table, few_points
from align.made_models import llava
from align.remedy.made_search import colours
from align.remedy.simulated import Simulated
from choices.simulated import choices_table
from keygap import display
from keygap.align.causes.points import layer_sets
from keygap.align.causes.verdict import verdict
from keygap.align.remedy.candidates import Candidates
from keygap.align.remedy.comparing import CHOOSING, TEST, Rule, trial
from keygap.align.remedy.result import Remedy

HOSTILE = "<script>alert('&')</script>\x00\u202e</table>\n\"]"
SHOWN = r"<script>alert('&')</script>\x00\u202e</table>"
FEW = 24


class Page(HTMLParser):
    """The tags of a piece of HTML, its text by tag, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: dict[str, str] = {}
        self.rows = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert tag in (
            *("div", "figure", "figcaption", "style", "table", "thead", "tbody", "tr", "th", "td"),
            *("ul", "li", "details", "summary", "img"),
        )
        self.rows += tag == "tr"
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in dict.fromkeys(self.open):
            self.text[tag] = self.text.get(tag, "") + data


@pytest.fixture(scope="module")
def model() -> kg.VLM:
    return replace(llava(), name=HOSTILE)


@pytest.fixture(scope="module")
def results(model, tmp_path_factory) -> dict[str, Any]:
    """One of every public result: of a tiny model whose name is hostile, and of planted answers."""
    bench = colours(HOSTILE, FEW)
    root = tmp_path_factory.mktemp("display") / "run"
    asked = bench.choose(None)
    store = kg.extract(model, asked, root, layers=["all"])
    few: dict[str, Any] = {"n_permutations": 39, "n_bootstraps": 20}
    bias = kg.probe(model, asked, probes=["hint"], n_bootstraps=20)
    attention = kg.measure_attention(model, asked)
    rng = np.random.default_rng(0)
    x, y, ids = rng.normal(size=(60, 4)), rng.normal(size=(60, 4)) + 1, np.repeat(np.arange(20), 3)
    mmd = kg.gap.mmd(x, y, ids, ids, **few)
    answers, odd = ["a", "b"] * 5, np.arange(60) % 2 == 1
    causes = causes_table("attention", n=20, points=few_points(), n_bootstraps=20)
    rule = Rule(0.02, 20, 0)
    points = Candidates(layers=("all",), strengths=(0.5,)).points(layer_sets(range(6), [2, 3]))
    stages = {CHOOSING: "made", TEST: "made"}
    remedy = trial(points, Simulated(0, {}).measure, stages, HOSTILE, rule)
    found: list[Any] = [
        model,
        store,
        store.vectors("k_proj", 0),
        kg.measure(store, layers=[0], **few),
        bias,
        attention,
        kg.link(store, bias, attention, n_bootstraps=20),
        kg.reading_layers(model, asked, n_bootstraps=20),
        kg.answer(model, asked),
        kg.attention_map(model, bench.sample(0)),
        kg.project(store, layers=[0], perplexity=3),
        kg.align.fit("mean-shift", kg.align.read_vectors(model, asked, sites=["k_proj"])),
        kg.align.read_vectors(model, asked, sites=["k_proj"]),
        kg.bias.tpr(answers, answers[::-1], answers),
        kg.bias.balance_point(rng.normal(size=60) + odd, odd, np.arange(60), n_bootstraps=20),
        causes,
        choices_table(models={HOSTILE: 0.1}, n={"mmd": 200, "jsd": 40}),
        verdict(causes.samples, causes.points),
        Remedy(remedy, rule),
        kg.align.Change("attention-bias", [0, 1, 2, 5], 0.5, facts={"model": HOSTILE}),
        mmd,
        kg.gap.mmd_ratio(mmd, kg.gap.mmd(x, 2 * y, ids, ids, **few)),
        kg.gap.jsd(x, y, ids, ids, **few),
        kg.gap.jsd_profile(x, y, ids, ids, **few),
        kg.gap.jsd_histogram(x, y, ids, ids, dims=2),
        kg.gap.jsd_marginals(x, y, ids, ids),
        kg.gap.jsd_neighbours(x, y, ids, ids),
        kg.gap.c2st(x, y, ids, ids, n_permutations=39),
        kg.gap.frechet(x, y, ids, ids),
        kg.gap.modality_gap(x, y, ids, ids),
        kg.gap.moments(x, y, ids, ids),
        kg.gap.spread(x, y, ids, ids),
        kg.gap.contribution(x, y, ids, ids, n_heads=2),
        kg.gap.mir([(x, y)]),
        kg.gap.mir_layer(x, y),
    ]
    return {type(one).__name__: one for one in found}


def returned(module: Any) -> set[type]:
    """The classes of keygap that public functions of a module return, and those it exports."""
    found = set()
    for name in module.__all__:
        item = getattr(module, name)
        if inspect.isfunction(item):
            found.add(typing.get_type_hints(item, vars(inspect.getmodule(item)))["return"])
        elif inspect.isclass(item):
            found.add(item)
    return {each for each in found if str(getattr(each, "__module__", "")).startswith("keygap.")}


# What is no result: inputs, plans, errors, protocols and what acts on a model.
OTHERS = {
    *("Benchmark", "Condition", "Intervention", "Plan", "Probe", "Reading", "Result", "Samples"),
    *("Sides", "Statistic", "Steering", "Unfit", "UserError", "Variant"),
}


def test_every_public_result_is_looked_at_here(results):
    public = set.union(*(returned(module) for module in (kg, kg.gap, kg.align, kg.bias)))
    assert {each.__name__ for each in public} - OTHERS - set(results) == set()


def test_every_result_is_a_caption_and_a_table(results):
    for name, result in results.items():
        page = Page(result._repr_html_())
        assert page.open == [], name
        assert page.rows >= 2, name
        assert len(page.text["figcaption"]) > len(name), name
        assert page.text["td"].strip(), name


def test_every_caption_says_of_how_many_samples_and_what_the_interval_is(results):
    """Or that there is no interval, where the numbers are data."""
    for name in ("GapTable", "BiasTable", "LinkTable", "ReadingTable", "CausesTable", "Remedy"):
        page = Page(results[name]._repr_html_())
        assert "95 % interval" in page.text["figcaption"] + page.text["th"], name
    for name in ("GapTable", "LinkTable", "Store"):
        assert f"{FEW} samples" in Page(results[name]._repr_html_()).text["figcaption"], name
    assert "12 samples" in Page(results["ReadingTable"]._repr_html_()).text["figcaption"]
    assert "20 samples" in Page(results["CausesTable"]._repr_html_()).text["figcaption"]
    for name in ("Store", "Map"):
        assert "no interval" in Page(results[name]._repr_html_()).text["figcaption"], name


def test_every_repr_is_short_and_on_one_line(results):
    for name, result in results.items():
        said = repr(result)
        assert len(said) <= display.LONGEST_REPR, name
        assert said.isprintable(), name
        assert said.split()[0].rstrip(":") not in ("", "<"), name


def test_a_hostile_name_stays_text(results):
    for name in ("VLM", "Store", "GapTable", "BiasTable", "Map", "Change"):
        page = results[name]._repr_html_()
        assert "<script" not in page, name
        assert "\x00" not in page, name
        assert "\u202e" not in page, name
        assert r"<script>alert('&')</script>\x00\u202e</table>" in Page(page).text["figcaption"], (
            name
        )


def test_hostile_cells_headers_and_notes_stay_text():
    frame = pd.DataFrame({HOSTILE: [HOSTILE, ["<b>"]], "n": [1.0, np.nan]})
    page = Page(display.as_html(HOSTILE, frame, [HOSTILE, "<i>"]))
    for tag in ("figcaption", "th", "td", "li"):
        assert SHOWN in page.text[tag], tag


def test_notes_are_shown_and_many_are_folded():
    frame = pd.DataFrame({"a": [1]})
    few = display.as_html("c", frame, ["one note"])
    assert Page(few).text["li"] == "one note"
    assert "<details>" not in few
    many = Page(display.as_html("c", frame, [f"note {n}" for n in range(33)]))
    assert many.text["summary"] == "33 notes"
    assert many.text["li"].count("note ") == 33


def test_a_long_table_says_what_it_leaves_out():
    page = Page(display.as_html("c", pd.DataFrame({"a": range(5000)})))
    assert page.rows == 1 + display.MOST_ROWS
    assert page.text["li"] == "60 of 5,000 rows are shown."


def test_two_tables_in_one_notebook_do_not_style_each_other():
    one, two = (display.as_html("c", pd.DataFrame({"a": [n], "b": ["x"]})) for n in (1, 2))
    identity = one.partition('<table id="')[2].partition('"')[0]
    assert identity
    assert identity not in two
    assert one == display.as_html("c", pd.DataFrame({"a": [1], "b": ["x"]}))


def test_shown_values_equal_those_of_the_table(results):
    table = results["GapTable"]
    row = table.summary().iloc[0]
    text = Page(table._repr_html_()).text["td"]
    for name in ("mmd2", "kind", "ratio_kind"):
        assert f"{row[name]:.3g}" in text
    answers = results["Answers"]
    right = int(answers.frame["correct"].sum())
    assert f"{right}" in repr(answers)


def test_parts_of_text():
    assert display.ranges([7, 0, 1, 2, 3]) == "0-3, 7"
    assert display.between(0.5, 0.25, float("inf")) == "0.5 (0.25 to no bound)"
    assert display.between(0.5, None, None) == "0.5"
    assert display.between(float("nan"), 0, 1) == ""
    assert display.names(["a", "b", "a", "c", "d"]) == "a, b, c and 1 others"
    assert display.counted(1, "layer") + display.counted(1200, "layer") == "1 layer1,200 layers"
