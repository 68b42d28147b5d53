"""How a run tells models apart, and which checkpoints are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import processors

import keygap as kg
from keygap.capture.hooks import Capture
from keygap.errors import UserError
from keygap.models.fingerprint import fingerprint
from keygap.models.load import wrap
from keygap.selfcheck.check import check
from keygap.selfcheck.samples import check_samples
from made import bench_of, made_sample

from .made_models import in_eight_bits
from .zoo import BY_FAMILY


@pytest.fixture
def folder(tmp_path):
    model, processor = BY_FAMILY["llava"].build()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def samples(count: int) -> list:
    return [made_sample(f"s{number}", f"is it number {number}?") for number in range(count)]


def test_other_weights_of_the_same_name_are_another_model(folder, tmp_path):
    vlm = kg.load(folder, dtype="float32")
    kg.extract(vlm, bench_of(samples(4)), tmp_path / "run", layers=[0])
    assert fingerprint(vlm.model) == fingerprint(kg.load(str(folder), dtype="float32").model)
    with torch.no_grad():
        module: Any = vlm.layers[0].projection("k_proj").module
        module.weight.mul_(3)
    with pytest.raises(UserError, match="holds another extraction: its weights"):
        kg.extract(vlm, bench_of(samples(4)), tmp_path / "run", layers=[0])


def test_a_checkpoint_without_some_weights_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    dropped = [name for name in weights if ".layers.1." in name and "k_proj" in name]
    for name in dropped:
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"{len(dropped)} weights .*k_proj.*random"):
        kg.load(folder)


def test_a_damaged_checkpoint_is_one_line(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot load model"):
        kg.load(folder)


def overflowing() -> kg.VLM:
    model, processor = BY_FAMILY["llava"].build()
    vlm = wrap(model.half(), processor, "overflowing")
    with torch.no_grad():
        mlp: Any = vlm.layers[0].block.mlp
        mlp.down_proj.weight.mul_(1e4)
        mlp.up_proj.weight.mul_(1e4)
    return vlm


def test_packed_weights_have_a_fingerprint_of_their_values():
    one, other, again = (in_eight_bits(BY_FAMILY["llava"].build()[0]) for _ in range(3))
    assert fingerprint(one) == fingerprint(again)
    text: Any = other.get_submodule("model.language_model")
    text.layers[0].self_attn.k_proj.weight.packed[0, 0] += 1
    assert fingerprint(one) != fingerprint(other)


def test_statistics_of_batch_norm_are_weights():
    one, other = (torch.nn.BatchNorm1d(4) for _ in range(2))
    assert fingerprint(one) == fingerprint(other)
    other.running_mean.add_(1)
    assert fingerprint(one) != fingerprint(other)


def test_what_overflows_fails_the_self_check():
    failed = {finding.check for finding in check(overflowing()) if finding.passed is False}
    assert {"attention recomputed", "batched equals single"} <= failed


def test_what_overflows_is_not_stored(tmp_path):
    with pytest.raises(UserError, match=r"k_proj of layer 1 is not finite in float16"):
        kg.extract(overflowing(), bench_of(samples(4)), tmp_path / "run", layers=[1])
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_without_a_first_token_keeps_its_last_one():
    model, processor = BY_FAMILY["blip-2"].build()
    processor.tokenizer.bos_token = None
    processor.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", processor.tokenizer.eos_token_id)]
    )
    vlm = wrap(model, processor, "tiny")
    (labels,) = vlm.prompter(check_samples()[:1]).labels
    assert labels.token[-1] == "</s>"


def test_learned_sinks_of_each_position_are_those_of_the_positions_asked():
    vlm = wrap(*BY_FAMILY["inkling2"].build(), name="tiny")
    batch = vlm.prompter(check_samples())
    with Capture(vlm, [], vlm.layer_indices(["all"]), attention=True) as capture:
        assert all(shares.isfinite().all() for shares in capture(batch).values())
