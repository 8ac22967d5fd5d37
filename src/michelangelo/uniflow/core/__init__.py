"""The names of the upstream SDK, as thin layers over `michelangelo.uniflow`.

Files that say `import michelangelo.uniflow.core as uniflow` import and run unchanged; new ones use
`michelangelo.uniflow`. What differs is in docs/upstream.md.
"""

from __future__ import annotations

from michelangelo.uniflow.codecs.io_registry import IO
from michelangelo.uniflow.core.context import create_context
from michelangelo.uniflow.core.decorator import star_plugin, task, task_context, workflow
from michelangelo.uniflow.image_spec import ImageSpec

__all__ = ["IO", "ImageSpec", "create_context", "star_plugin", "task", "task_context", "workflow"]
