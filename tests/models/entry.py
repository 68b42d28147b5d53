"""An entry of the zoo, and the sizes and tokens that several families share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import transformers
from packaging.specifiers import SpecifierSet
from transformers import PreTrainedModel, ProcessorMixin
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from . import offline
from .tiny import HEAD_DIM, tiny_config, tiny_model

SQUARE = {"height": 32, "width": 32}
MROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
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
QWEN_VIDEO = {
    "patch_size": 8,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 256, "longest_edge": 4 * 64 * 48},
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
PINPOINTS = [[32, 32], [32, 64], [64, 32], [64, 64]]
ROWS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))


@dataclass(frozen=True)
class Entry:
    """One family.

    Attributes:
        family: transformers' ``model_type``.
        layout: how its processor divides an image.
        tokens: special tokens by the attribute under which the processor looks for them.
        more: further special tokens.
        place: what the template writes for an image.
        template: the chat template, None for a family that was never tuned to chat.
        image: arguments of the image processor; ``class`` if not the family's registered one;
            None for a family whose processor has none.
        processor: arguments of the processor.
        config: values of the tiny configuration; ``__`` separates the names of nested ones.
        feature: the token that image features replace, by attribute or spelling.
        video: arguments of the video processor, for families whose videos are tried.
        images: whether one prompt can hold several images.
        slow: whether it is left to the slow suite.
        fails: what the self-check or the refusal says, for those that do not pass.
        forced: token ids that the model reads from the config, though its class has no such field.
        named: further token ids of the config, by name, and their tokens.
        releases: of transformers, those in which the family exists and runs, such as ">=5.14".
    """

    family: str
    layout: str = "square"
    tokens: dict[str, str] = field(default_factory=lambda: {"image_token": "<image>"})
    more: tuple[str, ...] = ()
    place: str = ""
    template: str | None = offline.CHATML
    image: dict[str, Any] | None = field(default_factory=lambda: {"size": SQUARE})
    processor: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    feature: str = "image_token"
    video: dict[str, Any] = field(default_factory=dict)
    images: bool = True
    slow: bool = False
    fails: str = ""
    forced: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)
    releases: str = ""

    @property
    def exists(self) -> bool:
        """Whether the installed transformers has this family, and runs it."""
        registered = self.family in CONFIG_MAPPING_NAMES
        return registered and transformers.__version__ in SpecifierSet(self.releases)

    def build(self) -> tuple[PreTrainedModel, ProcessorMixin]:
        """The model with random weights and its processor.

        A test that builds a family which the installed transformers lacks is skipped.
        """
        if not self.exists:
            pytest.skip(f"{self.family}: not in transformers {transformers.__version__}")
        feature = self.tokens.get(self.feature, self.feature)
        tokenizer = offline.tokenizer_with(self.tokens, (*self.more, feature))
        template = self.template
        if template is not None:
            template = template.replace("IMAGE", self.place or feature)
            film = self.tokens.get("video_token", "")
            template = template.replace("VIDEO", self.place.replace(feature, film) or film)
        processor = offline.real_processor(
            self.family,
            tokenizer,
            None if self.image is None else dict(self.image),
            dict(self.processor),
            template,
            self.video,
        )
        ids = {"image_token_id": feature, "image_token_index": feature}
        for name, token in self.tokens.items():
            base = name.removesuffix("_token")
            ids.setdefault(f"{base}_token_id", token)
            ids.setdefault(f"{base}_token_index", token)
        config = dict(self.config)
        ids |= self.named
        known: dict[str, Any] = {
            name: tokenizer.convert_tokens_to_ids(token) for name, token in ids.items()
        }
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
LINEAR = ["linear_attention", "linear_attention", "full_attention"]
GEMMA = {
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "audio_token": "<audio_soft_token>",
    "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>",
}
TURN = ("<start_of_turn>", "<end_of_turn>")
MINICPM = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
SLIDING = ["sliding_attention", "sliding_attention", "full_attention"]
assert sum(MROPE["mrope_section"]) == HEAD_DIM // 2
