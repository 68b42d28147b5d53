"""Labels: every token's modality and role, exact for any text, and never guessed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keygap.benchmarks import BadSample, Piece
from made import made_sample


def test_image_labels_count_the_vision_features(vlm, good_samples):
    batch = vlm.prompter(good_samples)
    with torch.inference_mode():
        features = vlm.model.get_image_features(batch.inputs["pixel_values"]).pooler_output
    labelled = sum(int((labels.modality == "image").sum()) for labels in batch.labels)
    assert labelled == sum(len(image) for image in features)


def test_ids_are_those_of_the_plain_processor(vlm, good_samples):
    """Markers leave no trace in what the model sees."""
    batch = vlm.prompter(good_samples[:1])
    content = [{"type": "image"}, {"type": "text", "text": good_samples[0].question}]
    text = vlm.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    plain = vlm.processor(text=[text], images=list(good_samples[0].images), return_tensors="pt")
    assert torch.equal(plain["input_ids"], batch.inputs["input_ids"])
    assert torch.equal(plain["pixel_values"], batch.inputs["pixel_values"])


def test_roles_follow_the_parts(vlm):
    parts = (
        Piece("text", role="hint", text="A hint."),
        Piece("image"),
        Piece("text", role="question", text="Which one?"),
        Piece("text", role="option", text=" A. user"),
        Piece("text", role="option", text=" B. user"),
    )
    (labels,) = vlm.prompter([replace(made_sample("s"), prompt=parts)]).labels
    tokens = {
        role: "".join(labels.token[labels.role == role]).replace("Ġ", " ")
        for role in ("hint", "question", "option")
    }
    assert tokens == {"hint": "A hint.", "question": "Which one?", "option": " A. user B. user"}
    assert "assistant" in "".join(labels.token[labels.role == "template"])
    assert (labels.role[labels.modality == "image"] == "").all()


TEXT = st.text(st.characters(exclude_categories=["Cs", "Co", "Cc"]), min_size=1, max_size=60)


@settings(deadline=None)
@given(question=TEXT.filter(str.strip), hint=TEXT.filter(str.strip))
def test_any_text_keeps_its_role(vlm, question, hint):
    parts = (Piece("image"), Piece("text", "hint", hint), Piece("text", "question", question))
    try:
        (labels,) = vlm.prompter([replace(made_sample("s"), prompt=parts)]).labels
    except BadSample:
        assert any(token in question + hint for token in ("<image>", "<|im_"))
        return
    text = labels.modality == "text"
    order = [role for role in labels.role[text] if role != "template"]
    assert order == sorted(order, key=["hint", "question"].index)
    decode = vlm.processor.tokenizer.decode
    said = decode(labels.token_id[np.isin(labels.role, ["hint", "question"])])
    assert said.strip() == (hint + question).strip() or "\ufffd" in said


def test_marker_characters_in_a_text_are_refused(vlm):
    with pytest.raises(BadSample, match="private-use"):
        vlm.prompter([made_sample("s", "\uf8e3 is it red?")])


def test_one_prompter_serves_several_threads(vlm, good_samples):
    prompts = [
        replace(good, prompt=(Piece("image"), Piece("text", "hint", hint), *good.prompt[1:]))
        for good, hint in zip(
            good_samples, ("Short.", "A hint of many more words. " * 20), strict=False
        )
    ] * 8
    alone = [vlm.prompter([sample]) for sample in prompts]
    fresh = type(vlm.prompter)(vlm.processor, vlm.prompter.image_tokens)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda sample: fresh([sample]), prompts))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.inputs["input_ids"], other.inputs["input_ids"])
        for name in ("role", "image", "patch_row", "patch_column"):
            values = (getattr(batch.labels[0], name) for batch in (one, other))
            assert np.array_equal(*values), name


def test_the_settled_form_cannot_be_changed(vlm):
    with pytest.raises(FrozenInstanceError):
        vlm.prompter.form.nested = False
