"""A checkpoint as a folder that Transformers or PEFT loads: merged, or the adapter only; whole or not at all.

It trains nothing and needs no GPU. Of a model in 4 bits the merged weights are those that were trained against:
unpacked, with the adapters added.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from transformers import PreTrainedModel

from michelangelo import errors
from michelangelo.llm.finetune import adapters, config, model, quantization, running, strategy
from michelangelo.llm.finetune.checkpoint import finding, loading, retrying
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.export import card

__all__ = ["Exported", "Kind", "write"]

Kind: TypeAlias = Literal["merged", "adapter"]
_HOST = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: str
    kind: Literal["merged", "adapter", "full"]
    step: int
    num_bytes: int


def write(run: Path, to: Path, *, kind: Kind = "merged", step: int | None = None, overwrite: bool = False) -> Exported:
    """From a run's output folder, its newest whole checkpoint or that of a step.

    A run that trained all weights has no adapter; it is written in full. Raises SettingsError if the folder is no run,
    or `to` is there already; CheckpointError, ModelError.
    """
    chosen = _config_of(run)
    if to.exists() and not overwrite:
        raise errors.SettingsError(f"{to}: is there already; choose another folder, or overwrite it with --force")
    if kind == "adapter" and chosen.adapter.method == "full":
        raise errors.SettingsError(f"{run}: trained all weights, so there is no adapter; export it merged")
    checkpoint = finding.find(chosen.checkpoint.folder or str(run / "checkpoints"), step=step)
    loaded = _loaded(chosen, checkpoint)
    written: Literal["merged", "adapter", "full"] = "full" if chosen.adapter.method == "full" else kind
    unfinished = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=_parent_of(to)))
    try:
        if kind == "adapter":
            adapters.save(loaded, unfinished)
        else:
            adapters.merge(loaded)
            loaded.save_pretrained(unfinished)
        model.load_tokenizer(chosen.model).save_pretrained(unfinished)
        card.write(run, unfinished, chosen, step=checkpoint.step, kind=written)
        size = sum(path.stat().st_size for path in unfinished.rglob("*") if path.is_file())
        _take_place(unfinished, to)
    except OSError as e:
        raise errors.CheckpointError(f"{to}: cannot be written: {e.strerror or e}") from e
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Exported(str(to), written, checkpoint.step, size)


def _config_of(run: Path) -> FinetuneConfig:
    path = run / running.CONFIG
    if not path.is_file():
        raise errors.SettingsError(
            f"{run}: is no folder of a run: it has no {running.CONFIG}; name the run's output folder"
        )
    return config.load(str(path))


def _loaded(chosen: FinetuneConfig, checkpoint: finding.Checkpoint) -> PreTrainedModel:
    """The model with the checkpoint's weights, on the host."""
    precision = chosen.training.precision
    if chosen.adapter.method == "qlora":
        loaded = quantization.load(chosen.model, chosen.adapter, precision=precision, device=_HOST)
    else:
        loaded = model.load(chosen.model, precision=precision, device=_HOST)
    adapters.apply(loaded, chosen.adapter, fused=False)
    trained = {f"{loading.MODEL}{name}": tensor for name, tensor in strategy.trained_state(loaded).items()}
    missing = sorted(trained.keys() - checkpoint.manifest.tensors.keys())
    if missing:
        raise errors.CheckpointError(
            f"{checkpoint.path}: is of another model or adapter: it has no {missing[0].removeprefix(loading.MODEL)}"
        )
    try:
        loading.read_into(trained, checkpoint, retrying.Retry())
    except OSError as e:
        raise errors.CheckpointError(f"{checkpoint.path}: cannot be read: {e.strerror or e}") from e
    return loaded


def _parent_of(to: Path) -> Path:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise errors.SettingsError(f"{to}: cannot be written: {e.strerror}") from e
    return to.parent


def _take_place(unfinished: Path, to: Path) -> None:
    """What was there before stays until the new folder is whole."""
    unfinished.chmod(0o755)
    if not to.exists():
        os.replace(unfinished, to)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{to.name}-old-", dir=to.parent))
    os.replace(to, old / "was")
    os.replace(unfinished, to)
    shutil.rmtree(old, ignore_errors=True)
