"""Extraction ends with the same rows whatever interrupts it, and bad input is one clear line."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import keygap as kg
from benchmarks import fixtures
from keygap.engines import plan as planning
from keygap.engines.part import read_parts
from keygap.errors import UserError
from keygap.store.lock import locked
from made import LAYERS, SAMPLES, as_of_keygap_0_1, bench_of, files_of, made_sample


def truncated_image() -> Image.Image:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue()[: len(buffer.getvalue()) // 2]))


def test_the_store_holds_what_was_asked(store):
    assert store.layers("k_proj") == LAYERS
    assert len(store.samples) == SAMPLES
    assert store.samples["failure"].isna().all()
    vectors = store.vectors(site="k_proj", layer=0)
    assert vectors.array.shape == (store.samples["n_tokens"].sum(), 3, 64)
    assert vectors.array.dtype == np.float32
    images = store.vectors(site="k_proj", layer=0, modality="image")
    assert len(images) == 16 * SAMPLES
    assert set(images.labels["patch_row"]) == set(images.labels["patch_column"]) == {0, 1, 2, 3}
    questions = store.vectors(site="k_proj", layer=0, role="question")
    words = "".join(questions.labels.query("sample_id == @store.samples.sample_id[0]")["token"])
    assert words.replace("Ġ", " ") == store.samples["question"][0]


def test_plain_parquet_readers_see_site_and_layer(store):
    table = pq.read_table(store.root / "vectors")
    assert set(table.column("layer").to_pylist()) == set(LAYERS)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_table(vlm, easy_vqa, store, tmp_path):
    again = kg.extract(vlm, easy_vqa, tmp_path / "again", samples=SAMPLES, batch_size=8)
    options: dict[str, Any] = {"layers": [15], "contrasts": ["image_text", "text_vocabulary"]}
    one, other = (kg.measure(each, n_permutations=9, **options).frame for each in (store, again))
    assert one.equals(other)


def test_bad_samples_are_recorded_and_the_run_goes_on(vlm, tmp_path):
    samples = [made_sample(f"s{n:02}", f"is it number {n}?") for n in range(40)]
    samples[7] = replace(samples[7], images=(truncated_image(),))
    samples[21] = replace(samples[21], prompt=(), question="")
    store = kg.extract(vlm, bench_of(samples), tmp_path / "run", layers=[0], samples=None)
    failures = store.samples.dropna(subset="failure").set_index("sample_id")["failure"]
    assert set(failures.index) == {"s07", "s21"}
    assert "truncated" in failures["s07"]
    assert failures["s21"] == "the sample has no text"
    assert store.manifest["n_samples"] == 38
    assert store.manifest["failures"] == failures.to_dict()
    assert len(store.vectors("k_proj", 0, modality="image")) == 38 * 16


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": ()}, "the sample has no image"),
        ({"prompt": ()}, "the sample has no text"),
        ({"images": (truncated_image(),)}, "truncated"),
    ],
)
def test_too_many_bad_samples_stop_the_run_and_write_nothing(vlm, tmp_path, change, reason):
    samples = [made_sample("good"), replace(made_sample("bad"), **change)]
    with pytest.raises(UserError, match=rf"1 of 2 samples of made are bad.*bad: .*{reason}"):
        kg.extract(vlm, bench_of(samples), tmp_path / "run", layers=[0])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"layers": [30]}, "layer 30 is out of range: micro:linear has 30 layers (0 to 29)"),
        ({"layers": ["frist"]}, "unknown layer 'frist'"),
        ({"layers": []}, "layers is empty"),
        ({"sites": ["keys"]}, "unknown site 'keys'; did you mean 'key'"),
        ({"samples": 0}, "at least 1"),
    ],
)
def test_bad_arguments_are_one_line_and_write_nothing(vlm, easy_vqa, tmp_path, arguments, line):
    with pytest.raises(UserError) as error:
        kg.extract(vlm, easy_vqa, tmp_path / "run", **arguments)
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_another_extraction_is_refused(vlm, easy_vqa, store):
    before = files_of(store.root)
    with pytest.raises(UserError, match=r"holds another extraction: its seed is 0, not 1"):
        kg.extract(vlm, easy_vqa, store.root, samples=SAMPLES, batch_size=8, seed=1)
    assert files_of(store.root) == before


def test_a_run_whose_parts_have_another_size_is_not_continued(vlm, easy_vqa, tmp_path, monkeypatch):
    """Its next part would replace vectors of other samples."""
    asked: dict[str, Any] = {"layers": [0], "samples": 8, "batch_size": 2}
    monkeypatch.setattr(planning, "PART_SAMPLES", 4)
    kg.extract(vlm, easy_vqa, tmp_path / "run", **asked)
    before = files_of(tmp_path / "run")
    monkeypatch.setattr(planning, "PART_SAMPLES", 2)
    with pytest.raises(UserError, match="its part_size is 4, not 2"):
        kg.extract(vlm, easy_vqa, tmp_path / "run", **asked)
    assert files_of(tmp_path / "run") == before


def test_a_folder_with_the_same_benchmark_of_other_files_is_refused(vlm, tmp_path):
    (tmp_path / "a.png").write_bytes(fixtures.picture())
    rows = [{"image": "a.png", "question": f"is it number {n}?"} for n in range(4)]
    same: dict[str, Any] = {"layers": [0], "batch_size": 4}
    made = []
    for name in ("one", "two"):
        path = fixtures.write_bench_tsv(
            tmp_path / f"{name}.tsv", [fixtures.bench_row(n) for n in range(4)]
        )
        made.append(kg.benchmark("mmbench", data=path))
    one, two = made
    kg.extract(vlm, one, tmp_path / "run", **same)
    with pytest.raises(UserError, match=r"its data is '.*one.tsv', not '.*two.tsv'"):
        kg.extract(vlm, two, tmp_path / "run", **same)
    before = files_of(tmp_path / "run")
    kg.extract(vlm, one, tmp_path / "run", **same)
    assert files_of(tmp_path / "run") == before

    own = f"jsonl:{fixtures.write_jsonl(tmp_path / 'own.jsonl', rows)}"
    kg.extract(vlm, kg.benchmark(own, language="en"), tmp_path / "own", **same)
    with pytest.raises(UserError, match="its language is 'en', not 'zh'"):
        kg.extract(vlm, kg.benchmark(own, language="zh"), tmp_path / "own", **same)


def test_a_run_under_an_intervention_and_one_without_do_not_continue_each_other(
    vlm, tmp_path, good_samples
):
    same: dict[str, Any] = {"source": bench_of(good_samples), "layers": [0, 1]}
    plain = kg.extract(vlm, out=tmp_path / "plain", **same)
    with kg.mask(vlm, "image", layers=[0]):
        masked = kg.extract(vlm, out=tmp_path / "masked", **same)
    assert plain.identity["interventions"] == plain.manifest["interventions"] == []
    (stack,) = masked.identity["interventions"]
    assert masked.manifest["interventions"] == [stack]
    assert (stack["name"], stack["layers"], stack["tokens"]) == ("mask", [0], ["image"])
    before = files_of(tmp_path)

    with kg.mask(vlm, "image", layers=[0]):
        with pytest.raises(UserError, match=r"another extraction: its interventions is \[\], not"):
            kg.extract(vlm, out=tmp_path / "plain", **same)
        kg.extract(vlm, out=tmp_path / "masked", **same)  # the same stack continues
    with pytest.raises(UserError, match=r"its interventions is \[{'name': 'mask'.*, not \[\]"):
        kg.extract(vlm, out=tmp_path / "masked", **same)
    with kg.mask(vlm, "image", layers=[0, 1]), pytest.raises(UserError, match="interventions"):
        kg.extract(vlm, out=tmp_path / "masked", **same)
    assert files_of(tmp_path) == before

    first, second = (
        {layer: run.vectors("k_proj", layer).array for layer in (0, 1)} for run in (plain, masked)
    )
    # with an intervention there is one lane, whose passes have more processors and round otherwise
    np.testing.assert_allclose(first[0], second[0], atol=1e-4)
    assert np.abs(first[1] - second[1]).max() > 0.1


def test_a_folder_that_is_being_written_is_refused(vlm, tmp_path, good_samples):
    """This process holds the folder as another run would."""
    with locked(tmp_path / "run"):
        with pytest.raises(UserError, match=rf"is being written by process {os.getpid()} on "):
            kg.extract(vlm, bench_of(good_samples), tmp_path / "run", layers=[0])
        assert list(files_of(tmp_path / "run")) == [".lock"]
    kg.extract(vlm, bench_of(good_samples), tmp_path / "run", layers=[0])


def test_a_run_stopped_by_a_fault_continues_with_the_same_rows(
    vlm, tmp_path, monkeypatch, good_samples
):
    monkeypatch.setattr("keygap.engines.plan.PART_SAMPLES", 2)
    same: dict[str, Any] = {"source": bench_of(good_samples), "layers": [0], "batch_size": 2}
    whole = kg.extract(vlm, out=tmp_path / "whole", **same)
    assert len(list(whole.root.glob("tokens/*"))) == 4
    seen = []

    real = type(vlm).forward

    def forward(self, batch, **keywords):
        seen.append(batch)
        if len(seen) == 4:  # one pass is the self-check's
            raise KeyboardInterrupt
        return real(self, batch, **keywords)

    monkeypatch.setattr(type(vlm), "forward", forward)
    with pytest.raises(KeyboardInterrupt):
        kg.extract(vlm, out=tmp_path / "stopped", **same)
    monkeypatch.undo()
    monkeypatch.setattr("keygap.engines.plan.PART_SAMPLES", 2)
    done = pq.read_table(tmp_path / "stopped/samples.parquet")["sample_id"].to_pylist()
    assert 0 < len(done) < 8
    kg.extract(vlm, out=tmp_path / "stopped", **same)
    assert files_of(tmp_path / "stopped") == files_of(whole.root)


@pytest.mark.parametrize(
    ("name", "batches"),
    [
        ("tokens/part-00002.parquet", 1),
        ("vectors/site=k_proj/layer=0/part-00001.parquet", 1),
        ("manifest.json", 0),
        ("extraction.yaml", 0),
        ("samples.parquet", 4),
        ("checksums.sha256", 4),
    ],
)
def test_only_what_is_damaged_is_extracted_again(
    vlm, tmp_path, monkeypatch, caplog, good_samples, name, batches
):
    monkeypatch.setattr("keygap.engines.plan.PART_SAMPLES", 2)
    same: dict[str, Any] = {"source": bench_of(good_samples), "layers": [0], "batch_size": 2}
    kg.extract(vlm, out=tmp_path, **same)
    before = files_of(tmp_path)
    damaged = bytearray(before[name])
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / name).write_bytes(bytes(damaged))
    with pytest.raises(UserError, match=rf"{name.rpartition('/')[2]} is damaged"):
        kg.Store(tmp_path).verify()
    read = []

    def counted(plan, numbers, *rest):
        read.extend(numbers)
        return read_parts(plan, numbers, *rest)

    monkeypatch.setattr("keygap.engines.local.read_parts", counted)
    with caplog.at_level(logging.WARNING, "keygap"):
        kg.extract(vlm, out=tmp_path, **same)
    assert f"unexpected files: {name}" in caplog.text
    assert len(read) == batches
    assert files_of(tmp_path) == before


def test_a_run_of_keygap_0_1_is_read_and_not_continued(vlm, easy_vqa, store, tmp_path):
    """It does not say which prompts it read, so a continued run could mix two kinds of them."""
    folder = tmp_path / "old"
    shutil.copytree(store.root, folder)
    asked = yaml.safe_load((folder / "extraction.yaml").read_text())
    del asked["interventions"], asked["prompt"]
    as_of_keygap_0_1(folder)
    (folder / "extraction.yaml").unlink()
    (folder / "experiment.yaml").write_text(yaml.safe_dump(asked, sort_keys=False))
    old = kg.Store(folder)
    assert old.identity["model"] == "micro:linear"
    assert len(old.vectors("k_proj", 0).array) == len(store.vectors("k_proj", 0).array)
    before = files_of(folder)
    with pytest.raises(UserError, match="another extraction: its prompt is None"):
        kg.extract(vlm, easy_vqa, folder, samples=SAMPLES, batch_size=8)
    assert files_of(folder) == before


def test_a_run_says_which_prompts_it_read(vlm, easy_vqa, store, tmp_path):
    template = vlm.processor.chat_template
    prompt = store.manifest["prompt"]
    assert prompt["form"] == "chat"
    assert prompt["template_sha256"] == hashlib.sha256(template.encode()).hexdigest()[:16]
    assert vlm.processor.tokenizer.decode(prompt["example"]["ids"]).startswith("<|im_start|>user")
    more = {"example", "refused_forms", "ids_compared_with"}  # facts, which decide nothing
    asked = {name: value for name, value in prompt.items() if name not in more}
    assert store.identity["prompt"] == asked
    assert prompt["ids_compared_with"] == "apply_chat_template"
    told = kg.load("micro:linear", system="You see a picture.")
    with pytest.raises(UserError, match="another extraction: its prompt is"):
        kg.extract(told, easy_vqa, store.root, samples=SAMPLES, batch_size=8)


def test_a_part_of_a_sample_set_is_another_run(vlm, easy_vqa, tmp_path):
    chosen = easy_vqa.choose(6)
    kg.extract(vlm, chosen[:4], tmp_path / "run", layers=[0])
    with pytest.raises(UserError, match="another extraction: its sample_ids is"):
        kg.extract(vlm, chosen, tmp_path / "run", layers=[0])


def test_a_folder_that_holds_something_else_is_refused(vlm, easy_vqa, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and holds no run"):
        kg.extract(vlm, easy_vqa, tmp_path)


def test_a_finished_run_repeated_does_nothing(vlm, easy_vqa, store, monkeypatch):
    """Its manifest says what the vectors were made with, not what the command is repeated with."""
    monkeypatch.setattr("keygap.engines.manifest.version", lambda name: "another")
    before = files_of(store.root)
    kg.extract(vlm, easy_vqa, store.root, samples=SAMPLES, batch_size=8)
    assert files_of(store.root) == before


def test_a_full_disk_is_one_line_and_leaves_whole_files(vlm, easy_vqa, tmp_path):
    """A real file system of 100 kB, where this user may mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(UserError, match=r"the disk of .* is full: free some space"):
            kg.extract(vlm, easy_vqa, small / "run", layers=[0], samples=8)
        for path in (small / "run").rglob("*.parquet"):
            pq.read_table(path)  # whole, or not there
        assert not list((small / "run").rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        store = kg.extract(vlm, easy_vqa, small / "run", layers=[0], samples=8)
        assert len(store.samples) == 8
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.mark.slow
def test_a_run_killed_in_the_middle_ends_with_the_same_rows(vlm, easy_vqa, tmp_path):
    command = [sys.executable, "-m", "keygap.cli", "extract", "micro:linear"]
    options = ["--samples", "192", "--batch-size", "8", "--layers", "first,middle"]
    whole = kg.extract(
        vlm, easy_vqa, tmp_path / "whole", samples=192, batch_size=8, layers=["first", "middle"]
    )
    out = tmp_path / "killed"
    process = subprocess.Popen([*command, *options, "--out", str(out)])
    deadline = time.monotonic() + 300
    while not (out / "samples.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # into the next part
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(pq.read_table(out / "samples.parquet"))
    assert 0 < done < 192, "it was killed too early or too late to show anything"
    subprocess.run([*command, *options, "--out", str(out)], check=True)
    assert files_of(out) == files_of(whole.root)
