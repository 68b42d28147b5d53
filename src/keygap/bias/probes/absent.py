"""What does the model answer without any image?

``absent`` drops the image and its marker, so the prompt is text alone. ``marker`` keeps the
placeholder tokens, which the model then embeds as words. Neither is a blank image.
"""

from __future__ import annotations

from keygap.bias.condition import UNCHANGED, Condition, Probe, as_is


def absent() -> Probe:
    """The image dropped, with and without its marker kept."""
    return Probe(
        "absent",
        (
            UNCHANGED,
            Condition("absent", as_is, pictures="absent"),
            Condition("marker", as_is, pictures="marker"),
        ),
    )
