"""Which passages an answer may rest on: those that do not try to give instructions to who reads them.

A passage that speaks to a model ("ignore the previous instructions") is left out as a whole, and said; the gate saw it
as it sees every other. A corpus about such attacks is thus searched, but not quoted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from michelangelo.llm.contexteval.retrieval import Passage

__all__ = ["instructs", "usable"]

_WHAT: Final = (
    r"(?:instructions?|prompts?|rules?|directions?|guidelines?|context|messages?|documents?|passages?|sources?)"
)
_INSTRUCTION: Final = re.compile(
    rf"\b(?:ignore|disregard|forget|override|bypass|do not follow)\b[^.!?\n]{{0,40}}\b"
    rf"(?:previous|prior|above|earlier|preceding|all|any|your|the|these|other|system)\b[^.!?\n]{{0,30}}\b{_WHAT}\b"
    r"|\b(?:you are now|act as|pretend (?:to be|that you)|from now on,? you)\b"
    r"|\b(?:new|updated|real) (?:system )?instructions?\s*:"
    r"|\b(?:system prompt|jailbreak|developer mode)\b"
    r"|\b(?:always|only|instead,?|must|please)\s+(?:answer|respond|reply|say|output)\b[^.!?\n]{0,20}(?:with\b|that\b|[\"'“:])"
    r"|\b(?:answer|respond to|reply to)\b[^.!?\n]{0,20}\b(?:every|all|any) questions?\b"
    r"|<\|(?:im_start|im_end|system|assistant|user)\|?>|\[/?INST\]|<</?SYS>>|^\s*(?:system|assistant)\s*:",
    flags=re.IGNORECASE | re.MULTILINE,
)


def instructs(text: str) -> bool:
    """Whether it speaks to a model rather than to a reader."""
    return _INSTRUCTION.search(" ".join(text.split())) is not None or _INSTRUCTION.search(text) is not None


def usable(passages: Sequence[Passage]) -> tuple[list[Passage], list[str]]:
    """Those that may be used, in order, and a warning for each other one."""
    kept, warnings = [], []
    for passage in passages:
        if instructs(passage.text):
            warnings.append(
                f"{passage.document}, characters {passage.start}–{passage.end}, gives instructions to its reader, and "
                "was not used for the answer"
            )
        else:
            kept.append(passage)
    return kept, warnings
