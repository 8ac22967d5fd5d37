"""Each layer divided among several processes, by the plan that Transformers gives for an architecture.

The plan's words are translated to torch's styles of tensor parallelism, so that the parts are DTensors and can be
sharded further by FSDP2. Embeddings and the output matrix stay whole: the loss needs all of it. What a plan asks for
beyond that (mixtures of experts) is refused.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from typing import Final

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module
from transformers import PreTrainedModel

from michelangelo import errors

__all__ = ["divide"]

_STYLES: Final[Mapping[str, Callable[[], ParallelStyle]]] = {
    "colwise": ColwiseParallel,
    "rowwise": RowwiseParallel,
    "colwise_gather_output": lambda: ColwiseParallel(output_layouts=Replicate()),
    "rowwise_split_input": lambda: RowwiseParallel(input_layouts=Replicate()),
}
_SUMMED: Final = "replicated_with_grad_allreduce"
"""Whole on each process, and used there for its own heads: gradients are parts of a sum."""
_DIVIDED: Final = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


def divide(model: PreTrainedModel, mesh: DeviceMesh) -> frozenset[str]:
    """In place; names of parameters whose gradients have to be summed over the mesh. Raises ModelError."""
    plan: Mapping[str, str] = getattr(model.config.get_text_config(), "base_model_tp_plan", None) or {}
    name = type(model).__name__
    if not plan:
        raise errors.ModelError(f"parallel.tensor_parallel: Transformers has no plan for {name}; use sharding fsdp2")
    unknown = sorted(set(plan.values()) - _STYLES.keys() - {_SUMMED})
    if unknown:
        raise errors.ModelError(
            f"parallel.tensor_parallel: the plan of {name} asks for {', '.join(unknown)}, which is not done here; "
            "use sharding fsdp2"
        )
    _check_sizes(model, mesh.size())
    base = model.base_model
    prefix = next((own for own, module in model.named_modules() if module is base and own), "")
    styles: dict[str, ParallelStyle] = {}
    summed = set()
    for own, module in base.named_modules():
        word = next((word for pattern, word in plan.items() if fnmatch.fnmatchcase(own, pattern)), None)
        if word == _SUMMED:
            summed |= {f"{prefix}.{own}.{one}".removeprefix(".") for one, _ in module.named_parameters(recurse=False)}
        elif word is not None:
            styles[own] = _STYLES[word]()
    parallelize_module(base, mesh, styles)
    return frozenset(summed)


def _check_sizes(model: PreTrainedModel, count: int) -> None:
    text = model.config.get_text_config()
    wrong = [
        f"{name} {size}" for name in _DIVIDED if (size := getattr(text, name, None)) is not None and size % count != 0
    ]
    if wrong:
        raise errors.ModelError(
            f"parallel.tensor_parallel {count}: does not divide {', '.join(wrong)} of {type(model).__name__}"
        )
