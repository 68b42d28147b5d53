"""Default values of the options that the Python API, the command line and experiment files share.

They are kept apart from the functions that use them because the command line and the experiment
schema need them without importing torch.
"""

from __future__ import annotations

from typing import Final, Literal

# Extraction and answers
SAMPLES = 200
LAYERS = ("first", "middle", "last")
SITES = ("k_proj",)
BATCH_SIZE = 8
AUTO: Final = "auto"  # the batch size of extraction: the above, and more on a GPU with memory left
IMAGE_TOKENS = 64  # of each sample, whose vectors are kept

# Where extraction and measurement are done
ENGINE = "local"

# Probes of text bias
PROBES = ("hint", "shuffle", "blank", "absent")
BIAS_SAMPLES = 100

# Measurement and projection
TEXT_ROLES = ("question",)
TOKENS_PER_SAMPLE = 64
N_PERMUTATIONS = 1000
N_BOOTSTRAPS = 1000
PROJECTION_TOKENS = 1000  # of each modality
PERPLEXITY = 30.0

# The experiment on causes
CAUSES_SAMPLES = 120
FIT_SAMPLES = 160
CAUSES_BATCH_SIZE = 40


def first_batch(batch_size: int | Literal["auto"]) -> int:
    """The samples in the first forward pass: those that were asked for, or ``BATCH_SIZE``."""
    return BATCH_SIZE if batch_size == AUTO else batch_size
