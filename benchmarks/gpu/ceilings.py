"""What the machine can do at most: matrix products, copies, attention; other figures are shares of it. Prints JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from torch.nn import functional as F

from michelangelo.llm.finetune import attention
from michelangelo.llm.finetune.documents import documents_of

DEVICE = torch.device("cuda")
SIZE = 8192


def main() -> int:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("transformers", "peft", "triton"))
    known = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "versions": versions}
    print(json.dumps({**known, **matmul(), **copy(), **attend()}))
    check_packed()
    return 0


def matmul() -> dict[str, float]:
    a, b = (torch.randn(SIZE, SIZE, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return {"matmul_flops_per_second": 2 * SIZE**3 / seconds(lambda: a @ b)}


def copy() -> dict[str, float]:
    a = torch.randn(1 << 30, device=DEVICE)
    b = torch.empty_like(a)
    return {"copy_bytes_per_second": 2 * a.nbytes / seconds(lambda: b.copy_(a))}


def attend() -> dict[str, float]:
    """Causal, Llama 3.1 8B's heads at 4,096 tokens."""
    query, key, value = (
        torch.randn(2, heads, 4096, 128, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
        for heads in (32, 8, 8)
    )
    upstream = torch.randn_like(query)
    operations = 4 * 2 * 32 * 4096 * 4096 * 128 / 2

    def forward() -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

    with attention.fast_kernels(DEVICE):
        ahead = seconds(forward)
        both = seconds(lambda: torch.autograd.grad(forward(), (query, key, value), upstream))
    return {
        "attention_forward_flops_per_second": operations / ahead,
        "attention_backward_flops_per_second": 2.5 * operations / (both - ahead),
    }


def check_packed() -> None:
    """The variable-length kernel gives what a mask of the documents gives."""
    ids = torch.tensor([[0] * 100 + [1] * 60 + [-1] * 96, [0] * 256], dtype=torch.int32)
    query, key, value = (torch.randn(2, heads, 256, 64, device=DEVICE, dtype=torch.bfloat16) for heads in (8, 2, 2))
    documents = documents_of(ids, DEVICE)
    fast, _ = attention.attend(torch.nn.Module(), query, key, value, None, **documents.arguments())
    slow, _ = attention.attend(torch.nn.Module(), query, key, value, None, document_ids=documents.ids)
    torch.testing.assert_close(fast.float(), slow.float(), rtol=2e-2, atol=2e-2)


def seconds(call: Callable[[], Any], repeats: int = 20) -> float:
    for _ in range(3):
        call()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / repeats


if __name__ == "__main__":
    sys.exit(main())
