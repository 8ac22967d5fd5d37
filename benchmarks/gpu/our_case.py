"""One case through the trainer's own parts, in a process of its own. Prints one JSON line."""

from __future__ import annotations

import argparse
import json
import sys

import torch

from michelangelo.llm.bench import measuring
from michelangelo.llm.training_setup import TrainingSetup


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--setup", required=True, help="fields of a TrainingSetup, as JSON")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--memory-cap-gb", type=float, default=0.0)
    arguments = parser.parse_args()
    if arguments.memory_cap_gb:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(arguments.memory_cap_gb * 1e9 / total)
    setup = TrainingSetup(**json.loads(arguments.setup))
    measured = measuring.measure(arguments.model, setup, device=torch.device("cuda"), steps=arguments.steps)
    print(json.dumps(measured.to_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
