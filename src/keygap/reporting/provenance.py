"""Where the numbers of a report come from, and how to get them again.

A study has its own file, which is shown as it is. For other runs the experiment is written from
what they recorded, with what it cannot say (``again.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from keygap import strict_yaml
from keygap.reporting.again import missing_in, plan_of
from keygap.reporting.run import Run
from keygap.reporting.study_folder import is_study_of
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
        out: its folder, which has the study's file if they are the runs of one.

    Returns:
        ``date``, ``version``, ``commit`` (empty if it is not known), ``models`` (one dictionary per
        run: name, revision, weights, benchmark, seed, dtype, device), ``command``, ``yaml``,
        ``missing`` (what the YAML cannot say, in lines), ``estimators`` and ``references``.
    """
    study = out / STUDY
    is_study = is_study_of(out, [run.root for run in runs])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "version": version("keygap"),
        "commit": _commit(),
        "models": [_model(run) for run in runs],
        "command": "keygap run study.yaml --out DIR" if is_study else "keygap run this.yaml",
        "yaml": study.read_text(encoding="utf-8") if is_study else strict_yaml.dump(plan_of(runs)),
        "missing": [] if is_study else missing_in(runs),
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
