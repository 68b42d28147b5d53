"""Families that read an image at its own resolution in Qwen2-VL's way: 2 x 2 patches merged."""

from __future__ import annotations

from . import offline
from .entry import (
    GLM_PLACE,
    GLM_TOKENS,
    LINEAR,
    MROPE,
    QWEN_IMAGE,
    QWEN_PLACE,
    QWEN_TOKENS,
    QWEN_VIDEO,
    QWEN_VL,
    SLIDING,
    Entry,
)

QWEN = [
    Entry(
        "qwen2_vl",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        template=offline.WITH_SYSTEM,
        image=QWEN_IMAGE,
        video=QWEN_VIDEO,
        config={**QWEN_VL, "vision_config__mlp_ratio": 2},
    ),
    Entry(
        "qwen2_5_vl",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        template=offline.WITH_SYSTEM,
        image=QWEN_IMAGE,
        video=QWEN_VIDEO,
        config={**QWEN_VL, "vision_config__fullatt_block_indexes": [1]},
    ),
    *(
        Entry(
            family,
            "native resolution",
            QWEN_TOKENS,
            place=QWEN_PLACE,
            image={**QWEN_IMAGE, "class": "Qwen2VLImageProcessor"},
            processor={"class": "Qwen3VLProcessor"},
            video=QWEN_VIDEO,
            config={**QWEN_VL, "vision_config__deepstack_visual_indexes": [0, 1], **more},
            slow=slow,
        )
        for family, more, slow in (
            ("qwen3_vl", {}, False),
            ("qwen3_vl_moe", {}, True),
            (
                "qwen3_5",
                {
                    "text_config__layer_types": [
                        "linear_attention",
                        "linear_attention",
                        "full_attention",
                    ]
                },
                False,
            ),
            (
                "qwen3_5_moe",
                {
                    "text_config__layer_types": [
                        "linear_attention",
                        "linear_attention",
                        "full_attention",
                    ]
                },
                True,
            ),
        )
    ),
    *(
        Entry(
            family,
            "native resolution",
            GLM_TOKENS,
            place=GLM_PLACE,
            image={**QWEN_IMAGE, "class": "Glm4vImageProcessor"},
            processor={"class": "Glm4vProcessor"},
            video={},
            config=QWEN_VL
            if family != "glm4v_moe"
            else {"text_config__rope_parameters": {**MROPE, "mrope_section": [1, 1, 2]}},
            slow=family != "glm4v",
        )
        for family in ("glm4v", "glm4v_moe", "glm46v", "glm_ocr")
    ),
    Entry(
        "cosmos3_omni",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        image={**QWEN_IMAGE, "class": "Qwen2VLImageProcessor"},
        processor={"class": "Qwen3VLProcessor"},
        config={**QWEN_VL, "vision_config__deepstack_visual_indexes": [0, 1]},
        slow=True,
    ),
    Entry(
        "hyperclovax_vision_v2",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        image={**QWEN_IMAGE, "class": "Qwen2VLImageProcessor"},
        config={"vision_config__fullatt_block_indexes": [1]},
        slow=True,
    ),
    Entry(
        "qwen2_5_omni_thinker",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        image={**QWEN_IMAGE, "class": "Qwen2VLImageProcessor"},
        processor={"class": "Qwen2_5_VLProcessor"},
        config={"text_config__rope_parameters": MROPE},
        forced=("vision_start_token_id", "vision_end_token_id"),
        slow=True,
    ),
    Entry(
        "qwen3_omni_moe_thinker",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        image={**QWEN_IMAGE, "class": "Qwen2VLImageProcessor"},
        processor={"class": "Qwen2_5_VLProcessor"},
        config={"text_config__rope_parameters": MROPE},
        forced=("vision_start_token_id", "vision_end_token_id"),
        slow=True,
    ),
    Entry(
        "video_llama_3",
        "native resolution",
        QWEN_TOKENS,
        place="<|image_pad|>",
        image=QWEN_IMAGE,
        slow=True,
    ),
    Entry(
        "paddleocr_vl",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        image=QWEN_IMAGE,
        config=QWEN_VL,
        slow=True,
    ),
    Entry(
        "exaone4_5",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        image=QWEN_IMAGE,
        config={"vision_config__fullatt_block_indexes": [1]},
        slow=True,
    ),
    Entry(
        "qwen4_exp",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        image={**QWEN_IMAGE, "class": "Qwen2VLImageProcessor"},
        processor={"class": "Qwen3VLProcessor"},
        config={
            "text_config__layer_types": LINEAR,
            "text_config__rope_parameters": MROPE,
            "text_config__indexer_n_heads": 2,
            "text_config__indexer_kv_heads": 1,
            "text_config__indexer_head_dim": 16,
            "text_config__indexer_budget": 16,
            "text_config__indexer_compress_ratio": 4,
        },
        slow=True,
    ),
    Entry(
        "cohere_compass",
        "native resolution",
        {
            "image_token": "<|IMAGE_PAD|>",
            "video_token": "<|VIDEO_PAD|>",
            "vision_start_token": "<|VISION_START|>",
            "vision_end_token": "<|VISION_END|>",
        },
        place="<|VISION_START|><|IMAGE_PAD|><|VISION_END|>",
        image=QWEN_IMAGE,
        config={
            "text_config__layer_types": SLIDING,
            "text_config__sliding_window": 8,
            "text_config__rope_parameters": {"full_attention": MROPE, "sliding_attention": MROPE},
        },
        slow=True,
    ),
    Entry(
        "cosmos3_edge",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        image=QWEN_IMAGE,
        config={"text_config__rope_parameters": MROPE},
        slow=True,
    ),
    Entry(
        "glmga",
        "native resolution",
        GLM_TOKENS,
        place=GLM_PLACE,
        image=QWEN_IMAGE,
        processor={"class": "Glm4vProcessor"},
        config=QWEN_VL,
        slow=True,
    ),
    Entry(
        "dots3_note",
        "native resolution",
        {
            "image_token": "<|imgpad|>",
            "video_token": "<|video_pad|>",
            "audio_token": "<|audio_comp_pad|>",
        },
        image={**QWEN_IMAGE, "temporal_patch_size": 1},
        config={
            "text_config__num_key_value_heads": 4,
            "vision_config__per_layer_config": {},
            "vision_config__mlp_layer_types": ["dense", "dense", "sparse"],
            "vision_config__adapter_in_dim": 64,
            "vision_config__adapter_out_dim": 64,
            "audio_config__adapter_input_size": 64,
            "audio_config__adapter_out_dim": 64,
        },
        slow=True,
    ),
]
