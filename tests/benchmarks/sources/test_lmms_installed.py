"""Tasks of the installed lmms-eval, on documents in the columns of their publishers.

``make test-lmms`` runs this in an environment of its own, because lmms-eval names many packages. A
task's code loads its dataset by name; a folder of that name here is read in place of the Hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import keygap as kg
from keygap.models.load import wrap
from models.zoo import BY_FAMILY

pytest.importorskip("lmms_eval")
datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.slow
ROWS = 6
RNG = np.random.default_rng(0)
PICTURES = [
    Image.fromarray(RNG.integers(0, 256, (40 + number, 60, 3), dtype=np.uint8))
    for number in range(ROWS)
]
FIGURES = ["circle", "square", "triangle", "star"]


@dataclass(frozen=True)
class Published:
    """A task, and what its publisher's dataset looks like.

    Attributes:
        task: its name in lmms-eval.
        dataset: name of the dataset.
        config: of the dataset, if it has any.
        split: the one that is evaluated.
        columns: those of one row, without its image.
        image: the column of the image.
        answer: what the task takes for the right answer.
    """

    task: str
    dataset: str
    config: str | None
    split: str
    columns: dict[str, Any]
    answer: str
    image: str = "image"

    def rows(self) -> list[dict[str, Any]]:
        """Documents that differ in their question and image."""
        return [
            self.columns
            | {"question": f"{self.columns['question']} ({number})", self.image: PICTURES[number]}
            for number in range(ROWS)
        ]


PUBLISHED = [
    Published(
        "mme", "lmms-lab-encoder/MME", None, "test",
        {"question_id": "a/1.png", "question": "Is there a dog? Please answer yes or no.",
         "answer": "Yes", "category": "existence"},
        "Yes",
    ),
    Published(
        "pope", "lmms-lab-encoder/POPE", None, "test",
        {"id": "0", "question_id": "1", "question": "Is there a snowboard in the image?",
         "answer": "no", "image_source": "COCO_val2014_000000310196", "category": "adversarial"},
        "no",
    ),
    Published(
        "ai2d", "lmms-lab-encoder/ai2d", None, "test",
        {"question": "What does A show?", "options": FIGURES, "answer": "2"},
        "C",
    ),
    Published(
        "mmstar", "Lin-Chen/MMStar", None, "val",
        {"index": 0, "question": "Which figure?\nOptions: A: circle, B: square", "answer": "A",
         "category": "coarse perception", "l2_category": "image scene and topic",
         "meta_info": {"source": "made", "split": "val", "image_path": "0.png"}},
        "A",
    ),
    Published(
        "realworldqa", "lmms-lab-encoder/RealWorldQA", None, "test",
        {"image_path": "0.webp", "question": "How far is the car?\n\nA. near\nB. far\n\n"
         "Please answer directly with only the letter of the correct option and nothing else.",
         "answer": "B"},
        "B",
    ),
    Published(
        "chartqa", "lmms-lab-encoder/ChartQA", None, "test",
        {"type": "human_test", "question": "What is the value of the red bar?", "answer": "14"},
        "14",
    ),
    Published(
        "scienceqa_img", "lmms-lab-encoder/ScienceQA", "ScienceQA-IMG", "test",
        {"question": "Which figure is shown?", "choices": FIGURES, "answer": 1, "hint": "Look.",
         "task": "closed choice", "grade": "grade2", "subject": "natural science",
         "topic": "physics", "category": "Materials", "skill": "Identify", "lecture": "",
         "solution": ""},
        "B",
    ),
    Published(
        "mmmu_val", "lmms-lab-encoder/MMMU", None, "validation",
        {"id": "validation_Art_1", "question": "<image 1> Which figure is shown?",
         "options": str(FIGURES), "explanation": "", "img_type": "['Paintings']", "answer": "D",
         "topic_difficulty": "Easy", "question_type": "multiple-choice", "subfield": "Drawing",
         **{f"image_{number}": None for number in range(2, 8)}},
        "D",
        image="image_1",
    ),
]  # fmt: skip


@pytest.fixture(params=PUBLISHED, ids=lambda published: published.task)
def published(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """A folder named like the dataset, in the folder that the process works in."""
    found: Published = request.param
    name = f"data/{found.split}-00000-of-00001.parquet"
    place = tmp_path / found.dataset
    (place / "data").mkdir(parents=True)
    datasets.Dataset.from_list(found.rows()).to_parquet(place / name)
    (place / "README.md").write_text(
        f"---\nconfigs:\n- config_name: {found.config or 'default'}\n  data_files:\n"
        f"  - split: {found.split}\n    path: {name}\n---\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return found


def test_a_task_is_read_by_its_own_code(published: Published):
    bench = kg.benchmark(f"lmms:{published.task}")
    assert len(bench.index()) == ROWS
    for number in range(ROWS):
        sample = bench.sample(number)
        assert f"({number})" in sample.question
        assert sample.answer == published.answer
        (image,) = sample.images
        np.testing.assert_array_equal(
            np.asarray(image.convert("RGB")), np.asarray(PICTURES[number])
        )
        assert [piece.kind for piece in sample.prompt].count("image") == 1


def test_a_model_answers_and_its_keys_are_read(published: Published, tmp_path: Path):
    vlm = wrap(*BY_FAMILY["llava"].build(), name="tiny")
    store = kg.extract(
        vlm, kg.benchmark(f"lmms:{published.task}"), out=tmp_path / "run", layers=[0]
    )
    assert store.samples["failure"].isna().all()
    assert len(store.samples) == ROWS
    assert len(store.vectors("k_proj", 0, modality="image")) > 0
