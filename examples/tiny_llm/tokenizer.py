"""A byte-level BPE tokenizer of our own, learnt from the training text only: any text can be written in its tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["END", "TokenizerConfig", "bytes_per_token", "encode", "end_of", "load", "train"]

END: Final = "<|endoftext|>"
"""Ends every document and every answer; also the padding, which no loss counts."""


@dataclass(frozen=True)
class TokenizerConfig:
    """`vocabulary`: tokens in all, the 256 bytes and the end mark included. Fewer come out when the text has no more
    pairs that occur `min_frequency` times."""

    vocabulary: int = 2048
    min_frequency: int = 2


def train(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Learn the merges of frequent pairs, most frequent first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        min_frequency=config.min_frequency,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learnt.train_from_iterator(texts, trainer)
    return learnt


def load(path: str | Path) -> Tokenizer:
    """The tokenizer that a `tokenizer.json` holds."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def encode(learnt: Tokenizer, texts: Iterable[str]) -> list[int]:
    """One stream of tokens: each text, and the end mark after it."""
    end = end_of(learnt)
    return [token for one in learnt.encode_batch(list(texts)) for token in (*one.ids, end)]


def end_of(learnt: Tokenizer) -> int:
    """The end mark's token."""
    found = learnt.token_to_id(END)
    if found is None:
        raise ValueError(f"the tokenizer has no {END}; it was not trained here")
    return found


def bytes_per_token(learnt: Tokenizer, texts: list[str]) -> float:
    """How much text a token carries, on average."""
    return sum(len(text.encode()) for text in texts) / max(sum(len(one.ids) for one in learnt.encode_batch(texts)), 1)
