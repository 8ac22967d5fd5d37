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
from typing import Final, Literal, TypeAlias

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from michelangelo import errors
from michelangelo.llm.finetune import adapters, config, model, quantization, running, strategy
from michelangelo.llm.finetune.checkpoint import finding, loading, retrying
from michelangelo.llm.finetune.config import FinetuneConfig
from michelangelo.llm.finetune.data import chat
from michelangelo.llm.finetune.export import card

__all__ = ["Exported", "Kind", "write"]

Kind: TypeAlias = Literal["merged", "adapter"]
_HOST: Final = torch.device("cpu")
_NOWHERE: Final = torch.device("meta")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: str
    kind: Literal["merged", "adapter", "full"]
    step: int
    num_bytes: int
    skipped: tuple[str, ...] = ()
    """Damaged checkpoints that would have been taken first, in sentences."""


def write(
    run: Path,
    to: Path,
    *,
    kind: Kind = "merged",
    step: int | None = None,
    overwrite: bool = False,
    max_shard_size: str = "5GB",
) -> Exported:
    """From a run's output folder, its newest whole checkpoint or that of a step.

    A run that trained all weights has no adapter; it is written in full. A model larger than `max_shard_size` gets
    several safetensors files, and an index. Raises SettingsError if the folder is no run,
    or `to` is there already, or may not be replaced; CheckpointError, ModelError.
    """
    chosen = _config_of(run)
    _check_target(to, run, chosen, overwrite=overwrite)
    if kind == "adapter" and chosen.adapter.method == "full":
        raise errors.SettingsError(f"{run}: trained all weights, so there is no adapter; export it merged")
    found = finding.find(chosen.checkpoint.folder or str(run / "checkpoints"), step=step)
    written: Literal["merged", "adapter", "full"] = "full" if chosen.adapter.method == "full" else kind
    loaded = _adapter(chosen, found.checkpoint) if written == "adapter" else _merged(chosen, found.checkpoint)
    loaded.name_or_path = card.base_model(chosen)
    tokenizer = _tokenizer(chosen)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=_parent_of(to)))
    try:
        if written == "adapter":
            adapters.save(loaded, unfinished)
        else:
            loaded.save_pretrained(unfinished, max_shard_size=max_shard_size)
        tokenizer.save_pretrained(unfinished)
        card.write(run, unfinished, chosen, card.Written(to.resolve().name, written, found.checkpoint.step))
        size = _make_durable(unfinished)
        _take_place(unfinished, to)
    except OSError as e:
        raise errors.CheckpointError(f"{to}: cannot be written: {e.strerror or e}") from e
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Exported(str(to), written, found.checkpoint.step, size, found.skipped)


def _config_of(run: Path) -> FinetuneConfig:
    path = run / running.CONFIG
    if not path.is_file():
        raise errors.SettingsError(
            f"{run}: is no folder of a run: it has no {running.CONFIG}; name the run's output folder"
        )
    return config.load(str(path))


def _check_target(to: Path, run: Path, chosen: FinetuneConfig, *, overwrite: bool) -> None:
    if (to.exists() or to.is_symlink()) and not overwrite:
        raise errors.SettingsError(f"{to}: is there already; choose another folder, or overwrite it with --force")
    target = to.resolve()
    kept = {"the run": run, "the model it began with": Path(chosen.model.path), "the folder you are in": Path.cwd()}
    for what, path in kept.items():
        if path.exists() and path.resolve().is_relative_to(target):
            raise errors.SettingsError(f"{to}: holds {what}, which would be lost; choose another folder")


def _merged(chosen: FinetuneConfig, checkpoint: finding.Checkpoint) -> PreTrainedModel:
    """The whole model with the checkpoint's weights, on the host."""
    precision = chosen.training.precision
    if chosen.adapter.method == "qlora":
        loaded = quantization.load(chosen.model, chosen.adapter, precision=precision, device=_HOST)
    else:
        loaded = model.load(chosen.model, precision=precision, device=_HOST)
    adapters.apply(loaded, chosen.adapter, fused=False)
    _read(loaded, checkpoint)
    adapters.merge(loaded)
    return loaded


def _adapter(chosen: FinetuneConfig, checkpoint: finding.Checkpoint) -> PreTrainedModel:
    """The adapters with the checkpoint's weights, on a model without weights: it may be larger than this machine."""
    shape = chosen.model.model_copy(update={"from_scratch": True})
    loaded = model.load(shape, precision=chosen.training.precision, device=_NOWHERE)
    adapters.apply(loaded, chosen.adapter, fused=False)
    for name, parameter in list(strategy.trained_parameters(loaded)):
        parent, _, last = name.rpartition(".")
        setattr(loaded.get_submodule(parent), last, nn.Parameter(torch.empty_like(parameter, device=_HOST)))
    _read(loaded, checkpoint)
    return loaded


def _read(loaded: PreTrainedModel, checkpoint: finding.Checkpoint) -> None:
    """Overwrites what is trained."""
    trained = {f"{loading.MODEL}{name}": tensor for name, tensor in strategy.trained_state(loaded).items()}
    saved = {name: entry.shape for name, entry in checkpoint.manifest.tensors.items() if name.startswith(loading.MODEL)}
    other = sorted(trained.keys() ^ saved.keys())
    other += [name for name, tensor in trained.items() if not other and tuple(tensor.shape) != saved[name]]
    if other:
        raise errors.CheckpointError(
            f"{checkpoint.path}: is of another model or adapter than the run's {running.CONFIG} says: "
            f"{other[0].removeprefix(loading.MODEL)} differs"
        )
    try:
        loading.read_into(trained, checkpoint, retrying.Retry())
    except OSError as e:
        raise errors.CheckpointError(f"{checkpoint.path}: cannot be read: {e.strerror or e}") from e


def _tokenizer(chosen: FinetuneConfig) -> PreTrainedTokenizerBase:
    """With the chat template that was trained with."""
    tokenizer = model.load_tokenizer(chosen.model)
    if chosen.data.chat_template:
        tokenizer.chat_template = chat.ChatRenderer(tokenizer, chosen.data.chat_template).template
    return tokenizer


def _parent_of(to: Path) -> Path:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise errors.SettingsError(f"{to}: cannot be written: {e.strerror}") from e
    return to.parent


def _make_durable(folder: Path) -> int:
    """All files are on the disk; their bytes."""
    size = 0
    for path in (*sorted(folder.rglob("*")), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            size += 0 if path.is_dir() else path.stat().st_size
        finally:
            os.close(descriptor)
    return size


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
