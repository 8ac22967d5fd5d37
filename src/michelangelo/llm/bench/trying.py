"""One measurement as a program: the request on standard input, the answer as the last line of standard output.

A process of its own, so that neither short memory nor a crash can end who asks: `batch_finder` and `tuning`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from michelangelo import errors
from michelangelo.llm.bench import probing, tasks
from michelangelo.llm.training_setup import TrainingSetup

__all__ = ["answer", "main"]


def main() -> int:
    sys.stdout.write(json.dumps(answer(json.loads(sys.stdin.read()))) + "\n")
    return 0


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Of `model`, `setup`, `device`, `memory_cap_bytes`, `steps`, `warm_up`; what is wrong with them in `error`."""
    names = {field.name for field in dataclasses.fields(TrainingSetup)}
    fields = {key: value for key, value in request["setup"].items() if key in names}
    setup = TrainingSetup(**{**fields, "lora_targets": tuple(fields["lora_targets"])})
    try:
        device = tasks.resolve_device(request["device"])
        found = probing.measure_capped(
            request["model"],
            setup,
            device=device,
            cap_bytes=request["memory_cap_bytes"],
            steps=request["steps"],
            warm_up=request["warm_up"],
        )
    except errors.MichelangeloError as e:
        return {"error": e.message}
    return found.to_dict()


if __name__ == "__main__":
    sys.exit(main())
