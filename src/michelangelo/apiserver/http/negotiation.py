"""In which form a client wants its answer: from the Accept header. It builds no answer.

What cannot be served is answered as JSON, as HTTP allows: every client of this API reads that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

__all__ = ["JSON", "Form", "accepted", "wanted"]

_SHAPES: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("meta.k8s.io", "Table"): ("v1", "v1beta1"),
    ("meta.k8s.io", "PartialObjectMetadata"): ("v1", "v1beta1"),
    ("meta.k8s.io", "PartialObjectMetadataList"): ("v1", "v1beta1"),
    ("apidiscovery.k8s.io", "APIGroupDiscoveryList"): ("v2", "v2beta1"),
}


@dataclass(frozen=True, slots=True)
class Form:
    encoding: Literal["json", "yaml"] = "json"
    shape: str = ""
    """Empty: the object as it is; else the kind that it is shown as."""
    group: str = ""
    version: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"


JSON: Final = Form()


@dataclass(frozen=True, slots=True)
class _Range:
    media_type: str
    parameters: dict[str, str]
    quality: float


@lru_cache(maxsize=256)
def accepted(header: str, *shapes: str) -> Form:
    """The first form of the header that is served here, the best quality first. `shapes` are those that the route
    has."""
    for wanted_range in wanted(header):
        encoding = _encoding(wanted_range.media_type)
        if encoding is None:
            continue
        shape = wanted_range.parameters.get("as", "")
        if not shape:
            return Form(encoding)
        group, version = wanted_range.parameters.get("g", ""), wanted_range.parameters.get("v", "")
        if shape in shapes and version in _SHAPES.get((group, shape), ()):
            return Form(encoding, shape, group, version)
    return JSON


def wanted(header: str) -> list[_Range]:
    """The ranges of an Accept header, the best first."""
    found: list[_Range] = []
    for part in header[:4096].split(","):
        media_type, *rest = (piece.strip() for piece in part.split(";"))
        parameters = dict(piece.partition("=")[::2] for piece in rest)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 0.0
        if media_type and quality > 0:
            found.append(_Range(media_type.lower(), parameters, quality))
    return sorted(found, key=lambda one: -one.quality)


def _encoding(media_type: str) -> Literal["json", "yaml"] | None:
    if media_type in ("application/json", "application/*", "*/*"):
        return "json"
    return "yaml" if media_type == "application/yaml" else None
