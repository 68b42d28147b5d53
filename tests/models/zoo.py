"""The zoo: one tiny model of each family, with its real processor.

An entry says what its family needs beyond the common sizes of ``tiny``: the special tokens that its
processor writes, sizes that must agree with each other, and the template in whose style it chats.
"""

from __future__ import annotations

from . import offline
from .entry import (
    CLIP_IMAGE,
    GLM_PLACE,
    GLM_TOKENS,
    LLAVA,
    MROPE,
    PINPOINTS,
    QWEN_IMAGE,
    QWEN_PLACE,
    QWEN_TOKENS,
    QWEN_VL,
    ROWS,
    SLIDING,
    SQUARE,
    TILE_TOKENS,
    Entry,
)
from .zoo_slow import SLOW

ZOO = [
    Entry("llava", template=offline.VICUNA, image=CLIP_IMAGE, processor=LLAVA),
    Entry(
        "vipllava",
        template=offline.VICUNA,
        image=CLIP_IMAGE,
        processor={**LLAVA, "class": "LlavaProcessor"},
        config={"vision_feature_layers": [-1, -2]},
    ),
    Entry(
        "llava_next",
        "anyres",
        template=offline.INSTRUCT,
        image={**CLIP_IMAGE, "image_grid_pinpoints": PINPOINTS},
        processor=LLAVA,
        config={"image_grid_pinpoints": PINPOINTS},
    ),
    Entry(
        "llava_onevision",
        "anyres",
        tokens={"image_token": "<image>", "video_token": "<video>"},
        image={"size": SQUARE, "image_grid_pinpoints": PINPOINTS},
        processor={"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
        config={"image_grid_pinpoints": PINPOINTS},
    ),
    Entry(
        "qwen2_vl",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        template=offline.WITH_SYSTEM,
        image=QWEN_IMAGE,
        config={**QWEN_VL, "vision_config__mlp_ratio": 2},
    ),
    Entry(
        "qwen2_5_vl",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        template=offline.WITH_SYSTEM,
        image=QWEN_IMAGE,
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
    Entry(
        "internvl",
        "tiles",
        TILE_TOKENS,
        feature="context_image_token",
        image={"size": SQUARE, "crop_to_patches": True, "max_patches": 4},
        processor={"image_seq_length": 4},
        config={"vision_config__image_size": [32, 32], "vision_config__patch_size": [8, 8]},
    ),
    Entry(
        "gemma3",
        "square, begin and end",
        tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        more=("<start_of_turn>", "<end_of_turn>"),
        place="<start_of_image>",
        template=offline.TURNS,
        processor={"image_seq_length": 4},
        config={
            "mm_tokens_per_image": 4,
            "text_config__layer_types": SLIDING,
            "text_config__sliding_window": 8,
        },
    ),
    Entry(
        "paligemma",
        "square",
        template=None,
        image={"size": SQUARE, "image_seq_length": 16},
        config={"vision_config__projection_dim": 64, "text_config__num_image_tokens": 16},
        images=False,
    ),
    Entry(
        "idefics2",
        "resampler",
        more=("<fake_token_around_image>", "<end_of_utterance>"),
        tokens={},
        feature="<image>",
        image={"size": {"shortest_edge": 32, "longest_edge": 64}, "do_image_splitting": False},
        processor={"image_seq_len": 4},
        config={
            "vision_config__image_size": 64,
            "perceiver_config__resampler_n_latents": 4,
            "perceiver_config__num_key_value_heads": 2,
        },
    ),
    *(
        Entry(
            family,
            "tiles with names",
            more=("<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *ROWS),
            tokens={},
            feature="<image>",
            image={
                "size": {"longest_edge": 64},
                "max_image_size": {"longest_edge": 32},
                "class": "Idefics3ImageProcessor",
            },
            # SmolVLM's own processor needs num2words, for videos; for images it is Idefics3's
            processor={"image_seq_len": 4, "class": "Idefics3Processor"},
            config={"scale_factor": 2},
        )
        for family in ("idefics3", "smolvlm")
    ),
    Entry(
        "mistral3",
        "native resolution, row breaks",
        tokens={"image_token": "[IMG]"},
        more=("[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"),
        template=offline.INSTRUCT,
        image={"size": {"longest_edge": 64}, "patch_size": {"height": 8, "width": 8}},
        processor={"patch_size": 8, "spatial_merge_size": 2},
        config={"spatial_merge_size": 2, "vision_config__image_size": 64},
    ),
    Entry(
        "lighton_ocr",
        "native resolution, row breaks",
        tokens={
            "image_token": "<|image_pad|>",
            "image_break_token": "<|vision_pad|>",
            "image_end_token": "<|vision_end|>",
        },
        image={"size": {"longest_edge": 64}, "patch_size": {"height": 8, "width": 8}},
        processor={"patch_size": 8, "spatial_merge_size": 2},
        config={"spatial_merge_size": 2, "vision_config__image_size": 64},
    ),
    Entry(
        "fast_vlm",
        template=offline.WITH_SYSTEM,
        image={
            "class": "CLIPImageProcessor",
            "size": {"height": 64, "width": 64},
            "do_center_crop": False,
        },
        processor={
            "class": "LlavaProcessor",
            "patch_size": 32,
            "vision_feature_select_strategy": "full",
        },
        config={
            "image_seq_length": 4,
            "vision_config": {
                "model_type": "timm_wrapper",
                "architecture": "mobilenetv3_small_050",
                "do_pooling": False,
                "hidden_size": 288,
                "num_classes": 0,
            },
        },
    ),
    Entry(
        "aya_vision",
        "tiles",
        tokens={},
        feature="<|IMG_PATCH|>",
        place="<image>",
        more=(
            "<image>",
            "<|START_OF_IMG|>",
            "<|END_OF_IMG|>",
            "<|IMG_LINE_BREAK|>",
            "TILE_GLOBAL",
            "TILE_1",
            "TILE_2",
            "TILE_3",
            "TILE_4",
        ),
        image={"size": SQUARE, "crop_to_patches": True, "max_patches": 4},
        processor={"patch_size": 8, "img_size": 32, "downsample_factor": 2},
        config={"downsample_factor": 2},
    ),
    Entry(
        "cohere2_vision",
        "tiles",
        tokens={
            "image_token": "<|IMG_PATCH|>",
            "boi_token": "<|START_OF_IMG|>",
            "eoi_token": "<|END_OF_IMG|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        },
        image={"size": SQUARE, "patch_size": 2, "crop_to_patches": True, "max_patches": 4},
        config={"downsample_factor": 2},
    ),
    Entry(
        "blip-2",
        "Q-Former",
        tokens={},
        feature="<image>",
        template=None,
        image={"size": SQUARE},
        processor={"num_query_tokens": 4},
        config={"num_query_tokens": 4},
        images=False,
    ),
    Entry(
        "instructblip",
        "Q-Former",
        tokens={},
        feature="<image>",
        template=None,
        image={"size": SQUARE},
        processor={"num_query_tokens": 4},
        config={"num_query_tokens": 4},
        images=False,
    ),
    Entry(
        "mllama",
        "tiles, cross-attention",
        tokens={"image_token": "<|image|>"},
        more=("<|python_tag|>",),
        image={"size": SQUARE, "max_image_tiles": 4},
        config={
            "text_config__num_hidden_layers": 4,
            "text_config__cross_attention_layers": [1, 3],
            "vision_config__intermediate_layers_indices": [0, 1],
            "vision_config__vision_output_dim": 192,
            "vision_config__num_global_layers": 1,
        },
    ),
    Entry(
        "chameleon",
        "square, discrete",
        tokens={"image_token": "<image>", "boi_token": "<racm3:break>", "eoi_token": "<eoss>"},
        more=tuple(f"IMGIMG{letter}Z" for letter in "ABCDEFGHIJ"),
        template=None,
        image={"size": {"shortest_edge": 32}, "crop_size": SQUARE},
        processor={"image_seq_length": 64},
        config={
            "vocabulary_map": {},
            "vq_config__resolution": 32,
            "vq_config__base_channels": 32,
            "vq_config__channel_multiplier": [1, 1, 1],
            "vq_config__embed_dim": 16,
            "vq_config__latent_channels": 16,
            "vq_config__num_embeddings": 10,
        },
    ),
    Entry(
        "janus",
        tokens={
            "image_token": "<image_placeholder>",
            "boi_token": "<begin_of_image>",
            "eoi_token": "<end_of_image>",
        },
        image={"size": SQUARE, "min_size": 8},
        processor={"num_image_tokens": 16},
        config={
            "vision_config__num_image_tokens": 16,
            "vq_config__base_channels": 32,
            "vq_config__channel_multiplier": [1, 1],
            "vq_config__num_patches": 16,
            "vq_config__num_embeddings": 10,
            "vq_config__image_token_embed_dim": 64,
            "vq_config__projection_dim": 64,
        },
    ),
    Entry(
        "deepseek_vl",
        tokens={"image_token": "<image_placeholder>"},
        image={"size": SQUARE, "min_size": 8},
        processor={"num_image_tokens": 16},
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
        "llama4",
        "tiles, separators",
        tokens={"image_token": "<|patch|>"},
        feature="<|patch|>",
        place="<|image|>",
        more=(
            "<|image|>",
            "<|image_start|>",
            "<|image_end|>",
            "<|tile_x_separator|>",
            "<|tile_y_separator|>",
        ),
        image={"size": SQUARE, "max_patches": 4},
        processor={"patch_size": 8},
        config={
            "vision_config__intermediate_size": 256,
            "vision_config__projector_input_dim": 64,
            "vision_config__pixel_shuffle_ratio": 0.5,
        },
    ),
    Entry(
        "kimi_k25",
        "native resolution",
        tokens={"image_token": "<|media_pad|>", "video_token": "<|kimi_k25_video_placeholder|>"},
        image={"patch_size": 8, "size": {"max_height": 64, "max_width": 64}},
        config={
            "projection_hidden_size": 64,
            "text_config__head_dim": 8,
            "text_config__num_key_value_heads": 4,
            "vision_config__pos_emb_height": 8,
            "vision_config__pos_emb_width": 8,
        },
    ),
    Entry(
        "florence2",
        "encoder",
        template=None,
        image={"size": SQUARE, "crop_size": SQUARE, "image_seq_length": 17},
        config={
            "vision_config__embed_dim": [16, 16, 16, 32],
            "vision_config__num_heads": [2, 2, 2, 2],
            "vision_config__num_groups": [2, 2, 2, 2],
            "vision_config__depths": [1, 1, 1, 1],
            "vision_config__projection_dim": 64,
            "vision_config__patch_stride": [2, 2, 2, 1],
            "vision_config__max_temporal_embeddings": 10,
        },
        images=False,
    ),
    Entry(
        "lfm2_vl",
        "native resolution, tiles",
        tokens={
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail_token": "<|img_thumbnail|>",
        },
        image={
            "tile_size": 32,
            "encoder_patch_size": 8,
            "max_num_patches": 64,
            "min_image_tokens": 4,
            "max_image_tokens": 16,
        },
        config={"text_config__layer_types": ["conv", "full_attention", "full_attention"]},
    ),
    *SLOW,
]
BY_FAMILY = {entry.family: entry for entry in ZOO}
