"""Small runs for the tests of checkpoints: real strategies over a few layers, in this process or over gloo; steps that
give the same numbers under every sharding."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from michelangelo.llm.finetune import optimizers
from michelangelo.llm.finetune.checkpoint import planning, retrying, state, store
from michelangelo.llm.finetune.config import CheckpointConfig, OptimizerConfig
from michelangelo.llm.finetune.parallel import shard_optimizer
from michelangelo.llm.finetune.recording import Alert, Event
from michelangelo.llm.finetune.strategy import SingleProcess

AT_ONCE = retrying.Retry(attempts=3, pause=lambda seconds: None)


def make_model(width: int = 6) -> nn.Module:
    """Rows that no small number of processes divides evenly; biases with fewer rows than processes."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, width + 1), nn.Linear(width + 1, 3), nn.Linear(3, 1))


class Run:
    """A model and its optimizer, whole or sharded by FSDP2 over the processes that there are."""

    def __init__(self, *, sharded: bool = False, dtype: torch.dtype = torch.float32, width: int = 6) -> None:
        self.model = make_model(width).to(dtype)
        if sharded:
            for layer in self.model.children():
                fully_shard(layer)
            fully_shard(self.model)
        self.strategy = Sharded(torch.device("cpu")) if sharded else SingleProcess(torch.device("cpu"))
        self.optimizer = self.strategy.prepare(self.model, _build_sharded if sharded else _build)
        self.num_steps = 0

    def step(self) -> None:
        """Gradients are made of the weights one by one, so that no sum depends on the number of processes."""
        self.num_steps += 1
        for parameter in self.model.parameters():
            parameter.grad = parameter.detach() * 0.1 + 0.01 * self.num_steps
        self.optimizer.clip_and_step(0.0, optimizers.finite)

    def state(self, step: int = 0, **shared: Any) -> state.RunState:
        return state.RunState(
            step=step or self.num_steps,
            model=self.strategy.model_state(),
            optimizer=self.strategy.optimizer_state(),
            local={"rank": self.strategy.rank, "random": torch.get_rng_state()},
            shared={"position": step, **shared},
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Whole copies of all that is kept."""
        found = {**self.strategy.model_state(), **self.strategy.optimizer_state()}
        return {name: whole(tensor) for name, tensor in found.items()}


class Sharded(SingleProcess):
    """Leaves the model as FSDP2 made it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def open_store(
    folder: Path | str,
    events: list[Event],
    *,
    rank: int = 0,
    world_size: int = 1,
    retry: retrying.Retry = AT_ONCE,
    buffers: planning.HostBuffers | None = None,
    **config: Any,
) -> store.CheckpointStore:
    return store.CheckpointStore(
        str(folder),
        CheckpointConfig(**config),
        rank=rank,
        world_size=world_size,
        record=events.append,
        retry=retry,
        buffers=buffers,
    )


def alerts(events: list[Event]) -> list[Alert]:
    return [event for event in events if isinstance(event, Alert)]


def same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def processes(count: int, work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """`work(rank, count, *arguments)` in that many processes that meet over gloo; what each of them returned."""
    context = starter()
    meeting = str(folder / f"meeting-{os.urandom(4).hex()}")
    queue = context.SimpleQueue()
    started = [
        context.Process(target=_work, args=(work, rank, count, meeting, queue, arguments), daemon=True)
        for rank in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    assert codes == [0] * count, codes
    results = dict(queue.get() for _ in range(count))
    return [results[rank] for rank in range(count)]


def starter() -> Any:
    """Processes that are forked from one that has loaded torch, and nothing else of this one."""
    context = multiprocessing.get_context("forkserver")
    # An optimizer's first step loads dynamo, which takes seconds.
    context.set_forkserver_preload(["tests.llm.finetune.checkpoint.small_runs", "torch._dynamo"])
    return context


def _work(
    work: Callable[..., Any], rank: int, count: int, meeting: str, queue: Any, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    queue.put((rank, work(rank, count, *arguments)))
    torch.distributed.destroy_process_group()


def _build(named: Any) -> optimizers.NamedOptimizer:
    return optimizers.build(named, OptimizerConfig(), precision="bf16_mixed", accumulate=False)


def _build_sharded(named: Any) -> optimizers.NamedOptimizer:
    terms = shard_optimizer.OptimizerTerms(OptimizerConfig(), "bf16_mixed", accumulates=False)
    return shard_optimizer.build(named, terms)
