"""Writes docs/models.md from the self-check of every family of the zoo.

``make models`` runs ``python -m tests.models.document record`` in three environments: with the
oldest release of transformers that pyproject.toml admits, the pinned one and the newest. Each adds
a file to docs/models/. ``python -m tests.models.document write`` makes the page of these files.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import transformers
from packaging.version import Version
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from keygap.errors import UserError
from keygap.models.load import wrap
from keygap.selfcheck.batches import BATCHES
from keygap.selfcheck.check import check
from keygap.selfcheck.extraction import sites_of
from keygap.selfcheck.finding import ALONE

from .entry import Entry
from .zoo import ZOO
from .zoo_refused import REFUSED, UNSETTLED

VIDEO = "frames of a video"
LEFT = "padded on the left"
APART = (VIDEO, LEFT, BATCHES)  # in columns of their own, or of no interest here
DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
RECORDS = DOCUMENT.with_suffix("")
NAMES = (
    "architecture",
    "image and text meet in",
    "connector",
    "image layout",
    "chat",
    "videos",
    "batches",
    "sites",
    "result",
)
HEAD = """# Models

keygap reads any model that transformers registers for image-text-to-text, unmodified and with no
code of its own per model. This table shows what `keygap check` finds on tiny models with random
weights. They are built from transformers' own configuration classes and fed by the real processor
of each family (transformers {version}; `make models` writes this page).

- *image and text meet in* says where attention sees both.
  - `sequence`: image features are among the tokens of the prompt.
  - `early fusion`: images are discrete tokens of the prompt.
  - `encoder`: both are in the encoder of an encoder-decoder, and the encoder is read.
  - `cross-attention`: image features are the keys of separate layers. No layer has both image keys
    and text keys, so the two are not compared.
- *connector*: the modules of the tiny model between its vision features and its text layers.
- *image layout*: how the processor cuts an image. The row and column of a position are read from a
  chart that goes through the family's own processor, or from the grid that the processor returns.
  Where neither gives them (learned queries, views in several inputs), positions have no row and
  column. If a model puts learned row ends among patches whose grid is unknown, the sample is
  refused (unlimited_ocr, once an image is cut into tiles).
- *chat*: `template` if prompts go through the chat template of the family's processor, `plain` for
  families that were not tuned to chat.
- *videos*: whether the self-check passes on a video. A dash means that the processor takes no
  video, or that the tiny model was not given one.
- *batches*: `together` if a sample gives the vectors in a batch that it gives alone, in batches of
  one and several images of different sizes and of short and long texts. In the other families
  samples change each other, and keygap reads them one by one: {alone}.
- *sites*: what can be read. Layers without attention (linear attention, convolution, state space)
  are named and not read.
- *result* is that of transformers {version}. The last columns tell whether it was the same with the
  oldest release that keygap admits and with the newest one at the time of writing, or what it was.
  A dash: that release does not have the family, or cannot
  run it.

"""


def row(entry: Entry) -> tuple[str, ...]:
    """One line of the table."""
    nothing = (entry.family, "", "", entry.layout, "", "", "", "")
    try:
        vlm = wrap(*entry.build(), name=entry.family)
        findings = check(vlm)
    except pytest.skip.Exception:
        return *nothing, "-"
    except UserError as error:
        reason = str(error).removeprefix(f"{entry.family}: ")
        return *nothing, f"refused: {reason}"
    except Exception as error:  # an entry is written for the pinned release
        return *nothing, f"the tiny model cannot be made: {type(error).__name__}: {error}"
    wrong = [finding for finding in findings if finding.passed is False]
    films = [finding for finding in findings if finding.check == VIDEO]
    unsaid = [f for f in findings if f.passed is None and f.check not in APART]
    result = "passes" + "".join(f" ({finding.result}: {finding.check})" for finding in unsaid)
    (batched,) = (finding for finding in findings if finding.check == BATCHES)
    if wrong:
        result = "fails: " + "; ".join(f"{each.check}: {each.detail}" for each in wrong)
    kinds = Counter(layer.kind for layer in vlm.layers if layer.attends == "none")
    others = "".join(f"; not in {kind}" for kind in kinds)
    if windows := [layer.index for layer in vlm.layers if layer.window]:
        others += f"; sliding window at layers {', '.join(map(str, windows))}"
    connector = " > ".join(vlm.connector.modules) if vlm.connector else "none"
    return (
        entry.family,
        vlm.fusion,
        connector,
        entry.layout,
        "template" if entry.template else "plain",
        "passes" if any(film.passed for film in films) else "-",
        ALONE if batched.result == ALONE else "together",
        ", ".join(sites_of(vlm)) + others,
        result,
    )


def record() -> None:
    """Check every family, and write the results for the installed transformers."""
    rows = sorted(row(entry) for entry in (*ZOO, *REFUSED))
    rows += [(name, *[""] * (len(NAMES) - 2), why) for name, why in UNSETTLED.items()]
    registered = len(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    RECORDS.mkdir(exist_ok=True)
    found = {"transformers": transformers.__version__, "registered": registered, "rows": rows}
    path = RECORDS / f"transformers-{transformers.__version__}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(path)


def write() -> None:
    """Write the page: the installed release in full, and how each other one differs."""
    records = [json.loads(path.read_text()) for path in RECORDS.glob("*.json")]
    records.sort(key=lambda each: Version(each["transformers"]))
    (main,) = (each for each in records if each["transformers"] == transformers.__version__)
    others = [each for each in records if each is not main]
    results = [{line[0]: line[-1] for line in each["rows"]} for each in others]
    rows = main["rows"]
    names = [*NAMES, *(each["transformers"] for each in others)]
    passing = [line for line in rows if line[-1].startswith("passes")]
    refused = sum(line[-1].startswith("refused") for line in rows)
    lines = [
        f"Of the {main['registered']} families that transformers registers, {len(rows)} were "
        f"tried. {len(passing)} pass, {sum(line[4] == 'template' for line in passing)} of them "
        f"through a chat template, and {refused} are refused for the reason in their row.\n",
        f"| {' | '.join(names)} |",
        f"|{'---|' * len(names)}",
    ]
    for line in rows:
        compared = [_compared(line[-1], of_release.get(line[0], "-")) for of_release in results]
        cells = (cell.replace("|", "/") for cell in (*line, *compared))
        lines.append(f"| {' | '.join(cells)} |")
    alone = ", ".join(line[0] for line in rows if line[6] == ALONE)
    head = HEAD.format(version=transformers.__version__, alone=alone)
    DOCUMENT.write_text(head + "\n".join(lines) + "\n")
    print(lines[0])


def _compared(result: str, other: str) -> str:
    """The result of another release: "same", or what it says."""
    same = result == other or result.split(":")[0] == other.split(":")[0] == "refused"
    return "same" if same else other


if __name__ == "__main__":
    {"record": record, "write": write}[sys.argv[1]]()
