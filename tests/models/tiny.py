"""Tiny random-weight models from transformers' own config classes.

A model family is shrunk by field name: every family spells its widths, depths and head counts with
one of a few dozen names, so one table of sizes serves them all, and an entry of the zoo says only
what its family needs beyond it. Weights are random and seeded, biases and norms too, so that no two
heads, layers or positions agree by accident.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 640
WIDTH, HEADS, KEY_HEADS, HEAD_DIM, DEPTH = 64, 4, 2, 16, 3

_SIZES: dict[str, Any] = {
    **dict.fromkeys(
        (
            "hidden_size",
            "d_model",
            "out_hidden_size",
            "projection_dim",
            "embed_dim",
            "vision_hidden_size",
            "text_hidden_size",
            "encoder_hidden_size",
            "word_embed_proj_dim",
            "image_text_hidden_size",
            "vision_output_dim",
            "projector_output_dim",
            "moe_hidden_size",
            "output_dim",
            "patch_embed_hidden_size",
        ),
        WIDTH,
    ),
    **dict.fromkeys(
        (
            "num_attention_heads",
            "num_heads",
            "attention_heads",
            "encoder_attention_heads",
            "decoder_attention_heads",
            "swa_num_attention_heads",
            "num_sliding_attention_heads",
            "resampler_n_heads",
            "n_heads",
        ),
        HEADS,
    ),
    **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads"), KEY_HEADS),
    **dict.fromkeys(
        ("head_dim", "swa_head_dim", "v_head_dim", "d_kv", "resampler_head_dim"), HEAD_DIM
    ),
    **dict.fromkeys(
        (
            "num_hidden_layers",
            "num_layers",
            "layers",
            "encoder_layers",
            "decoder_layers",
            "num_decoder_layers",
            "depth",
            "conf_num_hidden_layers",
            "n_layers",
        ),
        DEPTH,
    ),
    **dict.fromkeys(
        (
            "intermediate_size",
            "ffn_dim",
            "encoder_ffn_dim",
            "decoder_ffn_dim",
            "d_ff",
            "mlp_dim",
            "projector_hidden_size",
            "projection_intermediate_size",
            "projection_hidden_size",
            "alignment_intermediate_size",
            "intermediate_size_mlp",
            "dense_intermediate_size",
            "projection_hidden_dim",
        ),
        96,
    ),
    **dict.fromkeys(
        (
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "shared_experts_intermediate_size",
            "shared_intermediate_size",
            "share_expert_dim",
            "moe_shared_expert_intermediate_size",
        ),
        32,
    ),
    **dict.fromkeys(
        (
            "num_experts",
            "num_local_experts",
            "n_routed_experts",
            "moe_num_experts",
        ),
        4,
    ),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_top_k"), 2),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(
        ("vocab_size", "unpadded_vocab_size", "vocab_size_per_layer_input"), VOCABULARY
    ),
    "max_position_embeddings": 2048,
    "kv_lora_rank": 24,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 24,
    "image_size": 32,
    "patch_size": 8,
    "first_k_dense_replace": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "num_position_embeddings": 64,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 8,
}
_DERIVED = {  # lists as long as the model is deep: the config class makes them anew
    "layer_types",
    "mlp_layer_types",
    "no_rope_layers",
    "moe_layers",
    "indexer_types",
    "per_layer_config",
    "layer_rope_theta",
    "activation_sparsity_pattern",
    "layers_block_type",
    "full_attn_idxs",
    "kv_source_layers",
    "label_names",
    "id2label",
    "label2id",
}


def shrunk(values: dict[str, Any], reserved: list[int]) -> dict[str, Any]:
    """A config's values at tiny size; token ids beyond the vocabulary move to reserved ones."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if name in _DERIVED or not isinstance(name, str):
            continue
        if isinstance(value, dict):
            result[name] = shrunk(value, reserved)
        elif name in _SIZES and isinstance(value, int) and not isinstance(value, bool):
            result[name] = _SIZES[name]
        elif (
            name.endswith(("_token_id", "_token_index"))
            and isinstance(value, int)
            and value >= VOCABULARY
        ):
            result[name] = reserved.pop()
        else:
            result[name] = value
    return result


def tiny_config(
    model_type: str, ids: dict[str, int] | None = None, **overrides: Any
) -> PretrainedConfig:
    """The tiny config of a family; ``text_config__hidden_size=32`` reaches into its parts.

    Args:
        model_type: transformers' name of the family.
        ids: token ids, for those of these names that the config has.
    """
    config_class = CONFIG_MAPPING[model_type]
    values = shrunk(config_class().to_dict(), list(range(VOCABULARY - 40, VOCABULARY)))
    values |= {name: value for name, value in (ids or {}).items() if name in values}
    for path, value in overrides.items():
        *parents, name = path.split("__")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = copy.deepcopy(value)  # config classes complete what they are given
    return config_class.from_dict(values)


def tiny_model(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of a config with seeded random weights in every parameter."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            if parameter.ndim <= 1:
                parameter.add_(0.05 * noise)
            else:
                parameter.copy_(noise * (0.5 / max(1, parameter[0].numel()) ** 0.5))
    return model
