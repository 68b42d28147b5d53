"""Extraction and measurement by Ray's workers: the same files, byte for byte."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import keygap as kg
from benchmarks import fixtures
from keygap.benchmarks import Sample
from keygap.engines.distributed import Work, gpus_of
from keygap.engines.plan import Plan
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.store.mirror import SENT, send
from keygap.store.objects import Objects
from keygap.store.run import LOCK
from made import bench_of, files_of, made_sample, without_commits
from models.zoo import BY_FAMILY
from survival import on_other_nodes
from workers.on_ray import ray_here

COUNT = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model on disk."""
    place = tmp_path_factory.mktemp("models") / "tiny"
    model, processor = BY_FAMILY["llava"].build()
    model.save_pretrained(place)
    processor.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def tiny(folder):
    return kg.load(folder, dtype="float32", device="cpu", system="Be brief.")


def pictures() -> list[Sample]:
    """Samples with pictures of noise."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        sample = made_sample(f"s{number:02}", f"is it number {number} of the pictures?")
        made.append(replace(sample, images=(Image.fromarray(pixels),)))
    return made


@pytest.fixture(scope="module")
def bench():
    """One sample has no picture."""
    made = pictures()
    made[5] = replace(made[5], images=())
    return bench_of(made)


@pytest.fixture(scope="module")
def ray():
    with ray_here() as workers:
        yield workers


@pytest.fixture
def asked(tiny, bench, monkeypatch) -> dict[str, Any]:
    """A small extraction of six parts."""
    monkeypatch.setattr("keygap.engines.plan.PART_SAMPLES", 4)
    return {"vlm": tiny, "source": bench, "layers": ["all"], "batch_size": 4, "max_bad": 1}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_files(ray, asked, tmp_path, workers):
    """Under an intervention; the workers' run is stopped, and continued in this process."""
    with kg.mask(asked["vlm"], "image", layers=[0]):
        here = kg.extract(out=tmp_path / "here", **asked)
        with pytest.raises(UserError, match="what was read is kept"):
            kg.extract(
                out=tmp_path / "there", **{**asked, "max_bad": 0}, engine="ray", workers=workers
            )
        kept = len(kg.Store(tmp_path / "there").samples)
        there = kg.extract(out=tmp_path / "there", **asked)
    assert 8 <= kept < COUNT
    files = files_of(here.root)
    assert len([name for name in files if name.startswith("tokens/")]) == 6
    assert here.identity["interventions"]
    assert here.manifest["failures"] == {"s05": "the sample has no image"}
    assert files_of(there.root) == files


@pytest.mark.slow
def test_the_same_gap(ray, asked, tmp_path):
    here, there = (kg.extract(out=tmp_path / name, **asked) for name in ("here", "there"))
    options: dict[str, Any] = {
        "layers": [0, 2],
        "contrasts": ["image_text"],
        "n_permutations": 19,
        "n_bootstraps": 20,
    }
    kg.measure(here, **options).save(here.root)
    kg.measure(there, engine="ray", workers=2, **options).save(there.root)
    files = files_of(here.root)
    assert {"gap.csv", "jsd.csv", "measurement.yaml"} <= files.keys()
    assert files_of(there.root) == files


@pytest.mark.slow
def test_workers_that_would_read_another_model_are_refused(ray, folder, bench, asked, tmp_path):
    tiny = kg.load(folder, dtype="float32", device="cpu")
    with torch.no_grad():
        next(iter(tiny.model.parameters())).mul_(2)  # not what is on disk
    with pytest.raises(UserError, match=r"would extract something else: its weights is '\w+', not"):
        kg.extract(out=tmp_path / "run", engine="ray", workers=1, **{**asked, "vlm": tiny})
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_name_is_refused(bench, tmp_path):
    vlm = wrap(*BY_FAMILY["llava"].build(), name="mine")
    plan = Plan(vlm, bench.choose(None), ("k_proj",), (0,), 4, 4)
    with pytest.raises(UserError, match=r"mine was given to kg.load as an object.*engine local"):
        Work.of(plan, tmp_path, tmp_path / "mark")


@pytest.fixture
def other_nodes(monkeypatch, tmp_path):
    """Workers have a folder at the path of the run, and its lock is that of another run."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / LOCK).write_text("process 1 on another since 2020-01-01")
    monkeypatch.setattr(Work, "of", on_other_nodes(tmp_path / "theirs"))
    yield
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == [LOCK]


@pytest.mark.slow
def test_workers_without_the_folder_send_to_the_copy(ray, asked, other_nodes, tmp_path):
    here = kg.extract(out=tmp_path / "here", **asked)
    address = f"file://{tmp_path}/copy"
    there = kg.extract(out=tmp_path / "there", engine="ray", workers=2, mirror=address, **asked)
    assert files_of(there.root) == files_of(here.root)
    assert without_commits(tmp_path / "copy") == files_of(here.root)


def test_what_workers_sent_is_received_and_committed(
    in_turn, asked, other_nodes, tmp_path, monkeypatch
):
    here = kg.extract(out=tmp_path / "here", **asked)
    run, copy = tmp_path / "there", tmp_path / "copy"
    sent = copy / SENT
    of_a_killed_worker = sent / "0123456789abcdef/tokens/part-00009.parquet"
    of_the_user = sent / "letters/tokens/part-00000.parquet"
    for path in (of_a_killed_worker, of_the_user):
        path.parent.mkdir(parents=True)
        path.write_text("before")
    present: list[list[str]] = []

    def noted(objects: Objects, names: Iterable[str], folder: Path) -> str:
        present.append(list(files_of(sent)))
        return send(objects, names, folder)

    monkeypatch.setattr("keygap.engines.distributed.send", noted)
    asked |= {"out": run, "engine": in_turn, "mirror": f"file://{copy}"}
    kg.extract(**asked)
    assert present == [["letters/tokens/part-00000.parquet"]] * 6
    assert files_of(run) == files_of(here.root)
    assert of_the_user.read_text() == "before"
    shutil.rmtree(of_the_user.parent)
    assert without_commits(copy) == files_of(here.root)
    assert len(list((copy / "commits").iterdir())) == 6
    (run / "tokens/part-00002.parquet").write_bytes(b"damaged")
    kg.extract(**asked)
    assert files_of(run) == files_of(here.root)
    assert without_commits(copy) == files_of(here.root)
    assert not sent.exists()


def test_nothing_is_left_at_the_address_if_nothing_is_committed(
    in_turn, asked, other_nodes, tmp_path
):
    made = pictures()
    asked["source"] = bench_of([*made[:2], *(replace(one, images=()) for one in made[2:])])
    asked |= {"max_bad": None, "engine": in_turn, "mirror": f"file://{tmp_path}/copy"}
    with pytest.raises(UserError, match="of 24 samples of made are bad, more than 5%"):
        kg.extract(out=tmp_path / "run", **asked)
    assert files_of(tmp_path / "copy") == {}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "^a worker wrote .*00002.parquet, which is not there: name an address"),
        (b"other", "00002.parquet was damaged on its way from a worker: repeat"),
    ],
)
def test_a_part_that_did_not_arrive_as_sent_is_refused(
    in_turn, asked, other_nodes, tmp_path, monkeypatch, data, said
):
    here = kg.extract(out=tmp_path / "here", **asked)
    sent = []

    def spoilt(objects: Objects, names: Iterable[str], folder: Path) -> str:
        sent.append(send(objects, names, folder))
        if len(sent) == 3:
            last = tmp_path / "copy" / sent[-1] / list(names)[-1]
            last.unlink() if data is None else last.write_bytes(data)
        return sent[-1]

    asked |= {"out": tmp_path / "run", "engine": in_turn, "mirror": f"file://{tmp_path}/copy"}
    with monkeypatch.context() as spoiling:
        spoiling.setattr("keygap.engines.distributed.send", spoilt)
        with pytest.raises(UserError, match=said):
            kg.extract(**asked)
    assert sorted(path.name for path in (tmp_path / "copy/commits").iterdir()) == [
        "part-00000.json",
        "part-00001.json",
    ]
    kg.extract(**asked)
    assert files_of(tmp_path / "run") == files_of(here.root)


def test_a_folder_that_a_worker_does_not_see_is_refused(asked, other_nodes, tmp_path):
    plan = Plan(asked["vlm"], asked["source"].choose(None), ("k_proj",), (0,), 4, 4)
    with pytest.raises(UserError, match=r"does not see the folder .*theirs: .* --mirror"):
        Work.of(plan, tmp_path, tmp_path / "mark").begin()
    address = f"file://{tmp_path}/of-another-node"
    with pytest.raises(UserError, match=r"^a worker on .*: there is no copy of the run at file://"):
        Work.of(plan, tmp_path, tmp_path / "mark", address).begin()
    assert not (tmp_path / "of-another-node").exists()


def test_an_address_here_does_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Objects.at("file://copy", "mirror").anywhere == f"file://{tmp_path}/copy"
    assert Objects.at("memory://copy", "mirror").anywhere == "memory://copy"


def test_the_work_names_the_model_so_that_any_process_can_load_it(
    tiny, folder, bench, tmp_path, monkeypatch
):
    monkeypatch.chdir(folder.parent)
    near = kg.load("tiny", dtype="float32", device="cpu")
    plan = Plan(near, bench.choose(None), ("k_proj",), (0,), 4, 4)
    work = Work.of(plan, tmp_path, tmp_path / "mark")
    assert work.load["model"] == str(folder)
    assert work.identity["model"] == "tiny"
    on_gpu = replace(near, loaded={**near.loaded, "device": "cuda:3"})
    plan = Plan(on_gpu, bench.choose(None), ("k_proj",), (0,), 4, 4)
    assert Work.of(plan, tmp_path, tmp_path / "mark").load["device"] == "cuda"


@pytest.mark.parametrize(
    ("placed", "seen"),
    [
        ("auto", "auto"),
        ("cpu", "cpu"),
        ("cuda:1", "cuda"),
        (1, "cuda"),
        ({"": 1}, {"": 0}),
        ({"a": "1", "b": "cuda:1", "c": 0}, {"a": 1, "b": 1, "c": 0}),
        ({"a": "cuda:2", "b": "cuda:5", "c": "cpu"}, {"a": 0, "b": 1, "c": "cpu"}),
    ],
)
def test_a_worker_counts_its_gpus_from_0(tiny, bench, tmp_path, placed, seen):
    given = {**tiny.loaded, "device_map": placed}
    given.pop("device", None)
    plan = Plan(replace(tiny, loaded=given), bench.choose(None), ("k_proj",), (0,), 4, 4)
    assert Work.of(plan, tmp_path, tmp_path / "mark").load["device_map"] == seen


def test_a_worker_in_another_folder_finds_the_samples(tiny, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(fixtures.picture())
    (tmp_path / "a.txt").write_text("is it red?")
    (tmp_path / "q.jsonl").write_text('{"image": "a.png", "question": "is it red?"}\n')
    monkeypatch.chdir(tmp_path)
    benches = [kg.benchmark("jsonl:q.jsonl"), kg.benchmark("folder:.")]
    names = [one.data for one in benches]
    sent = pickle.dumps([one.choose(None) for one in benches])
    monkeypatch.chdir("/")
    assert [len(one.sample(0).images) for one in pickle.loads(sent)] == [1, 1]  # noqa: S301
    assert names == [one.data for one in benches]


@pytest.mark.parametrize(
    ("placed", "device", "number"),
    [
        (None, "cpu", 0),
        (None, "cuda:1", 1),
        ({"a": 0, "b": 1, "c": 1, "d": "cpu"}, "cuda:0", 2),
        ({"a": "cpu"}, "cpu", 0),
        ({"a": 0, "b": "cuda:0"}, "cuda:0", 1),
    ],
)
def test_gpus_of_a_model(placed, device, number):
    class Model:
        hf_device_map = placed

    class Placed:
        model = Model()

    Placed.device = torch.device(device)  # type: ignore[attr-defined]
    assert gpus_of(Placed()) == number  # type: ignore[arg-type]
