"""What a retrieval looks like when the corpus answers the question: numbers between 0 and 1, larger is always better.

They come from the retrieval alone: similarities, ranks, words, and whether a passage has the sort of thing that is
asked for (a version, a number, an error's name). What a document tells its reader to do changes none of them beyond
the words it has. Pure functions of the retrieval; the weights are `gate`'s.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from michelangelo.llm.contexteval.retrieval import Passage, Retrieval, Sentence, Term

__all__ = ["BASELINE", "NAMES", "compute", "explain", "matrix"]

BASELINE: Final[tuple[str, ...]] = ("top_cosine",)
"""The features of a gate that is a fixed cosine cut-off."""
_TOP: Final = 3
"""How many passages count as what the answer may be taken from."""
_NUMBERS: Final = "no|one|two|three|four|five|six|seven|eight|nine|ten|zero|unlimited|single"
_HOW_MANY: Final = re.compile(
    r"\bhow many (?:more )?((?:\w+[ -]){0,2}?\w+)"
    r"(?= (?:can|could|does|do|did|is|are|was|were|may|must|should|will|has|have|at|in|on|per|to)\b|\?|$)",
    re.IGNORECASE,
)
"""Its group: of what. A number of something else, or of some of them only ("at most one irrefutable case block"), does
not say how many there are."""
_ENDINGS: Final = re.compile(r"(?:ies|es|s|y)$")
_HOW_OFTEN: Final = r"\b(?:once|twice|never|times|each time)\b"
_EXPECTED: Final[tuple[tuple[str, str], ...]] = (
    (r"\bpeps?\b", r"\bPEP\s*\d+"),
    (
        r"\b(?:which|what|python|since|before|from|until|in)\b.{0,20}\b(?:versions?|releases?)\b"
        r"|^(?:since )?when (?:was|were|did|has|is|became)\b.{0,60}\b(?:added|introduced|deprecated|removed|become)"
        r"|\bversion (?:that|when)\b|\b(?:added|introduced|deprecated|removed) (?:when|in which)\b|\bsince when\b",
        r"\b(?:version|since|python|release)s?\W{0,3}v?\d+\.\d+|\bversion \d",
    ),
    (
        r"\b(?:which|what) (?:exceptions?|errors?)\b|\b(?:exception|error) (?:is|does|do|will|comes?|results?)\b"
        r"|\b(?:raises?|raised|throws?|thrown) (?:what|which|by|when|if)\b"
        r"|\bwhat (?:does|do|is|will)\b.{0,60}\brais(?:e|es|ed)\b",
        r"\b[A-Z]\w*(?:Error|Exception|Iteration|Exit|Interrupt|Warning)\b",
    ),
    (
        r"\bhow (?:much|long|large|big|tall|far|fast|old|wide|deep|often|expensive|slow|hot|high)\b"
        r"|\b(?:maximum|minimum|max|min|largest|smallest|size|number|count|limit|length|width|value)\b",
        rf"\d|\b(?:{_NUMBERS}|once|twice|none|exactly)\b",
    ),
    (r"^when (?:did|was|were|does)\b|\bin (?:which|what) year\b|\brelease date\b", r"\b(?:1[5-9]|20)\d\d\b|\d+\.\d+"),
    (
        r"^(?:by )?who(?:se|m)?\b|\b(?:invented|author of|written by|created by|designed by)\b",
        r"\b(?:by|author|inventor|created by|invented)\b.{0,20}[A-Z][a-z]+ [A-Z][a-z]+",
    ),
    (
        r"^why\b|\breason\b",
        r"\b(?:because|since|due to|reason|therefore|so that|in order|motivation|thus|consequence|this means|keep)\b",
    ),
    (r"\bdefaults?\b", r"\bdefaults?\b|\bomitted\b|\bnot given\b"),
    (
        r"\b(?:complexity|fast(?:er)?|slow(?:er)?|speed|performance|nanoseconds?|overhead|expensive|cost)\b",
        r"\b(?:time|speed|fast|slow|quadratic|linear|constant|cost|faster|efficient|performance|O\()",
    ),
)
"""What a question asks for, and what a text that can answer has. English; a question of another language expects
nothing, which costs nothing."""


def compute(retrieval: Retrieval) -> dict[str, float]:
    """Every feature by name. All are 0 when nothing was found."""
    if not retrieval.passages:
        return dict.fromkeys(NAMES, 0.0)
    return {name: min(1.0, max(0.0, float(feature(retrieval)))) for name, (feature, _) in _FEATURES.items()}


def matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> npt.NDArray[np.float64]:
    """One row per retrieval, one column per name."""
    return np.array([[row[name] for name in names] for row in rows], dtype=float).reshape(len(rows), len(names))


def explain(name: str) -> str:
    """What a feature says, in one line."""
    return _FEATURES[name][1]


def _top(retrieval: Retrieval) -> Sequence[Passage]:
    return retrieval.passages[:_TOP]


def _top_cosine(retrieval: Retrieval) -> float:
    return retrieval.top_cosines[0] if retrieval.top_cosines else 0.0


def _margin(retrieval: Retrieval) -> float:
    cosines = retrieval.top_cosines
    return 4 * (cosines[0] - cosines[-1]) if len(cosines) > 1 else 0.0


def _bm25_share(retrieval: Retrieval) -> float:
    """Of Lucene's variant a term adds its idf at most, so the sum over the question's terms is the most there is."""
    most = sum(term.idf for term in retrieval.terms)
    return max(passage.bm25 for passage in _top(retrieval)) / most if most else 0.0


def _agreement(retrieval: Retrieval) -> float:
    def of(passage: Passage) -> float:
        if passage.cosine_rank is None or passage.bm25_rank is None:
            return 0.0
        return 1.0 / math.sqrt(passage.cosine_rank * passage.bm25_rank)

    return max(map(of, _top(retrieval)))


def _overlap(retrieval: Retrieval) -> float:
    dense, lexical = set(retrieval.dense[:10]), set(retrieval.lexical[:10])
    return len(dense & lexical) / max(1, min(len(dense), len(lexical)))


def _coverage(retrieval: Retrieval) -> float:
    return max(passage.coverage for passage in _top(retrieval))


def _sentence_coverage(retrieval: Retrieval) -> float:
    return max((one.coverage for passage in _top(retrieval) for one in passage.sentences), default=0.0)


def _sentence_similarity(retrieval: Retrieval) -> float:
    return max((one.similarity or 0.0 for passage in _top(retrieval) for one in passage.sentences), default=0.0)


def _sentence_both(retrieval: Retrieval) -> float:
    """The best of one sentence that is both like the question and has its words."""
    pairs = (
        math.sqrt(max(0.0, one.coverage) * max(0.0, one.similarity))
        for passage in _top(retrieval)
        for one in passage.sentences
        if one.similarity is not None
    )
    return max(pairs, default=0.0)


def _proximity(retrieval: Retrieval) -> float:
    return max(passage.proximity * passage.coverage for passage in _top(retrieval))


def _anchors(retrieval: Retrieval) -> float:
    if not retrieval.anchors:
        return 1.0
    return max(
        sum(_has_anchor(passage, anchor) for anchor in retrieval.anchors) / len(retrieval.anchors)
        for passage in _top(retrieval)
    )


def _has_anchor(passage: Passage, anchor: str) -> float:
    """1 for the anchor as it stands; of a dotted name (`list.remove`) nearly as much for its last part alone, as a
    section on lists need not say the first one again."""
    if anchor in passage.anchors:
        return 1.0
    last = re.split(r"[.\s]", anchor.rstrip("().= "))[-1]
    is_there = len(last) > 1 and re.search(rf"(?<!\w){re.escape(last)}(?!\w)", passage.text) is not None
    return 0.8 if is_there else 0.0


def _rarest_term(retrieval: Retrieval) -> float:
    """1 less the weight of the rarest word of the question that no sentence neighbourhood of the best passages has."""
    return max(1.0 - _missing(retrieval, passage) for passage in _top(retrieval))


def _known_terms(retrieval: Retrieval) -> float:
    weight = sum(term.idf for term in retrieval.terms)
    return sum(term.idf for term in retrieval.terms if term.num_chunks) / weight if weight else 0.0


def _expected(retrieval: Retrieval) -> float:
    """Whether a sentence near the question has what is asked for; 1 when nothing in particular is."""
    wanted = _wanted(retrieval.question)
    return max(_share(wanted, text) for passage in _top(retrieval) for text in _near(passage))


def _answer_sentence(retrieval: Retrieval) -> float:
    """As `_sentence_both`, of half the weight where what is asked for stands neither in it nor in the next one."""
    wanted = _wanted(retrieval.question)
    found = (
        math.sqrt(max(0.0, one.coverage) * similarity) * (0.5 + 0.5 * _share(wanted, text))
        for one, similarity, text in _with_next(retrieval)
    )
    return max(found, default=0.0)


def _sentence_in_context(retrieval: Retrieval) -> float:
    """As `_sentence_both`, but the question's words may also stand in the sentence's heading or in the next one."""
    weight = sum(term.idf for term in retrieval.terms)
    if not weight:
        return 0.0
    found = (
        math.sqrt(similarity * sum(term.idf for term in retrieval.terms if _has(text, term)) / weight)
        for _, similarity, near in _with_next(retrieval)
        for text in [near.casefold()]
    )
    return max(found, default=0.0)


def _with_next(retrieval: Retrieval) -> Iterator[tuple[Sentence, float, str]]:
    """The sentences that have a similarity, with it (at least 0) and their text between heading and next sentence."""
    for passage in _top(retrieval):
        for i, one in enumerate(passage.sentences):
            if one.similarity is not None:
                texts = (*passage.section, *(near.text for near in passage.sentences[i : i + 2]))
                yield one, max(0.0, one.similarity), " ".join(texts)


@functools.lru_cache(maxsize=1000)
def _wanted(question: str) -> tuple[re.Pattern[str], ...]:
    """What a text that answers this question has: all of these. None: nothing in particular is asked for."""
    wanted = [answer for asked, answer in _compiled() if asked.search(question)]
    if many := _HOW_MANY.search(question):
        words = [re.escape(_ENDINGS.sub("", word)) for word in re.split("[ -]", many[1])]
        phrase = r"\W+".join(rf"{word}\w*" for word in words)
        wanted.append(
            _HOW_OFTEN if words[-1] == "tim" else rf"(?i)(?<!\w)(?:\d+|{_NUMBERS}|any number of)\W{{1,3}}{phrase}"
        )
    return tuple(map(re.compile, wanted))


def _share(wanted: Sequence[re.Pattern[str]], text: str) -> float:
    return sum(bool(pattern.search(text)) for pattern in wanted) / len(wanted) if wanted else 1.0


def _passage_score(retrieval: Retrieval) -> float:
    return retrieval.passages[0].score


def _near(passage: Passage) -> list[str]:
    """Of a passage, the sentences that speak of the question: the two most like it, each with the one after it."""
    ranked = sorted(
        range(len(passage.sentences)),
        key=lambda i: (passage.sentences[i].similarity or 0.0) + passage.sentences[i].coverage,
        reverse=True,
    )
    return [" ".join(one.text for one in passage.sentences[i : i + 2]) for i in ranked[:2]] or [passage.text]


def _missing(retrieval: Retrieval, passage: Passage) -> float:
    text = " ".join((*passage.section, passage.text)).casefold()
    highest = math.log(1 + (retrieval.num_chunks + 0.5) / 0.5)
    return max((term.idf for term in retrieval.terms if not _has(text, term)), default=0.0) / highest


def _has(text: str, term: Term) -> bool:
    # A stem is the beginning of its word, but for a last letter that the stemmer changed (memory → memori).
    beginning = term.stem[:-1] if len(term.stem) > 3 and term.stem[-1] in "iy" else term.stem
    return re.search(rf"(?:\b|_){re.escape(beginning)}", text) is not None


@functools.cache
def _compiled() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(asked, re.IGNORECASE), answer) for asked, answer in _EXPECTED)


_FEATURES: Final[Mapping[str, tuple[Callable[[Retrieval], float], str]]] = {
    "top_cosine": (_top_cosine, "the largest cosine of question and chunk"),
    "margin": (_margin, "how far it stands above the tenth"),
    "bm25_share": (_bm25_share, "BM25, of the most that the question's words could reach"),
    "agreement": (_agreement, "whether both searches rank the same passage first"),
    "overlap": (_overlap, "how many of the first ten both searches share"),
    "coverage": (_coverage, "idf-weighted share of the question's words in a passage"),
    "sentence_coverage": (_sentence_coverage, "the same in one sentence"),
    "sentence_similarity": (_sentence_similarity, "the largest cosine of question and sentence"),
    "sentence_both": (_sentence_both, "one sentence that is like the question and has its words"),
    "proximity": (_proximity, "how close together the words stand"),
    "anchors": (_anchors, "share of the question's names, numbers and identifiers in a passage"),
    "rarest_term": (_rarest_term, "whether the rarest words of the question are there"),
    "known_terms": (_known_terms, "share of the question's words that the corpus has at all"),
    "answer_sentence": (_answer_sentence, "such a sentence that has what is asked for, in it or after it"),
    "sentence_in_context": (_sentence_in_context, "a sentence like the question whose surroundings have its words"),
    "expected": (_expected, "whether what is asked for (version, number, error, reason) stands near"),
    "passage_score": (_passage_score, "what the best passage was ranked by"),
}
NAMES: Final[tuple[str, ...]] = tuple(_FEATURES)
"""All features, in the order of the saved weights."""
