"""Completing held-out prompts in parallel: Ray actors that load the models once each, and answer in the order asked.

Texts are continued by the trained model, questions answered by the fine-tuned one: greedily, and once at random. Which
actor gets which part does not matter for what comes out: a part has a seed of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import finetune
import model
import tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Completion", "Prompt", "ScoreConfig", "Scorer", "in_parallel", "prompts_of"]


@dataclass(frozen=True)
class ScoreConfig:
    """How many prompts of each kind, their length, and how they are completed."""

    prompts: int = 8
    prompt_tokens: int = 24
    new_tokens: int = 48
    temperature: float = 0.8
    actors: int = 2
    part_size: int = 4
    """Prompts that an actor gets at once."""


@dataclass(frozen=True)
class Prompt:
    """What to complete. `kind` is text or question; `reference` is how the documentation goes on."""

    kind: str
    text: str
    reference: str


@dataclass(frozen=True)
class Completion:
    """A prompt with what the model made of it. `reference_loss` is what the reference costs, in nats per token."""

    prompt: Prompt
    greedy: str
    sampled: str
    reference_loss: float


def prompts_of(
    learnt: Tokenizer, documents: list[str], questions: list[tuple[str, str]], config: ScoreConfig
) -> list[Prompt]:
    """The beginnings of documents, and questions, spread evenly over what there is."""
    made = []
    long_enough = [one for one in documents if len(learnt.encode(one).ids) >= config.prompt_tokens + 16]
    for document in _spread(long_enough, config.prompts):
        ids = learnt.encode(document).ids
        cut = config.prompt_tokens
        reference = learnt.decode(ids[cut : cut + config.new_tokens])
        made.append(Prompt("text", learnt.decode(ids[:cut]), reference))
    for question, answer in _spread(questions, config.prompts):
        made.append(Prompt("question", finetune.prompt(question), f" {answer}"))
    return made


class Scorer:
    """The models in one actor."""

    def __init__(self, base: str, adapter: str, vocabulary: str, config: ScoreConfig, seed: int) -> None:
        model.prepare(threads=1)
        self._learnt = tokenizer.load(vocabulary)
        self._network = finetune.load(model.load(base), adapter)
        self._config = config
        self._seed = seed

    def score(self, number: int, part: list[Prompt]) -> list[Completion]:
        """Complete one part; `number` is its place among all parts."""
        import torch

        torch.manual_seed(self._seed * 1000 + number)
        return [self._complete(one) for one in part]

    def _complete(self, prompt: Prompt) -> Completion:
        if prompt.kind == "question":
            return self._completion(prompt)
        with self._network.disable_adapter():
            return self._completion(prompt)

    def _completion(self, prompt: Prompt) -> Completion:
        ids = self._learnt.encode(prompt.text).ids
        reference = self._learnt.encode(prompt.reference).ids
        greedy = self._generate(ids, temperature=0.0)
        sampled = self._generate(ids, self._config.temperature)
        return Completion(prompt, greedy, sampled, self._loss(ids, reference))

    def _generate(self, ids: list[int], temperature: float) -> str:
        import torch

        room = self._network.config.max_position_embeddings - len(ids)
        choice: dict[str, Any] = {"do_sample": False}
        if temperature:
            choice = {"do_sample": True, "temperature": temperature, "top_k": 40}
        given = torch.tensor([ids])
        with torch.inference_mode():
            made = self._network.generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=max(min(self._config.new_tokens, room), 1),
                **choice,
            )
        text: str = self._learnt.decode(made[0, len(ids) :].tolist())
        return text

    def _loss(self, ids: list[int], reference: list[int]) -> float:
        import torch

        tokens = (ids + reference)[: self._network.config.max_position_embeddings]
        with torch.inference_mode():
            logits = self._network(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, len(ids) - 1 : -1]
            return float(torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[len(ids) :])))


def in_parallel(prompts: list[Prompt], config: ScoreConfig, *arguments: Any) -> list[Completion]:
    """Score on `config.actors` actors of the Ray that this process is connected to; completions come in the order of
    the prompts. `arguments` are a Scorer's."""
    import ray
    from ray.util import ActorPool

    parts = [prompts[start : start + config.part_size] for start in range(0, len(prompts), config.part_size)]
    # The actors are processes of their own, which find the modules beside this one by this variable.
    variables = {"PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
    remote = ray.remote(num_cpus=1, runtime_env={"env_vars": variables})(Scorer)
    actors = [remote.remote(*arguments) for _ in range(config.actors)]
    pool = ActorPool(actors)
    done = pool.map(lambda actor, item: actor.score.remote(*item), list(enumerate(parts)))
    completions: list[Completion] = []
    for part in done:
        completions += part
        print(f"{len(completions)}/{len(prompts)} prompts are completed", flush=True)
    return completions


def _spread(items: list[Any], number: int) -> list[Any]:
    """So many items, evenly over the list."""
    number = min(number, len(items))
    return [items[index * len(items) // number] for index in range(number)]
