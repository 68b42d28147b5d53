"""A search on a tiny model: what it finds acts as steering by hand, and it can be continued."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import keygap as kg
from align.made_models import llava
from keygap.align.baselines import build
from keygap.align.causes.judging import Judge
from keygap.align.remedy import searching
from keygap.align.remedy.candidates import Candidates
from keygap.align.remedy.comparing import CHOOSING, SECOND, TEST
from keygap.align.remedy.cost import cost_of
from keygap.errors import UserError
from keygap.models.load import wrap
from made import files_of
from models.zoo import BY_FAMILY

from .made_search import FEW, colours
from .planted_judge import PlantedJudge

TWO_LAYERS = {**BY_FAMILY["llava"].config, "text_config__num_hidden_layers": 2}
MAP = {"name": "steer", "strength": -0.5, "layers": [0, 1]}
BIAS = {"name": "attention-bias", "nats": 1.0, "layers": [0, 1]}


@pytest.fixture(scope="module")
def vlm():
    return llava()


@pytest.fixture
def planted(monkeypatch):
    """Searches with a judge that finds one candidate to work."""
    monkeypatch.setattr(searching, "Judge", PlantedJudge)

    def plant(cure):
        monkeypatch.setattr(PlantedJudge, "cure", cure)
        monkeypatch.setattr(PlantedJudge, "measured", [])

    plant(MAP)
    return plant


def logits(vlm, batch):
    with torch.no_grad():
        return vlm.forward(batch).logits


def test_what_is_found_acts_as_steering_by_hand_bit_for_bit(vlm, planted, tmp_path):
    bench = colours()
    remedy = kg.align.search(vlm, bench, tmp_path / "run", second=colours("others"), **FEW)
    assert remedy.found
    assert remedy.chosen == "mean-shift/k_proj/early/-0.5/free/0"
    batch = vlm.prompter(bench.samples[:3])
    plain = logits(vlm, batch)
    with remedy.applied(vlm):
        found = logits(vlm, batch)
    loaded = kg.align.load_remedy(tmp_path / "run")
    with loaded.applied(vlm):
        assert torch.equal(logits(vlm, batch), found)
    with kg.align.load_remedy(tmp_path / "run").applied(vlm):
        said = vlm.generate(vlm.prompter(bench.samples[:1]), max_new_tokens=2)
    assert said.shape[1] > 2
    # by hand: fitted again on the samples that are in neither half
    used = {name for stage in (CHOOSING, TEST) for name in images(tmp_path / "run", bench, stage)}
    index = bench.index()
    chosen = bench.choose(2 * FEW["samples"] + FEW["fit_samples"], 0)
    places = [place for place in chosen.places if index[place].image_key not in used]
    fitting = replace(chosen, places=tuple(places[: FEW["fit_samples"]]))
    assert len(fitting) == FEW["fit_samples"]
    fitted = kg.align.fit(
        "mean-shift", kg.align.read_vectors(vlm, fitting, batch_size=4, layers=["all"])
    )
    with kg.align.steer(vlm, fitted, layers=[0, 1], strength=-0.5):
        assert torch.equal(logits(vlm, batch), found)
    assert not torch.allclose(found, plain, atol=1e-4)
    assert torch.equal(logits(vlm, batch), plain)
    heads, head_dim = fitted.layers[0].shape
    assert loaded.parameters == 2 * heads * head_dim == remedy.cost.parameters


def images(folder, bench, stage):
    """The images of the samples that a stage of a search judged, from its files."""
    text = (folder / "remedy" / stage / "none.json").read_text()
    ids = set(re.findall(r'"sample_id": "([^"]+)"', text))
    assert ids
    return {entry.image_key for entry in bench.index() if entry.id in ids}


def test_the_halves_share_no_image(vlm, planted, tmp_path):
    bench = colours()
    kg.align.search(vlm, bench, tmp_path, **FEW)
    choosing, test = (images(tmp_path, bench, stage) for stage in (CHOOSING, TEST))
    assert len(choosing) >= 4
    assert len(test) >= 4
    assert not choosing & test


def test_an_attention_bias_is_kept_in_yaml_alone(vlm, planted, tmp_path):
    planted(BIAS)
    remedy = kg.align.search(vlm, colours(), tmp_path, **FEW)
    assert remedy.chosen == "attention-bias//early/+1//0"
    assert remedy.cost.parameters == 1
    assert not (tmp_path / "remedy.safetensors").exists()
    values = yaml.safe_load((tmp_path / "remedy.yaml").read_text())
    assert (values["found"], values["change"]["name"]) == (True, "attention-bias")
    batch = vlm.prompter(colours().samples[:3])
    with kg.align.load_remedy(tmp_path).applied(vlm):
        found = logits(vlm, batch)
    with vlm.interventions.applied(build("attention-bias", layers=[0, 1], nats=1.0)):
        assert torch.equal(logits(vlm, batch), found)
    deeper = replace(kg.align.load_remedy(tmp_path), facts={"model": "x", "n_layers": 7})
    with pytest.raises(UserError, match="whose number of layers is 7, and that of tiny llava is 6"):
        deeper.applied(vlm)


def test_a_search_that_continues_equals_a_whole_one(vlm, monkeypatch, tmp_path):
    """With the true judge, interrupted in the middle of the candidates."""
    measured: list[int] = []
    measure = Judge.measure

    def counted(self, *arguments):
        if len(measured) == 4 and not (tmp_path / "interrupted").exists():
            (tmp_path / "interrupted").touch()
            raise KeyboardInterrupt
        measured.append(1)
        return measure(self, *arguments)

    whole = kg.align.search(vlm, colours(), tmp_path / "whole", **FEW)
    monkeypatch.setattr(Judge, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        kg.align.search(vlm, colours(), tmp_path / "part", **FEW)
    assert vlm.interventions.identity == []
    continued = kg.align.search(vlm, colours(), tmp_path / "part", **FEW)
    assert len(measured) == len(continued.candidates) + 1  # none of them twice
    one, other = (files_of(tmp_path / name) for name in ("whole", "part"))
    assert one == other
    assert whole.summary() == continued.summary()
    again = kg.align.search(vlm, colours(), tmp_path / "part", **FEW)
    assert len(measured) == len(continued.candidates) + 1
    assert again.frame.equals(continued.frame)


def contents(folder):
    """The files of a search, and the checksum of its map, whose header has no fixed order."""
    files = files_of(folder)
    del files["remedy.safetensors"]
    return files, kg.align.load_map(folder / "remedy.safetensors").hash


def test_a_finished_search_gives_the_same_again(vlm, planted, tmp_path):
    first = kg.align.search(vlm, colours(), tmp_path, second=colours("others"), **FEW)
    before, fitted = contents(tmp_path)
    count = len(PlantedJudge.measured)
    again = kg.align.search(vlm, colours(), tmp_path, second=colours("others"), **FEW)
    assert len(PlantedJudge.measured) == count
    assert contents(tmp_path) == (before, fitted)
    assert again.cost == first.cost
    assert set(again.test["stage"]) == {TEST, SECOND}


def test_every_candidate_is_what_its_point_says(vlm, planted, tmp_path):
    planted({"name": "no such"})
    few = {**FEW, "maps": ("mean-shift", "mean-shift, layer by layer"), "strengths": (0.5,)}
    remedy = kg.align.search(vlm, colours(), tmp_path, **few)
    assert not remedy.found
    applied = [(own[0]["name"], own[0]["layers"]) for own in PlantedJudge.measured if own]
    assert applied == [
        ("steer", list(range(6))), ("steer", [0, 1]), ("steer", list(range(6))),
        ("attention-bias", list(range(6))), ("attention-bias", [0, 1]),
    ]  # fmt: skip
    assert PlantedJudge.measured[0] == []
    with pytest.raises(UserError, match="found no remedy"):
        remedy.applied(vlm)
    with pytest.raises(UserError, match="found no remedy"):
        kg.align.load_remedy(tmp_path)


def test_the_layers_that_read_the_image_are_a_set(vlm, planted, tmp_path):
    few = {**FEW, "layers": ("reading", "all"), "biases": (), "strengths": (0.5,)}
    remedy = kg.align.search(vlm, colours(), tmp_path, **few)
    named = remedy.settings["layer_sets"].get("reading", [])
    assert (tmp_path / "reading.csv").is_file()
    assert len(remedy.candidates) == (2 if named and len(named) < 6 else 1)


def test_a_map_that_cannot_be_fitted_leaves_the_others(vlm, planted, tmp_path):
    few = {**FEW, "maps": ("mean-shift",), "text_roles": ("system",)}
    remedy = kg.align.search(vlm, colours(), tmp_path / "one", **few)
    assert set(remedy.candidates["kind"]) == {"baseline"}
    assert any("no text tokens of role system" in note for note in remedy.settings["notes"])
    with pytest.raises(UserError, match="no candidate can be measured; the first: mean-shift"):
        kg.align.search(vlm, colours(), tmp_path / "two", **{**few, "biases": ()})


def test_a_model_without_layers_in_any_set_is_one_line(planted, tmp_path):
    """Two layers in three thirds: none is early."""
    shallow = wrap(*replace(BY_FAMILY["llava"], config=TWO_LAYERS).build(), name="shallow")
    few = {**FEW, "layers": ("early",)}
    with pytest.raises(UserError, match="shallow has no layers in early: name another set"):
        kg.align.search(shallow, colours(), tmp_path, **few)
    assert PlantedJudge.measured == []


def test_the_cost_is_a_ratio_of_passes_of_one_run(vlm):
    batch = vlm.prompter(colours().samples[:4])
    bias = build("attention-bias", layers=[0], nats=1.0)
    found = cost_of(vlm, batch, bias, 1, rounds=3)
    assert found.fastest <= found.time_ratio <= found.slowest
    assert 0.2 < found.time_ratio < 20
    assert found.tokens == sum(len(labels) for labels in batch.labels)
    assert math.isfinite(found.seconds_per_token)
    assert vlm.interventions.identity == []

    class Slow(type(bias)):  # type: ignore[misc]
        def attend(self, *arguments):
            for _ in range(40):
                logits_before = torch.randn(300, 300) @ torch.randn(300, 300)
            del logits_before
            return super().attend(*arguments)

    slow = cost_of(vlm, batch, Slow([0], 1.0, "text"), 1, rounds=3)
    assert slow.time_ratio > found.time_ratio


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"maps": ("mean-shfit",)}, "unknown map 'mean-shfit'; did you mean 'mean-shift'"),
        ({"maps": ("random-direction",)}, "random-direction is a control and not a remedy"),
        ({"maps": ("mean-shift, at once",)}, "only ', layer by layer' can follow"),
        ({"layers": ("erly",)}, "unknown set of layers 'erly'; did you mean 'early'"),
        ({"sites": ("kproj",)}, "unknown site 'kproj'; did you mean 'k_proj'"),
        ({"strengths": (0.5, 0)}, "strengths has 0, which changes nothing"),
        ({"strengths": (math.nan,)}, "strengths is nan"),
        ({"biases": (math.inf,)}, "biases is inf"),
        ({"maps": (), "biases": ()}, "there is no candidate"),
        ({"most_loss": -0.1}, "most_loss is -0.1"),
        ({"samples": 1}, "samples is 1: at least 2 is needed"),
        ({"samples": 500}, "24 samples of colours give 24 to choose on, 0 to test on"),
        ({"phrasings": ("no answer",)}, "must contain {answer} once"),
        ({"text_roles": ("questoin",)}, "unknown role 'questoin'"),
        ({"second": colours()}, "the second benchmark is colours again"),
        ({"subjects": ("art",)}, "unknown subject 'art'"),
    ],
)
def test_bad_input_is_one_line(vlm, tmp_path, wrong, line):
    with pytest.raises(UserError, match=re.escape(line)) as caught:
        kg.align.search(vlm, colours(), tmp_path / "run", **{**FEW, **wrong})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_search_is_refused(vlm, planted, tmp_path):
    kg.align.search(vlm, colours(), tmp_path, **FEW)
    for other, what in (({"strengths": (-0.5,)}, "strengths"), ({"seed": 1}, "seed")):
        with pytest.raises(UserError, match=f"holds a search with another {what}"):
            kg.align.search(vlm, colours(), tmp_path, **{**FEW, **other})


def test_a_model_that_is_steered_is_refused(vlm, tmp_path):
    bias = build("attention-bias", layers=[0], nats=1.0)
    with vlm.interventions.applied(bias), pytest.raises(UserError, match="is steered already"):
        kg.align.search(vlm, colours(), tmp_path, **FEW)


def test_damaged_files_are_one_line(vlm, planted, tmp_path):
    with pytest.raises(UserError, match=r"has no remedy\.yaml"):
        kg.align.load_remedy(tmp_path)
    kg.align.search(vlm, colours(), tmp_path, **FEW)
    file, fitted = tmp_path / "remedy.yaml", tmp_path / "remedy.safetensors"
    whole, tensors = file.read_text(), fitted.read_bytes()
    shift = kg.align.load_map(fitted)
    replace(shift, name="another").save(fitted)
    with pytest.raises(UserError, match="is not the map that"):
        kg.align.load_remedy(tmp_path)
    fitted.unlink()
    with pytest.raises(UserError, match="no map at"):
        kg.align.load_remedy(tmp_path)
    fitted.write_bytes(tensors)
    for damaged in (
        "found: true\n",
        "found: true\nchange: 3\n",
        "[",
        "found: true\nchange: null\n",
    ):
        file.write_text(damaged)
        with pytest.raises(UserError, match="damaged"):
            kg.align.load_remedy(tmp_path)
    file.write_text(whole)
    assert kg.align.load_remedy(tmp_path).layers == [0, 1]


def test_candidates_are_every_combination_once():
    sets = {"all": [0, 1, 2], "early": [0], "reading": [0]}
    few = Candidates(("mean-shift", "coral"), ("k_proj", "hidden"), ("all", "early", "reading"),
                     (-1, 1), (0.5,))  # fmt: skip
    points = few.points(sets)
    assert len({point.id for point in points}) == len(points) == 2 * 2 * 2 * 2 + 2
    assert {point.layers for point in points} == {"all", "early"}  # reading is early again


def test_candidates_of_numpy_are_plain():
    given: dict[str, Any] = {
        "maps": np.array(["coral"]), "strengths": np.array([-1, 0.5]), "biases": np.array([2]),
    }  # fmt: skip
    found = Candidates(**given)
    expected = {"maps": ["coral"], "strengths": [-1.0, 0.5], "biases": [2.0]}
    plain = {name: list(value) for name, value in asdict(found).items() if name in expected}
    assert json.loads(json.dumps(plain)) == expected
    assert yaml.safe_load(yaml.safe_dump(plain)) == expected
