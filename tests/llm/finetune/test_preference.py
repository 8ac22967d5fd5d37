"""DPO: TRL's losses on the same pairs, the reference without a second model, and what it is for: it learns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from michelangelo.llm.finetune import activation_checkpointing, adapters, preference
from michelangelo.llm.finetune.batch import IGNORED, Batch, PreferenceBatch
from michelangelo.llm.finetune.config import AdapterConfig, PreferenceConfig
from michelangelo.llm.finetune.preference import LogProbabilities

PAIRS = [
    ([5, 6, 7], [8, 9, 10], [11, 12]),
    ([20, 21], [22, 23, 24, 25], [26]),
    ([30, 31, 32, 33], [34], [35, 36, 37]),
]
"""Prompt, chosen answer, rejected answer."""
pytestmark = [
    # PEFT and TRL look at names that Transformers is about to drop
    pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing.*` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*'pin_memory' argument is set as true but no accelerator is found.*:UserWarning"
    ),
]


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
def test_losses_and_rewards_equal_those_of_trl(model_folder: Path, tmp_path: Path, loss: Any) -> None:
    model = _adapted(model_folder)
    expected = _trl_loss(model_folder, tmp_path, loss)
    objective = preference.PreferenceObjective(model, PreferenceConfig(beta=0.3, loss=loss))
    found, metrics = objective.loss(_batch(PAIRS))
    assert objective.count(_batch(PAIRS)) == 3
    assert float(found.detach()) / 3 == pytest.approx(expected["loss"], abs=1e-4)
    assert float(metrics["margin"]) / 3 == pytest.approx(expected["rewards/margins"], abs=1e-4)
    assert float(metrics["accuracy"]) / 3 == pytest.approx(expected["rewards/accuracies"], abs=1e-4)
    assert float(metrics["chosen_reward"]) / 3 == pytest.approx(expected["rewards/chosen"], abs=1e-4)
    assert float(metrics["rejected_reward"]) / 3 == pytest.approx(expected["rewards/rejected"], abs=1e-4)


def test_untrained_model_is_its_own_reference(model_folder: Path) -> None:
    model = _load(model_folder)
    adapters.apply(model, AdapterConfig(rank=4))
    loss, metrics = preference.PreferenceObjective(model, PreferenceConfig()).loss(_batch(PAIRS))
    assert float(loss.detach()) == pytest.approx(3 * 0.693147, abs=1e-5)
    assert float(metrics["margin"]) == pytest.approx(0.0, abs=1e-6)
    assert float(metrics["kl"]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("config", [AdapterConfig(rank=4), AdapterConfig(method="full")], ids=["lora", "full"])
def test_it_learns_what_is_preferred(model_folder: Path, config: AdapterConfig) -> None:
    torch.manual_seed(0)
    model = _load(model_folder)
    adapters.apply(model, config)
    objective = preference.PreferenceObjective(model, PreferenceConfig(beta=0.5))
    first, last = _train(model, objective, steps=10)
    assert float(first["margin"]) == pytest.approx(0.0, abs=1e-5)
    assert float(last["margin"]) > 0.5
    assert float(last["accuracy"]) == 3.0
    assert float(last["chosen_reward"]) > float(last["rejected_reward"])
    assert float(last["kl"]) != 0.0


def test_full_tuning_keeps_its_reference(model_folder: Path) -> None:
    model = _load(model_folder)
    adapters.apply(model, AdapterConfig(method="full"))
    objective = preference.PreferenceObjective(model, PreferenceConfig())
    before = {name: parameter.clone() for name, parameter in objective._reference.named_parameters()}
    _train(model, objective, steps=2)
    for name, parameter in objective._reference.named_parameters():
        assert torch.equal(parameter, before[name])
        assert not torch.equal(parameter, model.get_parameter(name)) or "norm" in name


def test_model_goes_on_training_after_the_reference(model_folder: Path) -> None:
    model = _load(model_folder, attention_dropout=0.5)
    adapters.apply(model, AdapterConfig(rank=4))
    model.train()
    objective = preference.PreferenceObjective(model, PreferenceConfig())
    objective.loss(_batch(PAIRS))
    assert model.training
    assert torch.equal(
        objective._reference_of(preference._side_by_side(_batch(PAIRS))).chosen,
        objective._reference_of(preference._side_by_side(_batch(PAIRS))).chosen,
    )


def test_answers_alone_give_what_they_give_side_by_side(model_folder: Path) -> None:
    objective = preference.PreferenceObjective(_adapted(model_folder), PreferenceConfig())
    together, _ = objective.loss(_batch(PAIRS))
    alone = sum(float(objective.loss(_batch([pair]))[0].detach()) for pair in PAIRS)
    assert float(together.detach()) == pytest.approx(alone, abs=1e-4)


def test_recomputation_changes_nothing(model_folder: Path) -> None:
    model = _adapted(model_folder)
    objective = preference.PreferenceObjective(model, PreferenceConfig())
    expected, _ = objective.loss(_batch(PAIRS))
    gradients = torch.autograd.grad(expected, [p for p in model.parameters() if p.requires_grad])
    activation_checkpointing.apply(model, "full")
    found, _ = objective.loss(_batch(PAIRS))
    for ours, theirs in zip(
        torch.autograd.grad(found, [p for p in model.parameters() if p.requires_grad]), gradients, strict=True
    ):
        assert torch.equal(ours, theirs)


def test_label_smoothing_is_a_mixture_of_both_orders() -> None:
    model = LogProbabilities(torch.tensor([-3.0, -8.0]), torch.tensor([-4.0, -5.0]))
    swapped = LogProbabilities(model.rejected, model.chosen)
    zero = LogProbabilities(torch.zeros(2), torch.zeros(2))
    lengths = LogProbabilities(torch.ones(2), torch.ones(2))
    plain, smooth = PreferenceConfig(), PreferenceConfig(label_smoothing=0.2)
    expected = 0.8 * preference.pair_losses(model, zero, lengths, plain) + 0.2 * preference.pair_losses(
        swapped, zero, lengths, plain
    )
    torch.testing.assert_close(preference.pair_losses(model, zero, lengths, smooth), expected)


def test_sft_weight_adds_the_chosen_answers_loss_per_token() -> None:
    model = LogProbabilities(torch.tensor([-3.0]), torch.tensor([-4.0]))
    lengths = LogProbabilities(torch.tensor([6.0]), torch.tensor([2.0]))
    zero = LogProbabilities(torch.zeros(1), torch.zeros(1))
    without = preference.pair_losses(model, zero, lengths, PreferenceConfig())
    found = preference.pair_losses(model, zero, lengths, PreferenceConfig(sft_weight=2.0))
    torch.testing.assert_close(found - without, torch.tensor([2.0 * 3.0 / 6.0]))


def _load(folder: Path, **changes: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **changes)


def _adapted(folder: Path) -> Any:
    model = _load(folder)
    torch.manual_seed(3)
    adapters.apply(model, AdapterConfig(rank=4, alpha=8.0))
    _randomise(model)
    return model


def _randomise(model: Any) -> None:
    """B is zero at first: then model and reference are the same."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def _batch(pairs: Any) -> PreferenceBatch:
    device = torch.device("cpu")
    chosen, rejected = ([(prompt, (a, b)[i]) for prompt, a, b in pairs] for i in range(2))
    return PreferenceBatch(_rows(chosen), _rows(rejected)).to(device)


def _rows(answers: list[tuple[list[int], list[int]]]) -> Batch:
    length = max(len(prompt) + len(answer) for prompt, answer in answers)
    ids, labels, positions, documents = [], [], [], []
    for prompt, answer in answers:
        used = len(prompt) + len(answer)
        rest = length - used
        ids.append([*prompt, *answer, *[0] * rest])
        labels.append([*[IGNORED] * len(prompt), *answer, *[IGNORED] * rest])
        positions.append([*range(used), *range(rest)])
        documents.append([*[0] * used, *[-1] * rest])
    return Batch(
        torch.tensor(ids),
        torch.tensor(labels),
        torch.tensor(positions),
        torch.tensor(documents, dtype=torch.int32),
        sum(len(answer) for _, answer in answers),
    )


def _train(model: Any, objective: preference.PreferenceObjective, *, steps: int) -> list[Mapping[str, torch.Tensor]]:
    """Metrics before the first and after the last step."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    seen = []
    for _ in range(steps + 1):
        loss: Any
        loss, metrics = objective.loss(_batch(PAIRS))
        seen.append(metrics)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [seen[0], seen[-1]]


def _trl_loss(folder: Path, output: Path, loss: str) -> dict[str, float]:
    """What TRL's trainer computes for the same pairs with the same adapters."""
    import datasets
    import peft
    from transformers import AutoTokenizer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

    torch.manual_seed(3)
    wrapped = peft.get_peft_model(
        _load(folder), peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    arguments = DPOConfig(
        output_dir=str(output), beta=0.3, loss_type=[loss], report_to=[], use_cpu=True, bf16=False, max_length=None
    )
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    trainer: Any = DPOTrainer(
        wrapped,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    # Only now: TRL's reference is what the adapters were when the trainer was made, which is nothing
    peft.set_peft_model_state_dict(wrapped, adapters.state(_adapted(folder)))
    examples = [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected} for prompt, chosen, rejected in PAIRS
    ]
    with torch.no_grad():
        value = trainer._compute_loss(trainer.model, DataCollatorForPreference(0)(examples), return_outputs=False)
    metrics = trainer._metrics["train"]
    names = ("rewards/margins", "rewards/accuracies", "rewards/chosen", "rewards/rejected")
    return {"loss": float(value), **{name: float(metrics[name][-1]) for name in names}}
