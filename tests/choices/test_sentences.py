"""Sentences about statements: what is robust and what depends on choices, by intervals alone."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from keygap.choices.sentences import moved_most, sentences, verdict_of
from keygap.choices.tables import STATEMENT_COLUMNS, VARIANCE_COLUMNS

SEPARATED = "the cross-modal MMD is above both intra-modal values"
TENFOLD = "the ratio is at least 10"
HUNDRED = "the ratio is at least 100"
ORDER = "the first model has the larger ratio"
SOURCE = "arXiv 2510.26721 v1"
NAN = math.nan


def table(*rows: tuple[str, str, float, float, float]) -> pd.DataFrame:
    """Statements of MMD: what, model, share and its interval."""
    made = [
        (what[:12], what, "mmd", model, "easy-vqa", "k_proj", share, low, high, 500)
        for what, model, share, low, high in rows
    ]
    return pd.DataFrame(made, columns=list(STATEMENT_COLUMNS))


GOLDEN = {
    "robust": (
        table((SEPARATED, "a", 1.0, 0.99, 1.0), (SEPARATED, "b", 0.98, 0.96, 0.99)),
        [
            f"Of 1 statement of {SOURCE}, 1 holds whatever is chosen: {SEPARATED} "
            "(in 98 to 100 % of the choices)."
        ],
    ),
    "split": (
        table(
            (SEPARATED, "a", 1.0, 0.99, 1.0),
            (TENFOLD, "a", 0.6, 0.5, 0.7),
            (TENFOLD, "b", 0.97, 0.96, 0.98),
            (HUNDRED, "a", 0.004, 0.0, 0.01),
            (ORDER, "a > b", 0.99, 0.94, 1.0),
            (ORDER, "b > c", 0.4, 0.3, 0.5),
        ),
        [
            f"Of 5 statements of {SOURCE}, 1 holds whatever is chosen: {SEPARATED} (in 100 % of "
            f"the choices); 1 fails whatever is chosen: {HUNDRED} (in < 1 % of the choices).",
            f"Whether the other 3 hold depends on the choices: {TENFOLD} "
            "(in 60 to 97 % of the choices), "
            "a above b (in 99 %) and b above c (in 40 %).",
        ],
    ),
    "none holds": (
        table((TENFOLD, "a", 0.6, 0.5, 0.7)),
        [
            f"Of 1 statement of {SOURCE}, none holds whatever is chosen.",
            f"Whether it holds depends on the choices: {TENFOLD} (in 60 % of the choices).",
        ],
    ),
    "one fails": (
        table((TENFOLD, "a", 0.6, 0.5, 0.7), (HUNDRED, "a", 0.0, 0.0, 0.01)),
        [
            f"Of 2 statements of {SOURCE}, none holds whatever is chosen; 1 fails whatever is "
            f"chosen: {HUNDRED} (in 0 % of the choices).",
            f"Whether the other one holds depends on the choices: {TENFOLD} "
            "(in 60 % of the choices).",
        ],
    ),
    "by model": (
        table((TENFOLD, "a", 1.0, 1.0, 1.0), (TENFOLD, "b", 0.0, 0.0, 0.0)),
        [
            f"Of 1 statement of {SOURCE}, none holds whatever is chosen; 1 holds for some "
            f"models, benchmarks or sites and fails for others, whatever is chosen: {TENFOLD} "
            "(in 0 to 100 % of the choices)."
        ],
    ),
    "by site": (
        pd.concat(
            [
                table((TENFOLD, "a", 1.0, 1.0, 1.0), (HUNDRED, "a", 1.0, 1.0, 1.0)),
                table((TENFOLD, "a", 0.0, 0.0, 0.0), (HUNDRED, "a", 0.0, 0.0, 0.0)).assign(
                    site="key"
                ),
            ]
        ),
        [
            f"Of 2 statements of {SOURCE}, none holds whatever is chosen; 2 hold for some models, "
            f"benchmarks or sites and fail for others, whatever is chosen: {TENFOLD} (in 0 to "
            f"100 % of the choices) and {HUNDRED} (in 0 to 100 %)."
        ],
    ),
    "no interval": (
        table((SEPARATED, "a", 1.0, NAN, NAN), (TENFOLD, "a", 0.5, NAN, NAN)),
        [
            f"For 2 statements of {SOURCE} no interval over samples was computed, so they are "
            f"called neither robust nor a choice: {SEPARATED} (in 100 % of the choices) and "
            f"{TENFOLD} (in 50 %)."
        ],
    ),
    "one without an interval": (
        table((SEPARATED, "a", 1.0, 0.99, 1.0), (TENFOLD, "a", 0.5, NAN, NAN)),
        [
            f"Of 2 statements of {SOURCE}, 1 holds whatever is chosen: {SEPARATED} (in 100 % of "
            "the choices).",
            "For 1 statement no interval over samples was computed, so it is called neither "
            f"robust nor a choice: {TENFOLD} (in 50 % of the choices).",
        ],
    ),
    "no share": (
        table((TENFOLD, "a", NAN, NAN, NAN)),
        ["No statement was tested: no choice has the numbers that one needs."],
    ),
    "nothing": (
        table(),
        ["No statement was tested: no choice has the numbers that one needs."],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_sentences(name):
    statements, expected = GOLDEN[name]
    assert sentences(statements, SOURCE) == expected


def test_without_a_source_none_is_named():
    (first,) = sentences(GOLDEN["robust"][0])
    assert first.startswith("Of 1 statement, 1 holds whatever is chosen: ")


def test_what_two_measures_say_is_told_apart():
    mmd = table((SEPARATED, "a", 1.0, 1.0, 1.0), (ORDER, "a > b", 0.5, 0.4, 0.6))
    both = pd.concat([mmd, mmd.assign(measure="jsd", share=0.99)])
    assert sentences(both) == [
        f"Of 4 statements, 2 hold whatever is chosen: {SEPARATED} (by MMD in 100 % and by JSD in "
        "99 % of the choices).",
        "Whether the other 2 hold depends on the choices: a above b (by MMD in 50 % and by JSD in "
        "99 % of the choices).",
    ]
    both.loc[both["measure"] == "jsd", ["share", "share_low", "share_high"]] = 0.5
    assert sentences(both)[0] == (
        f"Of 4 statements, 1 holds whatever is chosen: {SEPARATED} (by MMD in 100 % of the "
        "choices)."
    )


def test_comparisons_of_layers_are_left_to_the_table():
    layers = table(("the last layer is above the first layer", "a", 1.0, 1.0, 1.0))
    layers["statement"] = "last > first"
    assert sentences(pd.concat([layers, GOLDEN["robust"][0]]), SOURCE) == GOLDEN["robust"][1]


def test_a_long_list_is_cut():
    many = table(*((f"clause {n}", "a", 0.5, 0.4, 0.6) for n in range(11)))
    assert sentences(many)[1].endswith("clause 7 (in 50 %) and 3 others.")


def test_text_from_outside_stays_on_one_line():
    (said,) = sentences(table(("a\nb\u202e", "m", 1.0, 1.0, 1.0)), "x\ny" * 400)
    assert "\n" not in said
    assert "\u202e" not in said
    assert len(said) < 500


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ((0.99, 0.951, 1.0), "robust"),
        ((0.99, 0.95, 1.0), "a choice"),
        ((0.02, 0.0, 0.049), "fails"),
        ((0.02, 0.0, 0.05), "a choice"),
        ((0.5, 0.1, 0.9), "a choice"),
        ((0.99, NAN, NAN), "no interval"),
        ((NAN, NAN, NAN), ""),
    ],
)
def test_the_interval_decides(ends, verdict):
    row = dict(zip(("share", "share_low", "share_high"), ends, strict=True))
    assert verdict_of(row) == verdict


def test_the_choice_that_moves_a_number_most():
    rows = [
        ("log10 ratio", "mmd", "layer", 0.1, 0.3, 9),
        ("log10 ratio", "mmd", "bias", 0.4, 0.52, 9),
        ("JSD", "jsd", "tokens", 0.25, 0.999, 9),
        ("JSD", "jsd", "unit", NAN, NAN, 9),
        ("constant", "jsd", "unit", 0.0, 0.0, 9),
    ]
    variance = pd.DataFrame(rows, columns=list(VARIANCE_COLUMNS))
    assert moved_most(variance) == (
        "The choice that moves each number most: log10 ratio by bias (40 % of its variance alone, "
        "52 % with interactions) and JSD by tokens (25 % of its variance alone, > 99 % with "
        "interactions)."
    )
    assert moved_most(variance.tail(2)) == ""
    assert moved_most(variance.head(0)) == ""
