"""The codec of Pillow's images: data, as PNG where PNG holds every pixel of the mode, else as the pixels themselves."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from typing import Any, Final

import PIL.Image

from michelangelo.errors import CodecError
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__: list[str] = []

_PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_KEPT: Final = ("exif", "icc_profile", "transparency")


def _encode(value: PIL.Image.Image, encoder: Encoder) -> dict[str, Any]:
    if getattr(value, "n_frames", 1) > 1:
        raise Unencodable("image with several frames; return its file as a uniflow.File, or a list of its frames")
    leaf: dict[str, Any] = {"mode": value.mode, "width": value.width, "height": value.height}
    if value.mode in _PNG_MODES and value.width and value.height:
        kept = {name: value.info[name] for name in _KEPT if name in value.info}
        leaf |= {"format": "png", **encoder.stream(lambda file: value.save(file, "png", **kept))}
    elif value.mode == "PA":
        raise Unencodable("image of the mode PA; return image.convert('RGBA')")
    else:
        leaf |= {"format": "pixels", **encoder.blob(zlib.compress(value.tobytes()))}
    return {
        **leaf,
        "type": "PIL.Image:Image",
        "metadata": {"mode": value.mode, "width": value.width, "height": value.height},
    }


def _decode(leaf: Mapping[str, Any], decoder: Decoder) -> PIL.Image.Image:
    data = decoder.bytes(leaf)
    try:
        if leaf["format"] == "pixels":
            return PIL.Image.frombytes(leaf["mode"], (leaf["width"], leaf["height"]), zlib.decompress(data))
        with PIL.Image.open(io.BytesIO(data), formats=["png"]) as image:
            image.load()
            found = image.copy()
    except (PIL.UnidentifiedImageError, PIL.Image.DecompressionBombError, OSError, zlib.error) as error:
        raise CodecError(f"blob {leaf['blob']} is no image: {error}") from error
    return found


install(Codec("image", _encode, _decode, is_data=True), PIL.Image.Image, subclasses=True)
