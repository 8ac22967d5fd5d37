"""The text: Python's own language reference, as it ships with every CPython (`pydoc_data.topics`), cleaned and split.

The topics repeat each other (one holds all special method names, another all compound statements), so topics that share
a run of 13 words form a group, and a group is never torn apart: what is held out has been seen nowhere in training.
Nothing is downloaded, and the same Python gives the same text.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "LEAK_WORDS",
    "SPLITS",
    "Block",
    "DataConfig",
    "Question",
    "assign",
    "overlap",
    "parse",
    "questions",
    "topics",
    "unique",
]

SPLITS: Final = ("train", "validation", "test")
LEAK_WORDS: Final = 13
"""Text that shares a run of so many words counts as the same text, as is usual for tests of contamination."""

_RULE: Final = re.compile(r"([*=\-~^\"])\1{2,}")
_ENTRY: Final = re.compile(
    r"(?:class |coroutine |async |await )?((?:[A-Za-z_][\w.]*)\.)?(?P<name>[A-Za-z_]\w*)\(.*\)?$"
)
_WORD: Final = re.compile(r"[A-Za-z]{2,}")
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"“(*])")


@dataclass(frozen=True)
class DataConfig:
    """How the topics are divided; shares are of the characters."""

    validation_share: float = 0.07
    test_share: float = 0.13
    split_seed: int = 3


@dataclass(frozen=True)
class Block:
    """A heading and the prose under it. `signature` is set where the heading is that of a function or method."""

    topic: str
    title: str
    signature: str
    text: str

    @property
    def document(self) -> str:
        """What the model reads."""
        return f"# {self.signature or self.title}\n{self.text}"


@dataclass(frozen=True)
class Question:
    """A question that a heading asks, and its answer: the first sentences under it."""

    topic: str
    question: str
    answer: str


def topics() -> dict[str, str]:
    """The raw texts by topic, sorted."""
    from pydoc_data.topics import topics as raw

    return {name: raw[name] for name in sorted(raw)}


def parse(topic: str, raw: str) -> list[Block]:
    """The headings of a topic with their prose: a line per paragraph; grammar, code, tables and rules are left out."""
    blocks: list[Block] = []
    title, signature, lines = topic, "", list[str]()

    def close() -> None:
        if lines:
            blocks.append(Block(topic, title, signature, "\n".join(lines)))
            lines.clear()

    for part in re.split(r"\n\s*\n", raw):
        rows = part.strip("\n").split("\n")
        if len(rows) == 2 and _RULE.fullmatch(rows[1].strip()):
            close()
            title, signature = _plain(rows[0]), ""
        elif _is_signature(rows):
            close()
            signature = _plain(rows[0])
        else:
            if signature and not rows[0].startswith(" "):
                close()
                signature = ""
            text = _plain(" ".join(row.strip() for row in rows))
            if _is_prose(text):
                lines.append(text)
    close()
    return blocks


def unique(blocks: Iterable[Block]) -> list[Block]:
    """The blocks without the paragraphs that came before: each is learnt from once."""
    seen: set[str] = set()
    kept = []
    for block in blocks:
        lines = [line for line in block.text.split("\n") if not (line in seen or seen.add(line))]  # type: ignore[func-returns-value]  # add() is None
        if lines:
            kept.append(Block(block.topic, block.title, block.signature, "\n".join(lines)))
    return kept


def assign(blocks: Iterable[Block], config: DataConfig) -> dict[str, str]:
    """The split of each topic. Groups are shuffled; each goes to the test set or to the validation set while there is
    room for it, and else to training."""
    sizes: dict[str, int] = {}
    owners: dict[bytes, list[str]] = {}
    for block in blocks:
        sizes[block.topic] = sizes.get(block.topic, 0) + len(block.text)
        for gram in _grams(block.text, LEAK_WORDS):
            owners.setdefault(gram, []).append(block.topic)
    groups = _groups(sizes, owners.values())
    random.Random(config.split_seed).shuffle(groups)
    total = sum(sizes.values())
    room = {"test": config.test_share * total, "validation": config.validation_share * total}
    splits = {}
    for group in groups:
        size = sum(sizes[topic] for topic in group)
        name = next((name for name, left in room.items() if size <= left), "train")
        if name in room:
            room[name] -= size
        splits.update(dict.fromkeys(group, name))
    return splits


def questions(blocks: Iterable[Block], max_characters: int = 220) -> Iterator[Question]:
    """What the headings ask, with the first one or two sentences under them as the answer."""
    for block in blocks:
        answer = ""
        for sentence in _SENTENCE.split(block.text.split("\n")[0])[:2]:
            if len(answer) + len(sentence) < max_characters and len(_WORD.findall(sentence)) > 2:
                answer = f"{answer} {sentence}".strip()
        if len(_WORD.findall(answer)) < 5 or not answer.endswith((".", ":")):
            continue
        asked = f"What does {block.signature} do?" if block.signature else f"What does section {block.title} describe?"
        yield Question(block.topic, asked, answer.removesuffix(":") + "." if answer.endswith(":") else answer)


def overlap(train: Iterable[str], held_out: Iterable[str], words: int = LEAK_WORDS) -> float:
    """The share of the runs of `words` words in `held_out` that are in `train` too."""
    known = {gram for text in train for gram in _grams(text, words)}
    asked = [gram for text in held_out for gram in _grams(text, words)]
    return sum(gram in known for gram in asked) / max(len(asked), 1)


def _grams(text: str, words: int) -> Iterator[bytes]:
    found = [word.lower() for word in _WORD.findall(text)]
    for start in range(len(found) - words + 1):
        yield hashlib.blake2b(" ".join(found[start : start + words]).encode(), digest_size=8).digest()


def _groups(topics: Mapping[str, int], sharing: Iterable[list[str]]) -> list[list[str]]:
    """Topics that share something, directly or through others, in groups."""
    group = {topic: [topic] for topic in topics}
    for first, *others in sharing:
        for other in others:
            if group[other] is not group[first]:
                group[first].extend(group[other])
                for moved in group[other]:
                    group[moved] = group[first]
    return sorted({min(one): sorted(one) for one in group.values()}.values())


def _plain(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(?<=[a-z])- (?=[a-z])", "-", text)  # a word that was broken at its hyphen
    return text.replace("**", "").replace("”", '"').replace("“", '"').replace("’", "'")


def _is_signature(rows: list[str]) -> bool:
    return len(rows) <= 2 and not rows[0].startswith(" ") and _ENTRY.match(rows[0]) is not None


def _is_prose(text: str) -> bool:
    """Whether a paragraph is English, by its letters and its end, and neither grammar, code nor table."""
    if "::=" in text or ">>>" in text or text.startswith(("+--", "|", "import ", "def ", "class ", "@")):
        return False
    letters = sum(character.isalpha() or character == " " for character in text)
    return len(_WORD.findall(text)) >= 5 and letters / len(text) >= 0.75 and text[-1] in ".:!?)"
