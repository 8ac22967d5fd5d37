"""Which tokens may come next, so that an output becomes a JSON document of a schema. By the llguidance library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

__all__ = ["BadSchema", "Constraint", "Grammars", "hide"]


_LAYOUT: Final[Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As `json.dumps` writes it: where any white space is allowed, a small model may write nothing else for ever."""


class BadSchema(ValueError):
    """A schema that no output can be held to; the message says why."""


class Constraint:
    """Of one output, as far as it has come."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher: Final = matcher
        self._words: Final = (vocab_size + 31) // 32

    @property
    def is_complete(self) -> bool:
        """Nothing can follow."""
        return bool(self._matcher.is_stopped())

    def take(self, token: int) -> bool:
        """False: the token is not allowed (the sampler was not told, or the document is complete)."""
        return bool(self._matcher.consume_token(token))

    def allowed(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """A bit per token, the lowest first."""
        mask = np.zeros(self._words, dtype=np.int32)
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        return mask


class Grammars:
    """Makes constraints for one tokenizer; reading its vocabulary takes about a second, once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, vocab_size: int, end_tokens: Sequence[int]) -> None:
        self._tokenizer: Final = tokenizer
        self._vocab_size: Final = vocab_size
        self._end_tokens: Final = sorted(end_tokens)
        self._read: Any = None

    def constraint(self, schema: Mapping[str, Any]) -> Constraint:
        """Raises BadSchema."""
        try:
            import llguidance
        except ImportError as e:
            raise BadSchema("json_schema needs pip install 'michelangelo-oss[llm]'") from e
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(dict(schema)), defaults=_LAYOUT)
        except (ValueError, TypeError) as e:
            raise BadSchema(f"json_schema is no schema: {_first_line(e)}") from e
        problem = llguidance.LLMatcher.validate_grammar(grammar, None)
        if problem:
            raise BadSchema(f"json_schema is no schema: {problem.strip().splitlines()[0]}")
        matcher = llguidance.LLMatcher(self._tokens(), grammar)
        if matcher.is_error():
            raise BadSchema(f"json_schema cannot be enforced: {matcher.get_error().strip().splitlines()[0]}")
        return Constraint(matcher, self._vocab_size)

    def _tokens(self) -> Any:
        if self._read is None:
            from llguidance import hf

            if not isinstance(self._tokenizer, PreTrainedTokenizerFast):
                raise BadSchema("json_schema needs a tokenizer with a tokenizer.json")
            if not self._end_tokens:
                raise BadSchema("json_schema needs a model with an end-of-text token")
            self._read = hf.from_tokenizer(self._tokenizer, n_vocab=self._vocab_size, eos_token=self._end_tokens)
        return self._read


def hide(logits: torch.Tensor, constraints: Sequence[tuple[int, Constraint]]) -> torch.Tensor:
    """A copy of `logits` [row, vocabulary] in which the tokens not allowed in the given rows are -inf."""
    hidden = logits.clone()
    bits = np.stack([constraint.allowed() for _, constraint in constraints])
    flags = np.unpackbits(bits.view(np.uint8), axis=-1, bitorder="little")[:, : logits.shape[-1]]
    rows = torch.tensor([row for row, _ in constraints], device=logits.device)
    allowed = torch.from_numpy(flags.astype(bool)).to(logits.device)
    if allowed.shape[-1] < logits.shape[-1]:  # an output matrix that is larger than the vocabulary
        allowed = torch.nn.functional.pad(allowed, (0, logits.shape[-1] - allowed.shape[-1]))
    hidden[rows] = hidden[rows].masked_fill(~allowed, -torch.inf)
    return hidden


def _first_line(e: BaseException) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0]
