"""Which checkpoints stay: the last ones, and the best by validation loss. It decides; it deletes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable

from michelangelo.llm.finetune.checkpoint.manifest import Manifest

__all__ = ["superfluous"]


def superfluous(manifests: Iterable[Manifest], *, keep_last: int, keep_best: int) -> list[Manifest]:
    """Oldest first. Of checkpoints with the same loss the first one is the best: it was saved right after that
    evaluation, the others only know of it."""
    by_age = sorted(manifests, key=lambda found: found.number)
    kept = {found.number for found in by_age[-keep_last:]}
    judged = [found for found in by_age if found.validation_loss is not None and math.isfinite(found.validation_loss)]
    judged.sort(key=lambda found: (found.validation_loss, found.number))
    kept |= {found.number for found in judged[:keep_best]}
    return [found for found in by_age if found.number not in kept]
