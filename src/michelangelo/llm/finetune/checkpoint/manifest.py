"""The manifest of a checkpoint: which files it has, with sizes and digests, and which part of which tensor is where.

It is written last, so a folder with a manifest is a whole checkpoint. It carries a digest of itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.finetune.checkpoint.storage import Written

__all__ = [
    "DAMAGED_NAME",
    "FILE_NAME",
    "FOLDER_PREFIX",
    "FORMAT",
    "Chunk",
    "Manifest",
    "TensorEntry",
    "decode",
    "encode",
]

FILE_NAME: Final = "manifest.json"
DAMAGED_NAME: Final = "manifest.damaged.json"
"""What the manifest of a damaged checkpoint is called from then on: it is none any more, and can be looked at."""
FOLDER_PREFIX: Final = "step-"
FORMAT: Final = 1
_MAX_BYTES: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """A rectangle of a tensor: `name` in the safetensors file `file`."""

    file: str
    name: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorEntry:
    dtype: str
    """As torch calls it: `bfloat16`."""
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    step: int
    number: int
    """Counts the checkpoints of a folder: the highest is the newest, also after a roll-back to an earlier step."""
    world_size: int
    validation_loss: float | None
    shared: Mapping[str, Any]
    files: Mapping[str, Written]
    tensors: Mapping[str, TensorEntry]
    """By name, with `model.` or `optimizer.` in front."""

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files.values())


def encode(manifest: Manifest) -> bytes:
    content = json.dumps({"format": FORMAT, **asdict(manifest)}, separators=(",", ":"))
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f'{{"sha256":"{digest}","content":{content}}}\n'.encode()


def decode(data: bytes) -> Manifest:
    """Raises CheckpointError that says what is wrong, without the name of the file."""
    if len(data) > _MAX_BYTES:
        raise errors.CheckpointError(f"the manifest has {len(data):,} bytes, which is too many to be one")
    begin = data.find(b'"content":')
    content = data[begin + len(b'"content":') : -2] if begin >= 0 else b""
    expected = f'{{"sha256":"{hashlib.sha256(content).hexdigest()}","content":'.encode() + content + b"}\n"
    if data != expected:
        raise errors.CheckpointError("the manifest does not have the digest that it names")
    try:
        return _manifest(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise errors.CheckpointError(f"the manifest cannot be understood: {e}") from e


def _manifest(found: Any) -> Manifest:
    if found["format"] != FORMAT:
        raise errors.CheckpointError(f"the manifest has format {found['format']}, and this version reads {FORMAT}")
    if any("/" in name or name.startswith(".") for name in found["files"]):
        raise errors.CheckpointError("the manifest names files outside of its folder")
    return Manifest(
        step=int(found["step"]),
        number=int(found["number"]),
        world_size=int(found["world_size"]),
        validation_loss=found["validation_loss"],
        shared=found["shared"],
        files={name: Written(**file) for name, file in found["files"].items()},
        tensors={name: _entry(entry) for name, entry in found["tensors"].items()},
    )


def _entry(found: Any) -> TensorEntry:
    chunks = tuple(Chunk(c["file"], c["name"], tuple(c["offsets"]), tuple(c["sizes"])) for c in found["chunks"])
    return TensorEntry(found["dtype"], tuple(found["shape"]), chunks)
