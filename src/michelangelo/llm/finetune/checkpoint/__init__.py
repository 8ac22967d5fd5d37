"""The state of a run on disk or in an object store: written beside training, whole or not at all, loaded in place.

torch.distributed.checkpoint plans who writes and reads which part of which tensor (its planners know DTensors and any
change of the number of processes). Files and commit are ours, because its own storage pickles the index, keeps no
digests, commits no folder as a whole, and ends training when a write fails. Tensors lie in safetensors files, which
every other tool reads.
"""

from __future__ import annotations

__all__: list[str] = []
