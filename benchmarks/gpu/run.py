"""Training on one GPU, in under ten minutes: ceilings, then each case predicted, measured, and run by TRL's SFTTrainer.

    python benchmarks/gpu/run.py --out gpu.json        # on the machine with the GPU
    python benchmarks/run.py --add gpu=gpu.json        # puts it into RESULTS.md

Every measurement is in a process of its own, so that nothing is left of one in the next. Predictions are written down
before anything is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import torch

from michelangelo.llm import model_shape
from michelangelo.llm.planner import hardware, memory, throughput
from michelangelo.llm.training_setup import TrainingSetup

HERE = pathlib.Path(__file__).resolve().parent
DEADLINE_SECONDS = 570
CASE_SECONDS = 150


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    model: str
    setup: TrainingSetup
    peers: tuple[tuple[str, ...], ...] = ()
    """Arguments of trl_case.py, the best of which counts."""
    memory_cap_gb: float = 0.0
    aim: str = ""


LORA = TrainingSetup(method="lora", micro_batch=4, sequence_length=4096, compiled=True)
FULL = TrainingSetup(method="full", micro_batch=16, sequence_length=4096, compiled=True)
CAPPED = FULL.replace(micro_batch=2)
CASES = (
    Case(
        "8B LoRA",
        "llama-3.1-8b",
        LORA,
        (("--micro-batch", "2"), ("--micro-batch", "4")),
        aim="≥ 13,000, aim 15,000",
    ),
    Case("1.2B full", "llama-3.2-1b", FULL, (("--micro-batch", "16"),), aim="≥ 45 % MFU, aim 50 %"),
    Case(
        "1.2B full, the peer with fp32 weights under autocast",
        "llama-3.2-1b",
        FULL,
        (("--micro-batch", "8", "--weights", "fp32"),),
    ),
    Case("8B QLoRA", "llama-3.1-8b", LORA.replace(method="qlora"), (("--micro-batch", "4"),), aim="≥ 85 % of LoRA"),
    Case("3B full in 80 GB", "llama-3.2-3b", CAPPED, (("--micro-batch", "2"),), memory_cap_gb=80),
    Case(
        "3B full in 80 GB, optimizer on the host",
        "llama-3.2-3b",
        CAPPED.replace(offload="optimizer"),
        memory_cap_gb=80,
        aim="≥ 34 % less memory",
    ),
    Case("1.2B full, eager attention", "llama-3.2-1b", CAPPED.replace(attention="eager")),
    Case("1.2B full, flash attention", "llama-3.2-1b", CAPPED, aim="≥ 50 % less memory than eager"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu.json"))
    parser.add_argument("--only", action="append", default=[], help="cases whose name has this in it; repeatable")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    began = time.monotonic()
    ceilings = call("ceilings.py")
    device = hardware.of_device(ceilings["device"], torch.cuda.get_device_properties(0).total_memory)
    cases = [case for case in CASES if not arguments.only or any(word in case.name for word in arguments.only)]
    predicted = {case.name: predict(case, device) for case in cases}
    arguments.out.with_suffix(".predictions.json").write_text(json.dumps(predicted, indent=1))
    rows = [ceiling_row(ceilings)]
    for case in cases:
        rows.append(row(case, predicted[case.name], ceilings, with_peers=not arguments.no_peers))
        print(json.dumps(rows[-1]), flush=True)
        result = {"date": datetime.date.today().isoformat(), "machine": machine(ceilings), "rows": rows}
        arguments.out.write_text(json.dumps(result, indent=1))
        if time.monotonic() - began > DEADLINE_SECONDS:
            print("out of time: the cases that follow were left out", file=sys.stderr)
            break
    return 0


def predict(case: Case, device: hardware.Hardware | None) -> dict[str, float]:
    if device is None:
        return {}
    shape = model_shape.load(case.model)
    speed, needed = throughput.estimate(shape, case.setup, device), memory.estimate(shape, case.setup)
    return {"tokens_per_second": speed.tokens_per_second, "allocated_bytes": needed.allocated}


def row(case: Case, predicted: dict[str, float], ceilings: dict[str, Any], *, with_peers: bool) -> dict[str, Any]:
    setup = {key: value for key, value in case.setup.to_dict().items() if value != getattr(TrainingSetup(), key)}
    setup.pop("lora_targets", None)
    cap = ("--memory-cap-gb", str(case.memory_cap_gb)) if case.memory_cap_gb else ()
    ours = call("our_case.py", "--model", case.model, "--setup", json.dumps(setup), *cap)
    rate, flops = ours.get("tokens_per_second"), ours.get("model_flops_per_second")
    made: dict[str, Any] = {
        "case": f"{case.name}, B {case.setup.micro_batch}, S {case.setup.sequence_length}",
        "tokens/s": rate,
        "MFU": ours.get("mfu"),
        "of matmul ceiling": flops / ceilings["matmul_flops_per_second"] if flops else None,
        "GiB": gib(ours.get("allocated_bytes")),
        "plan tokens/s": predicted.get("tokens_per_second"),
        "off": relative(predicted.get("tokens_per_second"), rate),
        "plan GiB": gib(predicted.get("allocated_bytes")),
        "GiB off": relative(predicted.get("allocated_bytes"), ours.get("allocated_bytes")),
        "aim": case.aim,
        "error": "out of memory" if ours.get("out_of_memory") else ours.get("error"),
    }
    if with_peers and case.peers:
        method = ("--model", case.model, "--method", case.setup.method)
        peers = [call("trl_case.py", *method, *peer, *cap) for peer in case.peers]
        best = max(peers, key=lambda peer: peer.get("tokens_per_second") or 0.0)
        made["TRL tokens/s"] = best.get("tokens_per_second")
        made["TRL GiB"] = gib(best.get("allocated_bytes"))
        made["ratio"] = rate / best["tokens_per_second"] if rate and best.get("tokens_per_second") else None
    return made


def ceiling_row(ceilings: dict[str, Any]) -> dict[str, Any]:
    copied = ceilings["copy_bytes_per_second"] / 1e12
    ahead, back = (ceilings[f"attention_{way}_flops_per_second"] / 1e12 for way in ("forward", "backward"))
    return {
        "case": f"ceilings: matmul {ceilings['matmul_flops_per_second'] / 1e12:.0f} TFLOP/s, copy {copied:.2f} TB/s, "
        f"attention {ahead:.0f} and {back:.0f} TFLOP/s"
    }


def machine(ceilings: dict[str, Any]) -> str:
    return f"one {ceilings['device']}, torch {ceilings['torch']}, {ceilings['versions']}"


def call(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a script prints last; what went wrong, if it prints none."""
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / script), *arguments],
            capture_output=True,
            text=True,
            timeout=CASE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"more than {CASE_SECONDS} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(done.stderr[-3000:], file=sys.stderr)
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def gib(size: float | None) -> float | None:
    return size / 2**30 if size else None


def relative(predicted: float | None, measured: float | None) -> str | None:
    return f"{predicted / measured - 1:+.1%}" if predicted and measured else None


if __name__ == "__main__":
    sys.exit(main())
