"""``kg.link`` on the vectors of the embedded model, with attention and answers that tests plant."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import keygap as kg
from keygap.bias.link_inputs import COVARIATES, attention_quantities, outcome_of
from keygap.bias.link_table import read_link, summarise
from keygap.bias.separation import separation
from keygap.contrasts.labels import SINK_SHARE
from keygap.errors import UserError

HEADS = 9  # of the embedded model, three for each key head
FEW: dict[str, Any] = {"n_bootstraps": 200}


def attention_frame(quantities: pd.DataFrame) -> pd.DataFrame:
    """An attention table with the given similarity and attention, and a sink that has neither."""
    rows = []
    for one in quantities.to_dict("records"):
        place = {name: one[name] for name in ("sample_id", "layer", "head")}
        place |= {"queries": "last", "image": 0, "frame": -1, "first": False}
        image = {**place, "modality": "image", "role": "", "image": 0}
        text = {**place, "modality": "text", "image": -1}
        per_token = float(np.exp(one["attention"]))
        rows += [
            {**image, "sink": True, "n_keys": 1.0, "relative": 40.0, "logit": 99.0},
            {**image, "sink": False, "n_keys": 15.0, "relative": 15 * per_token,
             "logit": one["similarity"] + 2.0},
            {**text, "role": "question", "sink": False, "n_keys": 6.0, "relative": 6.0,
             "logit": 2.0},
            {**text, "role": "template", "sink": False, "n_keys": 9.0, "relative": 1.0,
             "logit": -50.0},
        ]  # fmt: skip
    return pd.DataFrame(rows)


def bias_table(margins: pd.Series, suggested: str | None = None) -> SimpleNamespace:
    frame = pd.DataFrame(
        {
            "probe": "hint",
            "condition": "conflict" if suggested else "as_is",
            "variant": "",
            "sample_id": margins.index,
            "answer": "red",
            "suggested": suggested,
            "margin": margins.to_numpy(),
            "hint_margin": margins.to_numpy() if suggested else np.nan,
            "hint_effect": 0.5 if suggested else np.nan,
        }
    )
    return SimpleNamespace(samples=frame)


def separations_of(store: kg.Store, layers=(0, 15, 29)) -> pd.DataFrame:
    """Separation of each sample, layer and query head, by a loop over samples and heads."""
    rows = []
    for layer in layers:
        vectors = store.vectors("k_proj", layer)
        labels = vectors.labels
        kept = labels["attention"].to_numpy() < SINK_SHARE
        for name in labels["sample_id"].unique():
            own = kept & (labels["sample_id"] == name).to_numpy()
            image = vectors.array[own & (labels["modality"] == "image").to_numpy()]
            text = vectors.array[own & (labels["role"] == "question").to_numpy()]
            for head in range(HEADS):
                a, b = (side[:, head // 3].astype(float) for side in (image, text))
                spreads = [np.trace(np.cov(side.T)) for side in (a, b)]
                value = np.linalg.norm(a.mean(0) - b.mean(0)) / np.sqrt(np.mean(spreads))
                rows.append((str(name), layer, head, value))
    return pd.DataFrame(rows, columns=["sample_id", "layer", "head", "separation"])


@pytest.fixture(scope="module")
def apart(store) -> pd.DataFrame:
    return separations_of(store)


@pytest.fixture(scope="module")
def planted(apart) -> tuple[pd.DataFrame, pd.Series]:
    """At layer 15 each quantity follows the one before; elsewhere nothing follows anything."""
    rng = np.random.default_rng(0)
    frame = apart.copy()
    noise = rng.normal(size=(2, len(frame)))
    here = frame["layer"] == 15
    z = frame.groupby(["layer", "head"])["separation"].transform(lambda x: x.rank() / len(x))
    frame["similarity"] = np.where(here, -z, noise[0]) + 0.03 * noise[0]
    frame["attention"] = np.where(here, frame["similarity"], noise[1]) + 0.03 * noise[1]
    of_layer = frame[here].groupby("sample_id")["attention"].mean()
    margins = -of_layer + 0.02 * rng.normal(size=len(of_layer))
    return frame, margins


def test_separation_is_that_of_a_loop(store, apart):
    found = separation(store.vectors("k_proj", 15), ["question"])
    expected = apart[(apart["layer"] == 15) & (apart["head"] % 3 == 0)]
    np.testing.assert_allclose(found["separation"], expected["separation"], rtol=1e-5)
    assert found["sample_id"].tolist() == expected["sample_id"].tolist()


def test_quantities_come_back_from_the_attention_table(planted):
    frame, _ = planted
    found = attention_quantities(attention_frame(frame), "last", ["question"])
    merged = frame.merge(found, on=["sample_id", "layer", "head"], suffixes=("", "_found"))
    assert len(merged) == len(frame)
    np.testing.assert_allclose(merged["similarity_found"], merged["similarity"])
    np.testing.assert_allclose(merged["attention_found"], merged["attention"], atol=1e-12)
    with pytest.raises(UserError, match="no queries 'question', only last"):
        attention_quantities(attention_frame(frame), "question", ["question"])


def test_a_planted_chain_is_found_where_it_is(store, planted):
    frame, margins = planted
    attention = SimpleNamespace(frame=attention_frame(frame))
    table = kg.link(store, bias_table(margins, "blue"), attention, **FEW)
    own = table.frame
    partial = own[(own["measure"] == "partial") & (own["head"] != "all")]
    first = partial[partial["link"] == "separation -> similarity"]
    assert set(first[first["found"]]["layer"]) == {15}
    assert first[first["layer"] == 15]["found"].all()
    assert (first[first["layer"] == 15]["value"] < -0.9).all()
    mean = own.query("head == 'all' and layer == 15 and measure == 'spearman'")
    assert (mean[mean["link"] == "separation -> answer"]["value"] > 0.6).all()
    assert len(own[(own["measure"] == "spearman")]) == 4 * 3 * (HEADS + 1)
    assert (own["p_holm"] >= own["p_value"]).all()
    assert table.outcome == (
        "suggested minus right answer of hint in nats; larger follows the wrong text"
    )
    assert table.summary()[0].startswith("separation -> similarity: link found at 9 of 27 heads")


def test_no_link_is_said_as_plainly(store, apart):
    rng = np.random.default_rng(1)
    noise = apart.assign(
        similarity=rng.normal(size=len(apart)), attention=rng.normal(size=len(apart))
    )
    ids = apart["sample_id"].unique()
    margins = pd.Series(rng.normal(size=len(ids)), index=ids)
    attention = SimpleNamespace(frame=attention_frame(noise))
    table = kg.link(store, bias_table(margins), attention, **FEW)
    lines = table.summary()
    assert len(lines) == 5
    assert not table.frame["found"].any()
    assert all("no link found at 27 heads; with 24 samples" in line for line in lines[:4])
    assert lines[4].startswith("separation -> similarity -> attention -> answer: no chain found")
    assert any(note.startswith("held fixed: text tokens") for note in table.notes)


def test_without_attention_only_the_ends_are_linked(store, planted):
    table = kg.link(store, bias_table(planted[1]), **FEW)
    assert set(table.frame["link"]) == {"separation -> answer"}
    assert any("no attention table" in note for note in table.notes)
    assert len(table.summary()) == 1


def test_the_table_is_saved_and_read(store, planted, tmp_path):
    table = kg.link(store, bias_table(planted[1]), layers=[15], **FEW)
    table.save(tmp_path)
    again = read_link(tmp_path)
    pd.testing.assert_frame_equal(again.frame, table.frame, check_dtype=False)
    assert summarise(again.frame) == table.summary()
    assert (again.outcome, again.text_roles) == (table.outcome, table.text_roles)
    assert again.outcome == (
        "right minus best other answer in nats; larger is surer of the right answer"
    )
    assert again.outcome in again._repr_html_()


def test_a_table_of_before_says_neither_outcome_nor_roles(store, planted, tmp_path):
    table = kg.link(store, bias_table(planted[1]), layers=[15], **FEW)
    former = table.frame.drop(columns=["outcome", "text_roles"])
    (tmp_path / "link.csv").write_text(former.to_csv(index=False))
    again = read_link(tmp_path)
    assert (again.outcome, again.text_roles) == ("", [])
    pd.testing.assert_frame_equal(again.frame[former.columns], former, check_dtype=False)


def test_other_roles_of_text_are_used_and_named(store, planted):
    usual = kg.link(store, bias_table(planted[1]), layers=[15], **FEW)
    assert usual.text_roles == ["question"]
    assert not any("text is of" in note for note in usual.notes)
    roles = ["question", "template"]
    table = kg.link(store, bias_table(planted[1]), layers=[15], text_roles=roles, **FEW)
    assert table.text_roles == roles
    assert (table.frame["text_roles"] == "question, template").all()
    assert "text is of the roles question, template" in table.notes
    assert not np.allclose(usual.frame["value"], table.frame["value"])


def test_layers_that_are_not_chosen_are_no_layers_of_cross_attention(store, planted):
    table = kg.link(store, bias_table(planted[1]), layers=[15], **FEW)
    assert set(table.frame["layer"]) == {15}
    assert not any("cross-attention" in note for note in table.notes)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([15, 7], "unknown layer '7'; known: 0, 15, 29 "),
        ([7], "unknown layer '7'; known: 0, 15, 29 "),
        ([], "layers is empty"),
    ],
)
def test_layers_that_nothing_has_are_refused(store, planted, layers, said):
    with pytest.raises(UserError, match=said):
        kg.link(store, bias_table(planted[1]), layers=layers, **FEW)


def test_a_layer_of_the_attention_table_alone_has_the_other_links(store, planted):
    frame, margins = planted
    moved = frame[frame["layer"] == 15].assign(layer=7)
    attention = SimpleNamespace(frame=attention_frame(moved))
    table = kg.link(store, bias_table(margins, "blue"), attention, layers=[7], **FEW)
    assert set(table.frame["link"]) == {"similarity -> attention", "attention -> answer"}


def test_too_few_samples_are_refused(store, planted):
    with pytest.raises(UserError, match="5 samples have separation, attention and a margin"):
        kg.link(store, bias_table(planted[1].iloc[:5]))


def test_generated_answers_have_no_margin():
    table = bias_table(pd.Series([np.nan, np.nan], index=["a", "b"]))
    with pytest.raises(UserError, match="no answer has a margin"):
        outcome_of(table.samples)


def test_variants_of_a_hint_are_averaged():
    margins = pd.Series([1.0, 3.0, 5.0], index=["a", "a", "b"])
    outcome = outcome_of(bias_table(margins, "blue").samples)
    assert outcome.values.to_dict() == {"a": 2.0, "b": 5.0}


def test_covariates_have_names(store):
    from keygap.bias.link_inputs import covariates_of

    found = covariates_of(store.tokens, ["question"])
    assert tuple(found.columns) == COVARIATES
    assert (found["image tokens"] == 16).all()
    assert (found["length"] > found["text position"]).all()
