"""What a model answers: the likeliest of the possible answers, or what it generates.

Where answers can be listed (the letters of options, a closed set), they are compared by likelihood,
without parsing any generated text. If no two of them begin with the same token, one forward pass
gives the log-probability of each as the next token. Otherwise the next token cannot tell them
apart, and the log-probability of each whole answer is summed over its tokens, in one pass for each
spelling. An open question is answered by greedy generation.

A model may begin an answer with or without a space before it, so an answer's probability is the sum
over both spellings.
"""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from keygap.benchmarks import BadSample, Sample
from keygap.benchmarks.scoring import choose_option
from keygap.benchmarks.scoring import normalised as normalised
from keygap.capture.batches import Reasons, labelled
from keygap.models import VLM
from keygap.models.batch import Batch
from keygap.models.prompting.answers import with_answers
from keygap.selfcheck.finding import NOISE, relative_error
from keygap.tokens import Pictures

MAX_NEW_TOKENS = 16
READS_AHEAD = "the model's prompt attends to the answer that follows, which then has no likelihood"
MASKED = -1e30  # a model gives tokens that it never says a logit below this
NO_NUMBERS = "the likelihood of an answer is not a number: another dtype may help"
NONE_POSSIBLE = "none of the possible answers is likely enough to be kept by contrastive decoding"

Spelling = tuple[int, ...]  # token ids
Spelled = dict[str, list[Spelling]]  # the spellings of each candidate of a sample
_Way = Literal["open", "next token", "whole answers"]


@dataclass(frozen=True)
class Scored:
    """What a model answered to one sample.

    Attributes:
        sample_id: the sample's id.
        chosen: the likeliest candidate; for an open question the first line of the generated text.
        log_probability: of every candidate in nats, not normalised over the candidates; empty for
            an open question.
    """

    sample_id: str
    chosen: str
    log_probability: dict[str, float]


@dataclass(frozen=True)
class Prepared:
    """Samples that are ready to be answered, any number of times.

    Attributes:
        order: ids of all samples.
        groups: how samples are scored, these samples, their batch, and the spellings of their
            candidates.
        left_out: reason by sample.
    """

    order: tuple[str, ...]
    groups: tuple[tuple[_Way, list[Sample], Batch, list[Spelled]], ...]
    left_out: Reasons


def score(
    vlm: VLM,
    samples: Sequence[Sample],
    candidates: Sequence[Sequence[str]],
    *,
    pictures: Pictures = "shown",
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> tuple[list[Scored], Reasons]:
    """Let a model answer some samples, which are run as one batch where possible.

    Interventions act on the passes, and on next-token logits by ``decide``. Where one decides,
    samples that need more than the next token are left out with that reason.

    Args:
        vlm: the model.
        samples: the samples.
        candidates: the possible answers to each sample; none for an open question.
        pictures: how prompts show their images (see ``Prompter``).
        max_new_tokens: the most tokens that are generated for an open question.

    Returns:
        What was answered, in the order of the samples, and the reason for each sample that could
        not be used, by id.

    Raises:
        UserError: the model cannot run with its images shown so.
    """
    return score_prepared(vlm, prepare(vlm, samples, candidates, pictures), max_new_tokens)


def prepare(
    vlm: VLM,
    samples: Sequence[Sample],
    candidates: Sequence[Sequence[str]],
    pictures: Pictures = "shown",
) -> Prepared:
    """Make what ``score`` runs: batches, and the tokens of candidates; arguments as there."""
    every = {name for own in candidates for name in own}
    known = {name: spellings(vlm.prompter.tokenizer, name) for name in every}
    spelled = {
        sample.id: {name: known[name] for name in own}
        for sample, own in zip(samples, candidates, strict=True)
    }
    by_way: dict[_Way, list[Sample]] = defaultdict(list)
    left_out: Reasons = {}
    for sample in samples:
        try:
            by_way[_way(spelled[sample.id])].append(sample)
        except BadSample as reason:
            left_out[sample.id] = str(reason)
    groups = []
    for way, group in by_way.items():
        usable, batch, refused = labelled(vlm, group, pictures)
        left_out |= refused
        if batch is not None:
            groups.append((way, usable, batch, [spelled[sample.id] for sample in usable]))
    return Prepared(tuple(sample.id for sample in samples), tuple(groups), left_out)


@torch.inference_mode()
def score_prepared(
    vlm: VLM, ready: Prepared, max_new_tokens: int = MAX_NEW_TOKENS
) -> tuple[list[Scored], Reasons]:
    """Let a model answer samples that are ready; arguments and results as ``score``."""
    left_out = dict(ready.left_out)
    found: dict[str, Scored] = {}
    for way, samples, batch, names in ready.groups:
        if way != "next token" and (why := vlm.interventions.undecided):
            left_out |= dict.fromkeys((sample.id for sample in samples), why)
            continue
        if way == "open":
            said = _generated(vlm, samples, batch, max_new_tokens)
            found |= {one: Scored(one, text, {}) for one, text in said.items()}
            continue
        if way == "next token":
            logits = vlm.interventions.decide(vlm, samples, batch, next_logits(vlm, batch))
            likelihoods = _by_next_token(logits, names)
        else:
            likelihoods = _by_whole_answers(vlm, batch, names)
        for sample, likelihood in zip(samples, likelihoods, strict=True):
            if likelihood is None:
                left_out[sample.id] = READS_AHEAD
            elif any(map(math.isnan, likelihood.values())):
                left_out[sample.id] = NO_NUMBERS
            elif max(likelihood.values()) == -math.inf:
                left_out[sample.id] = NONE_POSSIBLE
            else:
                found[sample.id] = Scored(sample.id, choose_option(likelihood), likelihood)
    return [found[name] for name in ready.order if name in found], left_out


def _way(spelled: Spelled) -> _Way:
    """How a sample is scored.

    Raises:
        BadSample: a candidate has no text, or two have the same tokens.
    """
    if not spelled:
        return "open"
    taken: dict[Spelling, str] = {}
    for candidate, own in spelled.items():
        if not own:
            raise BadSample(f"the answer {candidate!r} has no text")
        for spelling in own:
            if spelling in taken:
                raise BadSample(
                    f"the answers {taken[spelling]!r} and {candidate!r} have the same tokens"
                )
            taken[spelling] = candidate
    first = [{spelling[0] for spelling in own} for own in spelled.values()]
    distinct = len(set.union(*first)) == sum(map(len, first))
    return "next token" if distinct else "whole answers"


def spellings(tokenizer: PreTrainedTokenizerBase, candidate: str) -> list[Spelling]:
    """The token sequences that say a candidate, alone and after a space.

    Tokens of white space before it are left out, so both may be the same.

    Returns:
        One or two sequences; none if the candidate has no text.
    """
    found: dict[Spelling, None] = {}
    for text in (candidate, f" {candidate}"):
        ids = [int(one) for one in tokenizer(text, add_special_tokens=False).input_ids]
        blank = (not str(tokenizer.decode([one])).strip() for one in ids)
        found[tuple(ids[sum(takewhile(bool, blank)) :])] = None
    return [spelling for spelling in found if spelling]


def _by_next_token(
    logits: Float[Tensor, "b vocabulary"], spelled: Sequence[Spelled]
) -> list[dict[str, float] | None]:
    """Log-probability of the first token of each sample's candidates, in nats."""
    found: list[dict[str, float] | None] = []
    for row, names in zip(logits, spelled, strict=True):
        log_probability = row.float().log_softmax(-1)
        first = {name: sorted({ids[0] for ids in own}) for name, own in names.items()}
        found.append(
            {name: float(log_probability[ids].logsumexp(0)) for name, ids in first.items()}
        )
    return found


def _by_whole_answers(
    vlm: VLM, batch: Batch, spelled: Sequence[Spelled]
) -> list[dict[str, float] | None]:
    """Log-probability of all tokens of each sample's candidates, in nats.

    One pass of the batch scores one spelling for each sample. The tokens of an answer must not
    change what the model predicts after the prompt. Where they do, the prompt attends to the answer
    (as in a prefix language model), the likelihood would be that of an answer that the model has
    seen, and the sample gets None.
    """
    queues = [[ids for own in names.values() for ids in own] for names in spelled]
    found: list[dict[Spelling, float]] = [{} for _ in queues]
    causal = [True] * len(queues)
    first: Tensor | None = None
    for number in range(max(map(len, queues))):
        answers = [queue[min(number, len(queue) - 1)] for queue in queues]
        logits = _answer_logits(vlm, batch, answers)
        first = logits[:, 0].clone() if first is None else first
        for row, ids in enumerate(answers):
            causal[row] &= _agree(logits[row, 0], first[row], NOISE[vlm.dtype])
            log_probability = logits[row, : len(ids)].float().log_softmax(-1)
            found[row][ids] = float(log_probability[range(len(ids)), list(ids)].sum())
    return [
        exclusive(names, own) if is_causal else None
        for names, own, is_causal in zip(spelled, found, causal, strict=True)
    ]


def _agree(
    one: Float[Tensor, " vocabulary"], other: Float[Tensor, " vocabulary"], noise: float
) -> bool:
    """Whether two passes give the same logits, or numbers that cannot be compared."""
    possible = other.float() > MASKED
    if not possible.any():
        return True
    return relative_error(one[possible], other[possible]) <= noise


def exclusive(
    spelled: Mapping[str, Sequence[Spelling]], log_probability: Mapping[Spelling, float]
) -> dict[str, float]:
    """Log-probability of each candidate, apart from those that continue it.

    A text that begins with "New York City" begins with "New York" too. The probability of the
    longer candidate is subtracted from that of the shorter one, so that the candidates exclude each
    other and the shorter one has no advantage.

    Args:
        spelled: the spellings of each candidate.
        log_probability: of all tokens of each spelling, in nats.
    """
    if any(map(math.isnan, log_probability.values())):
        return dict.fromkeys(spelled, math.nan)
    every = list(log_probability)
    found = {}
    for name, own in spelled.items():
        parts = []
        for spelling in own:
            longer = [one for one in every if one != spelling and _begins(one, spelling)]
            nearest = [
                one for one in longer if not any(_begins(one, by) for by in longer if by != one)
            ]
            value = log_probability[spelling]
            rest = -sum(math.exp(log_probability[one] - value) for one in nearest)
            parts.append(value + math.log1p(rest) if rest > -1 else -math.inf)
        found[name] = float(torch.tensor(parts, dtype=torch.float64).logsumexp(0))
    return found


def _begins(longer: Spelling, shorter: Spelling) -> bool:
    return longer[: len(shorter)] == shorter


def _answer_logits(
    vlm: VLM, batch: Batch, answers: Sequence[Spelling]
) -> Float[Tensor, "b t vocabulary"]:
    """Logits that predict each token of one answer to each prompt, padded on the right."""
    most = max(map(len, answers))
    if vlm.model.config.is_encoder_decoder:
        ids = torch.zeros(len(answers), most, dtype=torch.long)
        for row, own in zip(ids, answers, strict=True):
            row[: len(own)] = torch.tensor(own)
        return vlm.forward(batch, answers=ids[:, :-1]).logits
    told = with_answers(batch, answers, vlm.prompter.tokenizer)
    before = torch.tensor([len(labels) - 1 for labels in batch.labels])
    steps = torch.arange(most)[None].expand(len(answers), -1)
    last = torch.tensor([len(own) - 1 for own in answers])
    return logits_at(vlm, told, before[:, None] + torch.minimum(steps, last[:, None]))


def next_logits(vlm: VLM, batch: Batch) -> Float[Tensor, "b vocabulary"]:
    """Compute the logits of the token after each prompt."""
    if vlm.model.config.is_encoder_decoder:  # the decoder has read only its start token
        return vlm.forward(batch).logits[:, -1]
    last = torch.tensor([len(labels) - 1 for labels in batch.labels])
    return logits_at(vlm, batch, last[:, None])[:, 0]


def logits_at(
    vlm: VLM, batch: Batch, positions: Int[Tensor, "b t"]
) -> Float[Tensor, "b t vocabulary"]:
    """Compute the logits at some positions of each prompt.

    If the model supports it, no logits of other positions are computed: with a vocabulary of
    150,000 and images of thousands of tokens they would take gigabytes.

    Args:
        vlm: a model without an encoder for its text.
        batch: the prompts.
        positions: positions of their tokens.
    """
    rows = torch.arange(len(positions))[:, None]
    named = inspect.signature(vlm.model.forward).parameters
    if "logits_to_keep" in named and "labels" not in batch.inputs:  # a loss needs every position
        kept = positions.unique()
        logits = vlm.forward(batch, logits_to_keep=kept.to(vlm.device)).logits
        columns = torch.searchsorted(kept, positions.contiguous())
    else:
        logits = vlm.forward(batch).logits
        # a model that inserts image features returns more positions than the prompt has tokens;
        # the insertions precede the last token, so it is counted from the end
        columns = positions + logits.shape[1] - batch.inputs["input_ids"].shape[1]
    return logits[rows.to(logits.device), columns.to(logits.device)]


def _generated(
    vlm: VLM, samples: Sequence[Sample], batch: Batch, max_new_tokens: int
) -> dict[str, str]:
    """The first line of what the model generates for each sample, by id.

    Prompts of different lengths are padded where an answer would begin, so they are generated from
    in groups of one length.
    """
    groups: dict[int, list[Sample]] = defaultdict(list)
    for sample, labels in zip(samples, batch.labels, strict=True):
        groups[len(labels)].append(sample)
    found: dict[str, str] = {}
    for group in groups.values():
        own = batch if len(groups) == 1 else vlm.prompter(group, pictures=batch.pictures)
        made: Any = vlm.generate(
            own,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=_pad(vlm.prompter.tokenizer),
        )
        found.update(zip((sample.id for sample in group), _texts(vlm, own, made), strict=True))
    return found


def _pad(tokenizer: PreTrainedTokenizerBase) -> int:
    known: Iterable[Any] = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return int(next(one for one in known if one is not None))


def _texts(vlm: VLM, batch: Batch, made: Int[Tensor, "b t"]) -> list[str]:
    """The first line of each generated text, without the prompt and without special tokens."""
    prompt = batch.inputs["input_ids"].to(made.device)
    width = prompt.shape[1]
    if torch.equal(made[:, :width], prompt):  # some models return the generated tokens alone
        made = made[:, width:]
    texts = vlm.prompter.tokenizer.batch_decode(made, skip_special_tokens=True)
    return [(text.strip().splitlines() or [""])[0].strip() for text in texts]
