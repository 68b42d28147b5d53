"""``keygap align``: search for a remedy on the command line, or fit a map and save it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keygap import defaults
from keygap.arguments import MOST, MOST_RESAMPLINGS, MOST_SEEDS, folder_of
from keygap.errors import UserError
from keygap.model_options import ModelOptions, takes_model
from keygap.text import printable

FILE = ".safetensors"
BY_LAYER = "layer by layer"  # as keygap.align.causes.points.BY_LAYER, which needs more imports


@takes_model
def align(
    model: ModelOptions,
    out: Annotated[
        str, typer.Option(help="Folder for the results of --search; else FILE.safetensors.")
    ],
    search: Annotated[
        bool,
        typer.Option("--search", help="Search for the change that lowers following most."),
    ] = False,
    kinds: Annotated[
        str | None,
        typer.Option("--map", help="Kind of map to fit; with --search, kinds to try."),
    ] = None,
    benchmark: Annotated[str, typer.Option(help="See keygap benchmarks.")] = "easy-vqa",
    split: Annotated[str | None, typer.Option(help="Default: the split usually reported.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Local parquet or TSV files with the publisher's columns.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of your own questions.")] = None,
    subjects: Annotated[
        str | None, typer.Option(help="Subjects of the benchmark. Default: all.")
    ] = None,
    second: Annotated[
        str | None, typer.Option(help="With --search: another benchmark to judge the remedy on.")
    ] = None,
    site: Annotated[
        str, typer.Option(help="k_proj, key, v_proj, value, q_proj, query or hidden.")
    ] = "k_proj",
    layers: Annotated[
        str | None,
        typer.Option(
            help="first, middle, last, all and indices; with --search, sets of layers: all, early, "
            "middle, late and reading. Default: all."
        ),
    ] = None,
    by_layer: Annotated[
        bool,
        typer.Option("--by-layer", help="Fit layer by layer; with --search, try these maps too."),
    ] = False,
    strengths: Annotated[
        str | None, typer.Option(help="With --search: strengths of maps, such as -0.5,0.5.")
    ] = None,
    biases: Annotated[
        str | None, typer.Option(help="With --search: nats added to attention to the image.")
    ] = None,
    most_loss: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="With --search: share of accuracy that may be lost. Default: 0.02."
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=2, max=MOST, help="Samples to fit on; with --search, to choose and to test on each."
        ),
    ] = defaults.SAMPLES,
    fit_samples: Annotated[
        int | None,
        typer.Option(min=2, max=MOST, help="With --search: samples that maps are fitted on."),
    ] = None,
    text_roles: Annotated[
        str, typer.Option(help="Roles that count as text when maps are fitted.")
    ] = ",".join(defaults.TEXT_ROLES),
    batch_size: Annotated[
        int, typer.Option(min=1, max=MOST, help="Samples in one forward pass.")
    ] = defaults.BATCH_SIZE,
    n_bootstraps: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_RESAMPLINGS, help="With --search: resamplings behind an interval."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MOST_SEEDS - 1, help="Seed of every random choice.")
    ] = 0,
) -> None:
    """Search for a change that makes a model follow hints less, or fit a map and save it."""
    import keygap as kg

    common = {
        "seed": seed, "text_roles": _listed(text_roles), "batch_size": batch_size,
    }  # fmt: skip
    searched = {
        "second": second, "strengths": strengths, "biases": biases, "most_loss": most_loss,
        "fit_samples": fit_samples, "n_bootstraps": n_bootstraps,
    }  # fmt: skip
    given = {name: value for name, value in searched.items() if value is not None}
    wanted = None if subjects is None else _listed(subjects)
    if not search:
        _refuse_without_search(kinds, given)
        place = _file_of(out)
        chosen = kg.benchmark(benchmark, split=split, data=data, language=language).choose(
            samples, seed, wanted
        )
        chosen.first_readable()
        _fit(model, str(kinds), chosen, place, site, layers, by_layer, common)
        return
    for name in ("strengths", "biases"):
        if name in given:
            given[name] = _numbers(given[name], f"--{name}")
    if second is not None:
        given["second"] = kg.benchmark(second)
    if layers is not None:
        given["layers"] = _listed(layers)
    if kinds is not None or by_layer:
        given["maps"] = _kinds(kinds, by_layer)
    source = kg.benchmark(benchmark, split=split, data=data, language=language)
    options = {**given, **common, "sites": _listed(site), "samples": samples, "subjects": wanted}
    _search(model, source, folder_of(out, "--out"), options)


def _search(model: ModelOptions, source: Any, out: Path, options: dict[str, Any]) -> None:
    import keygap as kg
    from keygap.align.remedy.searching import checked
    from keygap.store.lock import refuse_unwritable

    checked(source, out, **options)
    refuse_unwritable(out)
    remedy = kg.align.search(model.load(), source, out, **options)
    for line in remedy.summary().splitlines():
        typer.echo(printable(line))
    if remedy.found:
        use = f"with kg.align.load_remedy({str(out)!r}).applied(vlm): vlm.generate(batch)"
        typer.echo(printable(f"use it: {use}"))


def _fit(
    model: ModelOptions,
    kind: str,
    chosen: Any,
    out: Path,
    site: str,
    layers: str | None,
    by_layer: bool,
    common: dict[str, Any],
) -> None:
    import keygap as kg
    from keygap.align.maps import MAPS
    from keygap.capture.choice import named_layers, named_sites
    from keygap.tokens import known_roles

    known_roles(common["text_roles"])
    _ = MAPS[kind]
    (name,) = named_sites([site])
    where = named_layers(_listed(layers or "all"))
    vlm = model.load()
    if by_layer:
        fitted = kg.align.fit_layer_by_layer(vlm, kind, chosen, site=name, layers=where, **common)
    else:
        batch_size = common.pop("batch_size")
        read = kg.align.read_vectors(
            vlm, chosen, sites=[name], layers=where, batch_size=batch_size
        )
        fitted = kg.align.fit(kind, read, site=name, **common)
    fitted.save(out)
    use = f"with kg.align.steer(vlm, kg.align.load_map({str(out)!r})): vlm.generate(batch)"
    typer.echo(printable(f"{fitted}; use it: {use}"))


def _refuse_without_search(kinds: str | None, given: dict[str, Any]) -> None:
    if kinds is None:
        raise UserError("give --search, or --map NAME to fit a map and save it")
    if given:
        option = next(iter(given)).replace("_", "-")
        raise UserError(f"--{option} is about a search: give --search too, or leave it out")


def _file_of(out: str) -> Path:
    """Check the path of a map's file.

    Raises:
        UserError: it has another suffix, is a folder, or is below a file.
    """
    path = Path(out)
    if path.suffix != FILE:
        raise UserError(f"--out {out!r}: name the file of the map, such as mine{FILE}")
    if path.is_dir():
        raise UserError(f"--out {out} is a folder: name a file, such as {path / f'mine{FILE}'}")
    folder_of(path.parent, "--out")
    return path


def _kinds(kinds: str | None, by_layer: bool) -> list[str]:
    """The kinds of map that a search tries; fitted layer by layer too, if that is asked for."""
    from keygap.align.remedy.candidates import KINDS

    found = list(KINDS) if kinds is None else _listed(kinds)
    return [*found, *(f"{kind}, {BY_LAYER}" for kind in found)] if by_layer else found


def _numbers(text: str, option: str) -> list[float]:
    """Read numbers that are divided by commas.

    Raises:
        UserError: one is no number.
    """
    try:
        return [float(item) for item in _listed(text)]
    except ValueError as error:
        raise UserError(f"{option} is {text!r}: write numbers such as -0.5,0.5") from error


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]
