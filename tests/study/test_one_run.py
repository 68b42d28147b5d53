"""A run folder holds results of one model, loaded in one way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from keygap.errors import UserError
from keygap.study.one_run import refuse_other_prompt


def test_the_model_of_the_extraction_is_accepted_and_an_empty_folder_too(store, vlm, tmp_path):
    refuse_other_prompt(store.root, vlm)
    refuse_other_prompt(tmp_path, vlm)


@pytest.mark.parametrize("what", ["prompt", "dtype"])
def test_other_prompts_and_another_precision_are_refused(store, vlm, what):
    other: Any = SimpleNamespace(dtype=vlm.dtype, prompter=vlm.prompter)
    if what == "dtype":
        other.dtype = torch.bfloat16
    else:
        own = {**vlm.prompter.identity, "system": "Answer from the image only."}
        other.prompter = SimpleNamespace(identity=own)
    with pytest.raises(UserError, match=f"is a run with the {what} .* and not ") as error:
        refuse_other_prompt(store.root, other)
    assert "\n" not in str(error.value)
