"""The processes of a run as workers of Ray Train, one per GPU, on any number of machines.

Ray starts them, sets up torch.distributed, and starts them again after a loss, also fewer of them; where they go on is
in our own checkpoints, which therefore have to be in a folder that all machines see.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from michelangelo import errors
from michelangelo.llm.finetune.config import FinetuneConfig

__all__ = ["launch"]

T = TypeVar("T")


def launch(config: FinetuneConfig, entry: Callable[..., T], display: Any) -> T:
    """The first worker's result. Raises SettingsError without Ray or a reachable cluster, LlmError when it gave up."""
    try:
        import ray
        from ray import train
        from ray.train import torch as train_torch
    except ImportError as e:
        raise errors.SettingsError("parallel.launcher ray: pip install 'michelangelo-oss[ray]'") from e
    parallel = config.parallel
    _connect(ray, parallel.ray_address)
    on_gpu = config.training.device == "cuda" or (
        config.training.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0
    )
    fewest = parallel.min_workers or parallel.num_workers
    workers: Any = parallel.num_workers if fewest == parallel.num_workers else (fewest, parallel.num_workers)
    trainer = train_torch.TorchTrainer(
        _loop,
        train_loop_config={"config": config.model_dump(mode="json"), "entry": entry, "display": display},
        torch_config=train_torch.TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=train.ScalingConfig(num_workers=workers, use_gpu=on_gpu),
        run_config=train.RunConfig(
            name=Path(config.output).name,
            storage_path=str((Path(config.output) / "ray").absolute()),
            failure_config=train.FailureConfig(max_failures=parallel.max_failures),
        ),
    )
    try:
        result = trainer.fit()
    except train.TrainingFailedError as e:
        raise _error_of(e) from e
    if result.error is not None:
        raise _error_of(result.error)
    metrics = result.metrics or {}
    if "problem" in metrics:
        raise getattr(errors, metrics["kind"], errors.LlmError)(metrics["problem"])
    return cast(T, metrics["result"])


def _loop(arguments: dict[str, Any]) -> None:
    """In a worker. What a person has to mend is reported, since trying again would not help."""
    from ray import train

    from michelangelo.llm.finetune import config as configs

    config = configs.parse(arguments["config"])
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    try:
        result = arguments["entry"](config, arguments["display"])
    except errors.MichelangeloError as e:
        train.report({"kind": type(e).__name__, "problem": e.message})
        return
    train.report({"result": result})


def _connect(ray: Any, address: str) -> None:
    if ray.is_initialized():
        return
    try:
        ray.init(address=address or None, ignore_reinit_error=True, log_to_driver=True)
    except (ConnectionError, RuntimeError, ValueError) as e:
        raise errors.SettingsError(
            f"parallel.ray_address {address or '(a local Ray)'}: cannot be reached: {str(e).strip().splitlines()[0]}"
        ) from e


def _error_of(e: BaseException) -> errors.MichelangeloError:
    last = [line for line in str(e).strip().splitlines() if line.strip()]
    return errors.LlmError(f"Ray gave the run up: {last[-1].strip() if last else type(e).__name__}")
