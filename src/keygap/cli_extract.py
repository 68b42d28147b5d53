"""``keygap extract`` and ``keygap answer``: what a model computes on a benchmark's samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keygap import defaults
from keygap.arguments import MOST, folder_of
from keygap.cli_options import (
    LAYERS,
    SITES,
    BatchSize,
    BenchmarkName,
    Data,
    Engine,
    GpusPerWorker,
    Language,
    Out,
    Samples,
    Seed,
    Split,
    Thumbnails,
    Workers,
    batch_size_of,
    listed,
    tokens_of,
)
from keygap.cli_output import Output, options, quoted, with_output
from keygap.errors import UserError
from keygap.model_options import ModelOptions, takes_model

if TYPE_CHECKING:
    from keygap.benchmarks import SampleSet

Captions = Annotated[
    bool, typer.Option("--captions", help="Say in the prompt what the images show.")
]
MaxBad = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MOST,
        help="Stop when more samples than this are bad; keep the rest. By default 5 % of them.",
    ),
]
Layers = Annotated[
    str, typer.Option(help="first, middle, last, all and indices, such as 0,4,last.")
]
Tokens = Annotated[
    Any,
    typer.Option(
        parser=tokens_of,
        metavar="N|all",
        help="Image tokens of a sample to keep. Text tokens are all kept.",
    ),
]
FoundBatchSize = Annotated[
    Any,
    typer.Option(
        parser=batch_size_of,
        metavar="N|auto",
        help="Samples in one forward pass. auto: 8, and up to 32 on a GPU with memory left.",
    ),
]
MirrorAddress = Annotated[
    str | None,
    typer.Option(
        "--mirror",
        metavar="ADDRESS",
        help="Keep a copy at this address, such as s3://bucket/run, to continue elsewhere.",
    ),
]
Sites = Annotated[str, typer.Option(help="k_proj, q_proj, v_proj, key, query, value or hidden.")]


@with_output
@takes_model
def extract(
    model: ModelOptions,
    out: Out,
    say: Output,
    benchmark: BenchmarkName = "easy-vqa",
    split: Split = None,
    data: Data = None,
    language: Language = None,
    layers: Layers = LAYERS,
    sites: Sites = SITES,
    samples: Samples = defaults.SAMPLES,
    batch_size: FoundBatchSize = defaults.AUTO,
    tokens: Tokens = defaults.IMAGE_TOKENS,
    captions: Captions = False,
    thumbnails: Thumbnails = True,
    max_bad: MaxBad = None,
    seed: Seed = 0,
    engine: Engine = defaults.ENGINE,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    mirror: MirrorAddress = None,
) -> None:
    """Read the vectors of a benchmark's samples from a model."""
    import keygap as kg
    from keygap.capture.choice import named_layers, named_sites
    from keygap.store.mirror import refuse_unreachable
    from keygap.workers import workers_of

    workers_of(engine, workers, gpus_per_worker)  # what is wrong with them is said at once
    place = folder_of(out, "--out")
    refuse_unreachable(mirror, "--mirror")
    asked_sites, asked_layers = named_sites(listed(sites)), named_layers(listed(layers))
    chosen = _chosen(benchmark, split, data, language, samples, captions, seed)
    store = kg.extract(
        model.load(),
        chosen,
        place,
        layers=asked_layers,
        sites=asked_sites,
        batch_size=batch_size,
        tokens=tokens,
        thumbnails=thumbnails,
        max_bad=max_bad,
        engine=engine,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        mirror=mirror,
    )
    failed = store.samples[store.samples["failure"].notna()]
    say.result(
        store,
        then=quoted("measure", place),
        facts={
            "folder": place,
            "samples": len(store.samples) - len(failed),
            "failures": dict(zip(failed["sample_id"], failed["failure"], strict=True)),
            "layers": {site: store.layers(site) for site in store.sites},
        },
    )


@with_output
@takes_model
def answer(
    model: ModelOptions,
    out: Out,
    say: Output,
    benchmark: BenchmarkName = "easy-vqa",
    split: Split = None,
    data: Data = None,
    language: Language = None,
    samples: Samples = defaults.SAMPLES,
    batch_size: BatchSize = defaults.BATCH_SIZE,
    captions: Captions = False,
    max_bad: MaxBad = None,
    seed: Seed = 0,
) -> None:
    """Let a model answer a benchmark's questions: answers.csv, accuracy.csv."""
    import keygap as kg
    from keygap.bias.answers import TooManyBad
    from keygap.store.lock import at_work
    from keygap.store.run import MANIFEST
    from keygap.study.one_run import (
        refuse_other,
        refuse_other_extraction,
        refuse_other_prompt,
    )

    place = folder_of(out, "--out")
    chosen = _chosen(benchmark, split, data, language, samples, captions, seed)
    with at_work(place):
        refuse_other(place, model.model, chosen.name)
        refuse_other_extraction(place, chosen)
        loaded = model.load()
        refuse_other_prompt(place, loaded)
        try:
            found = kg.answer(loaded, chosen, batch_size=batch_size, max_bad=max_bad)
        except TooManyBad as stop:
            stop.answers.save(place)
            raise UserError(f"{stop}; the answers so far are in {place}") from stop
        found.save(place)
    same = options(benchmark=benchmark, split=split, data=data, language=language, samples=samples)
    same += [*options(seed=seed or None), *(["--captions"] if captions else [])]
    say.result(
        *([found.what_is_left_out()] if found.left_out else []),
        table=found.summary(),
        then=quoted("measure", place)
        if (place / MANIFEST).is_file()
        else extraction_of(model, same),
        facts={"folder": place, "left_out": found.left_out},
    )


def extraction_of(model: ModelOptions, chosen: Sequence[str]) -> str:
    """The command that extracts with a model, loaded as it was.

    Args:
        model: the options that were given to load it.
        chosen: the options that choose the samples.
    """
    dtype = None if model.dtype == "auto" else model.dtype
    given = {"dtype": dtype, "device-map": model.device_map, "revision": model.revision}
    words = options(**given, system=model.system)
    words += ["--trust-remote-code"] if model.trust_remote_code else []
    for item in model.template_arguments or []:
        words += ["--template-argument", item]
    for item in model.parts or []:
        words += ["--part", item]
    return quoted("extract", model.model, *words, *chosen, "--out", "DIR")


def _chosen(
    name: str,
    split: str | None,
    data: str | None,
    language: str | None,
    samples: int,
    captions: bool,
    seed: int,
) -> SampleSet:
    """The samples that the options name; at least one can be read."""
    import keygap as kg

    bench = kg.benchmark(name, split=split, data=data, language=language)
    chosen = bench.choose(samples, seed)
    chosen = chosen.with_captions() if captions else chosen
    chosen.first_readable()
    return chosen
