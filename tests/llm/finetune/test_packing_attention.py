"""Packed rows give what separate documents give: logits, losses and gradients, on every kind of attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from michelangelo import errors
from michelangelo.llm.finetune import causal_lm, model
from michelangelo.llm.finetune.batch import IGNORED, Batch
from michelangelo.llm.finetune.config import ModelConfig
from michelangelo.llm.finetune.documents import document_mask, documents_of

CPU = torch.device("cpu")
KINDS: list[dict[str, Any]] = [
    {"model_type": "llama"},
    {"model_type": "mistral", "sliding_window": 3},
    {"model_type": "qwen3", "head_dim": 8},
    {"model_type": "gemma2", "head_dim": 8, "sliding_window": 4},
    {"model_type": "falcon", "alibi": False},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind["model_type"]))
def test_packed_loss_and_gradients_equal_unpacked(make_model: Callable[..., Path], kind: dict[str, Any]) -> None:
    documents = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17, 18]]
    packed = _loaded(make_model(**kind))
    loss = causal_lm.losses(packed, _batch([documents]), "sum")
    loss.backward()  # type: ignore[no-untyped-call]
    alone = _loaded(make_model(**kind))
    total = torch.zeros(())
    for document in documents:
        part = causal_lm.losses(alone, _batch([[document]]), "sum")
        part.backward()  # type: ignore[no-untyped-call]
        total += part.detach()
    torch.testing.assert_close(loss.detach(), total, rtol=1e-5, atol=1e-4)
    for (name, ours), (_, theirs) in zip(packed.named_parameters(), alone.named_parameters(), strict=True):
        if ours.grad is not None:
            assert theirs.grad is not None
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_loss_equals_that_of_transformers(model_folder: Path) -> None:
    tokens = torch.arange(5, 25)[None]
    config = ModelConfig(path=str(model_folder))
    theirs = model.load(config, precision="fp32", device=CPU)
    expected = theirs(tokens, labels=tokens).loss * 19
    ours = _loaded(model_folder)
    found = causal_lm.losses(ours, _batch([[tokens[0].tolist()]]), "sum")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    rows = causal_lm.losses(ours, _batch([[tokens[0].tolist()]]), "rows")
    torch.testing.assert_close(rows, expected[None], rtol=1e-5, atol=1e-4)


def test_padding_changes_nothing(model_folder: Path) -> None:
    trained = _loaded(model_folder)
    short = causal_lm.losses(trained, _batch([[[5, 6, 7, 8]]]), "sum")
    padded = causal_lm.losses(trained, _batch([[[5, 6, 7, 8]]], length=16), "sum")
    torch.testing.assert_close(padded, short)


def test_a_model_that_cannot_be_packed_is_refused(make_model: Callable[..., Path]) -> None:
    loaded = model.load(
        ModelConfig(path=str(make_model(model_type="bloom", n_layer=2, n_head=4))), precision="fp32", device=CPU
    )
    with pytest.raises(errors.ModelError, match=r"data\.packing: false"):
        model.check_packing(loaded)


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    padding=st.integers(0, 4),
    window=st.integers(0, 4),
)
def test_attention_sees_its_document_only(lengths: list[int], padding: int, window: int) -> None:
    owners = [i for i, length in enumerate(lengths) for _ in range(length)]
    ids = torch.tensor([[*owners, *([-1] * padding)]], dtype=torch.int32)
    mask = document_mask(ids, ids.shape[1], window, CPU)[0, 0]
    for row in range(ids.shape[1]):
        for column in range(ids.shape[1]):
            seen = column <= row and bool(ids[0, row] == ids[0, column]) and (not window or row - column < window)
            assert bool(mask[row, column]) == seen


def test_rows_of_one_document_need_no_mask() -> None:
    assert documents_of(torch.zeros(2, 5, dtype=torch.int32), CPU).ids is None
    assert documents_of(torch.tensor([[0, 0, 1, -1]], dtype=torch.int32), CPU).ids is not None


def _loaded(folder: Path) -> PreTrainedModel:
    loaded = model.load(ModelConfig(path=str(folder)), precision="fp32", device=CPU)
    causal_lm.install(loaded, loss="chunked")
    return loaded


def _batch(rows: list[list[list[int]]], length: int = 0) -> Batch:
    """Rows of documents."""
    length = length or max(sum(map(len, row)) for row in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.int64)
    labels = torch.full_like(tokens, IGNORED)
    positions = torch.zeros_like(tokens)
    ids = torch.full((len(rows), length), -1, dtype=torch.int32)
    for i, row in enumerate(rows):
        start = 0
        for j, document in enumerate(row):
            end = start + len(document)
            tokens[i, start:end] = labels[i, start:end] = torch.tensor(document)
            labels[i, start] = IGNORED
            positions[i, start:end] = torch.arange(len(document))
            ids[i, start:end] = j
            start = end
        positions[i, start:] = torch.arange(length - start)
    return Batch(tokens, labels, positions, ids, int((labels != IGNORED).sum())).to(CPU)
