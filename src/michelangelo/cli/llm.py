"""`mactl llm …`: plan, tune and measure language models. They need no server, and load what they need when called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from michelangelo.cli import groups
from michelangelo.cli.verbs import Verb

__all__ = ["LLM_VERBS", "LlmGroup", "llm"]

LLM_VERBS: Final[Mapping[str, Verb]] = {
    "plan": Verb("llm_plan:plan", "Say what a training or inference run needs and costs, before it runs"),
    "models": Verb("llm_models:models", "List the models whose shapes are known, and what they add up to"),
    "finetune": Verb("llm_finetune:finetune", "Train a model: pre-training, fine-tuning, LoRA, QLoRA, DPO"),
    "tune": Verb(
        "llm_tune:tune", "Try the plan's best configurations on this hardware, and keep the fastest that fits"
    ),
    "bench": Verb("llm_bench:bench", "Run an experiment: a prediction before, a measurement after, a plot and a table"),
    "search": Verb("llm_search:search", "Search learning rate and rank (Ray Tune), with one report"),
    "score": Verb("llm_score:score", "Score all rows of an input through engines, each exactly once"),
    "export": Verb("llm_export:export", "Write a checkpoint as a model: merged or adapter only, with a model card"),
}


class LlmGroup(click.Group):
    """The verbs of the table, loaded one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(LLM_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return groups.load(LLM_VERBS[cmd_name]) if cmd_name in LLM_VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in LLM_VERBS.items()])


@click.group(cls=LlmGroup)
def llm() -> None:
    """Language models: plan a run, run it, measure it, and learn from the difference. No server is needed.

    \b
    Example:
      mactl llm plan llama-3.1-8b --method lora --hardware h100
      mactl llm finetune config.yaml
    """
