"""The options of `mactl llm plan`, in groups. They say what may be written; what it means is in `llm_plan_inputs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import click

from michelangelo.cli.llm_plan_inputs import NUMBER
from michelangelo.llm import training_setup as kinds
from michelangelo.llm.planner import kernels

__all__ = ["FORMATS", "Format", "generation_options", "machine_options", "output_options", "training_options"]

Format: TypeAlias = Literal["table", "json", "yaml", "config"]
FORMATS: Final[tuple[Format, ...]] = ("table", "json", "yaml", "config")
_Command: TypeAlias = Callable[..., Any]


def machine_options(command: _Command) -> _Command:
    """What it runs on, and what that costs."""
    return _with(
        command,
        click.option(
            "--hardware", multiple=True, metavar="NAME[:COUNT]", help="Such as h100:8 (default h100). Repeat to search."
        ),
        click.option("--gpus", type=click.IntRange(1), help="Number of GPUs (default 1; with --search 1, 2, 4 and 8)."),
        click.option("--stack", default="", metavar="NAME", help=f"Other software: {', '.join(kernels.STACKS)}."),
        click.option("--price", type=float, metavar="NUMBER", help="Per GPU and hour, instead of the bundled table."),
        click.option("--prices", default="", metavar="FILE", help="A table of your own (JSON)."),
        click.option("--provider", default="", metavar="NAME", help="Only prices of this one."),
        click.option(
            "--electricity-price", type=click.FloatRange(0), metavar="NUMBER", help="Per kWh (default 0.083)."
        ),
        click.option("--pue", type=click.FloatRange(1), help="Of the building (default 1.56)."),
    )


def training_options(command: _Command) -> _Command:
    """One way to train; what is not given, a search tries."""
    return _with(
        command,
        click.option("--method", type=click.Choice(kinds.METHODS), help="Default lora; with --search all."),
        click.option("--objective", type=click.Choice(kinds.OBJECTIVES), help="Default sft."),
        click.option("--sequence-length", type=click.IntRange(1), metavar="TOKENS", help="Default 2048."),
        click.option(
            "--micro-batch", type=click.IntRange(1), metavar="SEQUENCES", help="Per GPU and pass (default 1)."
        ),
        click.option("--gradient-accumulation", type=click.IntRange(1), metavar="PASSES", help="Per step (default 1)."),
        click.option(
            "--tokens-per-step", type=NUMBER, metavar="N", help="With --search: of all GPUs, by accumulation."
        ),
        click.option(
            "--tokens", type=NUMBER, default="100M", show_default=True, metavar="N", help="Of the dataset: 100M, 1.5B."
        ),
        click.option("--epochs", type=click.FloatRange(0, min_open=True), default=1.0, help="Over the dataset."),
        click.option("--sharding", type=click.Choice(kinds.SHARDINGS), help="Default fsdp2 on several GPUs."),
        click.option("--offload", type=click.Choice(kinds.OFFLOADS), help="What rests in the host's memory."),
        click.option("--tensor-parallel", type=click.IntRange(1), metavar="GPUS", help="That share each layer."),
        click.option(
            "--checkpointing", type=click.Choice(kinds.CHECKPOINTINGS), help="Which activations are computed again."
        ),
        click.option("--attention", type=click.Choice(kinds.ATTENTIONS), help="Default flash."),
        click.option("--cross-entropy", type=click.Choice(kinds.CROSS_ENTROPIES), help="Default chunked."),
        click.option("--optimizer", type=click.Choice(kinds.OPTIMIZERS), help="Default adamw."),
        click.option("--precision", type=click.Choice(kinds.PRECISIONS), help="Default bf16_mixed."),
        click.option("--rank", "lora_rank", type=click.IntRange(1), help="Of the adapters (default 16)."),
        click.option(
            "--target", "lora_targets", multiple=True, metavar="NAME", help="Matrix that is adapted: q_proj. Repeat."
        ),
        click.option("--compile/--no-compile", "compiled", default=None, help="torch.compile (default on)."),
        click.option(
            "--padding-share", type=click.FloatRange(0, 1, max_open=True), help="Without packing: of the tokens."
        ),
    )


def generation_options(command: _Command) -> _Command:
    """Planning generation instead of training."""
    return _with(
        command,
        click.option("--inference", "generates", is_flag=True, help="Plan generation instead of training."),
        click.option("--input-tokens", type=click.IntRange(1), default=1024, show_default=True, help="Of a prompt."),
        click.option("--output-tokens", type=click.IntRange(1), default=256, show_default=True, help="Of an answer."),
        click.option("--max-batch", type=click.IntRange(1), default=1024, show_default=True, help="Sequences at once."),
        click.option(
            "--weights",
            type=click.Choice(("bf16", "fp8", "int4")),
            default="bf16",
            show_default=True,
            help="For inference.",
        ),
        click.option(
            "--cache", type=click.Choice(("bf16", "fp8")), default="bf16", show_default=True, help="Keys and values."
        ),
    )


def output_options(command: _Command) -> _Command:
    """What is shown, and written."""
    return _with(
        command,
        click.option(
            "--search", "searched", is_flag=True, help="Try all that is not given; show what is worth a look."
        ),
        click.option("--explain", "explained", is_flag=True, help="Every formula with its numbers and its source."),
        click.option("--plot", default="", metavar="FILE", help="With --search: a plot as .svg, .png or .pdf."),
        click.option(
            "--deepspeed", default="", metavar="FILE", help="Write the JSON for DeepSpeed (sharding zero1, 2, 3)."
        ),
        click.option(
            "-o",
            "--output",
            "output_format",
            type=click.Choice(FORMATS),
            default="table",
            show_default=True,
            help="Output format; config: the file that runs it.",
        ),
    )


def _with(command: _Command, *options: _Command) -> _Command:
    """In the order of the help."""
    for option in reversed(options):
        command = option(command)
    return command
