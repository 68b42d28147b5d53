"""Ids are compared with the processor's own for every sample, and a difference is said."""

from __future__ import annotations

from typing import Any

import pytest

import keygap as kg
from keygap.benchmarks import BadSample
from keygap.errors import UserError
from keygap.models.load import wrap
from made import bench_of, made_sample

from ..zoo import BY_FAMILY


def changed(model, processor, differs) -> kg.VLM:
    """A model whose processor makes further ids in ``apply_chat_template`` alone, of some texts."""
    own: Any = type(processor)

    class Further(own):
        def apply_chat_template(self, conversation, *args, tokenize=False, **keywords):
            if tokenize and differs(conversation):
                conversation = [
                    [
                        {**m, "content": [*m["content"], {"type": "text", "text": " more"}]}
                        for m in c
                    ]
                    for c in conversation
                ]
            return super().apply_chat_template(conversation, *args, tokenize=tokenize, **keywords)

    processor.__class__ = Further
    return wrap(model, processor, name="tiny")


def test_a_processor_that_makes_other_ids_is_refused():
    vlm = changed(*BY_FAMILY["llava"].build(), lambda conversation: True)
    with pytest.raises(
        UserError, match=r"ids and the processor makes .* differ from position"
    ) as e:
        vlm.prompter([made_sample("s")])
    assert "\n" not in str(e.value)


def test_a_sample_with_other_ids_is_bad_and_the_run_goes_on(tmp_path):
    vlm = changed(*BY_FAMILY["llava"].build(), lambda conversation: "odd" in str(conversation))
    samples = [made_sample(f"s{n}", f"is it {n}?") for n in range(20)]
    samples.append(made_sample("odd", "is it odd?"))
    with pytest.raises(BadSample, match="differ from position"):
        vlm.prompter(samples[-1:])
    store = kg.extract(vlm, bench_of(samples), tmp_path / "run", layers=[0])
    assert store.manifest["n_samples"] == 20
    assert list(store.manifest["failures"]) == ["odd"]


@pytest.mark.parametrize(
    ("family", "how"),
    [
        ("llava", "apply_chat_template"),
        ("got_ocr2", "a call with the rendered text (ValueError: Nested images"),
        ("blip-2", "a call with the rendered text (the prompt is not a list of pieces)"),
    ],
)
def test_what_ids_were_compared_with_is_recorded(family, how):
    vlm = wrap(*BY_FAMILY[family].build(), name="tiny")
    assert vlm.prompter.description()["ids_compared_with"].startswith(how)


def test_why_a_list_of_pieces_was_not_used_is_recorded():
    model, processor = BY_FAMILY["llava"].build()
    processor.chat_template = "{% for m in messages %}{{ m.content + '' }}{% endfor %}"
    vlm = wrap(model, processor, name="tiny")
    prompt = vlm.prompter.description()
    assert prompt["form"] == "chat-string"
    assert "the chat template raises TypeError" in prompt["refused_forms"]["chat"]


def test_a_spelling_that_is_encoded_as_text_is_not_compared():
    vlm = wrap(*BY_FAMILY["llava"].build(), name="tiny")
    sample = made_sample("s", "what is <image> here?")
    (labels,) = vlm.prompter([sample]).labels
    assert (labels.modality == "image").sum() == 16
