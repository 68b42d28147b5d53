"""PAI, "Paying More Attention to Image" (Liu, Zheng and Chen 2024, arXiv 2407.21771).

Two parts. At some layers the attention logit e of each image key becomes e + alpha |e|, for the
token that is being predicted from. And next-token logits are contrasted with those of the same
prompt without its image: gamma l - (gamma - 1) u.

The authors' code has details that this follows: the logit is the one after the scale, both parts
use the log-probabilities of their pass, tokens below a tenth of the likeliest are left out of the
contrast, and gamma = 1 leaves the logits alone. It differs in one point: the prompt without its
image is what the model's own chat template makes of the text, not the token ids with the image's
cut out. The pass without the image has no image keys, so its attention is not raised either here
or there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from keygap.align.baselines.contrast import contrasted
from keygap.align.baselines.queries import CURRENT, IMAGE, Queries
from keygap.align.baselines.settings import layers_of, number
from keygap.benchmarks import BadSample, Sample
from keygap.bias.scoring import next_logits
from keygap.capture.attention import logits_of
from keygap.errors import UserError
from keygap.models.attention_mask import add_bias
from keygap.models.attention_tap import AttentionCall
from keygap.models.batch import Batch
from keygap.models.decoder_layer import DecoderLayer
from keygap.models.interventions import WHOLE_CALL, Intervention
from keygap.models.positions import Tokens
from keygap.models.vlm import VLM


def pai(
    *,
    layers: Sequence[int],
    alpha: float = 0.2,
    gamma: float = 1.1,
    plausibility: float = 0.1,
    queries: str | Sequence[str] = CURRENT,
) -> PAI:
    """Image keys with their attention logits raised, and a contrast with the prompt without image.

    The defaults are those of the authors' code, which leaves out the first two layers.

    Args:
        layers: absolute indices.
        alpha: how much of its magnitude is added to a logit; 0 leaves every pass as it is.
        gamma: 1 leaves next-token logits as they are, and needs no second pass; only then can
            answers of several tokens be scored or generated.
        plausibility: tokens less likely than this share of the likeliest one's probability are
            left out of the contrast; 0 keeps all.
        queries: the queries whose logits change. The paper's is ``current``; modalities and roles,
            such as ``text``, and ``all`` are possible (see ``Queries``).

    Raises:
        UserError: a setting that is not possible.
    """
    return PAI(
        layers_of(layers),
        number(alpha, "alpha", -100, 100),
        number(gamma, "gamma", 0, 100),
        number(plausibility, "plausibility", 0, 1),
        queries,
    )


class PAI(Intervention):
    """Raises attention to the image, and contrasts with a prompt without it; arguments as ``pai``.

    Other interventions act on the pass without the image, too.
    """

    name = "pai"
    sites = (WHOLE_CALL,)

    def __init__(
        self,
        layers: Sequence[int],
        alpha: float,
        gamma: float,
        plausibility: float,
        queries: str | Sequence[str],
    ) -> None:
        self.layers, self.alpha, self.gamma = list(layers), alpha, gamma
        self.plausibility = plausibility
        self.queries = Queries(queries)

    def identity(self) -> dict[str, Any]:
        """Name, layers, sites and all settings."""
        return {
            **super().identity(),
            "alpha": self.alpha,
            "gamma": self.gamma,
            "plausibility": self.plausibility,
            "queries": list(self.queries.names),
        }

    def attend(
        self, call: AttentionCall, layer: DecoderLayer, queries: Tokens, keys: Tokens
    ) -> Any:
        """Carry out the call with the logits of image keys raised."""
        if self.alpha == 0:
            return call.proceed()
        rows = self.queries.rows(queries)
        raised = self.alpha * logits_of(call, rows.places).abs()
        raised = raised * keys.are(IMAGE)[:, None, None, :]
        bias = rows.spread(call, raised)
        return add_bias(call, bias, queries.start - keys.start).proceed()

    @property
    def decides(self) -> bool:
        """Whether there is a contrast."""
        return self.gamma != 1

    def decide(
        self,
        vlm: VLM,
        samples: Sequence[Sample],
        batch: Batch,
        logits: Float[Tensor, "b vocabulary"],
    ) -> Float[Tensor, "b vocabulary"]:
        """The contrast with the same prompts without their images."""
        if not self.decides:
            return logits
        try:
            without = vlm.prompter(samples, pictures="absent")
        except BadSample as reason:
            raise UserError(
                f"{self.name!r} needs prompts without their images, which {vlm.name} does not make "
                f"({reason}): set gamma to 1 to leave the contrast out"
            ) from reason
        weaker = next_logits(vlm, without)
        return contrasted(logits, weaker, self.gamma - 1, self.plausibility)
