"""python ours_flow.py chain|fan N [inprocess] — the same work as the peers' scripts, on the embedded platform.

N no-op tasks in a row, or side by side; every task is journaled and (by default) runs in a process of its own.
Prints `BENCH import=<s> run=<s>`.
"""

import sys
import time

t0 = time.perf_counter()
from michelangelo import uniflow  # noqa: E402

t_import = time.perf_counter() - t0

executor = uniflow.InProcess() if "inprocess" in sys.argv[3:] else None


@uniflow.task(config=executor)
def noop(x: int) -> int:
    return x


@uniflow.workflow
def chain(n: int) -> int:
    x = 0
    for _ in range(n):
        x = noop(x)
    return x


@uniflow.workflow
def fan(n: int) -> int:
    return len([future.result() for future in [noop.submit(i) for i in range(n)]])


if __name__ == "__main__":
    t1 = time.perf_counter()
    {"chain": chain, "fan": fan}[sys.argv[1]](int(sys.argv[2]))
    print(f"BENCH import={t_import:.3f} run={time.perf_counter() - t1:.4f}")
