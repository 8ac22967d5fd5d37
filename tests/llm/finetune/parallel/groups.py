"""Processes that stay: each test has its function called in all of them, in a group of their own over gloo."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["Group"]


class Group:
    """`run` calls a function of a module in each process, and gives what each of them returned, by rank."""

    def __init__(self, count: int, folder: Path, *, deadline_seconds: float = 240.0) -> None:
        """deadline_seconds: of a call, until all have answered."""
        self._count = count
        self._deadline_seconds = deadline_seconds
        self._folder = folder
        self._number = 0
        self._members: list[tuple[Any, Any]] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        if not self._members:
            self._start()
        self._number += 1
        meeting = str(self._folder / f"meeting-{self._number}")
        for _, pipe in self._members:
            pipe.send((meeting, function, arguments))
        results = []
        for rank, (_, pipe) in enumerate(self._members):
            try:
                answered = pipe.poll(self._deadline_seconds)
                results.append(pipe.recv() if answered else (f"process {rank} does not answer", None))
            except EOFError:
                results.append((f"process {rank} has ended", None))
        problems = [problem for problem, _ in results if problem]
        if problems:
            self.close()  # one may still wait for another
        assert not problems, "\n".join(problems)
        return [value for _, value in results]

    def close(self) -> None:
        for process, pipe in self._members:
            pipe.close()
            process.kill()
            process.join()
        self._members = []

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.llm.finetune.parallel.cases"])
        for rank in range(self._count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self._count, theirs), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))


def _serve(rank: int, count: int, pipe: Any) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            meeting, function, arguments = pipe.recv()
        except EOFError:
            return
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
        torch.distributed.barrier()  # else who is done at once leaves while others are still connecting to it
        try:
            pipe.send(("", function(*arguments)))
        except BaseException:  # the other side shows it, and ends this process
            pipe.send((f"process {rank}:\n{traceback.format_exc()}", None))
            raise
        torch.distributed.destroy_process_group()
