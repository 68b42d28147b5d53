"""Loading shows keygap's progress and none of transformers', and leaves transformers as it was."""

from __future__ import annotations

import logging

import pytest
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from transformers import modeling_gguf_pytorch_utils as gguf
from transformers.utils import logging as transformers_logging

import keygap as kg
from align.made_models import llava
from keygap import progress
from keygap.models.loading import shown_loading


@pytest.fixture
def without_downloads():
    disable_progress_bars()
    yield
    enable_progress_bars()


def test_loading_a_folder_logs_lines_and_draws_no_bar(
    tmp_path, monkeypatch, caplog, capfd, without_downloads
):
    vlm = llava()
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    capfd.readouterr()
    caplog.set_level(logging.INFO, "keygap")
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    assert len(kg.load(str(tmp_path)).layers) == len(vlm.layers)
    assert any(
        line.startswith("loading weights: ") and line.split()[2].split("/")[0] != "0"
        for line in caplog.messages
    )
    assert any(line.startswith(f"loading {tmp_path}: ") for line in caplog.messages)
    assert "it/s" not in capfd.readouterr().err


def test_bars_that_ask_tqdm_itself_are_shown_too(caplog, capfd, monkeypatch):
    caplog.set_level(logging.INFO, "keygap")
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    with shown_loading("x"):
        bar = gguf.tqdm([1, 2, 3], desc="Converting GGUF tensors...")
        assert list(bar) == [1, 2, 3]
        bar.set_postfix(any="thing")
        assert list(gguf.tqdm(iter("ab"))) == ["a", "b"]  # of unknown length
    assert any(line.startswith("converting GGUF tensors: 3/3 in ") for line in caplog.messages)
    assert capfd.readouterr().err == ""


def test_transformers_is_left_as_it_was():
    hook, bar = transformers_logging.set_tqdm_hook(None), gguf.tqdm
    transformers_logging.set_tqdm_hook(hook)
    with pytest.raises(ZeroDivisionError), shown_loading("x"):
        raise ZeroDivisionError
    assert transformers_logging.set_tqdm_hook(hook) is hook
    assert gguf.tqdm is bar
