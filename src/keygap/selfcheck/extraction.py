"""What extraction does at its default settings can be done with a model; and which sites it reads.

A model whose attention cannot be tapped, or whose keys come out of a latent, lacks some sites. The
sites that can be read are read, and notes say what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from keygap import defaults
from keygap.benchmarks import BadSample
from keygap.capture.hooks import Capture
from keygap.capture.sites import SITES
from keygap.capture.tables import CapturedBatch, vector_tables
from keygap.models.batch import Batch
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.fingerprint import fingerprint
from keygap.models.vlm import VLM
from keygap.selfcheck.finding import FAIL, PASS, Outcome, refusal
from keygap.selfcheck.samples import check_samples, samples_by_length


def sites_of(vlm: VLM, layers: Sequence[int] | None = None) -> list[str]:
    """The sites that all of some layers have.

    Args:
        vlm: the model.
        layers: absolute indices; by default every layer that attends to keys of its own.
    """
    wanted: Sequence[DecoderLayer] = [
        layer for layer in vlm.layers if layer.attention is not None and layer.shares is None
    ]
    if layers is not None:
        wanted = [vlm.layers[index] for index in layers]
    return [
        name
        for name, site in SITES.items()
        if all(layer.has_site(site.source or name, site.kind) for layer in wanted)
    ]


def sites_to_read(vlm: VLM, sites: Sequence[str], layers: Sequence[int]) -> tuple[list[str], str]:
    """The sites that an extraction reads, and a note if they are not those of the default.

    Where the default sites cannot be read, the keys that attention uses take their place, or the
    residual stream if neither can be.

    Args:
        vlm: the model.
        sites: names of sites that were asked for.
        layers: absolute indices.
    """
    readable = sites_of(vlm, layers)
    if tuple(sites) != defaults.SITES or set(sites) <= set(readable):
        return list(sites), ""
    instead = next(name for name in ("key", "hidden") if name in readable)
    return [instead], (
        f"not every layer that is read has {', '.join(sites)}: the site {instead} is read instead"
    )


def notes_on(vlm: VLM, layers: Sequence[int]) -> list[str]:
    """What is missing from an extraction of some layers, one sentence each."""
    notes = []
    if vlm.shared:
        pairs = ", ".join(f"{layer} (those of {source})" for layer, source in vlm.shared.items())
        notes.append(
            f"layers that attend to the keys and values of an earlier layer are left out: {pairs}"
        )
    own = [layer for index in layers if not (layer := vlm.layers[index]).calls_function]
    if not own:
        return notes
    where = ", ".join(str(layer.index) for layer in own)
    return [
        *notes,
        f"{own[0].kind} (layers {where}) does not call transformers' attention function: the "
        "attention that tokens receive is left blank, so no token counts as an attention sink",
    ]


def default_extraction(vlm: VLM, batch: Batch) -> Outcome:
    """Everything that extraction does at default settings runs, up to the tables on disk."""
    layers = vlm.layer_indices(defaults.LAYERS)
    sites, note = sites_to_read(vlm, defaults.SITES, layers)

    def run() -> None:
        fingerprint(vlm.model)
        vlm.prompter.description()
        with Capture(vlm, sites, layers, attention=True) as capture:
            captured = CapturedBatch.read(capture, check_samples(), batch)
        if captured.failures:
            raise BadSample(next(iter(captured.failures.values())))
        captured.sample_rows()
        captured.token_tables()
        list(vector_tables([captured]))

    if why := refusal(vlm, run):
        return FAIL, why
    notes = [note] if note else []
    return PASS, "; ".join(
        [f"{', '.join(sites)} at layers {layers}", *notes, *notes_on(vlm, layers)]
    )


def texts_of_any_length(vlm: VLM, batch: Batch) -> Outcome:
    """Prompts with texts of 1 to 3,000 characters are made, as samples of a benchmark need."""
    lengths: list[int] = []
    for sample in samples_by_length():
        size = len(sample.question)
        try:
            labels = vlm.prompter([sample]).labels[0]
        except BadSample as reason:
            if lengths and "positions and the model knows" in str(reason):
                break  # too long for the model: a bad sample with its reason
            return FAIL, f"a text of {size} characters: {reason}"
        if not (labels.role == "question").any():
            return FAIL, f"a text of {size} characters does not come through"
        lengths.append(size)
    return PASS, f"{', '.join(map(str, lengths))} characters"
