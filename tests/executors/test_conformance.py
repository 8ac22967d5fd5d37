"""What every executor does, over the in-process one and the process one (forked, and spawned as on macOS)."""

from __future__ import annotations

import os
import threading

import pytest
from tests.executors.conftest import Bench, until

from michelangelo import errors
from michelangelo.executors.base import AttemptState


def test_attempt_gives_its_result(bench: Bench) -> None:
    outcome = bench.run("add", 2, 3)
    assert (outcome.state, outcome.output, outcome.error) == (AttemptState.SUCCEEDED, 5, None)


def test_failure_names_file_line_and_source(bench: Bench) -> None:
    outcome = bench.run("fail", "wrong word")
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert outcome.error["type"] == "ValueError"
    assert outcome.error["types"][:2] == ["ValueError", "Exception"]
    assert outcome.error["message"] == "wrong word"
    assert outcome.error["file"] == str(bench.module)
    assert outcome.error["source"] == "raise ValueError(word)"
    assert bench.module.read_text().splitlines()[outcome.error["line"] - 1].strip() == "raise ValueError(word)"
    assert outcome.error["function"] == "fail"


def test_result_without_codec_fails(bench: Bench) -> None:
    outcome = bench.run("unencodable")
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert outcome.error["type"] == "michelangelo.errors.CodecError"
    assert "unencodable" in outcome.error["message"]
    assert (outcome.error["file"], outcome.error["source"]) == (str(bench.module), "def unencodable():")


@pytest.mark.parametrize(("function", "expected"), [("leave", "SystemExit"), ("interrupt", "KeyboardInterrupt")])
def test_exit_of_the_user_is_a_failure(bench: Bench, function: str, expected: str) -> None:
    outcome = bench.run(function)
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert outcome.error["type"] == expected


def test_import_error_names_file_and_line(bench: Bench) -> None:
    broken = bench.file("broken_flow.py")
    broken.write_text("x = 1\nraise RuntimeError('not today')\n")
    outcome = bench.run("anything", module=broken)
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert "not today" in outcome.error["message"]
    assert (outcome.error["file"], outcome.error["line"]) == (str(broken), 2)
    assert outcome.error["source"] == "raise RuntimeError('not today')"


def test_syntax_error_names_file_and_line(bench: Bench) -> None:
    broken = bench.file("crooked_flow.py")
    broken.write_text("x = 1\ndef (:\n")
    outcome = bench.run("anything", module=broken)
    assert outcome.state is AttemptState.FAILED
    assert outcome.error is not None
    assert (outcome.error["file"], outcome.error["line"]) == (str(broken), 2)


def test_environment_is_set_for_the_attempt_only(bench: Bench) -> None:
    assert bench.run("environment", "MA_TEST_WORD", environment={"MA_TEST_WORD": "hello"}).output == "hello"
    assert bench.run("environment", "MA_TEST_WORD").output is None
    assert "MA_TEST_WORD" not in os.environ


def test_log_is_written_while_the_attempt_runs(bench: Bench) -> None:
    released = bench.file("released")
    attempt = bench.submit("chatter", "a line", str(released))
    until(lambda: bench.log(attempt).exists() and b"to stderr" in bench.log(attempt).read_bytes())
    assert attempt not in bench.outcomes
    released.touch()
    assert bench.outcome(attempt).state is AttemptState.SUCCEEDED
    lines = bench.log(attempt).read_text().splitlines()
    assert sorted(line for line in lines if line != "imported") == ["a line", "to stderr"]


def test_capacity_is_how_many_run_at_once(bench: Bench) -> None:
    released = bench.file("released")
    started = [bench.file(f"started-{number}") for number in range(bench.executor.capacity)]
    attempts = [bench.submit("wait_for", str(path), str(released)) for path in started]
    until(lambda: all(path.exists() for path in started))
    with pytest.raises(errors.ExecutorError, match="capacity"):
        bench.submit("add", 1)
    released.touch()
    assert [bench.outcome(attempt).output for attempt in attempts] == ["released"] * len(attempts)
    assert bench.run("add", 1, 1).output == 2


def test_ends_come_in_any_order(bench: Bench) -> None:
    released = bench.file("released")
    slow = bench.submit("wait_for", str(bench.file("started")), str(released))
    assert bench.run("add", 1, 1).output == 2
    assert slow not in bench.outcomes
    released.touch()
    assert bench.outcome(slow).output == "released"


def test_cancel_ends_an_attempt_as_killed(bench: Bench) -> None:
    started, released = bench.file("started"), bench.file("released")
    attempt = bench.submit("wait_for", str(started), str(released))
    until(started.exists)
    bench.executor.cancel(attempt, grace_seconds=0.5)
    outcome = bench.outcome(attempt)
    assert outcome.state is AttemptState.KILLED
    assert outcome.error is not None
    assert outcome.error["type"] == "michelangelo.errors.TaskKilledError"
    released.touch()


def test_cancel_of_what_is_unknown_or_ended_is_ignored(bench: Bench) -> None:
    attempt = bench.submit("add", 1, 1)
    assert bench.outcome(attempt).state is AttemptState.SUCCEEDED
    bench.executor.cancel(attempt)
    bench.executor.cancel("never-heard-of")
    assert bench.run("add", 2, 2).output == 4


def test_timeout_ends_an_attempt(bench: Bench) -> None:
    released = bench.file("released")
    outcome = bench.run("wait_for", str(bench.file("started")), str(released), timeout_seconds=0.3)
    assert outcome.state is AttemptState.TIMED_OUT
    assert outcome.error is not None
    assert "0.3 s" in outcome.error["message"]
    released.touch()


def test_wake_ends_a_waiting_poll(bench: Bench) -> None:
    returned = threading.Event()

    def poll() -> None:
        bench.executor.poll(600)
        returned.set()

    thread = threading.Thread(target=poll)
    thread.start()
    bench.executor.wake()
    assert returned.wait(20)
    thread.join()


def test_poll_without_ends_is_empty(bench: Bench) -> None:
    assert list(bench.executor.poll(0)) == []


def test_close_reports_what_it_ended_and_refuses_more(bench: Bench) -> None:
    started, released = bench.file("started"), bench.file("released")
    attempt = bench.submit("wait_for", str(started), str(released))
    until(started.exists)
    bench.executor.close()
    assert bench.outcome(attempt).state is AttemptState.KILLED
    with pytest.raises(errors.ExecutorError, match="closed"):
        bench.submit("add", 1)
    bench.executor.close()
    released.touch()


def test_output_over_the_limit_keeps_head_and_tail(bench: Bench) -> None:
    attempt = bench.submit("flood", 100)
    assert bench.outcome(attempt).state is AttemptState.SUCCEEDED
    log = bench.log(attempt).read_bytes()
    assert len(log) < (10 << 20) + 200
    assert b"first words" in log[:100]
    assert log.endswith(b"last words\n")
    assert log.count(b"bytes of output left out here") == 1


def test_scratch_folder_is_there_during_the_attempt_only(bench: Bench) -> None:
    module = bench.file("scratch_flow.py")
    module.write_text(
        "import os\nfrom michelangelo.uniflow import task_context\n"
        "def use():\n"
        "    folder = task_context.current().scratch\n"
        "    open(os.path.join(folder, 'big'), 'w').close()\n"
        "    return folder\n"
    )
    folder = bench.run("use", module=module).output
    assert folder
    assert not os.path.exists(folder)
    assert os.path.isdir(os.path.dirname(folder))
    bench.executor.close()
    assert not os.path.exists(os.path.dirname(folder))
