"""How good a model is on text that it has not seen: loss, bits per byte and perplexity, with what a guess would cost.

The baseline is honest: token frequencies of the training text with add-one smoothing, over the same tokenizer and the
same tokens. Differences come with a bootstrapped interval, because a held-out set of this size is small.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import finetune
import tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Evaluation", "Gain", "HeldOut", "compare", "of_network", "of_unigram"]

_RESAMPLES: Final = 2000
_Losses = tuple[list[float], list[int]]
"""Sums of losses in nats, and of how many tokens each."""


@dataclass(frozen=True)
class HeldOut:
    """What is measured on."""

    texts: list[str]
    pairs: list[tuple[str, str]]
    """Questions and answers."""


@dataclass(frozen=True)
class Evaluation:
    """One model on one set. `loss` is the mean over all tokens, in nats; `losses` are sums over `counts` tokens each:
    windows of the text, or answers."""

    name: str
    subject: str
    """text or answers."""
    loss: float
    bits_per_byte: float
    perplexity: float
    tokens: int
    losses: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Gain:
    """By how much `better` is below `worse`, in nats per token, and the interval that holds 95 % of the resamples."""

    better: str
    worse: str
    subject: str
    nats: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether it is an improvement beyond chance."""
        return self.low > 0


def of_network(name: str, network: Any, learnt: Tokenizer, held_out: HeldOut) -> list[Evaluation]:
    """Measure a model on the text and on the answers."""
    context = network.config.max_position_embeddings
    asked = finetune.examples(learnt, held_out.pairs, context)
    text = _text_losses(network, tokenizer.encode(learnt, held_out.texts), network.config.eos_token_id)
    return _evaluations(name, text, _answer_losses(network, asked), learnt, held_out, asked)


def of_unigram(train: list[int], learnt: Tokenizer, held_out: HeldOut, context: int) -> list[Evaluation]:
    """Measure the token frequencies of `train`, each counted once more than it occurs, on the very same tokens."""
    counted = Counter(train)
    total = len(train) + learnt.get_vocab_size()

    def losses(groups: list[list[int]]) -> _Losses:
        sums = [math.fsum(-math.log((counted[token] + 1) / total) for token in group) for group in groups]
        return sums, [len(group) for group in groups]

    tokens = tokenizer.encode(learnt, held_out.texts)
    asked = finetune.examples(learnt, held_out.pairs, context)
    text = losses([tokens[start : start + context] for start in range(0, len(tokens), context)])
    answers = losses([one.tokens[one.answer_at :] for one in asked])
    return _evaluations("unigram", text, answers, learnt, held_out, asked)


def compare(better: Evaluation, worse: Evaluation, seed: int) -> Gain:
    """The gain of one model over another on the same tokens, by a paired bootstrap over windows or answers."""
    if better.counts != worse.counts:
        raise ValueError(f"{better.name} and {worse.name} were measured on different {better.subject}")
    differences = [w - b for b, w in zip(better.losses, worse.losses, strict=True)]
    draw = random.Random(seed)
    places = range(len(differences))
    means = []
    for _ in range(_RESAMPLES):
        chosen = draw.choices(places, k=len(places))
        means.append(sum(differences[i] for i in chosen) / sum(better.counts[i] for i in chosen))
    means.sort()
    low, high = means[round(0.025 * _RESAMPLES)], means[round(0.975 * _RESAMPLES) - 1]
    return Gain(better.name, worse.name, better.subject, worse.loss - better.loss, low, high)


def _text_losses(network: Any, tokens: list[int], end: int) -> _Losses:
    """Of windows that lie one after the other: every token is predicted once, from what precedes it in its window."""
    import torch

    size = network.config.max_position_embeddings
    stream = [end, *tokens]
    sums, counts = [], []
    for start in range(0, len(tokens), size):
        targets = torch.tensor(tokens[start : start + size])
        window = torch.tensor([stream[start : start + len(targets)]])
        with torch.inference_mode():
            logits = network(input_ids=window, use_cache=False).logits[0]
            sums.append(float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum")))
        counts.append(len(targets))
    return sums, counts


def _answer_losses(network: Any, asked: list[finetune.Example]) -> _Losses:
    """Of the answers, each after its question."""
    import torch

    sums, counts = [], []
    for one in asked:
        ids = torch.tensor([one.tokens])
        targets = ids[0, one.answer_at :]
        with torch.inference_mode():
            logits = network(input_ids=ids, use_cache=False).logits[0, one.answer_at - 1 : -1]
            sums.append(float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum")))
        counts.append(len(targets))
    return sums, counts


def _evaluations(
    name: str, text: _Losses, answers: _Losses, learnt: Tokenizer, held_out: HeldOut, asked: list[finetune.Example]
) -> list[Evaluation]:
    # The end mark of a text stands for the line break that would end it: a byte.
    size = sum(len(one.encode()) + 1 for one in held_out.texts)
    said = sum(len(learnt.decode(one.tokens[one.answer_at :]).encode()) + 1 for one in asked)
    return [_evaluation(name, "text", text, size), _evaluation(name, "answers", answers, said)]


def _evaluation(name: str, subject: str, losses: _Losses, size: int) -> Evaluation:
    """The measures of one model; `size` is the length of what was predicted, in bytes."""
    nats, tokens = math.fsum(losses[0]), sum(losses[1])
    loss = nats / tokens
    return Evaluation(name, subject, loss, nats / math.log(2) / size, math.exp(loss), tokens, *losses)
