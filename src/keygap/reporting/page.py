"""``kg.report``: figures, and one HTML file that needs no other file.

The page loads nothing, and the only scripts that it may run are those of the explorer. Every text
from a dataset or a model is escaped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, Template
from matplotlib.figure import Figure

from keygap.align.causes.tables import CausesTable
from keygap.arguments import folder_of
from keygap.choices.tables import ChoicesTable
from keygap.errors import UserError
from keygap.measurement.verdict import jsd_in_words
from keygap.measurement.views import JSD_DIM
from keygap.reporting import bias, causes, choices, confounds, figures, heads, shape
from keygap.reporting.comparison import comparison
from keygap.reporting.drawing import inline, saved
from keygap.reporting.explorer import explorer
from keygap.reporting.forest import FOREST_CAPTION, forest, forest_in_words
from keygap.reporting.headline import headline, verdicts
from keygap.reporting.notes import notes_of
from keygap.reporting.numbers import at_least, fixed, least_p, near_zero, p_value
from keygap.reporting.papers import write_for_papers
from keygap.reporting.provenance import provenance
from keygap.reporting.run import Run, contrasts_of, read_run
from keygap.reporting.samples import samples_of
from keygap.store import write_text
from keygap.store.lock import at_work, refuse_unwritable
from keygap.store.run import REPORT

LADDER = (
    "MMD squared of every contrast with its 95 % interval over samples, all heads together, one "
    "scale for all panels. A contrast that is hatched has one word on one side and is no reference."
)


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
    with at_work(out):
        return _written(runs, of_bias, of_causes, of_choices, out)


def _written(
    runs: Sequence[Run],
    of_bias: Sequence[bias.BiasFiles],
    of_causes: Sequence[CausesTable | None],
    of_choices: Sequence[ChoicesTable | None],
    out: Path,
) -> Path:
    """Draw the figures and write the page, from the results that each run has."""
    # A report of one run lies in its folder, which is then no study of its own.
    of_all = None if any(out.resolve() == run.root.resolve() for run in runs) else choices.read(out)
    anchors: set[str] = set()
    top = heads.largest(runs)
    first_table = headline(runs)
    text = _template().render(
        title=", ".join(dict.fromkeys(run.model for run in runs)),
        contrasts=definitions(runs),
        between=contrasts_of(runs, "between"),
        jsd_dim=JSD_DIM,
        single=figures.SINGLE,
        verdicts=verdicts(runs, [files.answers is not None for files in of_bias]),
        headline=first_table,
        heads_caption=heads.CAPTION,
        notes=notes_of(runs),
        provenance=provenance(runs, out),
        comparison=comparison(runs),
        overview=_overview(runs, of_causes, out),
        explorer=explorer(runs),
        choices=_choices(of_all, out, anchors, "all"),
        runs=[
            {
                **_section(run, of_bias[number], of_causes[number], top, f"run{number}"),
                "choices": _choices(of_choices[number], run.root, anchors, f"run{number}"),
            }
            for number, run in enumerate(runs)
        ],
    )
    write_for_papers(runs, first_table, out)
    path = out / REPORT
    write_text(path, text)
    return path


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
    environment.filters |= {
        "fixed": fixed,
        "at_least": at_least,
        "jsd": jsd_in_words,
        "p_value": p_value,
        "near_zero": near_zero,
    }
    return environment.get_template("report.html")


def _overview(
    runs: Sequence[Run], of_causes: Sequence[CausesTable | None], out: Path
) -> list[dict[str, str]]:
    """Figures of all runs together, for each site: what carries the verdict first."""
    drawn = []
    for number, site in enumerate(
        dict.fromkeys(site for run in runs for site in run.table.frame["site"])
    ):
        measured = [run for run in runs if site in set(run.table.frame["site"])]
        if (plot := forest(measured, site)) is not None:
            files = saved(plot, out, f"ratio-{site}")
            drawing = inline(files["svg"], forest_in_words(measured, site), f"ratio-{number}-")
            drawn.append({**files, "drawing": drawing, "caption": FOREST_CAPTION})
        drawn.append(
            {**saved(figures.ladder(measured, site), out, f"ladder-{site}"), "caption": LADDER}
        )
        if projected := [run for run in measured if not run.projected(site).empty]:
            drawn.append(saved(figures.projections(projected, site), out, f"tsne-{site}"))
    if len(steered := causes.drawable(of_causes)) > 1:
        figure = saved(causes.dose_response(steered), out, causes.FIGURE)
        drawn.append({**figure, "alt": causes.alternative_text(steered)})
    return drawn


def _section(
    run: Run, files: bias.BiasFiles, table: CausesTable | None, top: float, place: str
) -> dict[str, Any]:
    """What the template shows of one run.

    Args:
        run: the run.
        files: what was measured of its text bias.
        table: the experiment on causes; None if it was not run.
        top: end of the scale of heads, which all runs share.
        place: another for every run, for the names of what is drawn.
    """
    frame = run.table.frame
    whole = frame[(frame["head"] == "all") & (frame["confound"] == "")]
    return {
        "run": run,
        "figures": [
            saved(figure, run.root, f"{name}-{site}")
            for site in frame["site"].unique()
            for name, figure in _figures(run, site).items()
        ],
        "heads": _heads(run, top, place),
        "samples": samples_of(run, files.attention),
        "rows": whole.to_dict("records"),
        "least_p": least_p(run.table.statistics),
        "csv": base64.b64encode(frame.to_csv(index=False).encode()).decode(),
        "download": re.sub(r"[^\w.-]+", "-", f"{run.model}-{run.manifest['benchmark']}-gap.csv"),
        "confounds": confounds.rows(frame),
        "saturates_at": run.saturates_at(),
        "shape": shape.tables(run),
        "bias": _bias(run, files),
        "causes": _causes(run, table),
    }


def _heads(run: Run, top: float, place: str) -> list[str]:
    """The drawings of single heads, for each site where they were measured."""
    drawn = []
    for number, site in enumerate(heads.sites_of(run)):
        if heads.by_head(run, site).empty:
            continue
        files = saved(heads.heads(run, site, top), run.root, f"heads-{site}")
        words, titles = heads.in_words(run, site), heads.titles(run, site)
        drawn.append(inline(files["svg"], words, f"heads-{place}-{number}-", titles))
    return drawn


def _bias(run: Run, files: bias.BiasFiles) -> dict[str, Any]:
    """What the template shows about text bias; figures are empty if nothing was asked."""
    answers = files.answers
    return {
        "figures": [
            saved(figure, run.root, name) for name, figure in bias.drawn(run, files).items()
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
    drawn = [] if found.figure is None else [saved(found.figure, run.root, causes.FIGURE)]
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
        files = saved(curve.figure, root, f"{choices.FIGURE}-{curve.measure}")
        drawing = inline(files["svg"], curve.alt, f"{curve.measure}-{place}-")
        curves.append({**vars(curve), "svg": drawing})
    return {**vars(found), "curves": curves}


def _figures(run: Run, site: str) -> dict[str, Figure]:
    """The figures of one run and site, by name."""
    drawn = {
        "gap-by-layer": figures.gap_by_layer(run, site),
        "jsd-profile": figures.jsd_profile(run, site),
    }
    contrasts = shape.contrasts_at(run, site)
    for contrast in contrasts:
        name = "shape" if len(contrasts) == 1 else re.sub(r"[^\w-]+", "-", f"shape-{contrast}")
        drawn[name] = shape.figure(run, site, contrast)
    return drawn
