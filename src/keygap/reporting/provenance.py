"""Where the numbers of a report come from, and how to get them again.

A study has its own file, which is shown as it is. For single runs the experiment is written from
what the runs recorded, so that `keygap run` makes the same tables again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from keygap import strict_yaml
from keygap.contrasts import CONTRASTS
from keygap.reporting.run import Run
from keygap.store.run import STUDY

REFERENCES = {
    "keygap": """@software{keygap,
  title   = {keygap},
  author  = {{The keygap authors}},
  version = {VERSION},
}""",
    "the study that keygap repeats": """@misc{zheng2025textbias,
  title  = {Unveiling Intrinsic Text Bias in Multimodal Large Language Models through Attention
            Key-Space Analysis},
  author = {Zheng, Xinhan and Wu, Huyu and Wang, Xueting and Jiang, Haiyun},
  year   = {2025},
  eprint = {2510.26721v1},
  archivePrefix = {arXiv},
}""",
    "MMD": """@article{gretton2012kernel,
  title   = {A Kernel Two-Sample Test},
  author  = {Gretton, Arthur and Borgwardt, Karsten M. and Rasch, Malte J. and
             Sch\\"olkopf, Bernhard and Smola, Alexander},
  journal = {Journal of Machine Learning Research},
  volume  = {13},
  pages   = {723--773},
  year    = {2012},
}""",
    "t-SNE": """@article{vandermaaten2008visualizing,
  title   = {Visualizing Data using t-SNE},
  author  = {van der Maaten, Laurens and Hinton, Geoffrey},
  journal = {Journal of Machine Learning Research},
  volume  = {9},
  pages   = {2579--2605},
  year    = {2008},
}""",
    "Holm's adjustment": """@article{holm1979simple,
  title   = {A Simple Sequentially Rejective Multiple Test Procedure},
  author  = {Holm, Sture},
  journal = {Scandinavian Journal of Statistics},
  volume  = {6},
  pages   = {65--70},
  year    = {1979},
}""",
}
ESTIMATORS = (
    "MMD squared is unbiased, with Gaussian kernels of five bandwidths around the median distance "
    "(times 2, sqrt 2, 1, 1/sqrt 2, 1/2); pairs of tokens of one sample are left out and samples "
    "weigh the same. The JSD is a held-out classifier's lower bound. Intervals of MMD and ratios "
    "are jackknife intervals over samples, those of the JSD bootstrap intervals. p-values come "
    "from label swaps of whole samples."
)


def provenance(runs: Sequence[Run], out: Path) -> dict[str, Any]:
    """What the template shows about the origin of a report.

    Args:
        runs: the runs of the report.
        out: its folder, which has the study's file if there is one.

    Returns:
        ``date``, ``version``, ``commit`` (empty if it is not known), ``models`` (one dictionary per
        run: name, revision, weights, benchmark, seed, dtype, device), ``command``, ``yaml``,
        ``missing`` (what the YAML cannot say), ``estimators`` and ``references``.
    """
    study = out / STUDY
    is_study = study.is_file()
    missing = [] if is_study else _own_contrasts(runs)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "version": version("keygap"),
        "commit": _commit(),
        "models": [_model(run) for run in runs],
        "command": "keygap run study.yaml --out DIR" if is_study else "keygap run this.yaml",
        "yaml": study.read_text(encoding="utf-8") if is_study else strict_yaml.dump(_plan(runs)),
        "missing": missing,
        "estimators": ESTIMATORS,
        "references": {
            name: text.replace("VERSION", version("keygap")) for name, text in REFERENCES.items()
        },
    }


def _commit() -> str:
    """The commit that keygap was installed from; empty for a release."""
    text = distribution("keygap").read_text("direct_url.json")
    return str(json.loads(text or "{}").get("vcs_info", {}).get("commit_id", ""))


def _model(run: Run) -> dict[str, Any]:
    names = ("revision", "weights", "benchmark", "split", "seed", "dtype", "device")
    versions = ", ".join(f"{name} {number}" for name, number in run.manifest["versions"].items())
    found = {name: run.manifest.get(name) for name in names}
    return {"model": run.model, **found, "versions": versions}


def _plan(runs: Sequence[Run]) -> dict[str, Any]:
    """An experiment that makes the runs again, as far as they recorded what was asked.

    Runs of one report share their settings.
    """
    first = runs[0].manifest
    asked = runs[0].table.settings
    names = ("samples", "layers", "sites", "batch_size", "tokens")
    extraction = {name: first.get(name) for name in names}
    measurement = {
        name: asked[name]
        for name in ("text_roles", "tokens_per_sample", "n_permutations", "n_bootstraps")
    }
    known = [item["name"] for item in asked["contrasts"] if item["name"] in CONTRASTS]
    return {
        "name": "again",
        "models": _distinct(
            {"name": run.manifest["model"], "dtype": run.manifest.get("dtype"),
             "revision": run.manifest.get("revision")}
            for run in runs
        ),
        "benchmarks": _distinct(
            {name: run.manifest.get(key) for name, key in
             (("name", "benchmark"), ("split", "split"), ("data", "data"),
              ("language", "language"))}
            for run in runs
        ),
        "seed": first.get("seed", 0),
        "extraction": {name: value for name, value in extraction.items() if value is not None},
        "measurement": {**measurement, "contrasts": known},
    }  # fmt: skip


def _distinct(items: Any) -> list[dict[str, Any]]:
    """Dictionaries without repetition, and without what is None."""
    kept: list[dict[str, Any]] = []
    for item in items:
        given = {name: value for name, value in item.items() if value is not None}
        if given not in kept:
            kept.append(given)
    return kept


def _own_contrasts(runs: Sequence[Run]) -> list[str]:
    """Contrasts of the user's own, whose selections a run does not record."""
    return sorted({
        item["name"] for run in runs for item in run.table.settings["contrasts"]
        if item["name"] not in CONTRASTS
    })  # fmt: skip
