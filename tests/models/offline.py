"""Real processors without a download: a byte-level BPE trained in code, real image processors."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AddedToken, PreTrainedTokenizerFast, ProcessorMixin
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

CORPUS = (
    "What colour is the shape? The answer is red, blue, green, yellow or black.",
    "Is there a circle in the image? yes no. Which option is right? A. B. C. D.",
    "You are a helpful assistant. user assistant system. USER: ASSISTANT: Describe the picture.",
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE{% elif c.type == 'video' %}VIDEO{% else %}{{ c.text }}"
    "{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}" + CHATML
)
VICUNA = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content[0].text }} {% else %}"
    "{{ m.role | upper }}: {% for c in m.content %}{% if c.type == 'image' %}IMAGE\n{% endif %}"
    "{% endfor %}{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}"
    "{% endfor %} {% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
TURNS = (  # trims, as Gemma's does, and puts a system prompt into the user's turn
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE{% else %}{{ c.text | trim }}{% endif %}{% endfor %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}[INST]{% for c in m.content %}"
    "{% if c.type == 'image' %}IMAGE{% else %}{{ c.text }}{% endif %}{% endfor %}[/INST]"
    "{% endfor %}"
)


@cache
def _bpe() -> str:
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return tokenizer.to_str()


def tokenizer_with(tokens: dict[str, str], more: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer whose special tokens are also attributes, as ``tokenizer.image_token``."""
    backend = Tokenizer.from_str(_bpe())
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    special = [*dict.fromkeys((*tokens.values(), "<|im_start|>", "<|im_end|>", *more))]
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=tokens,
    )


def real_processor(
    family: str,
    tokenizer: PreTrainedTokenizerFast,
    image: dict[str, Any] | None,
    arguments: dict[str, Any],
    template: str | None,
    video: dict[str, Any] | None = None,
) -> ProcessorMixin:
    """A family's own processor class around its own image processor class, at small sizes."""
    processor_class = getattr(transformers, arguments.pop("class", None) or _processor(family))
    given = dict(arguments)
    if image is not None:
        image_class = image.pop("class", None) or _image_processor(family)
        given["image_processor"] = getattr(transformers, image_class)(**image)
        for name in ("image_seq_length",):  # an attribute that some processors look for there
            if name in image:
                setattr(given["image_processor"], name, image[name])
    named = inspect.signature(processor_class.__init__).parameters
    if "video_processor" in named:
        names = VIDEO_PROCESSOR_MAPPING_NAMES.get(family) or {
            "torchvision": "Qwen2VLVideoProcessor"
        }
        video_class = names if isinstance(names, str) else names["torchvision"]
        given["video_processor"] = getattr(transformers, video_class)(**(video or {}))
    if "qformer_tokenizer" in named:
        given["qformer_tokenizer"] = tokenizer_with({})
    if "feature_extractor" in named:
        given["feature_extractor"] = transformers.Gemma3nAudioFeatureExtractor()
    if template is not None and "chat_template" in named:
        given["chat_template"] = template
    processor = processor_class(tokenizer=tokenizer, **given)
    if template is not None and not processor.chat_template:
        processor.chat_template = template
    return processor


def _processor(family: str) -> str:
    return PROCESSOR_MAPPING_NAMES[family]


def _image_processor(family: str) -> str:
    names = IMAGE_PROCESSOR_MAPPING_NAMES[family]
    return names.get("torchvision") or names["pil"]
