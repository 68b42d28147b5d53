"""From the vectors of one layer to the comparisons that are measured.

Each contrast has coordinates of its own: its two sides are standardised together, and bandwidths
and principal components are fitted to them. Coordinates that all contrasts share would be fitted to
image and text, and would favour their gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float

from keygap import gap
from keygap.contrasts.confounds import CONFOUNDS
from keygap.contrasts.contrast import Contrast, NotMeasurable, TooFewSamples
from keygap.contrasts.sides import Case, Selector
from keygap.errors import UserError
from keygap.measurement.options import Options
from keygap.measurement.views import JSD_DIM


def cases(
    selector: Selector, contrasts: Sequence[Contrast], note: Callable[[str], None]
) -> Iterator[Case]:
    """Select the sides of every contrast, and of its confounds where it has them.

    Args:
        selector: the vectors of one layer.
        contrasts: what to select.
        note: called with a line for each contrast or confound that these vectors do not have, and
            for samples that a contrast leaves out.

    Raises:
        UserError: a required contrast cannot be measured.
    """
    for contrast in contrasts:
        try:
            case = _case(selector, contrast)
        except (NotMeasurable, UserError) as reason:
            if contrast.required and isinstance(reason, UserError):
                raise
            note(f"no {contrast.name}: {reason}")
            continue
        if case.left_out and contrast.note_left_out:
            note(
                f"{contrast.name}: {case.left_out} samples have one of its sides only and are left "
                "out"
            )
        if case.limited:
            note(_limits_of(case))
        yield case
        if contrast.with_confounds:
            yield from _without_confounds(selector, case, note)


def _case(selector: Selector, contrast: Contrast) -> Case:
    """The sides of a contrast; of several draws, those with the median MMD squared."""
    try:
        if contrast.draws == 1:
            return selector.case(contrast)
        sizes = [_mmd2(selector.case(contrast, n), selector.seed) for n in range(contrast.draws)]
    except TooFewSamples as reason:
        if contrast.required:
            raise UserError(f"too few samples to measure: {reason}; extract more") from reason
        raise
    middle = sorted(range(len(sizes)), key=sizes.__getitem__)[len(sizes) // 2]
    return selector.case(contrast, middle)  # again: the vectors of all draws are large


def _mmd2(case: Case, seed: int) -> float:
    x, y = (side.array.reshape(len(side), -1) for side in (case.a, case.b))
    ids = case.a.sample_ids, case.b.sample_ids
    (found,) = gap.STATISTICS["mmd"].of_heads([gap.Sides(x, y, *ids, n_permutations=0, seed=seed)])
    if isinstance(found, UserError):
        raise found
    assert isinstance(found, gap.MMDResult)
    return found.mmd2


def _without_confounds(
    selector: Selector, case: Case, note: Callable[[str], None]
) -> Iterator[Case]:
    for confound in CONFOUNDS:
        try:
            found = selector.without(confound, case)
        except (NotMeasurable, UserError) as reason:
            note(f"no {case.contrast.name} {confound.name}: {reason}")
            continue
        if found.limited and found.limited != case.limited:
            note(_limits_of(found))
        yield found


def _limits_of(case: Case) -> str:
    """What a large comparison is measured on, in a line."""
    return (
        f"{f'{case.contrast.name} {case.confound}'.strip()} is measured on a random part of its "
        f"tokens, {case.limited}; --tokens-per-sample all (None in Python) uses everything"
    )


def by_head(case: Case, options: Options, n_layers: int) -> Iterator[tuple[str, gap.Sides]]:
    """Iterate over the two sides of a case with all heads together, then of each head alone.

    For a confound, or where there is a single head, only all heads together are compared.

    Args:
        case: the vectors of both sides, (n, heads, head_dim) and (m, heads, head_dim).
        options: of the measurement.
        n_layers: the number of layers of the site; with the heads, it says how many tests Holm
            adjusts together.

    Yields:
        ``all`` or the head's number, and the sides, (n, d) and (m, d).
    """
    heads = case.a.array.shape[1]
    a, b = (_kept(side.array, case.kept) for side in (case.a, case.b))
    whole = gap.Sides(
        a,
        b,
        case.a.sample_ids,
        case.b.sample_ids,
        heads=1 if case.confound else heads,
        dims=(JSD_DIM,) if case.confound else None,
        n_permutations=options.swaps(n_layers),
        n_bootstraps=options.n_bootstraps,
        seed=options.seed,
    )
    yield "all", whole
    if heads > 1 and not case.confound:
        swaps = options.swaps(n_layers * heads)
        for head in range(heads):
            yield str(head), whole.head(head, dims=(JSD_DIM,), n_permutations=swaps)


def _kept(
    array: Float[np.ndarray, "n heads head_dim"], kept: Bool[np.ndarray, "heads head_dim"]
) -> Float[np.ndarray, "n d"]:
    """The dimensions that are compared; without a copy if that is all of them."""
    if kept.all():
        return array.reshape(len(array), -1)
    # a boolean index over two axes leaves the rows scattered in memory
    return np.ascontiguousarray(array[:, kept])
