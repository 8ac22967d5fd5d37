"""The library for concurrency: run, new_callable and batch_run; a barrier shows that the calls overlap."""

import os
import time as clock

import michelangelo.uniflow.core as uniflow
from michelangelo.uniflow.core.lib import concurrent


@uniflow.task()
def meet(name: str, folder: str, guests: int) -> str:
    with open(os.path.join(folder, name), "w"):
        pass
    deadline = clock.monotonic() + 30
    while len(os.listdir(folder)) < guests:
        if clock.monotonic() > deadline:
            raise TimeoutError(f"{name} was alone")
        clock.sleep(0.01)
    return name.upper()


@uniflow.task()
def square(number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    return number * number


@uniflow.workflow()
def part(number: int):
    return square(number) + 1


@uniflow.workflow()
def concurrency_workflow(folder: str):
    first = concurrent.run(meet, "first", folder, guests=2)
    second = concurrent.run(meet, "second", folder, guests=2)
    met = [first.result(), second.result()]

    calls = []
    for number in range(5):
        calls.append(concurrent.new_callable(square, number))
    batch = concurrent.batch_run(calls, max_concurrency=2)
    squares = batch.get()
    failed = concurrent.run(square, -1)
    try:
        failed.result()
        caught = "nothing"
    except ValueError as error:
        caught = str(error)
    return {
        "met": met,
        "squares": squares,
        "ready": batch.is_ready() and first.done() and failed.done(),
        "futures": [future.result() for future in batch.get_futures()],
        "workflow": concurrent.run(part, 3).result(),
        "caught": caught,
    }


if __name__ == "__main__":
    ctx = uniflow.create_context()
    print(ctx.run(concurrency_workflow, os.environ["MEETING"]))
