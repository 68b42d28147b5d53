"""``keygap causes``: steer the gap and the attention of a model apart, from the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from keygap import defaults
from keygap.arguments import MOST, folder_of
from keygap.cli_options import (
    BatchSize,
    BenchmarkName,
    Bootstraps,
    Data,
    Language,
    Out,
    Seed,
    Split,
    listed,
    map_names,
    numbers,
)
from keygap.cli_output import Output, options, quoted, with_output
from keygap.model_options import ModelOptions, takes_model

Subjects = Annotated[str | None, typer.Option(help="Subjects of the benchmark. Default: all.")]
Samples = Annotated[int, typer.Option(min=2, max=MOST, help="Samples that are judged.")]
FitSamples = Annotated[
    int, typer.Option(min=2, max=MOST, help="Other samples, that maps are fitted on.")
]
Strengths = Annotated[
    str, typer.Option(help="Of maps: 1 moves image to text, below 0 away from it.")
]
Layers = Annotated[
    str | None, typer.Option(help="Sets of layers: all, early, middle, late, reading.")
]
Sites = Annotated[
    str | None, typer.Option(help="The first one k_proj or key. Default: k_proj,v_proj,hidden.")
]
Maps = Annotated[
    str | None,
    typer.Option(help="See keygap maps; the first is tested.", autocompletion=map_names),
]
Draws = Annotated[int, typer.Option(min=1, max=100, help="Random directions.")]


@with_output
@takes_model
def causes(
    model: ModelOptions,
    out: Out,
    benchmark: BenchmarkName = "easy-vqa",
    split: Split = None,
    data: Data = None,
    language: Language = None,
    subjects: Subjects = None,
    samples: Samples = defaults.CAUSES_SAMPLES,
    fit_samples: FitSamples = defaults.FIT_SAMPLES,
    strengths: Strengths = "-1,-0.5,0.5,1",
    layers: Layers = None,
    sites: Sites = None,
    maps: Maps = None,
    draws: Draws = 5,
    batch_size: BatchSize = defaults.CAUSES_BATCH_SIZE,
    n_bootstraps: Bootstraps = defaults.N_BOOTSTRAPS,
    seed: Seed = 0,
    *,
    say: Output,
) -> None:
    """Change keys and attention separately: does the gap matter, or where attention goes?"""
    import keygap as kg
    from keygap.align.causes.points import Plan
    from keygap.align.causes.tables import pooled
    from keygap.align.causes.verdict import verdict
    from keygap.store.lock import at_work
    from keygap.study.one_run import refuse_other

    place = folder_of(out, "--out")
    tried = _listed(layers=layers, sites=sites, maps=maps)
    plan = Plan(strengths=numbers(strengths, "--strengths"), draws=draws, **tried)
    source = {"split": split, "data": data, "language": language}
    bench = kg.benchmark(benchmark, **source)
    wanted = None if subjects is None else listed(subjects)
    bench.choose(samples, seed, wanted).first_readable()
    with at_work(place):
        refuse_other(place, model.model, bench.name)
        table = kg.causes(
            model.load(),
            bench,
            place,
            plan=plan,
            samples=samples,
            fit_samples=fit_samples,
            subjects=wanted,
            batch_size=batch_size,
            n_bootstraps=n_bootstraps,
            seed=seed,
        )
    asked = {name: table.settings[name] for name in ("model", "n_bootstraps", "seed")}
    found = verdict(table.samples, table.points, **asked)
    same = options(benchmark=benchmark, **source, subjects=subjects, out="DIR")
    say.result(
        *found.sentences,
        table=table.summary(),
        notes=table.settings["notes"],
        rows=pooled(table.frame),
        then=quoted("align", model.model, "--search", *same),
        facts={"mechanism": found.mechanism, "folder": place},
    )


def _listed(**given: str | None) -> dict[str, list[str]]:
    """The lists that were given, read from their text."""
    return {name: listed(text) for name, text in given.items() if text is not None}
