"""The processes of a run as workers of Ray Train: one per GPU, on any number of nodes, started again when one is lost.

A lost worker or node ends the group; Ray starts a new one, with fewer workers where `min_workers` allows, and training
goes on from its own newest checkpoint. Errors that would come again end the run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any, Final

import torch

from michelangelo import errors
from michelangelo.llm.finetune.config import FinetuneConfig, ParallelConfig

__all__ = ["resized", "run"]

_CONNECT_SECONDS: Final = 5.0
_RESIZE_SECONDS: Final = 600.0
"""Between looks for nodes that came back: a larger group costs the steps since the last checkpoint."""
_LOOK_SECONDS: Final = 0.5
"""Between looks whether a person asked for the end."""


def run(
    config: FinetuneConfig, entry: Callable[..., Any], arguments: tuple[Any, ...], should_stop: Callable[[], bool]
) -> Any:
    """Calls `entry` in every worker; what the first one returned. `should_stop` is asked here, and workers are told.

    `num_workers` of the configuration is what there really is. Raises SettingsError where Ray is not installed, not
    reachable or too small; the error of a worker; LlmError after more than `max_failures` losses.
    """
    try:
        import ray
        from ray import train
        from ray.train import torch as train_torch
    except ImportError as e:
        raise errors.SettingsError("parallel.launcher ray: needs Ray: pip install 'michelangelo-oss[ray]'") from e
    parallel = config.parallel
    with _cluster(config) as uses_gpus:
        notes = _make_notes(ray)
        trainer = train_torch.TorchTrainer(
            _work,
            train_loop_config={"config": config, "entry": entry, "arguments": arguments, "notes": notes},
            scaling_config=_scaling(train, parallel, uses_gpus=uses_gpus),
            run_config=train.RunConfig(
                name="workers",
                storage_path=str(Path(config.output).absolute() / "ray"),
                failure_config=train.FailureConfig(max_failures=parallel.max_failures),
                callbacks=[_giving_up(train, notes)],
            ),
            torch_config=train_torch.TorchConfig(backend="nccl" if uses_gpus else "gloo"),
        )
        problem: Exception | None = None
        result: Any = None
        try:
            result = _fit(trainer, notes, should_stop)
        except train.TrainingFailedError as e:
            problem = e
        if (ours := ray.get(notes.error.remote())) is not None:
            kind, message = ours
            raise kind(message)
        if problem is not None:
            is_lost = isinstance(problem, train.WorkerGroupError)
            what = f"the workers failed more than {parallel.max_failures} times (parallel.max_failures)"
            raise errors.LlmError(
                f"{what if is_lost else 'Ray could not keep the workers running'}: {_last_line(problem)}. "
                "Start the run again to go on from its checkpoint"
            ) from problem
        return None if result is None else result.return_value


def _scaling(train: Any, parallel: ParallelConfig, *, uses_gpus: bool) -> Any:
    """A range of workers where fewer will do."""
    least = parallel.min_workers or parallel.num_workers
    return train.ScalingConfig(
        num_workers=parallel.num_workers if least == parallel.num_workers else (least, parallel.num_workers),
        elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
        use_gpu=uses_gpus,
    )


def resized(config: FinetuneConfig, num_workers: int) -> FinetuneConfig:
    """For another number of workers: as many sequences in a step as before, where passes can make up for workers."""
    parallel, training = config.parallel, config.training
    if num_workers == parallel.num_workers:
        return config
    passes = training.gradient_accumulation * parallel.num_workers / num_workers
    return config.model_copy(
        update={
            "parallel": parallel.model_copy(update={"num_workers": num_workers}),
            "training": training.model_copy(update={"gradient_accumulation": max(1, math.ceil(passes))}),
        }
    )


def _fit(trainer: Any, notes: Any, should_stop: Callable[[], bool]) -> Any:
    """Beside this thread: in the main one Ray takes Ctrl-C for itself, and ends a run by it without a checkpoint."""
    executor = futures.ThreadPoolExecutor(1, "ray")
    fitting = executor.submit(trainer.fit)
    is_told = False
    try:
        while not futures.wait([fitting], timeout=_LOOK_SECONDS).done:
            if not is_told and should_stop():
                notes.stop.remote()
                is_told = True
        return fitting.result()
    finally:
        if not fitting.done():  # this program is to end at once; where Ray goes on, the workers end after their step
            notes.stop.remote()
        executor.shutdown(wait=False)


class _Notes:
    """What workers and the program that started them tell each other; it outlives a group of workers."""

    def __init__(self) -> None:
        self._error: tuple[type[errors.MichelangeloError], str] | None = None
        self._stop = asyncio.Event()

    async def error(self) -> tuple[type[errors.MichelangeloError], str] | None:
        return self._error

    async def fail(self, kind: type[errors.MichelangeloError], message: str) -> None:
        self._error = self._error or (kind, message)

    async def stop(self) -> None:
        self._stop.set()

    async def stopped(self) -> None:
        """Answers when the run is to stop."""
        await self._stop.wait()


def _make_notes(ray: Any) -> Any:
    """Beside this program, so that they are not lost with another node."""
    from ray.util import scheduling_strategies

    here = scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, max_concurrency=10_000, scheduling_strategy=here)(_Notes).remote()


def _giving_up(train: Any, notes: Any) -> Any:
    """Ray starts a group again whatever its error was; an error of its callbacks is the one that it takes for final."""
    import ray

    class GivingUp(train.UserCallback):  # type: ignore[misc]
        def after_exception(self, run_context: Any, worker_exceptions: Any) -> None:
            if (ours := ray.get(notes.error.remote())) is not None:
                raise ours[0](ours[1])

    return GivingUp()


def _work(terms: Mapping[str, Any]) -> Any:
    """In each worker, whose group of processes is there."""
    import ray
    from ray import train

    notes = terms["notes"]
    context = train.get_context()
    config = resized(terms["config"], context.get_world_size())
    if torch.cuda.is_available() and config.training.device != "cpu":
        torch.cuda.set_device(train.torch.get_device())
    stopped = notes.stopped.remote()
    try:
        return terms["entry"](config, *terms["arguments"], should_stop=lambda: bool(ray.wait([stopped], timeout=0)[0]))
    except errors.MichelangeloError as e:
        ray.get(notes.fail.remote(type(e), e.message))
        raise


@contextlib.contextmanager
def _cluster(config: FinetuneConfig) -> Iterator[bool]:
    """Ray, started here unless it runs already; whether the workers use GPUs."""
    import ray

    address, wanted = config.parallel.ray_address, config.parallel.num_workers
    is_ours = not ray.is_initialized()
    if is_ours:
        _check_address(address)
        # A worker and Ray's own controller take a logical processor each.
        local: dict[str, Any] = {"num_cpus": max(os.cpu_count() or 1, wanted + 2), "include_dashboard": False}
        try:
            with _kept_handlers():
                ray.init(address=address or "local", logging_level=logging.ERROR, **({} if address else local))
        except (ConnectionError, RuntimeError, ValueError, OSError) as e:
            where = f"at {address} cannot be reached" if address else "cannot be started on this machine"
            raise errors.SettingsError(f"parallel.ray_address: Ray {where}: {_last_line(e)}") from e
    try:
        there: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        device = config.training.device
        uses_gpus = device == "cuda" or (device == "auto" and there.get("GPU", 0) > 0)
        _check_room(config, there, uses_gpus=uses_gpus)
        yield uses_gpus
    finally:
        if is_ours:
            ray.shutdown()


@contextlib.contextmanager
def _kept_handlers() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM into this program; one that is there already is to stay."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if callable(handler):
                    signal.signal(number, handler)


def _check_address(address: str) -> None:
    """Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as e:
        raise errors.SettingsError(
            f"parallel.ray_address {address}: nothing answers there ({e}); start Ray with `ray start --head`, or leave "
            "ray_address empty to start one on this machine"
        ) from e


def _check_room(config: FinetuneConfig, there: Mapping[str, float], *, uses_gpus: bool) -> None:
    parallel = config.parallel
    least = parallel.min_workers or parallel.num_workers
    kind = "GPU" if uses_gpus else "CPU"
    if there.get(kind, 0) < least:
        raise errors.SettingsError(
            f"parallel.num_workers: {least} workers need a {kind} each, and the Ray cluster has "
            f"{there.get(kind, 0):g}; take fewer workers, or min_workers to begin with what there is"
        )


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
