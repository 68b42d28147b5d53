"""The zoo: one tiny model of each family, with its real processor.

An entry says what its family needs beyond the common sizes of ``tiny``: the special tokens that its
processor writes, sizes that must agree with each other, and the template in whose style it chats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from . import offline
from .tiny import HEAD_DIM, tiny_config, tiny_model

SQUARE = {"height": 32, "width": 32}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
QWEN_IMAGE = {
    "patch_size": 8,
    "merge_size": 2,
    "size": {"shortest_edge": 256, "longest_edge": 64 * 48},
}
QWEN_PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
GLM_TOKENS = {
    "image_token": "<|image|>",
    "video_token": "<|video|>",
    "image_start_token": "<|begin_of_image|>",
    "image_end_token": "<|end_of_image|>",
    "video_start_token": "<|begin_of_video|>",
    "video_end_token": "<|end_of_video|>",
}
GLM_PLACE = "<|begin_of_image|><|image|><|end_of_image|>"
CLIP_IMAGE = {"size": {"shortest_edge": 32}, "crop_size": SQUARE}
TILE_TOKENS = {
    "context_image_token": "<IMG_CONTEXT>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "video_token": "<video>",
}
PINPOINTS = [[32, 64], [64, 32], [64, 64]]
ROWS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))


@dataclass(frozen=True)
class Entry:
    """One family.

    Attributes:
        family: transformers' ``model_type``.
        layout: how its processor lays an image out.
        tokens: special tokens by the attribute under which the processor looks for them.
        more: further special tokens.
        place: what the template writes for an image.
        template: the chat template, None for a family that was never tuned to chat.
        image: arguments of the image processor; ``class`` if not the family's registered one.
        processor: arguments of the processor.
        config: what the tiny configuration must say, ``__`` reaching into its parts.
        feature: the token that image features replace, by attribute or spelling.
        images: whether one prompt can hold several images.
        slow: whether it is left to the slow suite.
        fails: why it does not pass, for those that do not.
        forced: token ids that the model reads from the config and the config class does not name.
    """

    family: str
    layout: str = "square"
    tokens: dict[str, str] = field(default_factory=lambda: {"image_token": "<image>"})
    more: tuple[str, ...] = ()
    place: str = ""
    template: str | None = offline.CHATML
    image: dict[str, Any] = field(default_factory=lambda: {"size": SQUARE})
    processor: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    feature: str = "image_token"
    video: dict[str, Any] = field(default_factory=dict)
    images: bool = True
    slow: bool = False
    fails: str = ""
    forced: tuple[str, ...] = ()

    def build(self) -> tuple[PreTrainedModel, ProcessorMixin]:
        """The model with random weights and its processor."""
        feature = self.tokens.get(self.feature, self.feature)
        tokenizer = offline.tokenizer_with(self.tokens, (*self.more, feature))
        template = self.template
        if template is not None:
            template = template.replace("IMAGE", self.place or feature)
        processor = offline.real_processor(
            self.family, tokenizer, dict(self.image), dict(self.processor), template, self.video
        )
        ids = {"image_token_id": feature, "image_token_index": feature}
        for name, token in self.tokens.items():
            base = name.removesuffix("_token")
            ids.setdefault(f"{base}_token_id", token)
            ids.setdefault(f"{base}_token_index", token)
        config = dict(self.config)
        known = {name: tokenizer.convert_tokens_to_ids(token) for name, token in ids.items()}
        config |= {name: known[name] for name in self.forced}
        if "vocabulary_map" in config:  # discrete image tokens are words of the vocabulary
            config["vocabulary_map"] = tokenizer.get_added_vocab()
        return tiny_model(tiny_config(self.family, known, **config)), processor


LLAVA = {
    "patch_size": 8,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}
QWEN_VL = {"text_config__rope_parameters": MROPE, "vision_config__spatial_merge_size": 2}
SLIDING = ["sliding_attention", "sliding_attention", "full_attention"]

ZOO = [
    Entry(
        "mistral_large4",
        "native resolution, row breaks",
        tokens={"image_token": "[IMG]"},
        more=("[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"),
        template=offline.INSTRUCT,
        image={"size": {"longest_edge": 64}, "patch_size": {"height": 8, "width": 8}},
        processor={"patch_size": 8, "spatial_merge_size": 2},
        config={
            "spatial_merge_size": 2,
            "vision_config__image_size": 64,
            "text_config__num_key_value_heads": 4,
        },
        slow=True,
    ),
    Entry(
        "shieldgemma2",
        "square, begin and end",
        tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        more=("<start_of_turn>", "<end_of_turn>"),
        place="<start_of_image>",
        template=offline.TURNS,
        image={"size": SQUARE, "class": "Gemma3ImageProcessor"},
        processor={"image_seq_length": 4, "class": "Gemma3Processor"},
        config={"mm_tokens_per_image": 4, "text_config__layer_types": SLIDING},
        slow=True,
    ),
    Entry(
        "llava_next_video",
        "anyres",
        tokens={"image_token": "<image>", "video_token": "<video>"},
        template=offline.VICUNA,
        image={**CLIP_IMAGE, "image_grid_pinpoints": PINPOINTS},
        processor=LLAVA,
        config={"image_grid_pinpoints": PINPOINTS},
        slow=True,
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
        "aria",
        "tiles, resampler",
        image={"max_image_size": 980, "min_image_size": 336},  # it takes 490 or 980 pixels only
        processor={"size_conversion": {490: 4, 980: 4}},
        config={
            "vision_config__image_size": 980,
            "vision_config__patch_size": 98,
            "projector_patch_to_query_dict": {100: 4},
            "max_value_projector_patch_to_query_dict": 4,
        },
        slow=True,
    ),
    Entry(
        "emu3",
        "rows, discrete",
        tokens={
            "image_token": "<image>",
            "boi_token": "<|image start|>",
            "eoi_token": "<|image end|>",
            "image_wrapper_token": "<|image token|>",
            "eof_token": "<|extra_201|>",
        },
        more=("<|extra_200|>", *(f"<|visual token {n:06d}|>" for n in range(10))),
        image={"min_pixels": 256, "max_pixels": 1024, "spatial_factor": 8},
        slow=True,
        config={
            "vocabulary_map": {},
            "vq_config__codebook_size": 10,
            "vq_config__base_channels": 64,
            "vq_config__channel_multiplier": [1, 1, 1, 1],
            "vq_config__num_res_blocks": 1,
            "vq_config__attn_resolutions": [],
            "vq_config__embed_dim": 8,
            "vq_config__latent_channels": 8,
        },
    ),
    Entry(
        "video_llava",
        tokens={"image_token": "<image>", "video_token": "<video>"},
        template=offline.VICUNA,
        image=CLIP_IMAGE,
        processor=LLAVA,
        slow=True,
    ),
    Entry(
        "minicpmv4_6",
        "tiles",
        tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "image_start_token": "<image>",
            "image_end_token": "</image>",
            "slice_start_token": "<slice>",
            "slice_end_token": "</slice>",
            "image_id_start_token": "<image_id>",
            "image_id_end_token": "</image_id>",
        },
        image={"patch_size": 8, "scale_resolution": 64, "max_slice_nums": 1},
        config={
            "text_config__layer_types": ["linear_attention", "linear_attention", "full_attention"]
        },
        fails="its vision tower packs the images of a batch and mixes them at this size",
        slow=True,
    ),
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
        "got_ocr2",
        tokens={},
        feature="<imgpad>",
        place="<img><imgpad></img>",
        more=("<img>", "</img>", "<imgpad>"),
        image={"size": {"height": 512, "width": 512}},  # its 256 positions are fixed
        config={
            "vision_config__image_size": 512,
            "vision_config__output_channels": 16,
            "vision_config__global_attn_indexes": [],
        },
        slow=True,
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
        "ovis2",
        tokens={},
        feature="<IMG_ATOM>",
        place="<image>",
        more=("<image>", "<IMG_START>", "<IMG_END>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>"),
        image={"size": SQUARE, "crop_to_patches": False},
        processor={"image_seq_length": 4},
        config={"vision_config__hidden_stride": 2},
        slow=True,
    ),
    Entry(
        "paddleocr_vl",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        image=QWEN_IMAGE,
        config=QWEN_VL,
    ),
    Entry(
        "exaone4_5",
        "native resolution",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        image=QWEN_IMAGE,
        config={"vision_config__fullatt_block_indexes": [1]},
    ),
    Entry(
        "qianfan_ocr",
        "tiles",
        TILE_TOKENS,
        feature="context_image_token",
        place="<image>",
        more=("<image>",),
        image={"size": SQUARE, "crop_to_patches": True, "max_patches": 4},
        processor={"image_seq_length": 4},
        config={"vision_config__image_size": [32, 32], "vision_config__patch_size": [8, 8]},
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
    Entry(
        "video_llama_3",
        "native resolution",
        QWEN_TOKENS,
        place="<|image_pad|>",
        image=QWEN_IMAGE,
        slow=True,
    ),
    Entry(
        "deepseek_vl_hybrid",
        tokens={"image_token": "<image_placeholder>"},
        image={"size": SQUARE, "high_res_size": {"height": 64, "width": 64}, "min_size": 8},
        processor={"num_image_tokens": 16},
        config={"high_res_vision_config__image_size": 64},
        slow=True,
    ),
]
BY_FAMILY = {entry.family: entry for entry in ZOO}
assert sum(MROPE["mrope_section"]) == HEAD_DIM // 2  # type: ignore[arg-type]
