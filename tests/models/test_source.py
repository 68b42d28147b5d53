"""Which class loads a model, and checkpoints that do not fit their configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import keygap as kg
from keygap.errors import UserError

from .zoo import BY_FAMILY

CODE = """
from transformers import LlavaConfig, LlavaForConditionalGeneration

class OwnConfig(LlavaConfig):
    model_type = "own_vlm"

class OwnModel(LlavaForConditionalGeneration):
    config_class = OwnConfig
"""


@pytest.fixture
def folder(tmp_path):
    model, processor = BY_FAMILY["llava"].build()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def under_its_own_names(folder) -> None:
    """Name the head as the model does; the old name is understood for LLaVA alone."""
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("language_model.lm_head.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **values) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, value in values.items():
        place, key = (config, name) if "__" not in name else (config["text_config"], name[6:])
        place[key] = value
    path.write_text(json.dumps(config))


def test_a_configuration_with_fewer_layers_than_the_checkpoint_is_refused(folder):
    change_config(folder, text__num_hidden_layers=2)
    with pytest.raises(UserError, match=r"weights in the checkpoint .*layers\.2\..*fewer") as error:
        kg.load(folder)
    assert "\n" not in str(error.value)


def test_a_vision_tower_with_fewer_layers_is_refused(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["num_hidden_layers"] -= 1
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"no place in it, the first is .*vision_tower"):
        kg.load(folder)


def test_a_configuration_with_more_layers_than_the_checkpoint_is_refused(folder):
    change_config(folder, text__num_hidden_layers=4)
    with pytest.raises(UserError, match=r"layers\.3\..*at random"):
        kg.load(folder)


class CausalConfig(LlavaConfig):
    model_type = "causal_vlm"


class CausalModel(LlavaForConditionalGeneration):
    config_class = CausalConfig


@pytest.fixture
def causal_only() -> Iterator[None]:
    """A model type that is registered for causal language modelling alone."""
    AutoConfig.register("causal_vlm", CausalConfig)
    AutoModelForCausalLM.register(CausalConfig, CausalModel)
    yield
    CONFIG_MAPPING._extra_content.pop("causal_vlm")
    AutoModelForCausalLM._model_mapping._extra_content.pop(CausalConfig)


def test_a_model_for_causal_language_modelling_alone_is_loaded(folder, causal_only):
    under_its_own_names(folder)
    change_config(folder, model_type="causal_vlm", architectures=["CausalModel"])
    vlm = kg.load(folder, dtype="float32")
    assert isinstance(vlm.model, CausalModel)
    assert len(vlm.layers) == 3


def test_code_of_a_repository_runs_only_if_it_is_allowed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hub"))
    under_its_own_names(folder)
    (folder / "own_code.py").write_text(CODE)
    names = {"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnModel"}
    change_config(folder, model_type="own_vlm", architectures=["OwnModel"], auto_map=names)
    with pytest.raises(UserError, match="only with trust_remote_code=True") as error:
        kg.load(folder)
    assert "\n" not in str(error.value)
    vlm = kg.load(folder, dtype="float32", trust_remote_code=True)
    assert type(vlm.model).__name__ == "OwnModel"
    assert len(vlm.layers) == 3
