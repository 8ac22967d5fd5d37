"""Environments for requirements: made once, by one process, whole or not at all; and attempts that wait for them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.executors.conftest import Bench, blobs_url, until

from michelangelo import errors
from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.executors import environments, inprocess, process
from michelangelo.executors.base import AttemptState, Executor, Pending
from michelangelo.executors.environments import Environments
from michelangelo.executors.uv import Uv
from michelangelo.worker import call

Lock = tuple[str, ...]
MODULE = """
import os, subprocess, sys

def version():
    import tabulate
    return tabulate.__version__

def has(module):
    try:
        __import__(module)
    except ImportError:
        return False
    return True

def child():
    code = "import michelangelo.uniflow, tabulate; print(tabulate.__version__)"
    return subprocess.run(["python", "-c", code], capture_output=True, text=True).stdout.strip()

def beside():
    import beside_environment_flow
    return beside_environment_flow.word

def folder():
    return os.getcwd()

def variables():
    return [os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
"""


@pytest.fixture
def make_bench(tmp_path: Path, run_id: str, environments_folder: Path) -> Iterator[Callable[..., Bench]]:
    """Benches of process executors with the module above; `folder` is where environments are kept."""
    module = tmp_path / "environment_flow.py"
    module.write_text(MODULE)
    (tmp_path / "beside_environment_flow.py").write_text("word = 'beside'\n")
    made: list[Executor] = []

    def make(folder: Path = environments_folder) -> Bench:
        executor = process.ProcessExecutor(
            run_id=run_id, blobs_url=blobs_url(tmp_path), capacity=4, environments_folder=str(folder)
        )
        made.append(executor)
        return Bench(executor, module, tmp_path)

    yield make
    for executor in made:
        executor.close()


@contextmanager
def held(folder: Path, lock: Lock) -> Iterator[None]:
    """While another process makes this environment."""
    folder.mkdir(exist_ok=True)
    with open(Environments(str(folder))._path(lock) + ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pending(bench: Bench) -> dict[str, str]:
    assert isinstance(bench.executor, Pending)
    return dict(bench.executor.pending())


def test_two_versions_of_a_library_run_side_by_side(
    make_bench: Callable[..., Bench], old_lock: Lock, new_lock: Lock
) -> None:
    bench = make_bench()
    attempts = [bench.submit("version", requirements=lock) for lock in (old_lock, new_lock, old_lock)]
    assert [bench.outcome(attempt).output for attempt in attempts] == ["0.8.10", "0.9.0", "0.8.10"]


def test_environment_has_its_packages_and_none_of_ours(make_bench: Callable[..., Bench], old_lock: Lock) -> None:
    bench = make_bench()
    assert bench.run("has", "yaml").output is True
    assert bench.run("has", "yaml", requirements=old_lock).output is False
    assert bench.run("beside", requirements=old_lock).output == "beside"
    assert bench.run("child", requirements=old_lock).output == "0.8.10", "python on the PATH is the environment's"


def test_environment_that_is_there_is_not_made_again(
    make_bench: Callable[..., Bench], old_lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_bench().run("version", requirements=old_lock).output == "0.8.10"
    monkeypatch.setattr(Uv, "run", lambda *_, **__: pytest.fail("uv was called"))
    bench = make_bench()
    attempt = bench.submit("version", requirements=old_lock)
    assert pending(bench) == {}
    assert bench.outcome(attempt).output == "0.8.10"


def test_lock_is_chosen_once(environments_folder: Path, old_lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(line.startswith("tabulate==0.8.10 --hash=sha256:") for line in old_lock)
    assert any(line.startswith("orjson==") for line in old_lock)
    monkeypatch.setattr(Uv, "run", lambda *_, **__: "tabulate==7 \\\n    --hash=sha256:ab\n")
    assert environments.resolve(["tabulate==0.8.10"], str(environments_folder)) == old_lock
    other = environments.resolve(["tabulate"], str(environments_folder), upgrade=True)
    assert other == ("tabulate==7 --hash=sha256:ab",)
    assert environments.package_names(other) == "tabulate 7"


@pytest.mark.parametrize("damage", ["package", "python", "half"])
def test_broken_environment_is_made_anew(tmp_path: Path, old_lock: Lock, damage: str) -> None:
    kept = Environments(str(tmp_path / "environments"))
    kept_folder = tmp_path / "environments"
    kept_folder.mkdir()
    with_uv = Uv(str(kept_folder))
    made = kept.make(old_lock, with_uv)
    made.close()
    if damage == "package":
        next(Path(made.path).glob("lib/python*/site-packages/tabulate.py")).unlink()
    elif damage == "python":
        os.unlink(made.python)
    else:
        os.rename(made.path, f"{made.path}.making")  # as after a kill in the middle
    assert kept.find(old_lock) is None
    again = kept.make(old_lock, with_uv)
    try:
        code = "import tabulate; print(tabulate.__version__)"
        assert subprocess.run([again.python, "-c", code], capture_output=True, text=True).stdout == "0.8.10\n"
        assert list(kept_folder.glob("*.making")) == []
    finally:
        again.close()


def test_environment_is_made_by_one_of_many(tmp_path: Path, old_lock: Lock) -> None:
    folder = tmp_path / "environments"
    folder.mkdir()
    calls: list[str] = []

    class Counted(Uv):
        def run(self, *arguments: str, stdin: str = "", pass_fds: object = ()) -> str:
            calls.append(arguments[0])
            return super().run(*arguments, stdin=stdin)

    found: list[int] = []

    def make() -> None:
        environment = Environments(str(folder)).make(old_lock, Counted(str(folder)))
        found.append(os.stat(environment.path).st_ino)
        environment.close()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (4, 1)
    assert sorted(calls) == ["pip", "venv"]


def test_attempt_that_waits_for_its_environment_says_so(
    make_bench: Callable[..., Bench], tmp_path: Path, old_lock: Lock
) -> None:
    bench = make_bench(tmp_path / "environments")
    with held(tmp_path / "environments", old_lock):
        attempt = bench.submit("version", requirements=old_lock)
        assert list(bench.executor.poll(30)) == [], "a poll returns when what is pending has changed"
        assert pending(bench) == {attempt: "its environment is being made: installing tabulate 0.8.10"}
        assert bench.run("has", "yaml").output is True, "others run meanwhile"
    assert bench.outcome(attempt).output == "0.8.10"
    assert pending(bench) == {}


def test_cancel_of_an_attempt_that_waits_ends_it(
    make_bench: Callable[..., Bench], tmp_path: Path, old_lock: Lock
) -> None:
    bench = make_bench(tmp_path / "environments")
    with held(tmp_path / "environments", old_lock):
        first, second = (bench.submit("version", requirements=old_lock) for _ in range(2))
        bench.executor.cancel(first)
        assert bench.outcome(first).state is AttemptState.KILLED
        assert list(pending(bench)) == [second]
        bench.executor.cancel(second)
        assert bench.outcome(second).state is AttemptState.KILLED
        assert pending(bench) == {}
    assert bench.run("version", requirements=old_lock).output == "0.8.10"


def test_close_ends_attempts_that_wait(make_bench: Callable[..., Bench], tmp_path: Path, old_lock: Lock) -> None:
    bench = make_bench(tmp_path / "environments")
    with held(tmp_path / "environments", old_lock):
        attempt = bench.submit("version", requirements=old_lock)
        bench.executor.close()
        assert bench.outcome(attempt).state is AttemptState.KILLED
    until(lambda: not any(thread.name == "environment" for thread in threading.enumerate()))
    assert Environments(str(tmp_path / "environments")).kept() == []


def test_requirements_that_do_not_go_together_are_refused_in_the_resolvers_words(tmp_path: Path) -> None:
    with pytest.raises(errors.RequirementsError) as refused:
        environments.resolve(["tabulate==0.9.0", "tabulate==0.8.10"], str(tmp_path))
    assert "the requirements tabulate==0.9.0, tabulate==0.8.10 cannot be had" in str(refused.value)
    assert "your requirements are unsatisfiable" in str(refused.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_index_that_does_not_answer_is_said(
    make_bench: Callable[..., Bench], tmp_path: Path, old_lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(tmp_path / "environments")
    with monkeypatch.context() as broken:
        broken.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
        broken.setenv("UV_HTTP_RETRIES", "0")
        broken.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        with pytest.raises(errors.RequirementsError, match=r"Failed to fetch: .?http://127\.0\.0\.1:9/simple/"):
            environments.resolve(["tabulate"], str(tmp_path / "environments"))
        outcome = bench.run("version", requirements=old_lock)
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert outcome.error["type"] == "michelangelo.errors.RequirementsError"
    assert "tabulate 0.8.10 cannot be installed: " in outcome.error["message"]
    assert "http://127.0.0.1:9/simple" in outcome.error["message"]
    assert Environments(str(tmp_path / "environments")).kept() == []
    assert bench.run("version", requirements=old_lock).output == "0.8.10", "another attempt tries again"


def test_package_that_is_not_what_was_locked_is_refused(
    make_bench: Callable[..., Bench], tmp_path: Path, old_lock: Lock
) -> None:
    forged = tuple(line.partition(" ")[0] + " --hash=sha256:" + "0" * 64 for line in old_lock)
    outcome = make_bench(tmp_path / "environments").run("version", requirements=forged)
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert "Hash mismatch" in outcome.error["message"]


def test_uv_that_is_not_there_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.RequirementsError, match=r"pip install 'michelangelo-oss\[environments\]'"):
        environments.resolve(["tabulate"], str(tmp_path))


def test_prune_removes_what_nobody_uses(tmp_path: Path, old_lock: Lock, new_lock: Lock) -> None:
    folder = tmp_path / "environments"
    folder.mkdir()
    kept = Environments(str(folder))
    used, idle = (kept.make(lock, Uv(str(folder))) for lock in (old_lock, new_lock))
    idle.close()
    assert [one.requirements[-1] for one in kept.kept()] == ["tabulate==0.9.0", "tabulate==0.8.10"]
    assert kept.prune(3600) == []
    assert [one.requirements[-1] for one in kept.prune(0)] == ["tabulate==0.9.0"]
    assert not os.path.exists(idle.path)
    used.close()
    assert [one.requirements[-1] for one in kept.prune(0)] == ["tabulate==0.8.10"]
    assert kept.kept() == []
    shutil.rmtree(folder)


def test_working_directory_is_the_attempts_own(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    bench = make_bench()
    (tmp_path / "inside").mkdir()
    assert bench.run("folder", working_directory=str(tmp_path / "inside")).output == str(tmp_path / "inside")
    assert bench.run("folder").output == os.getcwd()
    outcome = bench.run("folder", working_directory=str(tmp_path / "absent"))
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert f"the working directory {tmp_path / 'absent'} of folder cannot be used" in outcome.error["message"]


def test_cores_are_told_to_numerical_libraries(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    assert bench.run("variables", config={"cpu": 2.5}).output == ["2", "2"]
    assert bench.run("variables", config={"cpu": 3}, environment={"OMP_NUM_THREADS": "1"}).output == ["1", "3"]


def test_threads_cannot_have_requirements_or_a_folder(tmp_path: Path, old_lock: Lock) -> None:
    executor = inprocess.InProcessExecutor(call.Caller(MemoryBlobStore))
    bench = Bench(executor, tmp_path / "flow.py", tmp_path)
    try:
        with pytest.raises(errors.ExecutorError, match="asks for requirements of its own"):
            bench.submit("version", requirements=old_lock)
        with pytest.raises(errors.ExecutorError, match="asks for a working directory of its own"):
            bench.submit("version", working_directory=str(tmp_path))
    finally:
        executor.close()


def test_executor_without_a_folder_refuses_requirements(tmp_path: Path, run_id: str, old_lock: Lock) -> None:
    executor = process.ProcessExecutor(run_id=run_id, blobs_url=blobs_url(tmp_path))
    bench = Bench(executor, tmp_path / "flow.py", tmp_path)
    try:
        with pytest.raises(errors.ExecutorError, match="no folder to keep environments in"):
            bench.submit("version", requirements=old_lock)
    finally:
        executor.close()
