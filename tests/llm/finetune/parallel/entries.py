"""What processes of a run are told to do, in tests of how they are started."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from michelangelo import errors
from michelangelo.llm.finetune import running
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.recording import Event, Saved

__all__ = ["add_up", "fail", "finetune_dying", "finetune_losing_a_node", "wait"]


def add_up(config: FinetuneConfig, number: int, **_: Any) -> tuple[int, float]:
    total = torch.tensor(float(number + dist.get_rank()))
    dist.all_reduce(total)
    return dist.get_rank(), float(total)


def fail(config: FinetuneConfig, how: str, marks: str = "", **_: Any) -> None:
    """The second process fails; the first one waits for it for ever. Each begin leaves a file in `marks`."""
    if dist.get_rank() == 1:
        if marks:
            tempfile.mkstemp(dir=marks)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "ours":
            raise errors.DatasetError("the second process does not like the data")
        raise ZeroDivisionError("a mistake")
    threading.Event().wait()


def wait(config: FinetuneConfig, pipe: str, **_: Any) -> None:
    with open(pipe, "w") as file:
        file.write(f"{os.getpid()}\n")
    dist.barrier()
    threading.Event().wait()


def finetune_dying(config: FinetuneConfig, marks: str, rank: int, **_: Any) -> running.Report:
    """A run in which one process is killed once, behind its second checkpoint."""
    saved: list[Event] = []

    class Killer:
        name = "killer"

        def receive(self, event: Event) -> None:
            if isinstance(event, Saved):
                saved.append(event)
                mark = os.path.join(marks, f"killed-{dist.get_world_size()}")
                if len(saved) == 2 and not os.listdir(marks):
                    with open(mark, "w") as file:
                        file.write(str(event.step))
                    os.kill(os.getpid(), signal.SIGKILL)

        def close(self) -> None: ...

    return running.work(config, sinks=[Killer()] if dist.get_rank() == rank else [])


def finetune_losing_a_node(config: FinetuneConfig, marks: str, head: str, **_: Any) -> running.Report:
    """A run in whose fifth step the machine that is not `head` dies, with all that runs there."""
    import ray

    if dist.get_rank() == 0:
        tempfile.mkstemp(dir=marks, prefix=f"{dist.get_world_size()}-")
    here = ray.get_runtime_context().get_node_id()
    return running.work(config, should_stop=_dying_machine() if here != head else lambda: False)


def _dying_machine() -> Callable[[], bool]:
    steps: list[int] = []

    def ask() -> bool:
        steps.append(1)
        if len(steps) == 5:
            os.kill(os.getppid(), signal.SIGKILL)  # Ray's process of this machine, which started this one
            threading.Event().wait()
        return False

    return ask
