"""A sample in a padded batch gives the vectors that it gives alone."""

from __future__ import annotations

from keygap.capture.hooks import Capture
from keygap.models.attention_tap import calls_attention_function
from keygap.models.batch import Batch
from keygap.models.vlm import VLM
from keygap.selfcheck.finding import NOISE, Outcome, relative_error
from keygap.selfcheck.samples import check_samples


def batched_equals_single(vlm: VLM, batch: Batch) -> Outcome:
    """Vectors of the padded batch of ``check_samples`` are those of each sample alone."""
    layers = [layer for layer in vlm.layers if layer.attention is not None]
    sites = ["k_proj"] if all("k_proj" in layer.projections for layer in layers) else []
    if all(calls_attention_function(layer.attention) for layer in layers if layer.attention):
        sites.append("key")
    errors = _errors(vlm, batch, [*sites, "hidden"], [layer.index for layer in layers])
    noise, first = NOISE[vlm.dtype], layers[0].index
    keys = {name: error for name, error in errors.items() if name[0] != "hidden"} or errors
    worst = max(keys.values())
    detail = f"{', '.join(sites) or 'hidden'}, worst {worst:.1e}"
    if worst <= noise:
        return True, detail
    if errors["hidden", first] > noise:
        why = "image features of a sample depend on the other samples of its batch"
    elif errors.get(("k_proj", first), 1.0) <= noise < errors.get(("key", first), 0.0):
        why = "the model counts positions of its rotary embedding on through a batch"
    else:
        why = "padding reaches attention"
    return False, f"{why}: read with a batch size of 1; {detail}"


def _errors(
    vlm: VLM, batch: Batch, sites: list[str], layers: list[int]
) -> dict[tuple[str, int], float]:
    """The largest relative error over samples, by site and layer; ``hidden`` at the first only."""
    errors: dict[tuple[str, int], float] = {}
    with Capture(vlm, sites, layers) as capture:
        together = capture(batch)
        for row, sample in enumerate(check_samples()):
            for (site, layer), vectors in capture(vlm.prompter([sample])).items():
                if site == "hidden" and layer != layers[0]:
                    continue
                size = min(vectors.shape[1], len(batch.labels[row]))
                error = relative_error(together[site, layer][row, :size], vectors[0, :size])
                errors[site, layer] = max(errors.get((site, layer), 0.0), error)
    return errors
