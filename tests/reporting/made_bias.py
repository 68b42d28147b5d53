"""What a run folder has about text bias, made without a model: probes, attention, links."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pyarrow as pa

from keygap.bias import PROBES
from keygap.bias.table import SAMPLE_COLUMNS, bias_table
from keygap.store import save_results

PROBE = PROBES["hint"](positions=["after"])
OUTCOME = "suggested minus right answer of hint in nats; larger follows the wrong text"
SETTINGS = {"model": "made", "seed": 0, "n_bootstraps": 20}


def answers() -> pd.DataFrame:
    """Eight samples; the hint is followed by half of them, and without the image by all."""
    rows = []
    for condition, number in itertools.product(PROBE.conditions, range(8)):
        wrong = condition.name == "conflict_absent" or (condition.name == "conflict" and number < 4)
        rows.append(
            {
                "probe": "hint",
                "condition": condition.name,
                "variant": condition.variant,
                "sample_id": f"s{number}",
                "subject": "",
                "answer": "red",
                "chosen": "blue" if wrong else "red",
                "correct": not wrong,
                "suggested": None if condition.name == "as_is" else "blue",
                "followed": None if condition.name == "as_is" else wrong,
                "margin": -1.0 if wrong else 1.0,
            }
        )
    return pd.DataFrame(rows, columns=list(SAMPLE_COLUMNS)).astype({"entropy": float})


def attention_rows() -> pd.DataFrame:
    """At head 1 of layer 3 an image token gets four times what a text token gets, else as much."""
    rows = []
    for layer, head, modality, sink in itertools.product(
        range(4), range(2), ("image", "text"), (False, True)
    ):
        strong = (layer, head, modality, sink) == (3, 1, "image", False)
        relative = 1000.0 if sink else 10.0 * (4 if strong else 1)
        rows.append(
            {
                "sample_id": "s0", "layer": layer, "head": head, "queries": "last",
                "modality": modality, "role": "" if modality == "image" else "question",
                "image": 0, "frame": -1, "sink": sink, "first": False, "n_keys": 10.0,
                "mass": 0.1, "relative": relative, "logit": 0.0, "entropy": 0.1,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def save_bias(folder: Path, layers: tuple[int, int]) -> None:
    """Write the files into a run folder; links are at two layers."""
    left_out = {("hint", "agree", "", "<b>odd</b>"): 2}
    bias_table(answers(), left_out, [PROBE], SETTINGS).save(folder)
    table = pa.Table.from_pandas(attention_rows(), preserve_index=False)
    link = pd.DataFrame(
        {
            "layer": list(layers), "head": "all", "link": "separation -> similarity",
            "measure": "spearman", "value": [0.5, 0.1], "ci_low": [0.3, -0.1],
            "ci_high": [0.7, 0.3], "p_value": [0.001, 0.3], "p_holm": [0.002, 0.3],
            "found": [True, False], "detectable": 0.4, "n_samples": 60,
            "outcome": OUTCOME, "text_roles": "question",
        }
    )  # fmt: skip
    files = {"attention.parquet": table, "link.csv": link.to_csv(index=False)}
    save_results(folder, files)
