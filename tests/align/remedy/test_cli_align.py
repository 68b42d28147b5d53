"""``keygap align``: a search and a fit from the command line, and mistakes in one line each."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from safetensors.torch import save_file

import keygap as kg
from align.made_models import llava
from keygap import cli
from keygap.align.remedy import searching
from keygap.model_options import ModelOptions

from .made_search import colours
from .planted_judge import PlantedJudge


@pytest.fixture(scope="module")
def vlm():
    return llava()


@pytest.fixture
def keygap(vlm, monkeypatch, capsys):
    """Run the command on the tiny model; its exit status, stdout and stderr."""
    monkeypatch.setattr(ModelOptions, "load", lambda options: vlm)
    monkeypatch.setattr(kg, "benchmark", lambda name, **given: colours(name), raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["keygap", "align", "tiny", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        said = capsys.readouterr()
        return int(exit_.value.code or 0), said.out, said.err

    return run


SEARCH = (
    "--search", "--map", "mean-shift", "--layers", "all,early", "--strengths", "-0.5,0.5",
    "--biases", "1", "--samples", 8, "--fit-samples", 6, "--batch-size", 4, "--n-bootstraps", 50,
)  # fmt: skip


def logits(vlm):
    with torch.no_grad():
        return vlm.forward(vlm.prompter(colours().samples[:2])).logits


def test_a_search_says_what_it_found_and_how_to_use_it(keygap, vlm, monkeypatch, tmp_path):
    monkeypatch.setattr(searching, "Judge", PlantedJudge)
    monkeypatch.setattr(PlantedJudge, "cure", {"strength": -0.5, "layers": [0, 1]})
    out = tmp_path / "run"
    status, said, _ = keygap(*SEARCH, "--second", "others", "--most-loss", 0.1, "--out", out)
    assert status == 0
    assert said.startswith("A remedy was found for tiny llava: mean-shift of k_proj at 2 layers")
    assert "Second benchmark (others, " in said
    assert said.splitlines()[-1] == (
        f"use: with kg.align.load_remedy({str(out)!r}).applied(vlm): vlm.generate(batch)"
    )
    assert kg.align.load_remedy(out).layers == [0, 1]


def test_to_find_none_is_no_mistake(keygap, monkeypatch, tmp_path):
    monkeypatch.setattr(searching, "Judge", PlantedJudge)
    monkeypatch.setattr(PlantedJudge, "cure", {"name": "no such"})
    status, said, _ = keygap(*SEARCH, "--by-layer", "--out", tmp_path)
    assert status == 0
    assert said.startswith("No remedy was found for tiny llava.\nOf 8 candidates, none lowers")
    assert "use:" not in said


@pytest.mark.parametrize("by_layer", [False, True])
def test_a_map_is_fitted_saved_and_used_as_it_says(keygap, vlm, tmp_path, by_layer):
    file = tmp_path / "maps" / "shift.safetensors"
    how = ("--by-layer",) if by_layer else ()
    status, said, _ = keygap(
        "--map", "mean-shift", "--site", "key", "--samples", 10, "--out", file, *how
    )
    assert status == 0
    use = f"use: with kg.align.steer(vlm, kg.align.load_map({str(file)!r})): vlm.generate(batch)"
    assert said.strip().endswith(use)
    fitted = kg.align.load_map(file)
    assert (fitted.name, fitted.site, len(fitted.layers)) == ("mean-shift", "key", 6)
    assert fitted.fitted_on["settings"]["layer_by_layer"] == by_layer
    chosen = colours("easy-vqa").choose(10, 0)
    if by_layer:
        own = kg.align.fit_layer_by_layer(vlm, "mean-shift", chosen, site="key", batch_size=40)
    else:
        read = kg.align.read_vectors(vlm, chosen, sites=["key"], batch_size=40)
        own = kg.align.fit("mean-shift", read)
    plain = logits(vlm)
    with kg.align.steer(vlm, fitted):
        found = logits(vlm)
    with kg.align.steer(vlm, own):
        assert torch.equal(logits(vlm), found)
    assert not torch.equal(found, plain)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "give --search, or --map NAME to fit a map and save it"),
        (("--map", "mean-shift"), "name the file of the map, such as mine.safetensors"),
        (("--map", "x", "--most-loss", "0.1"), "--most-loss is about a search"),
        (("--map", "x", "--fit-samples", "9"), "--fit-samples is about a search"),
        (("--search", "--strengths", "half"), "--strengths is 'half': give numbers"),
        (("--search", "--biases", "1,"), "--biases is '1,': give numbers"),
        (("--search", "--strengths", "0"), "strengths has 0, which changes nothing"),
        (("--search", "--map", "coral2"), "unknown map 'coral2'; did you mean 'coral'"),
        (("--search", "--layers", "last"), "unknown set of layers 'last'"),
        (("--search", "--most-loss", "2"), "Invalid value for '--most-loss'"),
        (("--search", "--second", "easy-vqa"), "the second benchmark is easy-vqa again"),
        (("--search", "--text-roles", "questoin"), "unknown role 'questoin'"),
        (("--search", "--subjects", "art"), "unknown subject 'art'"),
        (("--search", "--samples", "999"), "ask for fewer samples"),
    ],
)
def test_a_mistake_is_one_line(keygap, tmp_path, arguments, line):
    status, _, said = keygap(*arguments, "--out", tmp_path / "out")
    assert status == 2
    assert re.search(re.escape(line), said.strip().splitlines()[-1])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("--map", "coral2"), "unknown map 'coral2'; did you mean 'coral'"),
        (("--map", "coral", "--site", "keys"), "unknown site 'keys'; did you mean 'key'"),
        (("--map", "coral", "--layers", "lst"), "unknown layer 'lst'; did you mean 'last'"),
        (("--map", "coral", "--layers", "6"), "layer 6 is out of range"),
    ],
)
def test_a_mistake_of_a_fit_is_one_line(keygap, tmp_path, given, line):
    status, _, said = keygap(*given, "--out", tmp_path / "own.safetensors")
    assert (status, line in said) == (2, True)
    (tmp_path / "file").write_text("")
    status, _, said = keygap("--map", "coral", "--out", tmp_path / "file" / "own.safetensors")
    assert (status, "is a file" in said) == (2, True)
    (tmp_path / "folder.safetensors").mkdir()
    status, _, said = keygap("--map", "coral", "--out", tmp_path / "folder.safetensors")
    assert (status, "is a folder: name a file" in said) == (2, True)


def test_a_file_that_is_no_map_is_not_replaced(keygap, tmp_path):
    fit = ("--map", "mean-shift", "--site", "key", "--samples", 10, "--out")
    weights, text = tmp_path / "model.safetensors", tmp_path / "text.safetensors"
    save_file({"weight": torch.zeros(2)}, weights, metadata={"format": "pt"})
    text.write_text("mine")
    for path in (weights, text):
        before = path.read_bytes()
        status, _, said = keygap(*fit, path)
        assert (status, path.read_bytes()) == (2, before)
        assert f"{path.name} is a file that is no map of keygap: name another file" in said
    own = tmp_path / "own.safetensors"
    assert [keygap(*fit, own)[0] for _ in range(2)] == [0, 0]
    assert kg.align.load_map(own).name == "mean-shift"
