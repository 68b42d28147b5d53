"""Registries: lookup on first use, registration, entry points of other packages."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keygap.errors import UserError
from keygap.registry import Registry

MODULE = '''
def gallop():
    """Run on four legs.

    And more.
    """


class Horses:
    """Several of them."""

    @staticmethod
    def neigh(): ...


silent = gallop
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path with the module ``stable``."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stable", raising=False)
    (tmp_path / "stable.py").write_text(MODULE)
    return tmp_path


@pytest.fixture
def registry(package: Path) -> Registry[Callable[..., object]]:
    return Registry("gait", "keygap.gaits", {"gallop": "stable:gallop", "neigh": "stable:Horses"})


def entry_points(folder: Path, **targets: str) -> None:
    """What an installed package leaves behind: its metadata with entry points."""
    info = folder / "stable-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stable\nVersion: 1.0\n")
    lines = [f"{name} = {target}" for name, target in targets.items()]
    (info / "entry_points.txt").write_text("\n".join(["[keygap.gaits]", *lines]) + "\n")


def test_an_entry_is_imported_when_it_is_looked_up(registry) -> None:
    assert list(registry) == ["gallop", "neigh"]
    assert len(registry) == 2
    assert "gallop" in registry
    assert registry.described()[0] == ("gallop", "Run on four legs.")
    assert "stable" not in sys.modules
    assert registry["gallop"].__name__ == "gallop"
    assert registry["gallop"] is sys.modules["stable"].gallop


def test_an_attribute_of_an_attribute(package) -> None:
    registry: Registry[Any] = Registry("gait", "keygap.gaits", {"neigh": "stable:Horses.neigh"})
    assert registry["neigh"].__name__ == "neigh"


def test_an_unknown_name_names_the_nearest(registry) -> None:
    with pytest.raises(UserError, match="unknown gait 'galop'; did you mean 'gallop'"):
        registry["galop"]


def test_get_gives_the_default_of_an_unknown_name(package, registry) -> None:
    assert registry.get("galop") is None
    assert registry.get("galop", print) is print
    assert registry.get("gallop", print) is registry["gallop"]
    entry_points(package, walk="stable:walk")
    broken: Registry[Any] = Registry("gait", "keygap.gaits", {})
    with pytest.raises(UserError, match="the gait 'walk' cannot be imported"):
        broken.get("walk")


def test_a_registered_object_comes_last_and_can_be_removed(registry) -> None:
    def amble() -> None:
        """Walk slowly."""

    registry.register("amble", amble)
    assert list(registry) == ["gallop", "neigh", "amble"]
    assert registry["amble"] is amble
    assert registry.described()[-1] == ("amble", "Walk slowly.")
    registry.register("amble", amble)  # no effect
    assert len(registry) == 3
    registry.unregister("amble")
    assert "amble" not in registry
    with pytest.raises(UserError, match="'amble' was not registered"):
        registry.unregister("amble")


def test_a_name_is_registered_once(registry) -> None:
    registry.register("amble", print)
    for name in ("amble", "gallop"):
        with pytest.raises(UserError, match=f"already a gait '{name}': choose another name"):
            registry.register(name, repr)
    assert registry["amble"] is print
    with pytest.raises(UserError, match="'gallop' was not registered"):
        registry.unregister("gallop")


def test_entry_points_are_found_and_come_after_our_own(package, registry) -> None:
    entry_points(package, trot="stable:Horses.neigh", canter="stable:gallop")
    assert list(registry) == ["gallop", "neigh", "canter", "trot"]
    assert registry["canter"] is registry["gallop"]
    assert registry["trot"].__name__ == "neigh"


def test_our_own_entry_wins_over_an_entry_point_of_its_name(package, registry, caplog) -> None:
    entry_points(package, gallop="stable:Horses")
    with caplog.at_level(logging.WARNING, "keygap"):
        assert list(registry) == ["gallop", "neigh"]
    assert "the gait 'gallop' from stable:Horses is ignored" in caplog.text
    assert registry["gallop"].__name__ == "gallop"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module:walk", "No module named 'no_such_module'"),
        ("no_such_package.module:walk", "No module named 'no_such_package'"),
        ("stable:walk", "no attribute 'walk'"),
        ("stable:Horses.walk", "no attribute 'walk'"),
        ("broken:walk", "No module named 'not_installed'"),
    ],
)
def test_a_broken_entry_point_is_one_line_and_hides_no_other(
    target: str, reason: str, package, registry
) -> None:
    (package / "broken.py").write_text("import not_installed\n")
    entry_points(package, walk=target)
    with pytest.raises(UserError) as error:
        registry["walk"]
    assert f"the gait 'walk' cannot be imported from {target!r}: " in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert dict(registry.described())["gallop"] == "Run on four legs."
    assert registry["gallop"]


def test_what_cannot_be_described_has_no_description(package) -> None:
    targets = {"silent": "stable:silent", "gone": "no_such_package.module:gone", "c": "math:sin"}
    described = dict(Registry("gait", "keygap.gaits", targets).described())
    assert described["silent"] == described["c"] == ""
    assert described["gone"] == "not installed: no_such_package.module:gone"


@pytest.mark.parametrize("module", ["keygap.registry", "keygap.benchmarks"])
def test_importing_a_registry_loads_no_heavy_package(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert module in loaded
    assert not loaded & {"torch", "transformers", "pyarrow", "pandas", "numpy", "sklearn"}
