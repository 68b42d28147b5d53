"""What every command prints: help, JSON, what to do next, and tables that are never cut."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import typer

import keygap as kg
from align.made_models import llava
from align.remedy.made_search import colours
from keygap import cli, cli_output, progress
from keygap.benchmarks import BadSample
from keygap.micro.connectors import CONNECTORS
from keygap.micro.described import MODELS
from keygap.model_options import ModelOptions
from made import files_of

COMMANDS = {
    "": (),
    **{name: (name,) for name in typer.main.get_command(cli.app).commands},  # type: ignore[attr-defined]
    "micro train": ("micro", "train"),
    "micro evaluate": ("micro", "evaluate"),
}
LISTS = ("benchmarks", "models", "probes", "maps")


@pytest.fixture(scope="module")
def vlm() -> kg.VLM:
    return llava()


@pytest.fixture
def keygap(vlm, monkeypatch, capsys):
    """Run the command on a tiny model and its own questions; exit status, stdout and stderr."""
    monkeypatch.setattr(ModelOptions, "load", lambda options: vlm)
    monkeypatch.setattr(kg, "benchmark", lambda name, **given: colours(name), raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["keygap", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        said = capsys.readouterr()
        return int(exit_.value.code or 0), said.out, said.err

    yield run
    progress.silence(False)
    for name in (None, "keygap"):
        logging.getLogger(name).setLevel(logging.WARNING)


@pytest.fixture(scope="module")
def store(vlm, tmp_path_factory) -> kg.Store:
    out = tmp_path_factory.mktemp("cli") / "run"
    return kg.extract(vlm, colours("easy-vqa").choose(24, 0), out, layers=[0, 1])


def next_of(said: str) -> str:
    (line,) = [line for line in said.splitlines() if line.startswith("next: ")]
    assert said.splitlines()[-1] == line
    return line.removeprefix("next: ")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_at_80_columns_cuts_nothing(keygap, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    status, said, _ = keygap(*COMMANDS[name], "-h")
    assert status == 0
    assert said == keygap(*COMMANDS[name], "--help")[1]
    assert max(map(len, said.splitlines())) <= 80
    assert "…" not in said
    assert not re.search(r"\w\.\.\.", said)
    command = typer.main.get_command(cli.app)
    for word in COMMANDS[name]:
        command = command.commands[word]  # type: ignore[attr-defined]
    words = said.split()
    for parameter in command.params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert option in {word.rstrip(",") for word in words}, option
    flat = " ".join(words)
    for own in getattr(command, "commands", {}).values():
        assert " ".join(own.help.split("\n\n")[0].split()) in flat


def test_brackets_in_a_help_text_are_text(keygap):
    assert "hint.positions=[after]" in keygap("bias", "-h")[1]


def test_version(keygap):
    status, said, _ = keygap("--version")
    assert status == 0
    versions = r"Python 3\.\S+, torch \S+, transformers \S+"
    assert re.fullmatch(rf"keygap {kg.__version__} \({versions}\)\n", said)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("keygap ext", "extract"),
        ("keygap extract --max", "--max-bad"),
        ("keygap micro ev", "evaluate"),
        ("keygap extract mic", "micro:qformer"),
        ("keygap extract x --benchmark mmmu-", "mmmu-pro-4"),
        ("keygap align x --map cor", "coral"),
        ("keygap bias x --probes hint,bl", "hint,blank"),
    ],
)
def test_the_shell_completes(typed, offered):
    asked = {
        "_KEYGAP_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "keygap"], env=os.environ | asked, capture_output=True, text=True
    )
    assert offered in done.stdout.split()
    assert len(done.stdout.split()) <= 4


@pytest.mark.parametrize("name", LISTS)
def test_lists_say_what_each_entry_is(keygap, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    status, said, more = keygap(name)
    assert status == 0
    assert max(map(len, said.splitlines())) <= 80
    rows = json.loads(keygap(name, "--json")[1])["rows"]
    assert len(rows) >= 4
    for row in rows:
        assert re.search(rf"^{re.escape(row['name'])}  ", said, re.MULTILINE)
        assert len(row["what"]) > 10
        assert " ".join(row["what"].split()) in " ".join(said.split())
    assert next_of(more).startswith("keygap ")


def test_the_embedded_models_are_those_that_exist():
    assert [name for name in MODELS if name.startswith("micro:")] == [
        f"micro:{c}" for c in CONNECTORS
    ]


def test_from_extract_to_report_each_command_names_the_next(keygap, tmp_path):
    run = tmp_path / "a run"
    few = ("--samples", 24, "--layers", "0", "--out", run)
    status, said, more = keygap("extract", "tiny", *few)
    assert (status, said.startswith("Store(")) == (0, True)
    assert next_of(more) == f"keygap measure '{run}'"
    steps = {
        ("measure", run, "--contrasts", "image_text,text_text"): "keygap project",
        ("project", run): "keygap report",
        ("answer", "tiny llava", "--samples", 24, "--out", run): "keygap measure",
        ("report", run): "open ",
    }
    for arguments, then in steps.items():
        status, _, more = keygap(*arguments)
        assert status == 0, more
        assert next_of(more).startswith(then)
        if then.startswith("keygap"):
            assert shlex.split(next_of(more))[-1] == str(run)
    written = {"gap.csv", "jsd.csv", "projection.parquet", "accuracy.csv", "report.html"}
    assert written <= {path.name for path in run.iterdir()}


def test_answer_prints_the_accuracy_and_saves_the_answers(keygap, vlm, tmp_path):
    status, said, more = keygap("answer", "tiny", "--samples", 12, "--out", tmp_path / "new")
    assert status == 0
    saved = pd.read_csv(tmp_path / "new" / "accuracy.csv")
    answers = pd.read_csv(tmp_path / "new" / "answers.csv")
    assert (len(answers), saved["correct"][0]) == (12, answers["correct"].sum())
    assert f"{saved['accuracy'][0]:.3g}" in said
    then = shlex.split(next_of(more))
    assert then[:3] == ["keygap", "extract", "tiny"]
    assert then[-2:] == ["--out", "DIR"]  # an extraction begins in a folder of its own
    said = keygap("answer", "tiny", "--samples", 12, "--out", tmp_path / "2", "--json")[1]
    row, share = json.loads(said)["rows"][0], answers["correct"].mean()
    assert row["accuracy"] == share
    assert row["ci_low"] < share < row["ci_high"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("answer", "tiny"), "holds results of the model tiny llava and not of tiny"),
        (("answer", "tiny llava", "--benchmark", "other"), "benchmark easy-vqa and not of other"),
        (("answer", "tiny llava", "--samples", 5), "is a run of other samples"),
        (("bias", "tiny llava", "--benchmark", "other"), "easy-vqa and not of other"),
        (("causes", "tiny llava", "--benchmark", "other"), "easy-vqa and not of other"),
    ],
)
def test_results_of_something_else_do_not_go_into_a_run(keygap, store, arguments, line):
    before = files_of(store.root)
    status, _, said = keygap(*arguments, "--out", store.root)
    assert status == 2
    assert line in said
    assert files_of(store.root) == before


def strict(text: str) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_measure_as_json_has_the_numbers_of_gap_csv(keygap, store):
    few = ("--layers", 0, "--contrasts", "image_text,text_text,image_image", "--n-permutations", 39)
    status, said, more = keygap("measure", store.root, *few, "--json")
    assert status == 0
    found = strict(said)
    saved = pd.read_csv(store.root / "gap.csv")
    saved = saved[(saved["head"].astype(str) == "all") & saved["confound"].isna()]
    assert len(found["rows"]) == len(saved) == 3
    for row, own in zip(found["rows"], saved.to_dict("records"), strict=True):
        assert row["contrast"] == own["contrast"]
        assert row["mmd2"] == pytest.approx(own["mmd2"], rel=1e-12)
    assert found["next"] == f"keygap project {store.root}"
    assert "next: " not in more
    assert isinstance(found["notes"], list)


@pytest.mark.parametrize(
    "arguments",
    [
        ("extract", "tiny", "--samples", 4, "--layers", 0),
        ("bias", "tiny", "--samples", 6, "--probes", "hint", "--no-attention", "--n-bootstraps", 9),
        ("check", "tiny"),
        ("align", "tiny", "--map", "mean-shift", "--samples", 6),
    ],
)
def test_every_command_prints_one_json_object(keygap, tmp_path, arguments):
    out = tmp_path / ("map.safetensors" if arguments[0] == "align" else "run")
    place = () if arguments[0] == "check" else ("--out", out)
    status, said, more = keygap(*arguments, *place, "--json")
    assert status in (0, 3), more
    found = strict(said)
    assert found["next"]
    if arguments[0] in ("bias", "check"):
        assert len(found["rows"]) > 2
    if arguments[0] == "extract":
        assert found["samples"] == 4
        assert found["layers"] == {"k_proj": [0]}


@pytest.mark.slow
def test_causes_as_json_has_the_mechanism_and_the_numbers_of_alignment_csv(keygap, tmp_path):
    sizes = ("--samples", 8, "--fit-samples", 8, "--draws", 1, "--n-bootstraps", 9)
    few = (*sizes, "--strengths", 1, "--layers", "all", "--sites", "k_proj", "--maps", "mean-shift")
    status, said, more = keygap("causes", "tiny", "--out", tmp_path / "run", *few, "--json")
    assert status == 0, more
    found = strict(said)
    assert found["folder"] == str(tmp_path / "run")
    assert found["mechanism"]
    assert found["lines"]
    assert found["next"].startswith("keygap align tiny --search")
    assert "next: " not in more
    saved = pd.read_csv(tmp_path / "run" / "alignment.csv", keep_default_na=False, na_values=[""])
    saved = saved[(saved["layer"] == -1) & saved["variant"].fillna("").isin(["all", ""])]
    assert len(found["rows"]) == len(saved) > 10
    for row, own in zip(found["rows"], saved.to_dict("records"), strict=True):
        assert (row["point"], row["measure"]) == (own["point"], own["measure"])
        if pd.isna(own["value"]):
            assert row["value"] is None
        else:
            assert row["value"] == pytest.approx(own["value"], rel=1e-9)
    assert {row["kind"] for row in found["rows"]} >= {"none", "map", "control", "baseline"}


def test_json_of_numbers_that_json_has_not():
    given = {
        "a": np.float32(0.5),
        "b": float("nan"),
        "c": float("inf"),
        "d": np.int64(3),
        "e": pd.NA,
        "f": (np.bool_(True), -np.inf),
    }
    assert cli_output.plain(given) == {
        "a": 0.5, "b": None, "c": "Infinity", "d": 3, "e": None, "f": [True, "-Infinity"],
    }  # fmt: skip


def test_a_mistake_prints_no_json(keygap, tmp_path):
    status, said, more = keygap("measure", tmp_path, "--json")
    assert (status, said) == (2, "")
    assert len(more.splitlines()) == 1


def test_quiet_prints_the_result_alone(keygap, tmp_path, caplog):
    arguments = ("extract", "tiny", "--samples", 4, "--layers", 0)
    status, said, more = keygap(*arguments, "--out", tmp_path / "1", "--quiet")
    assert (status, more, caplog.messages) == (0, "", [])
    assert len(said.splitlines()) == 1
    keygap(*arguments, "--out", tmp_path / "2")
    assert any("1/1" in message for message in caplog.messages)


def test_verbose_prints_what_libraries_report(keygap, monkeypatch, vlm, tmp_path, caplog):
    def load(_):
        logging.getLogger("of_a_library").info("a library speaks")
        return vlm

    monkeypatch.setattr(ModelOptions, "load", load)
    for place, option in enumerate(([], ["-v"])):
        caplog.clear()
        keygap(
            "extract",
            "tiny",
            "--samples",
            4,
            "--layers",
            0,
            "--out",
            tmp_path / str(place),
            *option,
        )
        assert ("a library speaks" in caplog.messages) == bool(option)


def test_quiet_and_verbose_contradict_each_other(keygap):
    status, _, said = keygap("models", "-q", "-v")
    assert status == 2
    assert said == "keygap: --quiet and --verbose contradict each other: leave one out\n"


class Broken(type(colours())):  # type: ignore[misc]
    """The same questions; the images of some cannot be opened."""

    bad: tuple[int, ...] = (3, 9, 20)

    def sample(self, number):
        if number in self.bad:
            raise BadSample("made broken")
        return super().sample(number)


@pytest.fixture
def broken(monkeypatch, keygap):
    own = colours("easy-vqa")
    monkeypatch.setattr(
        kg, "benchmark", lambda name, **_: Broken(own.name, own.samples), raising=False
    )
    return keygap


def test_extract_stops_at_more_bad_samples_than_allowed_and_keeps_the_rest(broken, tmp_path):
    out = tmp_path / "run"
    arguments = ("extract", "tiny", "--samples", 24, "--layers", 0, "--out", out)
    assert "3 of 24 samples of easy-vqa are bad, more than 5%" in broken(*arguments)[2]
    assert not out.exists()
    status, said, more = broken(*arguments, "--max-bad", 2)
    assert (status, said) == (2, "")
    (line,) = [line for line in more.splitlines() if line.startswith("keygap: ")]
    assert line.startswith(
        "keygap: 3 of 24 samples of easy-vqa are bad, more than 2; the first is s"
    )
    assert line.endswith(": made broken; what was read is kept: continue with a larger --max-bad")
    kept = sorted(path.name for path in out.rglob("*.parquet"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("part-*.parquet")}
    assert "samples.parquet" in kept
    assert before
    assert broken(*arguments, "--max-bad", 2)[0] == 2  # nothing is left to read, and it still stops
    assert not (out / "manifest.json").exists()
    status, said, _ = broken(*arguments, "--max-bad", 3)
    assert (status, "21 samples, 3 failed" in said) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("part-*.parquet")} == before


def test_answer_stops_at_more_bad_samples_than_allowed_and_keeps_the_rest(broken, tmp_path):
    out = tmp_path / "run"
    arguments = ("answer", "tiny", "--samples", 24, "--batch-size", 4, "--out", out)
    status, said, more = broken(*arguments, "--max-bad", 1)
    assert (status, said) == (2, "")
    assert "2 samples of easy-vqa are bad, more than 1; the first is s" in more
    assert more.strip().endswith(f"were not asked; the answers so far are in {out}")
    answers, accuracy = (pd.read_csv(out / name) for name in ("answers.csv", "accuracy.csv"))
    rows = accuracy.set_index("rule")["total"]
    assert 0 < len(answers) < 21
    assert rows["overall"] == len(answers)
    assert rows["not scored: bad sample"] == 2
    assert rows["not scored: not asked"] == 24 - len(answers) - 2
    status, said, _ = broken(*arguments, "--max-bad", 3)
    assert status == 0
    assert len(pd.read_csv(out / "answers.csv")) == 21
    assert "not scored: 3 (bad sample)" in said


def test_the_next_command_reads_the_same_data():
    same = cli_output.options(benchmark="mmmu", split=None, data="my files", samples=8)
    line = cli_output.quoted("extract", "micro:linear", *same)
    assert line == "keygap extract micro:linear --benchmark mmmu --data 'my files' --samples 8"
