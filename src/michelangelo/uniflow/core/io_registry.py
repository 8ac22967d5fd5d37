"""Upstream's place of the registry of custom types: `default_io.set(MyType, MyTypeIO())`."""

from __future__ import annotations

from michelangelo.uniflow.codecs.io_registry import IO as IO
from michelangelo.uniflow.codecs.io_registry import IORegistry as IORegistry
from michelangelo.uniflow.codecs.io_registry import default_io as default_io
from michelangelo.uniflow.codecs.io_registry import io_registry as io_registry

__all__: list[str] = []
