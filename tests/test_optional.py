"""Optional packages: found without importing them, or one line that says what to install."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from keygap.benchmarks import benchmark
from keygap.errors import UserError
from keygap.micro.packaged import vision_state
from keygap.optional import require
from keygap.workers import workers_of


def test_an_installed_package_is_found_and_not_imported(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "rare.py").write_text("raise RuntimeError('imported')\n")
    assert Path(str(require("rare", "micro", "a test").origin)) == tmp_path / "rare.py"
    assert "rare" not in sys.modules


def test_a_missing_package_says_what_to_install() -> None:
    with pytest.raises(UserError) as error:
        require("very_rare", "micro", "a test")
    assert str(error.value) == "a test needs the package very-rare: pip install 'keygap[micro]'"


@pytest.mark.parametrize(
    ("package", "use", "message"),
    [
        ("easy_vqa", lambda: benchmark("easy-vqa"),
         "benchmark easy-vqa needs the package easy-vqa: pip install 'keygap[micro]'"),
        ("lmms_eval", lambda: benchmark("lmms:pets"),
         "benchmark lmms:pets needs the package lmms-eval: pip install 'keygap[lmms]'"),
        ("ray", lambda: workers_of("ray"),
         "the engine ray needs the package ray: pip install 'keygap[ray]'"),
        ("timm", vision_state,
         "the embedded model needs the package timm: pip install 'keygap[micro]'"),
    ],
)  # fmt: skip
def test_every_optional_package_is_missed_in_the_same_words(
    package: str, use, message: str, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(UserError) as error:
        use()
    assert str(error.value) == message
