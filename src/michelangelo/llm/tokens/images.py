"""Tokens of an image, where the vendor's rule is public. Only its size matters; no image is decoded whole.

Rules as published: OpenAI platform.openai.com/docs/guides/images-vision ("Calculating costs"), Anthropic
docs.anthropic.com/en/docs/build-with-claude/vision, Google ai.google.dev/gemini-api/docs/tokens.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

from michelangelo import errors

__all__ = ["Detail", "count", "size_of"]

Detail: TypeAlias = Literal["low", "high"]
_LARGEST: Final = 100_000
_TILES: Final[Mapping[str, tuple[int, int]]] = {
    "gpt-4o-mini": (2833, 5667),
    "gpt-4o": (85, 170),
    "gpt-4.1": (85, 170),
    "gpt-4.5": (85, 170),
    "gpt-4-turbo": (85, 170),
    "chatgpt-4o": (85, 170),
    "gpt-5": (70, 140),
    "o1": (75, 150),
    "o3": (75, 150),
}
"""OpenAI: tokens of an image, and of each tile of 512 pixels; the longest name that begins the model's."""
_PATCHES: Final[Mapping[str, float]] = {
    "gpt-4.1-mini": 1.62,
    "gpt-4.1-nano": 2.46,
    "gpt-5-mini": 1.62,
    "gpt-5-nano": 2.46,
    "o4-mini": 1.72,
}
"""OpenAI: factor on the patches of 32 pixels."""
_PATCH: Final = 32
_MOST_PATCHES: Final = 1536


def size_of(image: str) -> tuple[int, int]:
    """`WxH`, or the size of a file. Raises PricingError."""
    if found := re.fullmatch(r"(\d{1,9})[x×](\d{1,9})", image):
        return _checked(int(found[1]), int(found[2]))
    if not Path(image).is_file():
        raise errors.PricingError(f"image {image!r}: no such file, and no size such as 1024x768")
    library = importlib.import_module("PIL.Image")
    try:
        with library.open(image) as opened:
            width, height = opened.size
    except (OSError, ValueError, library.DecompressionBombError) as e:
        raise errors.PricingError(f"{image}: no image that can be read: {e}") from e
    return _checked(width, height)


def count(model: str, width: int, height: int, detail: Detail = "high") -> int:
    """Tokens of one image. Raises PricingError for a size that cannot be, or a model whose rule is not public."""
    _checked(width, height)
    name = model.lower().rpartition("/")[2]
    if name.startswith("claude") or ".claude" in name:
        return _anthropic(width, height)
    if name.startswith("gemini"):
        return _gemini(width, height)
    factor = _longest(_PATCHES, name)
    tiles = _longest(_TILES, name)
    if factor is not None and len(factor) >= len(tiles or ""):
        return math.ceil(_patches(width, height) * _PATCHES[factor])
    if tiles is not None:
        base, each = _TILES[tiles]
        return base if detail == "low" else base + each * _tiles(width, height)
    raise errors.PricingError(
        f"model {model!r}: no public rule for images is known; known are those of {', '.join([*_TILES, *_PATCHES])}, "
        "claude and gemini"
    )


def _tiles(width: int, height: int) -> int:
    """Scaled down into 2048 x 2048, then until the shorter side is 768; tiles of 512."""
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    # Rounding to whole pixels first: 1024.0000001 is no third tile.
    return math.prod(math.ceil(max(1, round(side * scale)) / 512) for side in (width, height))


def _patches(width: int, height: int) -> int:
    """Patches of 32 pixels; scaled down, to whole patches on one side, where they were more than 1,536."""
    across, down = math.ceil(width / _PATCH), math.ceil(height / _PATCH)
    if across * down <= _MOST_PATCHES:
        return across * down
    scale = math.sqrt(_PATCH**2 * _MOST_PATCHES / (width * height))
    wide, high = width * scale / _PATCH, height * scale / _PATCH
    scale *= min(max(1, math.floor(side)) / side for side in (wide, high))
    across, down = (math.ceil(round(side * scale / _PATCH, 6)) for side in (width, height))
    return min(across * down, _MOST_PATCHES)


def _anthropic(width: int, height: int) -> int:
    """width x height / 750, scaled down so that the longer side is 1,568 and there are about 1,600 tokens at most."""
    scale = min(1.0, 1568 / max(width, height))
    scale = min(scale, math.sqrt(1600 * 750 / (width * height)))
    return math.ceil(round(width * scale * height * scale / 750, 6))


def _gemini(width: int, height: int) -> int:
    """258 up to 384 x 384; larger ones are cut into tiles of 768, 258 each (Gemini 2.0 and later)."""
    if width <= 384 and height <= 384:
        return 258
    return 258 * math.ceil(width / 768) * math.ceil(height / 768)


def _longest(names: Mapping[str, object], model: str) -> str | None:
    return max((name for name in names if model.startswith(name)), key=len, default=None)


def _checked(width: int, height: int) -> tuple[int, int]:
    if not (1 <= width <= _LARGEST and 1 <= height <= _LARGEST):
        raise errors.PricingError(f"image of {width}x{height}: each side is 1 to {_LARGEST:,} pixels")
    return width, height
