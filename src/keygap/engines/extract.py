"""``kg.extract``: the vectors of a benchmark's samples, from a model onto disk.

An engine extracts the parts of a plan and writes their files. The driver here is the only one that
commits them, in order, so a run that was killed continues at the first missing part and ends with
the same rows. Parts that were damaged since are extracted again. A bad sample is a row with its
reason; too many of them point to another fault and stop the run. A user who named the limit knows
that some samples are bad, so what was read until then is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Literal

from keygap import defaults
from keygap.arguments import folder_of, whole
from keygap.benchmarks import Benchmark, SampleSet
from keygap.benchmarks.sample_set import UNSET, Unset, as_sample_set
from keygap.capture.batches import first_usable
from keygap.capture.choice import named_layers, named_sites
from keygap.engines.distributed import DistributedEngine
from keygap.engines.local import LocalEngine
from keygap.engines.manifest import identity_of, manifest_of
from keygap.engines.plan import Engine, Plan, commits_of, largest_batch, part_size
from keygap.errors import UserError
from keygap.models.vlm import VLM
from keygap.progress import step, track
from keygap.selfcheck.check import checked_facts, checked_in_extraction, notes_of
from keygap.selfcheck.extraction import notes_on, sites_to_read
from keygap.selfcheck.finding import ALONE
from keygap.store import Store, StoreWriter
from keygap.store.journal import Commit
from keygap.store.mirror import Mirror, mirrored, refuse_unreachable
from keygap.store.run import MANIFEST
from keygap.store.writer import failures_of
from keygap.workers import LOCAL, workers_of

logger = logging.getLogger("keygap")

BAD_SHARE = 0.05  # a run with a larger share of bad samples stops


def extract(
    vlm: VLM,
    source: Benchmark | SampleSet,
    out: str | Path,
    *,
    layers: Sequence[str | int] = defaults.LAYERS,
    sites: Sequence[str] = defaults.SITES,
    samples: int | Unset | None = UNSET,
    batch_size: int | Literal["auto"] = defaults.AUTO,
    tokens: int | Literal["all"] = defaults.IMAGE_TOKENS,
    thumbnails: bool = True,
    max_bad: int | None = None,
    seed: int | Unset = UNSET,
    engine: str = defaults.ENGINE,
    workers: int | None = None,
    gpus_per_worker: int | None = None,
    mirror: str | None = None,
) -> Store:
    """Read the vectors of a benchmark's samples at some sites and layers of a model.

    Args:
        vlm: the model.
        source: a benchmark, or the samples already chosen from one.
        out: the run folder. One that holds part of the same extraction is continued.
        layers: ``first``, ``middle``, ``last``, ``all`` and absolute indices, mixed.
        sites: names of ``keygap.capture.sites.SITES``.
        samples: how many, chosen by ``seed`` and stratified by subject; None means all. By default
            200.
        batch_size: samples in one forward pass. ``auto``: 8, and on a GPU up to 32, as long as
            memory is left. It changes vectors by rounding only.
        tokens: most image tokens of a sample whose vectors are kept, drawn at random. Text tokens
            are all kept, and a few image tokens that are attention sinks. ``all``: every token.
        thumbnails: whether to keep a copy of each image of at most 96 pixels, which the report's
            explorer shows. False for images that may not be shown.
        max_bad: how many samples may be bad. If there are more, what was read is kept, and the run
            continues with a larger limit. By default 5 % of the samples; the part that exceeds the
            limit is then not kept.
        seed: of the choice of samples. By default 0.
        engine: where it is done: ``local``, in this process, or ``ray``, in worker processes here
            or on a cluster (see docs/cluster.md). The rows are the same.
        workers: how many processes; by default one for each GPU, or for each node without any.
        gpus_per_worker: of each; by default as many as the model is on here.
        mirror: an address such as ``s3://bucket/run``, where a copy of the run folder follows it,
            part by part. An empty folder is filled from the copy first, and the run continues. Any
            file system of fsspec whose package is installed.

    Returns:
        The store of the finished extraction.

    Raises:
        UserError: an unknown site or layer; a folder that holds another extraction, is being
            written by another process or cannot be written; a full disk; too many bad samples; an
            engine that is not there; or a mirror that keeps failing.
    """
    processes = workers_of(engine, workers, gpus_per_worker)
    names, wanted = named_sites(sites), named_layers(layers)
    size, out = whole(defaults.first_batch(batch_size), "batch_size", 1), folder_of(out, "out")
    refuse_unreachable(mirror, "mirror")
    image_tokens = None if tokens == "all" else whole(tokens, "tokens", 1)
    most = None if max_bad is None else whole(max_bad, "max_bad", 0)
    chosen = as_sample_set(source, samples, seed)
    indices = vlm.layer_indices(wanted)
    names, note = sites_to_read(vlm, names, indices)
    first = first_usable(vlm, chosen)
    plan = Plan(
        vlm,
        chosen,
        tuple(names),
        tuple(indices),
        size,
        part_size(vlm, names, indices, size, image_tokens),
        thumbnails=thumbnails,
        image_tokens=image_tokens,
        largest_batch=largest_batch(vlm, batch_size),
    )
    identity = identity_of(plan)
    with (
        mirrored(mirror, out, identity) as copy,
        StoreWriter(out, identity) as writer,
        processes,
    ):
        if copy is not None:
            copy.follow(commits_of(plan, writer), finished=(out / MANIFEST).is_file())
        with step(f"self-check of {vlm.name}"):
            findings = checked_in_extraction(vlm, first, size)
        notes = [note, *notes_on(vlm, indices), *notes_of(findings)]
        plan = replace(plan, alone=any(finding.result == ALONE for finding in findings))
        for line in filter(None, notes):
            logger.info("%s: %s", vlm.name, line)
        chosen_engine = LocalEngine() if engine == LOCAL else DistributedEngine(processes, copy)
        if _drive(plan, chosen_engine, writer, most, copy) or not writer.is_finished:
            facts = checked_facts(findings, notes)
            writer.write_manifest(manifest_of(plan, identity, writer) | facts)
        if copy is not None:
            copy.finish()
    return Store(out)


def _drive(
    plan: Plan, engine: Engine, writer: StoreWriter, most: int | None, copy: Mirror | None
) -> bool:
    """Extract and commit the parts that are missing; at most ``most`` samples may be bad.

    Returns:
        Whether there were any.
    """
    _refuse_if_bad(writer.failures, plan.samples, most)  # a run that was stopped has them already
    missing = plan.missing(writer.done, writer.damaged)
    what = f"{plan.vlm.name} on {plan.samples.name}"
    with closing(engine.run(plan, missing, writer.root)) as parts:  # its workers end here, too
        for part in track(parts, len(plan), what, done=len(plan) - len(missing)):
            failures = {**writer.failures, **failures_of(part.samples)}
            if most is None:
                _refuse_if_bad(failures, plan.samples, most)
            writer.commit(part.number, part.samples, part.checksums)
            if copy is not None:
                copy.push(part.number, Commit(part.samples, part.checksums))
            _refuse_if_bad(failures, plan.samples, most)
    return bool(missing)


def _refuse_if_bad(failures: dict[str, str], chosen: SampleSet, most: int | None) -> None:
    """Stop a run in which more samples failed than a limit, by default a share of them.

    Raises:
        UserError: more samples failed than the limit allows.
    """
    if len(failures) <= (BAD_SHARE * len(chosen) if most is None else most):
        return
    name, reason = next(iter(failures.items()))
    limit, kept = f"{BAD_SHARE:.0%}", ""
    if most is not None:
        limit, kept = str(most), "; what was read is kept: continue with a larger --max-bad"
    raise UserError(
        f"{len(failures)} of {len(chosen)} samples of {chosen.name} are bad, more than {limit}; "
        f"the first is {name}: {reason}{kept}"
    )
