"""Families that keygap refuses, in one line: their design has no image keys beside text keys.

``fails`` is what the line must say.
"""

from __future__ import annotations

from .entry import QWEN_PLACE, QWEN_TOKENS, SQUARE, Entry

ACROSS = "attend across to image features"
NO_TOKEN = "names an image token"
NO_IMAGES = "no image side"

REFUSED = [
    Entry(
        "idefics",
        "cross-attention",
        tokens={},
        feature="<image>",
        more=("<fake_token_around_image>", "<end_of_utterance>"),
        template=None,
        processor={"image_size": 32},
        config={"vision_config__embed_dim": 64},
        fails=ACROSS,
    ),
    Entry("blip", "cross-attention", template=None, fails=ACROSS),
    Entry(
        "pix2struct",
        "image in the encoder alone",
        template=None,
        image={"patch_size": {"height": 8, "width": 8}, "max_patches": 64},
        fails=ACROSS,
    ),
    Entry("pp_formulanet", "image in the encoder alone", template=None, image={}, fails=ACROSS),
    Entry(
        "vision-encoder-decoder",
        "image in the encoder alone",
        template=None,
        image={"class": "ViTImageProcessor", "size": SQUARE},
        processor={"class": "TrOCRProcessor"},
        config={"decoder__is_decoder": True, "decoder__add_cross_attention": True},
        fails=ACROSS,
        releases=">=5.23",
    ),
    Entry(
        "git",
        "image put in front by the model",
        template=None,
        image={"size": {"shortest_edge": 32}, "crop_size": SQUARE},
        fails=NO_TOKEN,
    ),
    Entry(
        "udop",
        "image put behind by the model",
        template=None,
        image={"size": SQUARE, "apply_ocr": False},
        fails=NO_TOKEN,
        releases=">=5.16",
    ),
    Entry(
        "instructblipvideo",
        "video alone",
        QWEN_TOKENS,
        place=QWEN_PLACE,
        template=None,
        image=None,
        processor={"num_query_tokens": 4},
        fails=NO_IMAGES,
    ),
    Entry(
        "pi0",
        "robot control",
        template=None,
        image={
            "size": {"max_height": 32, "max_width": 32},
            "pad_size": SQUARE,
            "image_seq_length": 16,
        },
        fails="does not run on what its own processor makes: TypeError",
        releases=">=5.23",
    ),
]

# Refused before a model is made, or tried and not settled: what stopped the tiny model.
UNSETTLED = {
    "evolla": "refused: transformers lists it, and makes no image-text-to-text model of it (it "
    "reads proteins)",
    "mistral4": "refused: a text model, with no image processor",
    "fuyu": "not settled: its processor drops the first id of what it tokenizes, which only a "
    "tokenizer that puts a space in front survives: 47 image ids where its text has 48",
}
