"""``kg.report``: figures, and one HTML file that needs nothing beside it.

No script and no address of any other file; every text from a dataset or a model is escaped.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from keygap.errors import UserError
from keygap.measurement.views import JSD_DIM
from keygap.reporting import figures, shape, switches
from keygap.reporting.comparison import comparison
from keygap.reporting.run import Run, read_run
from keygap.store import write_text

DPI = 150


@mpl.rc_context(figures.STYLE)
def report(*folders: str | Path, out: str | Path | None = None) -> Path:
    """Draw the figures of some runs and write ``report.html``.

    Args:
        folders: run folders that were measured.
        out: where the report goes; by default the run folder, or the parent of several.

    Returns:
        The path of the report. Figures go to ``figures/`` of each run, and of ``out``.

    Raises:
        UserError: no folder, one that holds no measured run, or a file in the report's place.
    """
    if not folders:
        raise UserError("a report needs at least one run folder")
    runs = [read_run(folder) for folder in folders]
    out = Path(out) if out else runs[0].root if len(runs) == 1 else runs[0].root.parent
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: name a folder for the report")
    room = Environment(
        loader=PackageLoader("keygap.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    room.filters["fixed"] = fixed
    page = room.get_template("report.html")
    sites = list(dict.fromkeys(site for run in runs for site in run.table.frame["site"]))
    overview = []
    for site in sites:
        having = [run for run in runs if site in set(run.table.frame["site"])]
        overview.append(_saved(figures.ladder(having, site), out, f"ladder-{site}"))
        if drawn := [run for run in having if run.has_picture(site)]:
            overview.append(_saved(figures.planes(drawn, site), out, f"tsne-{site}"))
    summary = pd.concat([run.summary() for run in runs], ignore_index=True)
    path = out / "report.html"
    write_text(
        path,
        page.render(
            title=", ".join(dict.fromkeys(run.model for run in runs)),
            contrasts=definitions(runs),
            jsd_dim=JSD_DIM,
            single=figures.SINGLE,
            summary=summary,
            comparison=comparison(runs),
            overview=overview,
            runs=[_section(run) for run in runs],
        ),
    )
    return path


def fixed(value: float | None, digits: int) -> str:
    """A number with so many decimals; nothing where there is none, and no sign on a zero."""
    if value is None or math.isnan(value):
        return ""
    text = f"{value:.{digits}f}"
    return text if float(text) else text.removeprefix("-")


def definitions(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Name, rung and meaning of every contrast that was asked for, as each run recorded it.

    ``where`` names the runs of a meaning if the runs of a report differ in it.
    """
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for run in runs:
        single = run.table.frame.loc[run.table.frame["rung"] == "single", "contrast"]
        for item in run.table.settings["contrasts"]:
            rung = item["rung"]
            if item["name"] in set(single):
                rung = figures.SINGLE if rung == "single" else f"{rung}; in part {figures.SINGLE}"
            meanings = found.setdefault(item["name"], {})
            meanings.setdefault((item["what"], rung), []).append(
                f"{run.model} on {run.manifest['benchmark']}"
            )
    return [
        {"name": name, "what": what, "rung": rung, "where": "; ".join(where)}
        if len(found[name]) > 1
        else {"name": name, "what": what, "rung": rung, "where": ""}
        for name in figures.contrasts_of(runs)
        for (what, rung), where in found[name].items()
    ]


def _section(run: Run) -> dict[str, Any]:
    pictures = []
    for site in run.table.frame["site"].unique():
        pictures += [
            _saved(figures.gap_by_layer(run, site), run.root, f"gap-by-layer-{site}"),
            _saved(figures.jsd_profile(run, site), run.root, f"jsd-profile-{site}"),
        ]
        by_head = run.table.main[run.table.main["head"] != "all"]
        if (by_head[by_head["site"] == site]["contrast"] == "image_text").any():
            pictures.append(_saved(figures.heads(run, site), run.root, f"heads-{site}"))
        if site in set(run.table.shape.frame["site"]):
            pictures.append(_saved(shape.figure(run, site), run.root, f"shape-{site}"))
    whole = run.table.frame[run.table.frame["head"] == "all"]
    main = whole["confound"] == ""
    return {
        "run": run,
        "pictures": pictures,
        "rows": whole[main].to_dict("records"),
        "confounds": switches.rows(run.table.frame),
        "saturates_at": run.saturates_at(),
        "shape": shape.tables(run),
    }


def _saved(figure: Figure, root: Path, name: str) -> dict[str, str]:
    """Write a figure as PNG and SVG; returns its name and the PNG as a data address."""
    folder = root / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    (folder / f"{name}.png").write_bytes(buffer.getvalue())
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"name": name, "data": f"data:image/png;base64,{data}"}
