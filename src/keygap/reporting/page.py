"""``kg.report``: figures, and one HTML file that needs no other file.

The page loads nothing, and the only scripts that it may run are those of the explorer. Every text
from a dataset or a model is escaped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, Template

from keygap.align.causes.tables import CausesTable
from keygap.arguments import folder_of
from keygap.choices.tables import ChoicesTable
from keygap.errors import UserError
from keygap.measurement.verdict import jsd_in_words
from keygap.measurement.views import JSD_DIM
from keygap.progress import step, track
from keygap.reporting import (
    bias,
    causes,
    choices,
    confounds,
    drawing,
    figures,
    findings,
    heads,
    shape,
)
from keygap.reporting.comparison import comparison
from keygap.reporting.drawing import Drawn
from keygap.reporting.explorer import explorer
from keygap.reporting.forest import forest, forest_caption, forest_in_words
from keygap.reporting.headline import headline, verdicts
from keygap.reporting.notes import notes_of
from keygap.reporting.numbers import fixed, least_p, near_zero, p_value
from keygap.reporting.papers import write_for_papers
from keygap.reporting.provenance import provenance
from keygap.reporting.run import Run, contrasts_of, read_run
from keygap.reporting.samples import samples_of
from keygap.reporting.study_folder import default_folder, is_study_of
from keygap.store import write_text
from keygap.store.lock import at_work, refuse_unwritable
from keygap.store.run import REPORT, STUDY


@mpl.rc_context(figures.STYLE)
@figures.missing_glyphs_noted()
def report(*folders: str | Path, out: str | Path | None = None) -> Path:
    """Draw the figures of some runs and write ``report.html``.

    Args:
        folders: run folders that were measured.
        out: where the report goes; by default the run folder, or the parent of several unless that
            is a study with other runs.

    Returns:
        The path of the report. Figures go to ``figures/`` of each run, and of ``out``.

    Raises:
        UserError: no folder is given, one was not measured or is damaged, several are not the runs
            of one folder and ``out`` is not given, or the report cannot be written.
    """
    if not folders:
        raise UserError("a report needs at least one run folder")
    with step("report") as say:
        return _report(folders, out, say)


def _report(
    folders: Sequence[str | Path], out: str | Path | None, say: Callable[[object], None]
) -> Path:
    roots = [Path(folder) for folder in folders]
    out = default_folder(roots) if out is None else folder_of(out, "out")
    say("reading the runs")
    runs = [read_run(folder, verify=True) for folder in folders]
    of_bias = [bias.read(run.root) for run in runs]
    of_causes = [causes.read(run.root) for run in runs]
    of_choices = [choices.read(run.root) for run in runs]
    for run in runs:
        refuse_unwritable(run.root)
    say("figures and page")
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
    of_all = choices.read(out) if _is_of_all(out, runs) else None
    anchors: set[str] = set()
    top = heads.largest(runs)
    first_table = headline(runs)
    text = _template().render(
        title=", ".join(dict.fromkeys(run.model for run in runs)),
        contrasts=definitions(runs),
        between=contrasts_of(runs, "between"),
        jsd_dim=JSD_DIM,
        verdicts=verdicts(runs, [files.answers is not None for files in of_bias]),
        headline=first_table,
        light=drawing.shades(dark=False),
        dark=drawing.shades(dark=True),
        appendix=_appendix(runs, out),
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


def _is_of_all(out: Path, runs: Sequence[Run]) -> bool:
    """Whether the choices in a folder are about these runs: it is no run, and no other study."""
    roots = [run.root for run in runs]
    if out.resolve() in {root.resolve() for root in roots}:
        return False
    return not (out / STUDY).is_file() or is_study_of(out, roots)


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
        "jsd": jsd_in_words,
        "p_value": p_value,
        "near_zero": near_zero,
    }
    return environment.get_template("report.html")


def _overview(
    runs: Sequence[Run], of_causes: Sequence[CausesTable | None], out: Path
) -> list[dict[str, str]]:
    """Figures of all runs together, for each site: what carries the verdict first."""
    drawn: list[Drawn] = []
    for site, measured in _by_site(runs):
        if (plot := forest(measured, site)) is not None:
            drawn.append(
                Drawn(
                    f"ratio-{site}",
                    plot,
                    forest_in_words(measured, site),
                    forest_caption(measured, site),
                )
            )
        if (plot := figures.ladder(measured, site)) is not None:
            words = (
                findings.ladder_in_words(measured, site),
                findings.ladder_caption(measured, site),
            )
            drawn.append(Drawn(f"ladder-{site}", plot, *words))
        if projected := [run for run in measured if not run.projected(site).empty]:
            words = (
                findings.projections_in_words(projected, site),
                findings.projections_caption(projected, site),
            )
            drawn.append(Drawn(f"tsne-{site}", figures.projections(projected, site), *words))
    if len(steered := causes.drawable(of_causes)) > 1:
        drawn.append(causes.drawn(steered))
    return _shown(drawn, out, "all")


def _appendix(runs: Sequence[Run], out: Path) -> dict[str, Any]:
    """Contrasts of a single word: their figures, and their rows in ``gap.csv``."""
    drawn = []
    for site, measured in _by_site(runs):
        if (plot := figures.ladder(measured, site, single=True)) is not None:
            words = (
                findings.ladder_in_words(measured, site, single=True),
                findings.ladder_caption(measured, site, single=True),
            )
            drawn.append(Drawn(f"single-word-{site}", plot, *words))
    rows = []
    for run in runs:
        frame = run.table.main
        own = frame[(frame["head"] == "all") & (frame["rung"] == "single")]
        swaps = least_p(run.table.statistics)
        for row in own.to_dict("records"):
            least = swaps.get((row["site"], row["layer"]))
            rows.append(
                {**row, "run": f"{run.model} on {run.manifest['benchmark']}", "swaps": least}
            )
    return {"figures": _shown(drawn, out, "single"), "rows": rows}


def _by_site(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """The sites that were measured, each with its runs."""
    sites = dict.fromkeys(str(site) for run in runs for site in run.table.frame["site"])
    return [(site, [run for run in runs if site in set(run.table.frame["site"])]) for site in sites]


def _shown(drawn: Sequence[Drawn], root: Path, place: str) -> list[dict[str, str]]:
    """Figures as parts of the page.

    Args:
        drawn: the figures.
        root: the folder of their files.
        place: another for every call, for the names of what is drawn.
    """
    work = track(drawn, len(drawn), f"figures of {root.name or root.resolve().name}")
    return [drawing.shown(one, root, f"{place}-{number}") for number, one in enumerate(work)]


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
    drawn = [one for site in heads.sites_of(run) for one in _figures(run, site, top)]
    return {
        "run": run,
        "figures": _shown(drawn, run.root, place),
        "samples": samples_of(run, files.attention),
        "rows": figures.without_single(whole).to_dict("records"),
        "least_p": least_p(run.table.statistics),
        "csv": base64.b64encode(frame.to_csv(index=False).encode()).decode(),
        "download": re.sub(r"[^\w.-]+", "-", f"{run.model}-{run.manifest['benchmark']}-gap.csv"),
        "confounds": confounds.rows(frame),
        "saturates_at": run.saturates_at(),
        "shape": shape.tables(run),
        "bias": _bias(run, files, f"bias-{place}"),
        "causes": _causes(run, table, f"causes-{place}"),
    }


def _figures(run: Run, site: str, top: float) -> list[Drawn]:
    """The figures of one run and site."""
    drawn = []
    if not heads.by_head(run, site).empty:
        plot, titles = heads.heads(run, site, top), heads.titles(run, site)
        words = heads.in_words(run, site), heads.caption(run, site)
        drawn.append(Drawn(f"heads-{site}", plot, *words, titles))
    words = findings.gap_by_layer_in_words(run, site), findings.gap_by_layer_caption(run, site)
    drawn.append(Drawn(f"gap-by-layer-{site}", figures.gap_by_layer(run, site), *words))
    words = findings.jsd_in_words(run, site), findings.jsd_caption(run, site)
    drawn.append(Drawn(f"jsd-profile-{site}", figures.jsd_profile(run, site), *words))
    contrasts = shape.contrasts_at(run, site)
    for contrast in contrasts:
        name = "shape" if len(contrasts) == 1 else re.sub(r"[^\w-]+", "-", f"shape-{contrast}")
        words = shape.in_words(run, site, contrast), shape.caption(run, site, contrast)
        drawn.append(Drawn(f"{name}-{site}", shape.figure(run, site, contrast), *words))
    return drawn


def _bias(run: Run, files: bias.BiasFiles, place: str) -> dict[str, Any]:
    """What the template shows about text bias; figures are empty if nothing was asked."""
    answers = files.answers
    return {
        "findings": bias.findings(run, files),
        "figures": _shown(bias.drawn(run, files), run.root, place),
        "rows": [] if answers is None else answers.frame.to_dict("records"),
        "columns": bias.COLUMNS,
        "missing": [] if answers is None else answers.missing,
    }


def _causes(run: Run, table: CausesTable | None, place: str) -> dict[str, Any] | None:
    """What the template shows of the experiment on causes; None if it was not run."""
    if table is None:
        return None
    found = causes.section(table)
    drawn = [] if found.drawn is None else [found.drawn]
    return {**vars(found), "figures": _shown(drawn, run.root, place)}


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
    drawn = [
        Drawn(f"{choices.FIGURE}-{curve.measure}", curve.figure, curve.alt, choices.CAPTION)
        for curve in found.curves
    ]
    shown = _shown(drawn, root, f"choices-{place}")
    curves = [{**vars(curve), **one} for curve, one in zip(found.curves, shown, strict=True)]
    return {**vars(found), "curves": curves}
