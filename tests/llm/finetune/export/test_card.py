"""Model cards: what a run's files say is in them, what they do not say is not, and hubs can read the metadata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from michelangelo import errors
from michelangelo.llm.finetune import config, running
from michelangelo.llm.finetune.export import card, facts
from michelangelo.llm.finetune.recording import Alert, Evaluated, Event, Started, Stepped
from michelangelo.llm.finetune.sinks import events_file

PLAN = {
    "hardware": "h100-sxm",
    "allocated_bytes": 33 * 2**30,
    "low_bytes": 30 * 2**30,
    "high_bytes": 36 * 2**30,
    "tokens_per_second": 11_000.0,
    "low_tokens_per_second": 9_000.0,
    "high_tokens_per_second": 13_000.0,
    "mfu": 0.44,
}


def stepped(step: int, loss: float, seconds: float = 900.0) -> Stepped:
    return Stepped(step, loss, 1.0, 1e-4, 9_000_000, seconds, 10_000.0, 0.4, 30 * 2**30, 0.0, 0.1)


def make_config(**sections: Any) -> config.FinetuneConfig:
    document: dict[str, Any] = {
        "model": {"path": "meta-llama/Llama-3.1-8B"},
        "data": {"train": [{"path": "HuggingFaceH4/no_robots", "format": "hf"}, {"path": "own|rows.jsonl"}]},
        "output": "somewhere/my-run",
        "adapter": {"method": "lora", "rank": 8},
        "parallel": {"num_workers": 2},
    }
    return config.parse({**document, **sections})


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """A folder with the files of a run."""

    def make(*events: Event, report: str = "") -> Path:
        file = events_file.EventsFile(tmp_path / running.EVENTS)
        for event in events:
            file.receive(event)
        file.close()
        if report:
            (tmp_path / running.REPORT).write_text(report)
        return tmp_path

    return make


EVENTS: tuple[Event, ...] = (
    Started({}, 0, 4, 8_000_000_000, 80_000_000, PLAN),
    stepped(1, 2.5, seconds=1800.0),
    stepped(2, 2.0),
    Evaluated(2, 2.1, 1000, is_best=True),
    Alert(3, "LossSpike", "a peak"),
    stepped(3, 1.8),
    Evaluated(3, 2.3, 1000, is_best=False),
    stepped(4, 1.2),
)


def card_of(run: Path, folder: Path, made: config.FinetuneConfig, *, step: int, kind: Any = "adapter") -> str:
    folder.mkdir()
    card.write(run, folder, made, card.Written("my-model", kind, step))
    return (folder / "README.md").read_text()


def test_card_tells_the_run_up_to_the_step(run: Callable[..., Path], tmp_path: Path) -> None:
    text = card_of(run(*EVENTS), tmp_path / "to", make_config(), step=3)
    for line in (
        "# my-model",
        "Adapters only, trained on completions from the model `meta-llama/Llama-3.1-8B`, as they were after step 3.",
        r"| data | `HuggingFaceH4/no_robots`, `own\|rows.jsonl` |",
        "| method | lora, rank 8, alpha 32, dropout 0 |",
        "| parameters | 8,000,000,000, of them trained 80,000,000 (1.00%) |",
        "| tokens | 27,000,000 positions |",
        "| training loss | 2.5000 → 1.8000 nats per token |",
        "| validation loss | 2.3000 nats per token (best: 2.1000 at step 2) |",
        "| hardware | 2 × h100-sxm |  |",
        "| time in steps | 1.00 h |  |",
        "| tokens/s | 10,000 | 11,000 (9,000 … 13,000), off by +10.0% |",
        "| MFU | 40.0% | 44.0%, off by +10.0% |",
        "| peak memory, GiB | 30.00 | 33.00 (30.00 … 36.00), off by +10.0% |",
        "| GPU hours | 2.00 |  |",
        "| energy of the cards | at most 1.40 kWh, at their power limit |  |",
        "- The run raised alerts: LossSpike (1).",
    ):
        assert line in text.splitlines()
    assert "| cost | about " in text
    assert "![Training and validation loss by step](loss.svg)" in text
    assert (tmp_path / "to" / "loss.svg").read_text().startswith("<?xml")


def test_metadata_is_what_hubs_read(run: Callable[..., Path], tmp_path: Path) -> None:
    text = card_of(run(*EVENTS), tmp_path / "to", make_config(), step=4)
    read = huggingface_hub.ModelCard(text)
    assert read.data.to_dict() == {  # type: ignore[no-untyped-call]
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["michelangelo", "sft", "lora"],
        "base_model": "meta-llama/Llama-3.1-8B",
        "base_model_relation": "adapter",
        "datasets": ["HuggingFaceH4/no_robots"],
    }
    assert "# license: for the owner of the model to say" in text.split("---")[1]


def test_local_models_are_no_names_of_a_hub(run: Callable[..., Path], tmp_path: Path) -> None:
    local = tmp_path / "base"
    local.mkdir()
    made = make_config(model={"path": str(local)}, data={"train": [{"path": "rows.jsonl"}]}, adapter={"method": "full"})
    read = huggingface_hub.ModelCard(card_of(run(*EVENTS), tmp_path / "to", made, step=4, kind="full"))
    assert {"base_model", "datasets"}.isdisjoint(read.data.to_dict())  # type: ignore[no-untyped-call]
    assert card.base_model(made) == str(local)


def test_what_is_not_known_is_left_out(run: Callable[..., Path], tmp_path: Path) -> None:
    text = card_of(run(), tmp_path / "to", make_config(), step=4)
    for word in ("tokens/s", "MFU", "kWh", "loss.svg", "nan", "What it took", "training loss", "parameters"):
        assert word not in text
    assert "not evaluated on data that it was not trained on" in text


def test_rows_that_were_left_out_are_told(run: Callable[..., Path], tmp_path: Path) -> None:
    report = '{"device": "NVIDIA H100", "data": {"rows": 100, "bad_rows": 3, "num_truncated": 7, "num_dropped": 0}}'
    text = card_of(run(*EVENTS, report=report), tmp_path / "to", make_config(), step=4)
    assert "- Rows that were not used whole (bad rows: 3, truncated: 7)." in text.splitlines()
    assert "| hardware | 2 × NVIDIA H100 |  |" in text.splitlines()


def test_events_of_unknown_numbers_are_no_losses(run: Callable[..., Path]) -> None:
    known = facts.read(run(stepped(1, float("nan")), stepped(2, 1.5)), make_config(), 2)
    assert known.losses == ((2, 1.5),)
    assert known.cost is None


def test_damaged_report_is_named(run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(errors.LlmError, match=r"report\.json: cannot be read"):
        card_of(run(*EVENTS, report="{"), tmp_path / "to", make_config(), step=4)
