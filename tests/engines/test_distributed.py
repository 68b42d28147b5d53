"""Extraction and measurement by Ray's workers: the same files, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import keygap as kg
from keygap.engines.distributed import DistributedEngine, Work, gpus_of
from keygap.engines.manifest import identity_of
from keygap.engines.plan import Plan
from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.store import StoreWriter
from keygap.store.journal import Commit
from keygap.store.lock import locked
from keygap.store.mirror import mirrored, send
from keygap.store.objects import Objects
from keygap.store.run import LOCK
from keygap.workers.here import Here
from made import bench_of, files_of, made_sample
from models.zoo import BY_FAMILY
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


@pytest.fixture(scope="module")
def bench():
    """Pictures of noise; one sample has none."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        sample = made_sample(f"s{number:02}", f"is it number {number} of the pictures?")
        made.append(replace(sample, images=(Image.fromarray(pixels),)))
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
        Work.of(plan, tmp_path)


@pytest.fixture
def on_other_nodes(monkeypatch, tmp_path):
    """Workers have a folder at the path of the run, and its lock is that of another run."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / LOCK).write_text("process 1 on another since 2020-01-01")
    of = Work.of

    def elsewhere(*arguments: Any) -> Work:
        return replace(of(*arguments), root=tmp_path / "theirs")

    monkeypatch.setattr(Work, "of", elsewhere)
    yield
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == [LOCK]


@pytest.mark.slow
def test_workers_without_the_folder_write_to_the_copy(ray, asked, on_other_nodes, tmp_path):
    here = kg.extract(out=tmp_path / "here", **asked)
    address = f"file://{tmp_path}/copy"
    there = kg.extract(out=tmp_path / "there", engine="ray", workers=2, mirror=address, **asked)
    files = files_of(here.root)
    assert files_of(there.root) == files
    copy = files_of(tmp_path / "copy")
    assert len([name for name in copy if name.startswith("commits/")]) == 6
    assert {name: copy[name] for name in files} == files


def driven(asked, root: Path, address: str) -> None:
    """What ``kg.extract`` does, with workers that are this process."""
    plan = Plan(asked["vlm"], asked["source"].choose(None), ("k_proj",), (0, 1), 4, 4)
    identity = identity_of(plan)
    with mirrored(address, root, identity) as copy, StoreWriter(root, identity) as writer:
        assert copy is not None
        for part in DistributedEngine(Here(), copy).run(plan, range(len(plan)), root):
            assert all((root / name).is_file() for name in part.checksums)
            writer.commit(part.number, part.samples, part.checksums)
            copy.push(part.number, Commit(part.samples, part.checksums))
        writer.write_manifest({"model": "tiny"})
        copy.finish()


def test_what_a_worker_sent_is_fetched_and_committed(asked, on_other_nodes, tmp_path):
    driven(asked, tmp_path / "run", f"file://{tmp_path}/copy")
    kg.Store(tmp_path / "run").verify()
    files, copy = files_of(tmp_path / "run"), files_of(tmp_path / "copy")
    assert len([name for name in files if name.startswith("tokens/")]) == 6
    assert {name: copy[name] for name in files} == files


@pytest.mark.parametrize(("data", "state"), [(None, "not there"), (b"other", "another file")])
def test_a_file_that_is_not_what_a_worker_sent_is_refused(
    asked, on_other_nodes, tmp_path, monkeypatch, data, state
):
    def spoilt(objects: Objects, number: int, names: Iterable[str], folder: Path) -> None:
        send(objects, number, names, folder)
        last = tmp_path / "copy" / list(names)[-1]
        if number == 2:
            last.unlink() if data is None else last.write_bytes(data)

    refused = pytest.raises(
        UserError, match=f"00002.parquet was written by a worker and is {state}"
    )
    with monkeypatch.context() as spoiling:
        spoiling.setattr("keygap.engines.distributed.send", spoilt)
        with refused:
            driven(asked, tmp_path / "run", f"file://{tmp_path}/copy")
    asked |= {"layers": [0, 1], "samples": None, "tokens": "all"}
    assert len(kg.extract(out=tmp_path / "run", **asked).samples) == COUNT


def test_a_folder_that_a_worker_does_not_see_is_refused(asked, on_other_nodes, tmp_path):
    plan = Plan(asked["vlm"], asked["source"].choose(None), ("k_proj",), (0,), 4, 4)
    with (
        locked(tmp_path / "run"),
        pytest.raises(UserError, match=r"does not see the folder .*theirs.* or with --mirror an"),
    ):
        Work.of(plan, tmp_path / "run").begin()


def test_the_work_names_the_model_so_that_any_process_can_load_it(
    tiny, folder, bench, tmp_path, monkeypatch
):
    monkeypatch.chdir(folder.parent)
    near = kg.load("tiny", dtype="float32", device="cpu")
    with locked(tmp_path / "run"):
        work = Work.of(Plan(near, bench.choose(None), ("k_proj",), (0,), 4, 4), tmp_path / "run")
    assert work.load["model"] == str(folder)
    assert work.identity["model"] == "tiny"
    on_gpu = replace(near, loaded={**near.loaded, "device": "cuda:3"})
    plan = Plan(on_gpu, bench.choose(None), ("k_proj",), (0,), 4, 4)
    with locked(tmp_path / "run"):
        assert Work.of(plan, tmp_path / "run").load["device"] == "cuda"


@pytest.mark.parametrize(
    ("placed", "device", "number"),
    [
        (None, "cpu", 0),
        (None, "cuda:1", 1),
        ({"a": 0, "b": 1, "c": 1, "d": "cpu"}, "cuda:0", 2),
        ({"a": "cpu"}, "cpu", 0),
    ],
)
def test_gpus_of_a_model(placed, device, number):
    class Model:
        hf_device_map = placed

    class Placed:
        model = Model()

    Placed.device = torch.device(device)  # type: ignore[attr-defined]
    assert gpus_of(Placed()) == number  # type: ignore[arg-type]
