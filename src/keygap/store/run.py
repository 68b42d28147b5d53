"""Every file name of a run folder and of a study folder.

A run folder holds one extraction and everything computed from it; a study folder holds one run
folder per model and benchmark, and the tables and the report over all of them. Writers and readers
take the names from here, so that the layout on disk is defined once.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# An extraction.
EXTRACTION = "extraction.yaml"  # what was asked, complete: the identity of the run
MANIFEST = "manifest.json"  # what was done; written last, so it marks a finished extraction
SAMPLES = "samples.parquet"
TOKENS = "tokens"
VECTORS = "vectors"
THUMBNAILS = "thumbnails"  # missing if none were kept, and in runs of keygap 0.1
PARTS = "part-*.parquet"  # in tokens, thumbnails and every folder of vectors
CHECKSUMS = "checksums.sha256"  # of every file here and below, except figures and the report
JOURNAL = "journal.jsonl"  # the latest commits of an extraction that is being written
LOCK = ".lock"  # exists while a process writes in the folder

# What is computed from it.
MEASURED = "measured"  # while it is measured, a folder with one file for each layer
MEASUREMENT = "measurement.yaml"
STATISTICS = "statistics.parquet"
GAP = "gap.csv"
JSD = "jsd.csv"
SHAPE = "shape.csv"
DIMENSIONS = "dimensions.csv"
NOTES = "notes.txt"
PROJECTION = "projection.parquet"
ANSWERS = "answers.csv"
ACCURACY = "accuracy.csv"
BIAS = "bias.csv"
BIAS_DIFFERENCES = "bias_differences.csv"
BIAS_SAMPLES = "bias_samples.parquet"
BIAS_SETTINGS = "bias.yaml"
ATTENTION = "attention.parquet"
INDICES = "attention_indices.csv"
LINK = "link.csv"
READING = "reading.csv"
ALIGNMENT = "alignment.csv"
ALIGNMENT_SAMPLES = "alignment_samples.parquet"
CAUSES_SETTINGS = "causes.yaml"
CAUSES_POINTS = "causes"  # a folder with one file for each point
REMEDY = "remedy.csv"
REMEDY_SETTINGS = "remedy.yaml"
REMEDY_MAP = "remedy.safetensors"
REMEDY_POINTS = "remedy"  # a folder with one file for each candidate
CHOICES = "choices.parquet"  # in a study folder too, over all of its runs
CHOICES_STATEMENTS = "choices_statements.csv"
CHOICES_VARIANCE = "choices_variance.csv"
CHOICES_SETTINGS = "choices.yaml"
FIGURES = "figures"
REPORT = "report.html"

# A study.
STUDY = "study.yaml"

# keygap 0.1 gave this name to both extraction.yaml and study.yaml.
FORMER = "experiment.yaml"


def extraction_file(folder: Path) -> Path:
    """The identity of a run: ``extraction.yaml``, or the file that keygap 0.1 wrote instead."""
    return _present(folder, EXTRACTION)


def study_file(folder: Path) -> Path:
    """The definition of a study: ``study.yaml``, or the file that keygap 0.1 wrote instead."""
    return _present(folder, STUDY)


def site_folder(root: Path, site: str) -> Path:
    """The folder of one site's vectors."""
    return root / VECTORS / f"site={site}"


def vectors_folder(root: Path, site: str, layer: int) -> Path:
    """The folder of one site and layer's vectors.

    The names are Hive partitions, so that other parquet readers see site and layer as columns.
    """
    return site_folder(root, site) / f"layer={layer}"


def run_folder_name(model: str, benchmark: str) -> str:
    """The folder of a run in that of its study, without separators or a leading dot.

    Args:
        model: the name of the model, which may be a path.
        benchmark: the name of the benchmark.
    """
    return re.sub(r"[^\w.-]+", "-", f"{model}-{benchmark}").strip("-.")


def part_name(number: int) -> str:
    """The file name of a part (``PARTS``)."""
    return f"part-{number:05d}.parquet"


def part_files(root: Path) -> set[str]:
    """Every file below ``tokens``, ``vectors`` and ``thumbnails``, by its path in the run folder.

    As other parquet readers do, names that begin with a dot or an underscore are passed over.
    """
    found = set()
    for top in (TOKENS, VECTORS, THUMBNAILS):
        for folder, folders, files in os.walk(root / top):
            folders[:] = [name for name in folders if name[0] not in "._"]
            place = Path(folder).relative_to(root).as_posix()
            found |= {f"{place}/{name}" for name in files if name[0] not in "._"}
    return found


def part_number(name: str) -> int | None:
    """The number of the part that a file of this path belongs to; None if it is no part."""
    found = re.fullmatch(r"part-(\d{5,})\.parquet", name.rpartition("/")[2])
    return int(found[1]) if found else None


def place_of(name: str) -> tuple[str, int] | None:
    """The site and layer of a file of vectors; None for any other path in a run folder."""
    found = re.fullmatch(rf"{VECTORS}/site=([^/]+)/layer=(\d+)/[^/]+", name)
    return (found[1], int(found[2])) if found else None


def _present(folder: Path, name: str) -> Path:
    path, former = folder / name, folder / FORMER
    return former if former.is_file() and not path.is_file() else path
