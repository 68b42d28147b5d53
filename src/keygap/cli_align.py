"""``keygap align``: search for a remedy from the command line, or fit a map and save it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keygap import defaults
from keygap.arguments import MOST, MOST_RESAMPLINGS, folder_of
from keygap.cli_options import (
    TEXT,
    BatchSize,
    BenchmarkName,
    Data,
    Language,
    Seed,
    Split,
    TextRoles,
    listed,
    map_names,
    numbers,
)
from keygap.cli_output import Output, options, quoted, with_output
from keygap.errors import UserError
from keygap.model_options import ModelOptions, takes_model

if TYPE_CHECKING:
    from keygap.align.map import Map
    from keygap.align.remedy.result import Remedy
    from keygap.benchmarks import Benchmark, SampleSet

FILE = ".safetensors"
MapOrFolder = Annotated[
    str, typer.Option(help="FILE.safetensors of the map; with --search, a folder.")
]
Search = Annotated[
    bool, typer.Option("--search", help="Search for what makes the model follow hints less.")
]
Kinds = Annotated[
    str | None,
    typer.Option(
        "--map",
        help="Kind of map to fit; with --search, kinds to try.",
        autocompletion=map_names,
    ),
]
Site = Annotated[str, typer.Option(help="k_proj, key, v_proj, value, q_proj, query or hidden.")]
Layers = Annotated[
    str | None,
    typer.Option(
        help="first, middle, last, all and indices; with --search, sets of layers: all, early, "
        "middle, late, reading. Default: all layers; with --search, all five sets."
    ),
]
ByLayer = Annotated[
    bool, typer.Option("--by-layer", help="Fit layer by layer; with --search, try such maps too.")
]
Subjects = Annotated[str | None, typer.Option(help="Subjects of the benchmark. Default: all.")]
Samples = Annotated[
    int,
    typer.Option(
        min=2,
        max=MOST,
        help="Samples that the map is fitted on; with --search, samples to choose a candidate on, "
        "and as many again to test it on.",
    ),
]
FitSamples = Annotated[
    int | None,
    typer.Option(
        min=2, max=MOST, help="With --search: number of further samples that maps are fitted on."
    ),
]
Second = Annotated[
    str | None, typer.Option(help="With --search: another benchmark to judge the result on.")
]
Strengths = Annotated[
    str | None, typer.Option(help="With --search: strengths of the maps, such as -0.5,0.5.")
]
Biases = Annotated[
    str | None, typer.Option(help="With --search: nats on the attention logits of images.")
]
MostLoss = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="With --search: share of accuracy that may be lost. Default: 0.02."
    ),
]
OfSearch = Annotated[
    int | None,
    typer.Option(min=1, max=MOST_RESAMPLINGS, help="With --search: resamplings of an interval."),
]


@with_output
@takes_model
def align(
    model: ModelOptions,
    out: MapOrFolder,
    search: Search = False,
    kinds: Kinds = None,
    site: Site = "k_proj",
    layers: Layers = None,
    by_layer: ByLayer = False,
    benchmark: BenchmarkName = "easy-vqa",
    split: Split = None,
    data: Data = None,
    language: Language = None,
    subjects: Subjects = None,
    samples: Samples = defaults.SAMPLES,
    fit_samples: FitSamples = None,
    second: Second = None,
    strengths: Strengths = None,
    biases: Biases = None,
    most_loss: MostLoss = None,
    n_bootstraps: OfSearch = None,
    text_roles: TextRoles = TEXT,
    batch_size: BatchSize = defaults.CAUSES_BATCH_SIZE,
    seed: Seed = 0,
    *,
    say: Output,
) -> None:
    """Search for what makes a model follow hints less, or fit a map and save it."""
    import keygap as kg
    from keygap.tokens import known_roles

    roles = known_roles(listed(text_roles))
    given: dict[str, Any] = {
        "fit_samples": fit_samples, "second": second, "strengths": strengths, "biases": biases,
        "most_loss": most_loss, "n_bootstraps": n_bootstraps,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    if not search:
        _refuse_without_search(kinds, given)
    place = folder_of(out, "--out") if search else _file_of(out)
    source = kg.benchmark(benchmark, split=split, data=data, language=language)
    wanted = None if subjects is None else listed(subjects)
    chosen = source.choose(samples, seed, wanted)
    chosen.first_readable()
    common = {"seed": seed, "text_roles": roles, "batch_size": batch_size}
    same = options(
        benchmark=benchmark, split=split, data=data, language=language, subjects=subjects, out="DIR"
    )
    if not search:
        fitted = _fit(model, str(kinds), chosen, place, site, layers, by_layer, common)
        _say_map(say, fitted, place, quoted("causes", model.model, "--maps", str(kinds), *same))
        return
    asked = {**_read(given), **common, "samples": samples, "subjects": wanted}
    if layers is not None:
        asked["layers"] = listed(layers)
    if kinds is not None or by_layer:
        asked["maps"] = _kinds(kinds, by_layer)
    remedy = _search(model, source, place, {**asked, "sites": listed(site)})
    _say_remedy(say, remedy, place, quoted("causes", model.model, *same))


def _say_map(say: Output, fitted: Map, place: Path, then: str) -> None:
    """Print what was fitted, and how it is used."""
    use = f"with kg.align.steer(vlm, kg.align.load_map({str(place)!r})): vlm.generate(batch)"
    say.result(f"{fitted}; use: {use}", then=then, facts={"map": place, "sha256": fitted.hash})


def _say_remedy(say: Output, remedy: Remedy, place: Path, then: str) -> None:
    """Print what a search found, and how it is used."""
    use = f"with kg.align.load_remedy({str(place)!r}).applied(vlm): vlm.generate(batch)"
    say.result(
        *remedy.summary().splitlines(),
        *([f"use: {use}"] if remedy.found else []),
        then=then,
        rows=remedy.candidates,
        facts={"found": remedy.found, "folder": place},
    )


def _search(model: ModelOptions, source: Benchmark, out: Path, asked: dict[str, Any]) -> Remedy:
    import keygap as kg
    from keygap.align.remedy.candidates import Candidates
    from keygap.store.lock import at_work

    tried = ("maps", "sites", "layers", "strengths", "biases")
    Candidates(**{name: asked[name] for name in tried if name in asked})
    with at_work(out):
        return kg.align.search(model.load(), source, out, **asked)


def _fit(
    model: ModelOptions,
    kind: str,
    chosen: SampleSet,
    out: Path,
    site: str,
    layers: str | None,
    by_layer: bool,
    common: dict[str, Any],
) -> Map:
    import keygap as kg
    from keygap.align.maps import is_control
    from keygap.capture.choice import named_layers, named_sites
    from keygap.store.files import remove, temporary_files
    from keygap.store.lock import SHORT, locked, refuse_unwritable

    is_control(kind)  # refuses an unknown name before the model is loaded
    sites, where = named_sites([site]), named_layers(listed(layers or "all"))
    refuse_unwritable(out.parent)
    vlm = model.load()
    if by_layer:
        fitted = kg.align.fit_layer_by_layer(vlm, kind, chosen, site=site, layers=where, **common)
    else:
        size = common.pop("batch_size")
        read = kg.align.read_vectors(vlm, chosen, sites=sites, layers=where, batch_size=size)
        fitted = kg.align.fit(kind, read, **common)
    with locked(out.parent, SHORT):
        for left in temporary_files(out.parent, out.name):  # by a process that was killed
            remove(left)
        fitted.save(out)
    return fitted


def _read(given: dict[str, Any]) -> dict[str, Any]:
    """The options of a search, read from their text."""
    import keygap as kg

    read: dict[str, Any] = {
        name: numbers(given[name], f"--{name}") for name in ("strengths", "biases") if name in given
    }
    if "second" in given:
        read["second"] = kg.benchmark(given["second"])
    return given | read


def _refuse_without_search(kinds: str | None, given: dict[str, Any]) -> None:
    if kinds is None:
        raise UserError("give --search, or --map NAME to fit a map and save it")
    if given:
        name = next(iter(given))
        option = f"--{name.replace('_', '-')}"
        raise UserError(f"{option} is about a search: give --search too, or leave {option} out")


def _file_of(out: str) -> Path:
    """Check the path of a map's file.

    Raises:
        UserError: it has another suffix, is a folder, is below a file, or is a file that is no map.
    """
    path = Path(out)
    if path.suffix != FILE:
        raise UserError(f"--out {out!r}: name the file of the map, such as mine{FILE}")
    if path.is_dir():
        raise UserError(f"--out {out} is a folder: name a file, such as {path / f'mine{FILE}'}")
    folder_of(path.parent, "the folder of --out")
    if path.exists() and not _is_map(path):
        raise UserError(f"--out {out} is a file that is no map of keygap: name another file")
    return path


def _is_map(path: Path) -> bool:
    """Whether a file says in its header that it is a map, which a new one may replace."""
    from safetensors import SafetensorError, safe_open

    from keygap.align.map import FORMAT

    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def _kinds(kinds: str | None, by_layer: bool) -> list[str]:
    """The kinds of map that a search tries; fitted layer by layer too, if that is asked for."""
    from keygap.align.causes.points import BY_LAYER
    from keygap.align.remedy.candidates import KINDS

    found = list(KINDS) if kinds is None else listed(kinds)
    return [*found, *(f"{kind}, {BY_LAYER}" for kind in found)] if by_layer else found
