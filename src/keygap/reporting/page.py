"""``kg.report``: figures, and one HTML file that needs no other file.

The page loads nothing, and the only scripts that it may run are those of the explorer. Every text
from a dataset or a model is escaped.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, PackageLoader, Template
from matplotlib.figure import Figure

from keygap.align.causes.tables import CausesTable
from keygap.arguments import folder_of
from keygap.choices.tables import ChoicesTable
from keygap.errors import UserError
from keygap.measurement.verdict import jsd_in_words
from keygap.measurement.views import JSD_DIM
from keygap.reporting import bias, causes, choices, confounds, figures, shape
from keygap.reporting.comparison import comparison
from keygap.reporting.explorer import explorer
from keygap.reporting.run import Run, contrasts_of, read_run
from keygap.store import write_bytes, write_text
from keygap.store.lock import refuse_unwritable
from keygap.store.run import FIGURES, REPORT

DPI = 150
PRINT_DPI = 300  # of those parts of a drawing that are pixels
# Without the date and the name of a program in it, equal tables give equal files.
_FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": DPI, "metadata": {"Software": None}},
    "svg": {"dpi": PRINT_DPI, "metadata": {"Date": None}},
    "pdf": {"dpi": PRINT_DPI, "metadata": {"CreationDate": None}},
}


@mpl.rc_context(figures.STYLE)
@figures.missing_glyphs_noted()
def report(*folders: str | Path, out: str | Path | None = None) -> Path:
    """Draw the figures of some runs and write ``report.html``.

    Args:
        folders: run folders that were measured.
        out: where the report goes; by default the run folder, or the parent of several.

    Returns:
        The path of the report. Figures go to ``figures/`` of each run, and of ``out``.

    Raises:
        UserError: no folder is given, one was not measured or is damaged, or the report cannot be
            written.
    """
    if not folders:
        raise UserError("a report needs at least one run folder")
    runs = [read_run(folder, verify=True) for folder in folders]
    of_bias = [bias.read(run.root) for run in runs]
    of_causes = [causes.read(run.root) for run in runs]
    of_choices = [choices.read(run.root) for run in runs]
    for run in runs:
        refuse_unwritable(run.root)
    out = (
        folder_of(out, "out")
        if out is not None
        else runs[0].root
        if len(runs) == 1
        else runs[0].root.parent
    )
    # A report of one run lies in its folder, which is then no study of its own.
    of_all = None if any(out.resolve() == run.root.resolve() for run in runs) else choices.read(out)
    anchors: set[str] = set()
    text = _template().render(
        title=", ".join(dict.fromkeys(run.model for run in runs)),
        contrasts=definitions(runs),
        between=contrasts_of(runs, "between"),
        jsd_dim=JSD_DIM,
        single=figures.SINGLE,
        summary=pd.concat([run.summary() for run in runs], ignore_index=True),
        comparison=comparison(runs),
        overview=_overview(runs, of_causes, out),
        explorer=explorer(runs),
        choices=_choices(of_all, out, anchors, "all"),
        runs=[
            {
                **_section(run, of_bias[number], of_causes[number]),
                "choices": _choices(of_choices[number], run.root, anchors, f"run{number}"),
            }
            for number, run in enumerate(runs)
        ],
    )
    path = out / REPORT
    write_text(path, text)
    return path


def fixed(value: float | None, digits: int) -> str:
    """Format a number with a fixed number of decimals.

    A missing number is empty, and a number that rounds to zero has no sign.
    """
    if value is None or math.isnan(value):
        return ""
    text = f"{value:.{digits}f}"
    return text if float(text) else text.removeprefix("-")


def at_least(ratio: float, digits: int) -> str:
    """Format the least that a ratio can be; an infinite one has no bound."""
    return "no bound" if math.isinf(ratio) else fixed(ratio, digits)


def definitions(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Name, rung and meaning of every contrast that was asked for, as the runs recorded them.

    ``where`` lists the runs that share a meaning, if one name has several meanings.
    """
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for run in runs:
        single = set(run.table.frame.loc[run.table.frame["rung"] == "single", "contrast"])
        for item in run.table.settings["contrasts"]:
            rung = item["rung"]
            if item["name"] in single:
                rung = figures.SINGLE if rung == "single" else f"{rung}; in part {figures.SINGLE}"
            meanings = found.setdefault(item["name"], {})
            meanings.setdefault((item["what"], rung), []).append(
                f"{run.model} on {run.manifest['benchmark']}"
            )
    return [
        {
            "name": name,
            "what": what,
            "rung": rung,
            "where": "; ".join(where) if len(found[name]) > 1 else "",
        }
        for name in contrasts_of(runs)
        for (what, rung), where in found[name].items()
    ]


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("keygap.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"fixed": fixed, "at_least": at_least, "jsd": jsd_in_words}
    return environment.get_template("report.html")


def _overview(
    runs: Sequence[Run], of_causes: Sequence[CausesTable | None], out: Path
) -> list[dict[str, str]]:
    """Figures of all runs together, for each site."""
    saved = []
    for site in dict.fromkeys(site for run in runs for site in run.table.frame["site"]):
        measured = [run for run in runs if site in set(run.table.frame["site"])]
        saved.append(_saved(figures.ladder(measured, site), out, f"ladder-{site}"))
        if projected := [run for run in measured if not run.projected(site).empty]:
            saved.append(_saved(figures.projections(projected, site), out, f"tsne-{site}"))
    if len(steered := causes.drawable(of_causes)) > 1:
        figure = _saved(causes.dose_response(steered), out, causes.FIGURE)
        saved.append({**figure, "alt": causes.alternative_text(steered)})
    return saved


def _section(run: Run, files: bias.BiasFiles, table: CausesTable | None) -> dict[str, Any]:
    """What the template shows of one run."""
    frame = run.table.frame
    whole = frame[(frame["head"] == "all") & (frame["confound"] == "")]
    return {
        "run": run,
        "figures": [
            _saved(figure, run.root, f"{name}-{site}")
            for site in frame["site"].unique()
            for name, figure in _figures(run, site).items()
        ],
        "rows": whole.to_dict("records"),
        "confounds": confounds.rows(frame),
        "saturates_at": run.saturates_at(),
        "shape": shape.tables(run),
        "bias": _bias(run, files),
        "causes": _causes(run, table),
    }


def _bias(run: Run, files: bias.BiasFiles) -> dict[str, Any]:
    """What the template shows about text bias; figures are empty if nothing was asked."""
    answers = files.answers
    return {
        "figures": [
            _saved(figure, run.root, name) for name, figure in bias.drawn(run, files).items()
        ],
        "rows": [] if answers is None else answers.frame.to_dict("records"),
        "columns": bias.COLUMNS,
        "notes": [] if answers is None else answers.notes,
    }


def _causes(run: Run, table: CausesTable | None) -> dict[str, Any] | None:
    """What the template shows of the experiment on causes; None if it was not run."""
    if table is None:
        return None
    found = causes.section(run, table)
    drawn = [] if found.figure is None else [_saved(found.figure, run.root, causes.FIGURE)]
    return {**vars(found), "figures": drawn}


def _choices(
    table: ChoicesTable | None, root: Path, anchors: set[str], place: str
) -> dict[str, Any] | None:
    """What the template shows of the choices in a folder; None if they were not computed.

    Args:
        table: of the folder.
        root: the folder.
        anchors: the ids that rows of the page have so far; those of this folder are added.
        place: another for every folder, for the names of what is drawn.
    """
    if table is None:
        return None
    found = choices.section(table, root, anchors)
    curves = []
    for curve in found.curves:
        saved = _saved(curve.figure, root, f"{choices.FIGURE}-{curve.measure}")
        drawing = choices.inline(saved["svg"], curve.alt, f"{curve.measure}-{place}-")
        curves.append({**vars(curve), "svg": drawing})
    return {**vars(found), "curves": curves}


def _figures(run: Run, site: str) -> dict[str, Figure]:
    """The figures of one run and site, by name."""
    drawn = {
        "gap-by-layer": figures.gap_by_layer(run, site),
        "jsd-profile": figures.jsd_profile(run, site),
    }
    if not figures.by_head(run, site).empty:
        drawn["heads"] = figures.heads(run, site)
    contrasts = shape.contrasts_at(run, site)
    for contrast in contrasts:
        name = "shape" if len(contrasts) == 1 else re.sub(r"[^\w-]+", "-", f"shape-{contrast}")
        drawn[name] = shape.figure(run, site, contrast)
    return drawn


def _saved(figure: Figure, root: Path, name: str) -> dict[str, str]:
    """Save a figure as PNG, SVG and PDF; returns its name, the PNG as a data URL, and the SVG."""
    found = {}
    for kind, options in _FORMATS.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, **options)
        found[kind] = buffer.getvalue()
        write_bytes(root / FIGURES / f"{name}.{kind}", found[kind])
    data = base64.b64encode(found["png"]).decode()
    return {"name": name, "data": f"data:image/png;base64,{data}", "svg": found["svg"].decode()}
