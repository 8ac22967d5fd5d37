"""python ray_flow.py raw|ours CHAIN FAN REPEATS — no-op Ray tasks in a row and side by side: `BENCH <shape> <seconds>`.

Both sides have 4 logical CPUs, and a first fan-out that has all worker processes started.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

from michelangelo import uniflow
from michelangelo.uniflow.plugins.ray import RayTask


@uniflow.task(config=RayTask(head_cpu=1))
def noop(x: int) -> int:
    return x


@uniflow.workflow
def both(chain: int, fan: int, repeats: int) -> None:
    uniflow.wait([noop.submit(i) for i in range(8)])
    for _ in range(repeats):
        begun = time.perf_counter()
        for i in range(chain):
            noop(i)
        print(f"BENCH chain {time.perf_counter() - begun:.4f}", flush=True)
        begun = time.perf_counter()
        uniflow.wait([noop.submit(i) for i in range(fan)])
        print(f"BENCH fan {time.perf_counter() - begun:.4f}", flush=True)


def raw(chain: int, fan: int, repeats: int) -> None:
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    remote: Any = ray.remote(num_cpus=1)
    task = remote(noop.fn)
    ray.get([task.remote(i) for i in range(8)])
    for _ in range(repeats):
        begun = time.perf_counter()
        for i in range(chain):
            ray.get(task.remote(i))
        print(f"BENCH chain {time.perf_counter() - begun:.4f}", flush=True)
        begun = time.perf_counter()
        ray.get([task.remote(i) for i in range(fan)])
        print(f"BENCH fan {time.perf_counter() - begun:.4f}", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {"raw": raw, "ours": both}
    programs[sys.argv[1]](*map(int, sys.argv[2:5]))
