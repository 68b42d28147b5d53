"""Any chat template: ids are those of the processor, or one line says why not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keygap.benchmarks import BadSample
from keygap.errors import UserError
from keygap.models.load import wrap
from made import made_sample

from ..zoo import BY_FAMILY

IMAGE = "<image>"
BEFORE = (
    "",
    "{{ bos_token }}",
    "<s>",
    "Be brief.\n",
    "{% if messages[0].role != 'system' %}SYSTEM: Be helpful.\n{% endif %}",
    "{% if not style %}{{ raise_exception('set style') }}{% endif %}",
    "{{ messages | length }} messages. ",
    "{{ messages[0].content[1].text | length }} letters. ",
    "{{ messages[7].content }}",
)
TURN = (
    ("<|im_start|>{{ m.role }}\n", "<|im_end|>\n"),
    ("{{ m.role | upper }}: ", " "),
    ("", ""),
    ("[INST]", "[/INST]"),
    ("{{ m.role }}", "{{ eos_token }}"),
)
TEXT = (
    "{{ c.text }}",
    "{{ c.text | trim }}",
    "{{ c.text | upper }}",
    "{{ c.text }} {{ c.text }}",
    "{{ c.text[:5] }}",
    "{{ c.text | replace(' ', '  ') }}",
    "{{ c['text'] }}!",
    "{{ c.wrong }}",
    "",
)
PICTURE = (IMAGE, f"\n{IMAGE}\n", f"Picture {{{{ loop.index }}}}: {IMAGE}", f"{IMAGE} {IMAGE}", "")
AFTER = ("", "{% if add_generation_prompt %}assistant\n{% endif %}", "{{ eos_token }}", "{% if %}")
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@st.composite
def templates(draw: st.DrawFn) -> str:
    start, end = draw(st.sampled_from(TURN))
    piece = (
        f"{{% if c.type == 'image' %}}{draw(st.sampled_from(PICTURE))}"
        f"{{% else %}}{draw(st.sampled_from(TEXT))}{{% endif %}}"
    )
    turn = f"{start}{{% for c in m.content %}}{piece}{{% endfor %}}{end}"
    turns = f"{{% for m in messages %}}{turn}{{% endfor %}}"
    return draw(st.sampled_from(BEFORE)) + turns + draw(st.sampled_from(AFTER))


@pytest.fixture(scope="module")
def llava():
    return BY_FAMILY["llava"].build()


def checked(llava, template: str, question: str) -> str:
    """The refusal of a prompt, or nothing if its ids are right."""
    model, processor = llava
    processor.chat_template = template
    sample = made_sample("s0", question)
    try:
        batch = wrap(model, processor, "tiny").prompter([sample])
    except (UserError, BadSample) as refusal:
        return str(refusal)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    spelled = bool(processor.tokenizer.bos_token) and text.startswith(processor.tokenizer.bos_token)
    own = processor(
        text=text, images=[sample.images[0]], add_special_tokens=not spelled, return_tensors="pt"
    )
    np.testing.assert_array_equal(batch.inputs["input_ids"], own["input_ids"])
    (labels,) = batch.labels
    asked = processor.tokenizer.decode(labels.token_id[labels.role == "question"])
    assert asked.strip() == question.strip()
    assert (labels.modality == "image").sum() == (
        own["input_ids"] == model.config.image_token_id
    ).sum()
    return ""


@settings(max_examples=25)
@given(template=templates(), question=WORDS)
@example(template=BEFORE[5] + "{{ style }}", question="What colour?")
@example(template="{{ 1 / 0 }}", question="What colour?")
@example(template="{{ messages[0].content[1].text }}" + IMAGE, question="What colour?")
def test_the_ids_are_the_processors_or_one_line_says_why(llava, template, question):
    refusal = checked(llava, template, question)
    assert "\n" not in refusal


def test_the_templates_of_the_fuzz_test_are_not_all_refused(llava):
    template = "<|im_start|>{% for c in messages[0].content %}{{ c.text or '<image>' }}{% endfor %}"
    assert checked(llava, template, "What colour?") == ""
