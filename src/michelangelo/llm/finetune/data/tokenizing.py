"""Rows → samples: what is to be tokenised of each, all of it in a few batched calls, and what is trained of it.

Lengths are made to fit here, too. Rows that cannot be used are reported and left out; a tokenizer that does not belong
to the model is a ModelError.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from michelangelo import errors
from michelangelo.llm.finetune.config import DataConfig
from michelangelo.llm.finetune.data import chat, parsing
from michelangelo.llm.finetune.data.report import DataReport
from michelangelo.llm.finetune.data.rows import Pair, Row, Sample, Unit
from michelangelo.llm.training_setup import Objective

__all__ = ["Tokenizing"]

_Spans = tuple[tuple[int, int], ...]
_ALL: Final[_Spans] = ((-1, 2**62),)
_NONE: Final[_Spans] = ()
_KEPT_BYTES: Final = 256 * 1024 * 1024
"""Samples of data that is not streamed are kept for the next pass up to here (about 50 million tokens)."""
_TOKEN_BYTES: Final = 5
_SAMPLE_BYTES: Final = 400


@dataclass(frozen=True, slots=True)
class _Piece:
    """A text to be tokenised by itself."""

    text: str
    has_specials: bool
    """Whether the tokenizer adds what it puts in front of a text (BOS)."""
    spans: _Spans
    """Characters that are trained."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Pieces that make one sample."""

    pieces: tuple[_Piece, ...]
    ends: bool
    """Whether EOS is put at the end."""


class Tokenizing:
    """Rows → samples or pairs of one objective. Raises ModelError if the tokenizer has ids beyond `vocab_size`
    (0: not checked)."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, config: DataConfig, objective: Objective, *, vocab_size: int = 0
    ) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._config = config
        self._objective: Objective = objective
        self._vocab_size = vocab_size
        self._chat = chat.ChatRenderer(tokenizer, config.chat_template)
        self._kept: dict[tuple[str, int], tuple[Sample, ...]] = {}
        self._room = 0 if config.streaming else _KEPT_BYTES
        self._eos = _token(tokenizer.eos_token_id)
        self._concatenates = objective == "pretrain" and config.packing
        """Documents of any length are cut where rows end."""
        self.pad_id = next((t for t in (_token(tokenizer.pad_token_id), self._eos) if t is not None), 0)
        self._check_special_tokens()
        self._is_joined = tokenizer.is_fast and self._changes_when_split()

    def notes(self) -> list[str]:
        """What is odd about the tokenizer."""
        if self._eos is None:
            return ["the tokenizer has no EOS token: documents and answers end without one, so the model learns no end"]
        return []

    def identity(self) -> list[Any]:
        """JSON that differs between tokenizers that would give other tokens, as far as that is quickly seen."""
        probe = "How it's cut: 1,234 ways — naïve, camelCase\n\n\tend."
        return [len(self._tokenizer), self._eos, self._call([probe], True, False)["input_ids"][0], self._chat.template]

    def units(self, rows: Sequence[Row], report: DataReport) -> list[Unit]:
        """What becomes of rows, in their order; what does not is in the report."""
        report.rows += len(rows)
        samples: list[tuple[Sample, ...] | None] = []
        plans: list[tuple[_Plan, ...]] = []
        unmade: list[tuple[int, Row]] = []
        for row in rows:
            kept = self._kept.get((row.file, row.line))
            if kept is None:
                try:
                    plans.append(self._plans(parsing.parse(row, self._config, self._objective)))
                except parsing.RowError as e:
                    report.add_bad(row.file, row.line, e.message)
                    continue
                unmade.append((len(samples), row))
            samples.append(kept)
        made = iter(self._samples([plan for group in plans for plan in group]))
        for group, (place, row) in zip(plans, unmade, strict=True):
            samples[place] = self._keep(row, tuple(next(made) for _ in group))
        found: list[Unit] = []
        for group_of in samples:
            if group_of is not None:
                found += (
                    self._fitting_pair(group_of, report) if len(group_of) == 2 else self._fitting(group_of[0], report)
                )
        report.samples += len(found)
        return found

    def _keep(self, row: Row, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        num_bytes = sum(len(sample) * _TOKEN_BYTES + _SAMPLE_BYTES for sample in samples)
        if num_bytes <= self._room:
            self._room -= num_bytes
            self._kept[row.file, row.line] = samples
        return samples

    def _plans(self, content: parsing.Content) -> tuple[_Plan, ...]:
        match content:
            case parsing.Text():
                return (_Plan((_Piece(content.text, True, _ALL),), ends=True),)
            case parsing.Preference():
                return (self._answer(content.chosen), self._answer(content.rejected))
            case _:
                return (self._answer(content),)

    def _answer(self, content: parsing.Prompted | parsing.Chat) -> _Plan:
        only = self._config.completion_only or self._objective == "dpo"
        if isinstance(content, parsing.Chat):
            rendered = self._chat.render(content)
            if only and not rendered.spans:
                raise parsing.RowError("the chat template leaves nothing of the assistant's messages to learn")
            return _Plan((_Piece(rendered.text, False, rendered.spans if only else _ALL),), ends=False)
        if self._is_joined:
            start = len(content.prompt)
            spans = ((start, start + len(content.completion)),) if only else _ALL
            return _Plan((_Piece(content.prompt + content.completion, True, spans),), ends=True)
        prompt = _Piece(content.prompt, True, _NONE if only else _ALL)
        return _Plan((prompt, _Piece(content.completion, False, _ALL)), ends=True)

    def _samples(self, plans: Sequence[_Plan]) -> list[Sample]:
        encoded = self._encode([piece for plan in plans for piece in plan.pieces])
        samples = []
        for plan in plans:
            parts = [next(encoded) for _ in plan.pieces]
            ids = np.concatenate([part.ids for part in parts])
            trained = np.concatenate([part.trained for part in parts])
            if plan.ends and self._eos is not None:
                if len(ids) and ids[-1] == self._eos:
                    trained[-1] = True
                else:
                    ids, trained = np.append(ids, np.int32(self._eos)), np.append(trained, True)
            samples.append(Sample(ids, trained))
        return samples

    def _encode(self, pieces: Sequence[_Piece]) -> Iterator[Any]:
        """Tokens of pieces, in one call for each way of calling."""
        found: list[Sample | None] = [None] * len(pieces)
        groups: dict[tuple[bool, bool], list[int]] = {}
        for place, piece in enumerate(pieces):
            groups.setdefault((piece.has_specials, piece.spans not in (_ALL, _NONE)), []).append(place)
        for (has_specials, has_spans), places in groups.items():
            encoded = self._call([pieces[place].text for place in places], has_specials, has_spans)
            for number, place in enumerate(places):
                ids = self._checked(np.asarray(encoded["input_ids"][number], dtype=np.int32))
                if (
                    has_specials
                    and len(ids)
                    and ids[-1] == self._eos
                    and not pieces[place].text.endswith(self._eos_text())
                ):
                    ids = ids[:-1]  # Some tokenizers end every text; a prompt does not end here.
                if has_spans:
                    offsets = np.asarray(encoded["offset_mapping"][number], dtype=np.int64).reshape(-1, 2)[: len(ids)]
                    trained = _within(offsets, pieces[place].spans)
                else:
                    trained = np.full(len(ids), pieces[place].spans == _ALL)
                found[place] = Sample(ids, trained)
        return iter(found)

    def _call(self, texts: list[str], has_specials: bool, has_offsets: bool) -> Any:
        if has_offsets and not self._tokenizer.is_fast:
            raise errors.DatasetError(
                "this tokenizer cannot say which token is which part of the text, so it cannot be known what the "
                "assistant said: use its fast version (tokenizer.json), or set data.completion_only: false"
            )
        # Training and validation are read ahead in threads of their own; a tokenizer keeps settings of its last call.
        with self._lock:
            return self._tokenizer(
                texts,
                add_special_tokens=has_specials,
                return_attention_mask=False,
                return_token_type_ids=False,
                return_offsets_mapping=has_offsets,
                padding=False,
                truncation=False,
                verbose=False,
            )

    def _fitting(self, sample: Sample, report: DataReport) -> list[Unit]:
        """By the policy for long samples; without what has nothing to learn."""
        length = self._config.sequence_length
        parts = [sample]
        if len(sample) > length and not self._concatenates:
            match self._config.long_samples:
                case "drop":
                    report.num_dropped += 1
                    return []
                case "truncate":
                    report.num_truncated += 1
                    parts = [sample.part(0, length)]
                case "split":
                    report.num_split += 1
                    parts = _split(sample, length)
        useful: list[Unit] = [part for part in parts if part.num_trained]
        report.num_untrained += not useful
        return useful

    def _fitting_pair(self, samples: Sequence[Sample], report: DataReport) -> list[Unit]:
        length = self._config.sequence_length
        if max(len(sample) for sample in samples) > length:
            if self._config.long_samples == "drop":
                report.num_dropped += 1
                return []
            report.num_truncated += 1
        chosen, rejected = (sample.part(0, length) for sample in samples)
        if not (chosen.num_trained and rejected.num_trained) or np.array_equal(chosen.ids, rejected.ids):
            report.num_untrained += 1
            return []
        return [Pair(chosen, rejected)]

    def _checked(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        if self._vocab_size and len(ids) and int(ids.max()) >= self._vocab_size:
            worst = int(ids.max())
            raise errors.ModelError(
                f"the tokenizer gives token {worst} ({self._tokenizer.convert_ids_to_tokens(worst)!r}), and the model "
                f"knows only 0 … {self._vocab_size - 1}: they do not belong together; set model.tokenizer"
            )
        return ids

    def _check_special_tokens(self) -> None:
        for name in ("bos", "eos", "pad"):
            token = _token(getattr(self._tokenizer, f"{name}_token_id"))
            if self._vocab_size and token is not None and token >= self._vocab_size:
                raise errors.ModelError(
                    f"the {name} token of the tokenizer is {token}, and the model knows only 0 … "
                    f"{self._vocab_size - 1}: they do not belong together; set model.tokenizer"
                )

    def _eos_text(self) -> str:
        return str(self._tokenizer.eos_token)

    def _changes_when_split(self) -> bool:
        """Whether a text gets a space in front when it is tokenised by itself, as with SentencePiece: then a prompt
        and its completion have to be tokenised as one text."""
        two = [token for text in ("a", "b") for token in self._call([text], False, False)["input_ids"][0]]
        one = self._call(["ab"], False, False)["input_ids"][0]
        return bool(self._tokenizer.decode(two) != self._tokenizer.decode(one))


def _split(sample: Sample, length: int) -> list[Sample]:
    """Parts of a row's length. The last one has at least two tokens: of a single one nothing is learned, and often it
    is the end."""
    cuts = [*range(0, len(sample), length), len(sample)]
    if length > 1 and cuts[-1] - cuts[-2] == 1:
        cuts[-2] -= 1
    return [sample.part(start, stop) for start, stop in itertools.pairwise(cuts)]


def _within(offsets: npt.NDArray[np.int64], spans: _Spans) -> npt.NDArray[np.bool_]:
    """Which tokens have a character of a span. Tokens of blanks may have an empty range, at their end."""
    starts = np.where(offsets[:, 0] == offsets[:, 1], offsets[:, 1] - 1, offsets[:, 0])
    found = np.zeros(len(offsets), np.bool_)
    for start, stop in spans:
        found |= (starts < stop) & (offsets[:, 1] > start)
    return found


def _token(value: Any) -> int | None:
    """Some configurations have a list of EOS tokens: the first one ends."""
    if isinstance(value, list | tuple):
        return int(value[0]) if value else None
    return None if value is None else int(value)
