"""Text for training that every Python brings along: its reference in English, and the sources of its standard library.

A model is first trained on general text, English and some sources, and then tuned on more of one kind, as is usual.
Nothing is downloaded; tokens come from a vocabulary that is learned here, of what may be trained on only.
"""

from __future__ import annotations

import itertools
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

__all__ = ["Corpus", "make"]

_HELD_OUT_EVERY = 5
"""Every fifth source file is kept from training."""
_GENERAL_EVERY = 4
"""Every fourth of the others is general text: who is tuned has seen the language before."""
_MAX_FILE_BYTES = 100_000
_LEARNED_CHARACTERS = 300_000
"""Of each kind, from which the vocabulary is learned: more changes little and takes longer."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows of tokens, [N, length] int64, all of them full."""

    general: torch.Tensor
    """The language reference, and some modules of the standard library."""
    sources: torch.Tensor
    """Of other modules."""
    held_out: torch.Tensor
    """Of yet other modules."""
    num_general_files: int
    num_source_files: int
    num_held_out_files: int


def make(*, vocabulary: int, length: int, num_files: int = 0, held_out_rows: int = 64) -> Corpus:
    """`num_files`: source files, trained on and held out; 0: all. The same Python gives the same rows."""
    english = [topics.topics[name] for name in sorted(topics.topics)]
    files = _source_files()
    files = files[:num_files] if num_files else files
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    held_out = texts[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]
    trained = [text for number, text in enumerate(texts) if (number + 1) % _HELD_OUT_EVERY]
    general = trained[::_GENERAL_EVERY]
    sources = [text for number, text in enumerate(trained) if number % _GENERAL_EVERY]
    words = _words([_beginning(english), _beginning(trained)], vocabulary)
    rows = [_rows(words, kind, length) for kind in ([*english, *general], sources, held_out)]
    # Spread over all files that are held out, not the beginning of the first one.
    stride = max(1, len(rows[2]) // held_out_rows)
    judged = rows[2][::stride][:held_out_rows]
    return Corpus(rows[0], rows[1], judged, len(general), len(sources), len(held_out))


def _source_files() -> list[Path]:
    """Modules of the standard library, by name; those that are mostly tables are left out by their size."""
    folder = Path(sysconfig.get_path("stdlib"))
    return [path for path in sorted(folder.glob("*.py")) if 5_000 <= path.stat().st_size <= _MAX_FILE_BYTES]


def _beginning(texts: Sequence[str]) -> str:
    return "\n".join(texts)[:_LEARNED_CHARACTERS]


def _words(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    words.train_from_iterator(texts, trainer)
    return words


def _rows(words: Tokenizer, texts: Sequence[str], length: int) -> torch.Tensor:
    tokens = list(itertools.chain.from_iterable(encoding.ids for encoding in words.encode_batch(list(texts))))
    count = len(tokens) // length
    return torch.tensor(tokens[: count * length]).view(count, length)
