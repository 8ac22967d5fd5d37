"""Model name → what counts its tokens offline: an exact tokenizer where its files are at hand, else an estimate.

A count always says which tokenizer made it and whether it is exact. Nothing is downloaded: vocabularies come with
bpe-openai (cl100k_base, o200k_base), llama-models (Llama 3, Llama 4) and mistral-common (Tekken), or from a local
tokenizer.json. Llama's and Mistral's files are read here, because importing their packages is slow.
"""

from __future__ import annotations

import base64
import difflib
import functools
import importlib
import importlib.util
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from michelangelo import errors

__all__ = ["BUNDLED", "MODELS", "Family", "Tokenizer", "for_model", "known_models", "load", "ratios"]

BUNDLED: Final = ("cl100k_base", "o200k_base", "llama3", "llama4", "tekken_240718", "tekken_240911")
_OPENAI_SOURCE: Final = "openai/tiktoken, tiktoken/model.py"
_CACHE: Final = Path("~/.cache/huggingface/hub")
_NEAREST: Final = 4
# Llama's and OpenAI's patterns differ in how words and digits are split; both end a run of line ends at its last one,
# which is what `splitting` relies on.
_LLAMA3_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_LLAMA4_PATTERN: Final = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LATIN: Final = (0.95, 1.15, 1.45)
_OTHER: Final = (0.60, 1.20, 2.50)
"""Tokens of a tokenizer that nobody published, per token of o200k_base: low, middle, high; for Latin script, and for
other scripts. Llama 3, Llama 4 and Tekken make 0.98 … 1.05 on English and code and 0.60 … 1.72 on Russian, Chinese,
Japanese, Hindi, Arabic and Korean (benchmarks/tokens.py measures it). The upper ends leave room for a tokenizer that
makes a third more, as Anthropic says of its newer ones. It is a range of experience, not a confidence interval."""


@dataclass(frozen=True, slots=True)
class Family:
    """Names of models (a pattern of the whole name, lower case) and how their tokens are counted."""

    pattern: str
    tokenizer: str
    """One of BUNDLED; empty: not published, so it is estimated."""
    vendor: str
    source: str
    example: str


MODELS: Final = (
    Family(r"(gpt-5|gpt-4\.[15]|gpt-4o|chatgpt-4o|o[134])([-.].*)?", "o200k_base", "openai", _OPENAI_SOURCE, "gpt-4o"),
    Family(r"gpt-oss(-.*)?", "o200k_base", "openai", "openai/gpt-oss: o200k_harmony, whose text part it is", "gpt-oss"),
    Family(r"(gpt-4|gpt-3\.5|gpt-35)(-.*)?", "cl100k_base", "openai", _OPENAI_SOURCE, "gpt-4-turbo"),
    Family(r"text-embedding-.*", "cl100k_base", "openai", _OPENAI_SOURCE, "text-embedding-3-small"),
    Family(
        r"(meta-)?llama-?4.*", "llama4", "llama", "meta-llama/llama-models, llama4/tokenizer.model", "llama-4-scout"
    ),
    Family(r"(meta-)?llama-?3.*", "llama3", "llama", "meta-llama/llama-models, llama3/tokenizer.model", "llama-3.1-8b"),
    Family(
        r"(open-)?mistral-nemo.*|pixtral-12b.*",
        "tekken_240718",
        "mistral",
        "mistralai/mistral-common, data/tekken_240718.json",
        "mistral-nemo",
    ),
    Family(
        r"(ministral|pixtral|mistral-small|mistral-medium|mistral-large|magistral|devstral).*",
        "tekken_240911",
        "mistral",
        "mistralai/mistral-common, data/tekken_240911.json",
        "mistral-small",
    ),
    Family(r"(open-)?(mistral|mixtral|codestral).*", "", "mistral", "SentencePiece, not at hand", "mixtral-8x7b"),
    Family(r"claude.*", "", "anthropic", "not published by Anthropic", "claude-sonnet-4-5"),
    Family(r"gemini.*", "", "gemini", "not published by Google as a file for these models", "gemini-2.5-pro"),
    Family(r"(grok|deepseek|qwen|kimi|glm|command|sonar|nova|phi|gemma|yi).*", "", "other", "not at hand", "grok-4"),
)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`count_exact(text)` is what the named vocabulary makes of it, special tokens read as plain text."""

    name: str
    is_exact: bool
    source: str
    vendor: str
    is_splittable: bool
    """Whether a text may be counted in the parts that `splitting` makes."""
    count_exact: Callable[[str], int]

    def count(self, text: str) -> tuple[int, int, int]:
        """Tokens: low, middle, high. All the same when exact."""
        tokens = self.count_exact(text)
        if self.is_exact:
            return tokens, tokens, tokens
        low, middle, high = ratios(text)
        return int(tokens * low), round(tokens * middle), -int(-tokens * high // 1)


def ratios(text: str) -> tuple[float, float, float]:
    """Low, middle and high of an unpublished tokenizer's tokens per token of o200k_base, by the scripts of the text."""
    other = sum(1 for c in text[:20_000] if c > "ɏ" and c.isalpha())
    share = other / max(1, sum(1 for c in text[:20_000] if c.isalpha()))
    low, middle, high = (a + (b - a) * share for a, b in zip(_LATIN, _OTHER, strict=True))
    return low, middle, high


def for_model(model: str, *, tokenizer: str = "") -> Tokenizer:
    """What counts the tokens of `model`. `tokenizer`: one of BUNDLED, a tokenizer.json or a folder with one.

    Raises PricingError for a name that nobody knows, with the nearest ones.
    """
    if tokenizer:
        return load(tokenizer)
    if not model.strip():
        raise errors.PricingError("the name of the model is empty: give one, such as gpt-4o")
    if Path(model).exists() or _cached(model):
        return load(model)
    short = model.lower().rpartition("/")[2].rpartition(":")[2]
    short = re.sub(r"^(\w+\.)?(anthropic|meta|mistral|amazon)\.", "", short)
    for family in MODELS:
        if re.fullmatch(family.pattern, short):
            return _of_family(family)
    names = known_models()
    near = difflib.get_close_matches(short, names, n=_NEAREST, cutoff=0.4) or list(names[:_NEAREST])
    raise errors.PricingError(
        f"model {model!r}: no tokenizer is known for it; did you mean {', '.join(near)}? "
        "Or name its tokenizer: a tokenizer.json, a folder with one, or one of " + ", ".join(BUNDLED)
    )


def known_models() -> tuple[str, ...]:
    """One example of each family."""
    return tuple(family.example for family in MODELS)


@functools.lru_cache(maxsize=8)
def load(name: str) -> Tokenizer:
    """A bundled tokenizer, or a tokenizer.json in a folder or in the local hub cache. Raises PricingError."""
    if name in BUNDLED:
        family = next(f for f in MODELS if f.tokenizer == name)
        return Tokenizer(name, True, family.source, family.vendor, True, _counter(name))
    path = Path(name).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        cached = _cached(name)
        if cached is None:
            raise errors.PricingError(
                f"tokenizer {name!r}: no such file, folder with a tokenizer.json, or model in the local hub cache; "
                f"bundled are {', '.join(BUNDLED)}"
            )
        path = cached
    return Tokenizer(name, True, str(path), "huggingface", False, _hugging_face(path))


def _of_family(family: Family) -> Tokenizer:
    if family.tokenizer:
        exact = load(family.tokenizer)
        return Tokenizer(exact.name, True, family.source, family.vendor, True, exact.count_exact)
    measured = load("o200k_base")
    name = "estimate by o200k_base"
    return Tokenizer(name, False, family.source, family.vendor, True, measured.count_exact)


def _counter(name: str) -> Callable[[str], int]:
    if name in ("cl100k_base", "o200k_base"):
        with warnings.catch_warnings():
            # Its loader of files calls what importlib.resources has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            bindings = importlib.import_module("bpe_openai._bindings")
        backend: Any = bindings.tokenizer_for_encoding(name)
        return lambda text: int(backend.count(_sane(text)))
    encoding = _tekken(name) if name.startswith("tekken") else _llama(name)
    return lambda text: len(encoding.encode_ordinary(_sane(text)))


def _sane(text: str) -> str:
    """Lone surrogates, which no tokenizer takes, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if not _is_utf8(text) else text


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _llama(name: str) -> Any:
    """tokenizer.model of Llama 3 and 4: one line for each token, base64 and rank."""
    lines = (_folder("llama_models") / name / "tokenizer.model").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    return _encoding(name, _LLAMA3_PATTERN if name == "llama3" else _LLAMA4_PATTERN, ranks)


def _tekken(name: str) -> Any:
    """Tekken's JSON: the first `default_vocab_size - default_num_special_tokens` entries are the BPE's ranks."""
    document = json.loads((_folder("mistral_common") / "data" / f"{name}.json").read_bytes())
    config = document["config"]
    size = config["default_vocab_size"] - config["default_num_special_tokens"]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in document["vocab"][:size]}
    return _encoding(name, config["pattern"], ranks)


def _encoding(name: str, pattern: str, ranks: dict[bytes, int]) -> Any:
    tiktoken = importlib.import_module("tiktoken")
    return tiktoken.Encoding(name=name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise errors.PricingError(f"the package {package} is missing: install michelangelo[tokens]")
    return Path(found.origin).parent


def _hugging_face(path: Path) -> Callable[[str], int]:
    library = importlib.import_module("tokenizers")
    try:
        json.loads(path.read_bytes())
        made = library.Tokenizer.from_file(str(path))
    except (OSError, ValueError) as e:
        raise errors.PricingError(f"{path}: no tokenizer.json that can be read: {e}") from e
    return lambda text: len(made.encode(_sane(text), add_special_tokens=False).ids)


def _cached(name: str) -> Path | None:
    """The newest snapshot's tokenizer.json of `owner/name` in the hub's cache."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return None
    found = sorted((_CACHE.expanduser() / f"models--{name.replace('/', '--')}").glob("snapshots/*/tokenizer.json"))
    return found[-1] if found else None
