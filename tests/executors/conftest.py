"""What the executor tests share: the user's modules they run, and a bench that submits and collects."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.executors import environments, inprocess, launch, process
from michelangelo.executors.base import Attempt, CallTarget, Executor, Outcome, Resources
from michelangelo.executors.ray.executor import RayExecutor
from michelangelo.executors.ray.session import Terms
from michelangelo.worker import call

__all__ = ["Bench", "SharedRay", "until"]

USER_MODULE = '''
import ctypes, json, os, signal, subprocess, sys, threading, time
print("imported")
seen = []

def add(a, b=0):
    return a + b

def fail(word):
    raise ValueError(word)

def wait_for(path, released):
    open(path, "w").close()
    while not os.path.exists(released):
        time.sleep(0.005)
    return "released"

def unencodable():
    return object()

def environment(name):
    return os.environ.get(name)

def content(name):
    with open(name) as file:
        return file.read()

def chatter(line, released):
    print(line)
    print("to stderr", file=sys.stderr)
    while not os.path.exists(released):
        time.sleep(0.005)

def flood(megabytes):
    print("first words")
    line = "x" * 1023
    for _ in range(megabytes * 1024):
        print(line)
    print("last words")

def leave():
    sys.exit("enough")

def interrupt():
    raise KeyboardInterrupt

def remember(word):
    seen.append(word)
    return list(seen)

def main_module():
    return sys.modules["__main__"].__file__

def stubborn(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(path, "w").close()
    while True:
        signal.pause()

def exit_now(code):
    os._exit(code)

def crash():
    ctypes.string_at(0)

def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)

def hog(path):
    held = []
    while True:
        held.append(bytearray(16 << 20))
        for i in range(0, 16 << 20, 4096):
            held[-1][i] = 1

def family(path, detached, wait):
    """Children and grandchildren that ignore SIGTERM; their ids go to `path`."""
    pids = []
    for _ in range(3):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            if detached:
                os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            grandchild = os.fork()
            if grandchild == 0:
                signal.pause()
            os.write(write_end, b"%d" % grandchild)
            if detached:
                os._exit(0)
            while True:
                signal.pause()
        pids += [pid, int(os.read(read_end, 20))]
    with open(path + ".part", "w") as file:
        json.dump(pids, file)
    os.rename(path + ".part", path)
    while wait:
        signal.pause()
    return "parent done"

def lingering(path):
    """A thread that is no daemon finishes after the result is there."""
    def finish():
        time.sleep(0.05)
        open(path, "w").close()
    threading.Thread(target=finish).start()
    return "early"
'''


def until(condition: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """The first true value of `condition`, looked at again and again; a test that never sees it fails."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.002)  # what is waited for needs the processor more than this
    return value


class Bench:
    """Submits calls of one user module to an executor, and collects the outcomes by attempt id."""

    def __init__(self, executor: Executor, module: Path, folder: Path, requirements: Sequence[str] = ()) -> None:
        self.executor = executor
        self.module = module
        self.folder = folder
        self.requirements = requirements
        self.patience_seconds = 30.0
        self.outcomes: dict[str, Outcome] = {}
        self._prefix = f"attempt-{os.urandom(4).hex()}"
        self._count = 0

    def submit(
        self,
        function: str,
        *args: Any,
        environment: Mapping[str, str] | None = None,
        memory_bytes: int = 0,
        timeout_seconds: float = 0.0,
        module: Path | None = None,
        **options: Any,
    ) -> str:
        self._count += 1
        path = module or self.module
        attempt = Attempt(
            id=f"{self._prefix}-{self._count}",
            target=CallTarget(str(path), path.stem, function),
            arguments={"args": list(args), "kwargs": {}},
            timeout_seconds=timeout_seconds,
            environment=environment or {},
            log_path=str(self.log(f"{self._prefix}-{self._count}")),
            **{"requirements": self.requirements, "resources": Resources(memory_bytes=memory_bytes), **options},
        )
        self.executor.submit(attempt)
        return attempt.id

    def outcome(self, attempt_id: str, *, seconds: float = 0.0) -> Outcome:
        deadline = time.monotonic() + (seconds or self.patience_seconds)
        while attempt_id not in self.outcomes:
            assert time.monotonic() < deadline, f"{attempt_id} did not end in time"
            for outcome in self.executor.poll(1.0):
                assert outcome.id not in self.outcomes, "each end is reported once"
                self.outcomes[outcome.id] = outcome
        return self.outcomes[attempt_id]

    def run(self, function: str, *args: Any, **options: Any) -> Outcome:
        return self.outcome(self.submit(function, *args, **options))

    def log(self, attempt_id: str) -> Path:
        return self.folder / "logs" / f"{attempt_id}.log"

    def file(self, name: str) -> Path:
        return self.folder / name


class SharedRay:
    """One executor, and so one local Ray, for all tests; made again after a test that has closed it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._executor: RayExecutor | None = None

    def executor(self) -> RayExecutor:
        if self._executor is None or self._executor.is_closed:
            terms = Terms(run_id=f"run-{os.urandom(6).hex()}", blobs_url=blobs_url(self._folder))
            self._executor = RayExecutor(terms, capacity=4)
        return self._executor

    def close(self) -> None:
        if self._executor is not None:
            self._executor.close()


@pytest.fixture
def user_module(tmp_path: Path) -> Path:
    path = tmp_path / f"flow_{os.urandom(4).hex()}.py"
    path.write_text(USER_MODULE)
    return path


@pytest.fixture
def run_id(tmp_path: Path) -> str:
    return f"run-{os.urandom(6).hex()}"


@pytest.fixture(scope="session")
def environments_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the environments of the tests are kept, so that each is made once."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture(scope="session")
def old_lock(environments_folder: Path) -> tuple[str, ...]:
    """A lock with a version of a small library; `new_lock` has another one."""
    return environments.resolve(["tabulate==0.8.10"], str(environments_folder))


@pytest.fixture(scope="session")
def new_lock(environments_folder: Path) -> tuple[str, ...]:
    return environments.resolve(["tabulate==0.9.0"], str(environments_folder))


@pytest.fixture(params=["ours", "environment"])
def process_bench(
    request: pytest.FixtureRequest, tmp_path: Path, user_module: Path, run_id: str, environments_folder: Path
) -> Iterator[Bench]:
    executor = process.ProcessExecutor(
        run_id=run_id, blobs_url=blobs_url(tmp_path), capacity=4, environments_folder=str(environments_folder)
    )
    requirements = request.getfixturevalue("old_lock") if request.param == "environment" else ()
    yield Bench(executor, user_module, tmp_path, requirements)
    executor.close()


@pytest.fixture(params=["inprocess", "process", "spawn", "environment", "ray"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, user_module: Path, run_id: str) -> Iterator[Bench]:
    if request.param == "ray":
        yield request.getfixturevalue("ray_bench")
        return
    executor: Executor
    if request.param == "inprocess":
        executor = inprocess.InProcessExecutor(call.Caller(MemoryBlobStore), capacity=4)
    else:
        method: launch.StartMethod = "spawn" if request.param == "spawn" else "fork"
        executor = process.ProcessExecutor(
            run_id=run_id,
            blobs_url=blobs_url(tmp_path),
            capacity=4,
            interpreter=launch.Interpreter(start_method=method),
            environments_folder=str(request.getfixturevalue("environments_folder")),
        )
    requirements = request.getfixturevalue("old_lock") if request.param == "environment" else ()
    yield Bench(executor, user_module, tmp_path, requirements)
    executor.close()


@pytest.fixture(scope="session")
def shared_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedRay]:
    shared = SharedRay(tmp_path_factory.mktemp("ray"))
    yield shared
    shared.close()


@pytest.fixture
def ray_bench(tmp_path: Path, user_module: Path, shared_ray: SharedRay) -> Bench:
    bench = Bench(shared_ray.executor(), user_module, tmp_path)
    bench.patience_seconds = 180.0  # a Ray that starts on a busy machine
    return bench


def blobs_url(folder: Path) -> str:
    return (folder / "blobs").as_uri()
