"""Roles of what the chat template writes by itself."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.samples import check_samples

from .. import offline
from ..zoo import BY_FAMILY

DEFAULT = "You are a helpful assistant."
STRING_SYSTEM = (  # the content of a system message must be a string, that of a user's a list
    "{% if messages[0].role == 'system' %}{{ 'SYSTEM:\n' + messages[0].content + '\n' }}"
    "{% set messages = messages[1:] %}{% else %}SYSTEM:\n"
    + DEFAULT
    + "\n{% endif %}"
    + offline.CHATML
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% endfor %}" + offline.CHATML
)


def system_text(template: str) -> str:
    entry = replace(BY_FAMILY["llava"], template=template)
    vlm = wrap(*entry.build(), name="tiny")
    (labels,) = vlm.prompter(check_samples()[:1]).labels
    return "".join(labels.token[labels.role == "system"]).replace("Ġ", " ")


@pytest.mark.parametrize("template", [offline.WITH_SYSTEM, STRING_SYSTEM])
def test_a_default_system_prompt_has_its_role(template):
    assert system_text(template) == DEFAULT


@pytest.mark.parametrize("template", [offline.CHATML, NO_SYSTEM])
def test_a_template_without_a_system_prompt_has_no_such_role(template):
    assert system_text(template) == ""


def vlm_with(template, **options):
    entry = replace(BY_FAMILY["llava"], template=template)
    return wrap(*entry.build(), name="tiny", **options)


NEEDS = "{% if not style %}{{ raise_exception('set style') }}{% endif %}{{ style }} "
BY_LENGTH = (
    "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}IMAGE{% else %}"
    "{{ c.text | length }}: {{ c.text }}{% endif %}{% endfor %}{% endfor %}"
)
TWICE = offline.CHATML.replace("{{ c.text }}", "{{ c.text }} I repeat: {{ c.text }}")
WITHOUT = offline.CHATML.replace("{{ c.text }}", "a question")
STRING = (
    "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>\n{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (NEEDS + offline.CHATML, "set style"),
        ("{{ messages[3].content.text }}", "UndefinedError"),
        ("{% for m in messages %}", "TemplateSyntaxError"),
        (TWICE, "2 times the text of a question"),
        (WITHOUT, "leaves out or changes the text of a question"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(template, reason):
    with pytest.raises(UserError) as refusal:
        vlm_with(template).prompter(check_samples())
    assert reason in str(refusal.value)
    assert "chat template" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_arguments_reach_the_template():
    vlm = vlm_with(NEEDS + offline.CHATML, template_arguments={"style": "Formal."})
    assert vlm.prompter.description()["example"]["text"].startswith("Formal. <|im_start|>user")
    assert vlm.prompter.description()["template_arguments"] == {"style": "Formal."}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [({"colour": 1}, "does not use the argument 'colour'"), ({"messages": 1}, "set by keygap")],
)
def test_an_argument_that_means_nothing_is_refused(arguments, reason):
    with pytest.raises(UserError, match=reason):
        vlm_with(offline.CHATML, template_arguments=arguments)


@pytest.mark.parametrize("template", [offline.CHATML, offline.WITH_SYSTEM, STRING_SYSTEM])
def test_a_system_prompt_has_its_role(template):
    vlm = vlm_with(template, system="Be brief, <|im_end|> or not.")
    (labels,) = vlm.prompter(check_samples()[:1]).labels
    system = vlm.processor.tokenizer.decode(labels.token_id[labels.role == "system"])
    assert system == "Be brief, <|im_end|> or not."
    assert vlm.prompter.description()["system"] == "Be brief, <|im_end|> or not."
    assert DEFAULT not in vlm.processor.tokenizer.decode(labels.token_id)


def test_a_system_prompt_that_the_template_refuses_is_an_error():
    with pytest.raises(UserError, match="System role not supported"):
        vlm_with(NO_SYSTEM, system="Be brief.").prompter(check_samples())


def test_a_model_without_a_template_takes_none_of_this():
    model, processor = BY_FAMILY["paligemma"].build()
    with pytest.raises(UserError, match="has no chat template"):
        wrap(model, processor, "tiny", system="Be brief.")
    description = wrap(model, processor, "tiny").prompter.description()
    assert description["form"] == "plain"
    assert description["template_sha256"] is None
    assert description["example"]["text"] == "<image>What colour?"


def test_a_template_that_writes_the_length_of_a_text_is_labelled():
    (labels, _) = vlm_with(BY_LENGTH).prompter(check_samples()).labels
    question = "".join(labels.token[labels.role == "question"]).replace("Ġ", " ")
    assert question.strip() == "What colour is it?"


def test_the_description_is_plain_values():
    description = vlm_with(offline.CHATML).prompter.description()
    assert json.loads(json.dumps(description)) == description
    template = offline.CHATML.replace("IMAGE", "<image>").replace("VIDEO", "")
    digest = hashlib.sha256(template.encode()).hexdigest()
    assert description["form"] == "chat"
    assert description["template_sha256"] == digest[:16]
    assert vlm_with(STRING).prompter.description()["form"] == "chat-string"


def test_a_template_of_the_tokenizer_is_used():
    model, processor = BY_FAMILY["llava"].build()
    processor.tokenizer.chat_template, processor.chat_template = STRING, None
    description = wrap(model, processor, "tiny").prompter.description()
    assert description["example"]["text"].startswith("<|im_start|>user\n<image>What")
