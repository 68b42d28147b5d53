"""``keygap doctor`` names what a machine lacks, each thing by itself."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from transformers import AttentionInterface

from keygap import cli, doctor
from store.test_files import mounted


def results(found) -> dict[str, tuple[str, str]]:
    return {each.check: (each.result, each.detail) for each in found}


@pytest.fixture
def version_of(monkeypatch):
    """Change the version that a package claims to have; None: it is not installed."""
    claimed: dict[str, str | None] = {}
    own = metadata.version

    def version(package: str) -> str:
        if package in claimed and claimed[package] is None:
            raise metadata.PackageNotFoundError(package)
        return claimed.get(package) or own(package)

    monkeypatch.setattr(metadata, "version", version)
    return claimed


def test_here_everything_that_is_needed_works():
    found = results(doctor.examine())
    needed = {each.name for each in doctor.requirements()}
    assert {"torch", "transformers", "numpy"} <= needed
    assert all(found[name][0] == "ok" for name in needed)
    assert found["attention sdpa"] == found["attention eager"] == ("ok", "can be tapped")
    assert "FAIL" not in {result for result, _ in found.values()}


def test_an_old_transformers_is_named_and_hides_nothing_else(version_of):
    version_of["transformers"] = "4.57.0"
    found = results(doctor.examine())
    result, detail = found["transformers"]
    assert result == "FAIL"
    assert "4.57.0 is not >=" in detail
    assert "pip install --upgrade 'transformers>=" in detail
    assert found["attention"] == ("FAIL", "skipped: first fix transformers")
    assert found["Hub's cache"][0] == "ok"


@pytest.mark.parametrize(
    ("package", "extra"), [("ray", "ray"), ("gguf", "micro"), ("lmms-eval", "lmms")]
)
def test_a_missing_extra_names_its_command(version_of, package, extra):
    version_of[package] = None
    result, detail = results(doctor.extras())[f"extra {extra}"]
    assert result == "missing"
    assert f"{package}: pip install 'keygap[{extra}]', for {doctor.EXTRAS[extra]}" in detail


def test_no_gpu_is_no_failure(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    result, detail = results(doctor.devices())["GPU"]
    assert result == "note"
    assert "models run on" in detail


def test_attention_that_goes_around_the_tap_is_named(monkeypatch):
    def refuse(module, query, key, value, mask, **keywords):
        raise RuntimeError("needs a kernel\nthat is not here")

    monkeypatch.setitem(AttentionInterface._global_mapping, "made_up", refuse)
    result, detail = results(doctor.attention())["attention made_up"]
    assert result == "note"
    assert detail.startswith("cannot be tapped (needs a kernel")
    assert "\n" not in detail


def test_a_full_cache_disk_fails(monkeypatch, tmp_path):
    with mounted(tmp_path / "small", "size=1m"):
        monkeypatch.setenv("KEYGAP_CACHE", str(tmp_path / "small/not/made/yet"))
        result, detail = results(doctor.caches())["keygap's cache"]
    assert result == "FAIL"
    assert "0.0 GiB are free; free some, or name another folder with KEYGAP_CACHE" in detail


def test_the_command_fails_where_keygap_does_not_work(version_of, monkeypatch, capsys):
    version_of["torch"] = "1.13.0"
    monkeypatch.setattr(sys, "argv", ["keygap", "doctor", "--json"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr()
    assert exit_.value.code == 2
    rows = {row["check"]: row for row in json.loads(said.out)["rows"]}
    assert rows["torch"]["result"] == "FAIL"
    assert said.err.strip().splitlines()[-1].startswith("keygap: keygap does not work here: see ")
    assert Path(rows["Hub's cache"]["detail"].split(":")[0]).is_absolute()
