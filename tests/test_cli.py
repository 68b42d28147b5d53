"""The command line: exit status 2 and one line for a mistake that the user can fix."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml

import keygap as kg
from benchmarks import fixtures
from keygap import cli, display, terminal
from keygap.errors import UserError
from keygap.model_options import ModelOptions
from made import files_of


def keygap(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Run the command in this process; its exit status, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["keygap", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr()
    return int(exit_.value.code or 0), said.out, said.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["extract", "micro:liner"], "unknown model 'micro:liner'; did you mean 'micro:linear'"),
        (["extract", "./no/such"], "no model folder at ./no/such"),
        (["extract", "micro:linear", "--benchmark", "easy-vpa"], "did you mean 'easy-vqa'"),
        (["extract", "micro:linear", "--split", "dev"], "unknown split of easy-vqa 'dev'"),
        (["extract", "micro:linear", "--layers", "99"], "micro:linear has 30 layers (0 to 29)"),
        (["extract", "micro:linear", "--layers", "midle"], "unknown layer 'midle'"),
        (["extract", "micro:linear", "--sites", "kproj"], "did you mean 'k_proj'"),
        (["extract", "micro:linear", "--dtype", "int3"], "unknown dtype 'int3'"),
    ],
)
def test_bad_extract_is_one_line(monkeypatch, capsys, tmp_path, arguments, line):
    status, _, said = keygap(monkeypatch, capsys, *arguments, "--out", tmp_path / "run")
    assert status == 2
    assert line in said
    assert said.strip().splitlines()[-1].startswith("keygap: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["measure", "project", "report"])
def test_a_folder_without_a_run_is_one_line(monkeypatch, capsys, tmp_path, command):
    status, _, said = keygap(monkeypatch, capsys, command, tmp_path)
    assert status == 2
    assert f"{tmp_path} holds no run" in said
    assert files_of(tmp_path) == {}


def test_an_unknown_key_of_an_experiment_is_one_line(monkeypatch, capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("nmae: x\nmodels: [{name: micro:linear}]\nbenchmarks: [{name: easy-vqa}]\n")
    status, _, said = keygap(monkeypatch, capsys, "run", path)
    assert status == 2
    assert f"keygap: {path}: unknown key 'nmae'; did you mean 'name'? known: name, models" in said


@pytest.mark.slow
def test_more_than_one_bad_row_in_twenty_stops_the_run(monkeypatch, capsys, tmp_path):
    rows = [fixtures.bench_row(n, "cn") for n in range(19)]
    rows[3]["image"] = "x" * 99
    path = fixtures.write_bench_tsv(tmp_path / "x.tsv", rows)
    options = ("--benchmark", "mmbench-cn", "--data", str(path), "--layers", "0")
    arguments = ("extract", "micro:linear", *options, "--out", str(tmp_path / "run"))
    status, _, said = keygap(monkeypatch, capsys, *arguments)
    assert status == 2
    line = "1 of 19 samples of mmbench-cn are bad, more than 5%; the first is 3: broken base64"
    assert line in said
    assert not (tmp_path / "run").exists()
    fixtures.write_bench_tsv(path, [*rows, fixtures.bench_row(19, "cn")])  # 1 of 20 is 5 %
    assert keygap(monkeypatch, capsys, *arguments, "--no-thumbnails")[0] == 0
    assert not (tmp_path / "run/thumbnails").exists()
    status, _, said = keygap(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "its thumbnails is False, not True" in said


@pytest.mark.parametrize("command", ["measure", "project"])
def test_text_that_is_not_there_is_one_line(monkeypatch, capsys, store, command):
    before = files_of(store.root)
    arguments = (command, store.root, "--text-roles", "hint,option")
    status, _, said = keygap(monkeypatch, capsys, *arguments)
    assert status == 2
    assert "none of role hint, option, only of question, template; choose with --text-roles" in said
    assert files_of(store.root) == before


@pytest.mark.parametrize("command", ["measure", "project"])
def test_a_misspelt_role_is_one_line(monkeypatch, capsys, store, command):
    before = files_of(store.root)
    arguments = (command, store.root, "--text-roles", "question,options")
    status, _, said = keygap(monkeypatch, capsys, *arguments)
    assert status == 2
    assert said.startswith("keygap: unknown role 'options'; did you mean 'option'")
    assert files_of(store.root) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("project", "--tokens", "0"),
        ("project", "--tokens", "-1"),
        ("project", "--seed", "-1"),
        ("measure", "--seed", "-1"),
        ("extract", "--seed", "-1", "--out", "none"),
    ],
)
def test_numbers_out_of_range_are_refused(monkeypatch, capsys, store, arguments):
    command, *options = arguments
    status, _, said = keygap(monkeypatch, capsys, command, store.root, *options)
    assert status == 2
    assert f"Invalid value for '{options[0]}'" in said


@pytest.mark.slow
def test_measuring_again_replaces_the_numbers_and_their_settings(
    monkeypatch, capsys, store, tmp_path
):
    folder = tmp_path / "run"
    shutil.copytree(store.root, folder)
    for roles in ("question", "question,template"):
        asked = ("--text-roles", roles, "--layers", "15", "--contrasts", "image_text,text_sink")
        status, said, _ = keygap(
            monkeypatch, capsys, "measure", folder, *asked, "--n-permutations", "9"
        )
        assert status == 0
        assert "image_text" in said
        saved = yaml.safe_load((folder / "measurement.yaml").read_text())
        assert saved["text_roles"] == roles.split(",")
        assert [item["name"] for item in saved["contrasts"]] == ["image_text", "text_sink"]
        assert saved["n_permutations"] == 9
        assert set(pd.read_csv(folder / "gap.csv")["layer"]) == {15}
    out = tmp_path / "elsewhere"
    status, said, _ = keygap(monkeypatch, capsys, "report", folder, "--out", out)
    assert (status, said.strip()) == (0, str(out / "report.html"))
    assert "text is question, template; at most 64 tokens" in (out / "report.html").read_text()
    (tmp_path / "file").write_text("")
    status, _, said = keygap(monkeypatch, capsys, "report", folder, "--out", tmp_path / "file")
    assert (status, said.strip().endswith("is a file: name a folder")) == (2, True)


def test_the_command_after_answer_reads_the_same_samples_of_the_same_model(
    monkeypatch, capsys, vlm, tmp_path
):
    """With others, accuracy and gap of a report would be of two experiments."""

    def begun(*arguments, **options):
        raise UserError("the extraction begins")

    monkeypatch.setattr(ModelOptions, "load", lambda options: vlm)
    monkeypatch.setattr(kg.benchmarks.SampleSet, "with_captions", lambda chosen: chosen)
    chosen = ("--seed", "3", "--split", "test", "--samples", "2", "--captions")
    loaded = ("--dtype", "float32", "--device-map", "auto", "--revision", "v1", "--system", "Hi.")
    more = ("--template-argument", "a=1", "--part", "vision=model.v", "--trust-remote-code")
    arguments = ("answer", "micro:linear", *chosen, *loaded, *more, "--out", tmp_path / "new")
    status, _, said = keygap(monkeypatch, capsys, *arguments)
    assert status == 0, said
    words = shlex.split(said.strip().splitlines()[-1])
    assert words[:4] == ["next:", "keygap", "extract", "micro:linear"]
    assert words[-2:] == ["--out", "DIR"]  # an extraction begins in a folder of its own
    pairs = (*chosen[:6], *loaded, *more[:4])
    for option, value in zip(pairs[::2], pairs[1::2], strict=True):
        assert words[words.index(option) + 1] == value
    assert {"--captions", "--trust-remote-code"} <= set(words)
    monkeypatch.setattr(kg, "extract", begun)
    assert "the extraction begins" in keygap(monkeypatch, capsys, *words[2:-1], tmp_path / "x")[2]


def test_lists(monkeypatch, capsys):
    assert "easy-vqa" in keygap(monkeypatch, capsys, "benchmarks")[1]
    assert "micro:qformer" in keygap(monkeypatch, capsys, "models")[1]


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_help_needs_no_model_library():
    """torch and transformers are imported only when they are needed."""
    code = "import sys, keygap.cli; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_non_finite_vectors_are_named(vlm, easy_vqa, tmp_path):
    import keygap as kg

    weight = vlm.layers[0].attention.k_proj.weight
    with torch.no_grad():
        kept = weight[0, 0].item()
        weight[0, 0] = torch.nan
    try:
        with pytest.raises(UserError, match=r"the first is test-.*k_proj of layer 0 is not finite"):
            kg.extract(vlm, easy_vqa, tmp_path / "run", layers=[0], samples=8)
    finally:
        with torch.no_grad():
            weight[0, 0] = kept


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("thinking", "--template-argument 'thinking': write NAME=VALUE"),
        ("a=[", "the value of --template-argument a is not valid YAML"),
        ("nonsense=true", "nonsense"),  # the template does not use it
    ],
)
def test_a_bad_template_argument_is_one_line(monkeypatch, capsys, argument, line):
    status, _, said = keygap(
        monkeypatch, capsys, "check", "micro:linear", "--template-argument", argument
    )
    assert status == 2
    assert line in said.strip().splitlines()[-1]


@pytest.mark.slow
def test_check_shows_the_prompt(monkeypatch, capsys):
    status, said, _ = keygap(monkeypatch, capsys, "check", "micro:linear")
    assert status == 0
    assert "prompt: chat, chat template " in said
    assert "an example: '<|im_start|>user" in said


def test_cells_of_a_printed_table():
    shown = [display.shown(value) for value in (float("nan"), float("inf"), 0.12345, "k_proj")]
    assert shown == ["", "no bound", "0.123", "k_proj"]


def test_names_in_a_table_are_no_markup(capsys):
    frame = pd.DataFrame({"[bold]model": ["[red]x[/red]", "a\x1b[31mb\nc"], "value": [0.5, 1.0]})
    terminal.print_table(frame, ["a note\x1b[2J"])
    said = capsys.readouterr().out
    assert "[bold]model" in said
    assert "[red]x[/red]" in said
    assert r"a\x1b[31mb c" in said
    assert r"a note\x1b[2J" in said
