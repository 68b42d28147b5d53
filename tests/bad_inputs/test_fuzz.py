"""Whatever is in a file or on the command line: a result, or one line; never a traceback."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fixtures
from keygap import cli, strict_yaml
from keygap.benchmarks import BadSample, benchmark
from keygap.benchmarks.formats.rows import KEYS
from keygap.errors import UserError
from keygap.micro import checkpoint
from keygap.study.experiment import Experiment, read_experiment

from .table import GOOD

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["a.png", "../a.png", "", "A", "zh", ".inf", "yes", "\ud800"]),
)  # fmt: skip
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
keys = st.sampled_from(KEYS) | st.sampled_from(KEYS) | st.text(max_size=4)
good_row = {"image": "a.png", "question": "What is it?"}
rows = st.dictionaries(st.sampled_from(KEYS), values, max_size=4).map(lambda row: good_row | row)
lines = st.one_of(
    rows.map(lambda row: json.dumps(row).encode()),
    st.dictionaries(keys, values, max_size=4).map(lambda row: json.dumps(row).encode()),
    st.just(json.dumps(good_row).encode()),
    st.binary(max_size=40),
)


@contextmanager
def one_line_if_refused() -> Iterator[None]:
    """Let a block be refused, if what is said prints on one line."""
    said = "a line"
    try:
        yield
    except UserError as error:
        said = str(error)
    assert said.isprintable(), ascii(said)


@FEW
@given(st.lists(lines, max_size=5))
def test_any_rows_are_samples_bad_samples_or_one_line(content: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.png").write_bytes(fixtures.picture())
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(b"\n".join(content))
        with one_line_if_refused():
            chosen = benchmark(f"jsonl:{path}").choose(None)
            for number in range(len(chosen)):
                with suppress(BadSample):
                    assert chosen.sample(number).question.strip()


def experiment(text: str | bytes) -> Experiment | None:
    """The experiment of a file; None if it is refused in one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bad.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
        with one_line_if_refused():
            return read_experiment(path)
    return None


@FEW
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60)))
def test_any_file_is_no_experiment(text: str | bytes) -> None:
    assert experiment(text) is None


@FEW
@given(
    st.integers(0, len(GOOD)), st.integers(0, 5), st.text(max_size=6) | st.sampled_from("&*!%@`\t")
)
def test_a_damaged_experiment_is_refused_or_read(place: int, gone: int, put: str) -> None:
    found = experiment(GOOD[:place] + put + GOOD[place + gone :])
    if found is not None:  # a file is read twice in the same way, also from its own dump
        dumped = strict_yaml.dump(found.model_dump(mode="json"))
        assert Experiment.model_validate(strict_yaml.parse(dumped, "x")) == found


@FEW
@given(
    st.dictionaries(
        st.sampled_from([*Experiment.model_fields, "extra"]),
        values | st.dictionaries(st.sampled_from(["samples", "sites", "layers", "tokens"]), values),
        max_size=3,
    )
)
def test_any_values_are_an_experiment_or_one_line(given_values: dict[str, Any]) -> None:
    base = strict_yaml.parse(GOOD, "good")
    experiment(json.dumps(base | given_values))


arguments = st.lists(
    st.one_of(
        st.sampled_from(
            ["extract", "check", "measure", "project", "report", "benchmarks", "models"]
        ),
        st.sampled_from(
            ["--out", "--sites", "--layers", "--seed", "--benchmark", "--dtype", "--data"]
        ),
        st.sampled_from(
            ["micro:linear", "easy-vqa", "k_proj", "first", "0", "-1", "", ".", "~", "x/y"]
        ),
        st.text(max_size=8),
    ),
    max_size=6,
)


@FEW
@given(arguments)
def test_any_arguments_are_a_result_or_one_line(given_arguments: list[str]) -> None:
    def build(connector: str) -> Path:
        raise UserError("no model is loaded here")

    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
    ):
        patch.setattr(checkpoint, "build", build)
        patch.setattr(sys, "argv", ["keygap", *given_arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    assert exit_.value.code in (None, 0, 2)
