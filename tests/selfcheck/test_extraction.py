"""What the self-check passes can be extracted at the default settings, and the other way round."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import keygap as kg
from keygap.cli import app
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.check import check, frame_of
from keygap.selfcheck.extraction import sites_of, texts_of_any_length
from keygap.selfcheck.samples import check_samples
from made import bench_of, made_sample
from models.made_models import in_eight_bits, with_own_attention
from models.zoo import BY_FAMILY

EACH = "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}"
END = "{% endif %}{% endfor %}{% endfor %}"


def samples() -> list:
    return [made_sample(f"s{n}", f"is it number {n}? " * (n + 1)) for n in range(6)]


def found_in(vlm: kg.VLM) -> dict[str, str]:
    return {finding.check: finding.result for finding in check(vlm)}


def test_a_model_with_attention_of_its_own_is_read_where_it_can_be(tmp_path):
    model, processor = BY_FAMILY["llava"].build()
    vlm = wrap(with_own_attention(model), processor, "own")
    assert sites_of(vlm) == ["q_proj", "k_proj", "v_proj", "hidden"]
    found = found_in(vlm)
    assert found["attention recomputed"] == "not run"
    assert found["a changed key changes the logits"] == "not run"
    assert "FAIL" not in found.values()
    store = kg.extract(vlm, bench_of(samples()), tmp_path / "run")
    assert store.manifest["n_samples"] == 6
    assert "attention that tokens receive is left blank" in store.manifest["notes"][0]
    read: Any = store.vectors("k_proj", 0)
    assert np.isfinite(read.array).all()
    assert read.labels["attention"].isna().all()


def test_what_was_not_run_is_told_apart(tmp_path):
    model, processor = BY_FAMILY["llava"].build()
    findings = check(wrap(with_own_attention(model), processor, "own"))
    (finding,) = (each for each in findings if each.check == "attention recomputed")
    assert finding.passed is None
    assert "OwnAttention (layer 0) computes attention by itself" in finding.detail
    results = dict(zip(frame_of(findings)["check"], frame_of(findings)["result"], strict=True))
    assert results["attention recomputed"] == "not run"
    assert results["frames of a video"] == "does not apply"
    assert results["no hook left"] == "pass"


def test_the_command_exits_with_3_if_a_check_could_not_be_run(tmp_path, monkeypatch):
    model, processor = BY_FAMILY["llava"].build()
    vlm = wrap(with_own_attention(model), processor, "own")
    monkeypatch.setattr(kg, "load", lambda *_, **__: vlm)
    result = CliRunner().invoke(app, ["check", "own"])
    assert result.exit_code == 3
    assert "not run" in result.output
    assert "attention recomputed, a changed key changes the logits" in result.stderr


def test_keys_take_the_place_of_projections_that_are_not_there(tmp_path):
    vlm = wrap(*BY_FAMILY["kimi_k25"].build(), "latent")
    assert found_in(vlm)["extraction at default settings"] == "pass"
    store = kg.extract(vlm, bench_of(samples()), tmp_path / "run")
    assert store.manifest["sites"] == ["key"]
    assert "the site key is read instead" in store.manifest["notes"][0]
    with pytest.raises(UserError, match="latent"):
        kg.extract(vlm, bench_of(samples()), tmp_path / "other", sites=["k_proj", "hidden"])


def test_packed_weights_pass_and_are_extracted(tmp_path):
    model, processor = BY_FAMILY["llava"].build()
    in_eight_bits(model)
    vlm = wrap(model, processor, "packed")
    assert "FAIL" not in found_in(vlm).values()
    assert kg.extract(vlm, bench_of(samples()), tmp_path / "run").manifest["n_samples"] == 6


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ c.text[:200] }}", "a text of 600 characters: the chat template leaves out"),
        (
            "{% if c.text | length > 200 %}{{ raise_exception('too long') }}{% endif %}"
            "{{ c.text }}",
            "a text of 600 characters: the chat template raises TemplateError: too long",
        ),
        ("{% if c.text | length > 1 %}{{ c.text }}{% endif %}", "a text of 1 characters"),
    ],
)
def test_a_template_that_fails_at_a_length_fails_the_self_check(text, reason):
    model, processor = BY_FAMILY["llava"].build()
    processor.chat_template = EACH + text + END
    vlm = wrap(model, processor, "tiny")
    result, detail = texts_of_any_length(vlm, vlm.prompter(check_samples()))
    assert result == "FAIL"
    assert detail.startswith(reason)


@pytest.mark.parametrize(
    "text",
    [
        "{% if c.text | length > 40 %}long: {% endif %}{{ c.text }}",
        "{{ c.text }} ({{ c.text | length }} letters)",
    ],
)
def test_a_template_that_depends_on_the_length_is_read(text, tmp_path):
    model, processor = BY_FAMILY["llava"].build()
    processor.chat_template = EACH + text + END
    vlm = wrap(model, processor, "tiny")
    batch = vlm.prompter(check_samples())
    assert texts_of_any_length(vlm, batch)[0] == "pass"
    store = kg.extract(vlm, bench_of(samples()), tmp_path / "run", layers=[0])
    assert store.manifest["n_failed"] == 0


def test_the_manifest_has_what_was_checked_and_what_was_not(tmp_path):
    vlm = wrap(*BY_FAMILY["llava"].build(), "tiny")
    kg.extract(vlm, bench_of(samples()), tmp_path / "run", layers=[0])
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    results = {each["check"]: each["result"] for each in manifest["self_check"]}
    assert results["labels are what pixels change"] == "pass"
    assert results["batched equals single"] == "pass"
    assert results["attention recomputed"] == "not run"
    assert manifest["notes"] == []
