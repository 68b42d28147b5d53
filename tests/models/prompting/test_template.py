"""Roles of what the chat template writes by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keygap.models.load import wrap
from keygap.selfcheck.labels import check_samples

from .. import offline
from ..zoo import BY_FAMILY

DEFAULT = "You are a helpful assistant."
STRING_SYSTEM = (  # the content of a system message must be a string, that of a user's a list
    "{% if messages[0].role == 'system' %}{{ 'SYSTEM: ' + messages[0].content + '\n' }}"
    "{% set messages = messages[1:] %}{% else %}SYSTEM: "
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
