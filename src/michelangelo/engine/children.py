"""Steps that are runs of other pipelines: `uniflow.run_pipeline`.

The start of such a step is recorded, with the run's name, before the run is made, and its end when the run has ended.
When the parent is killed, so are its runs; when it is only interrupted, they go on, and whoever resumes the parent
waits for them again. One watch tells of all runs of one parent. What they are as objects is in engine/childruns.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from michelangelo import errors
from michelangelo.client.client import Object
from michelangelo.engine import childruns, failures
from michelangelo.engine.childruns import ChildRuns
from michelangelo.engine.journal import EntryState
from michelangelo.engine.loop import Loop, Timer
from michelangelo.engine.recorder import Recorder
from michelangelo.engine.steps import Step, Verdict
from michelangelo.engine.surroundings import Guard, instant

__all__ = ["Children"]

_RETRY_SECONDS: Final = 1.0
_NO_PLATFORM: Final = "this run has no platform that could run another pipeline"


class Children:
    """The steps that are runs. Used on the engine's thread."""

    def __init__(self, runs: ChildRuns | None, loop: Loop, recorder: Recorder, guard: Guard) -> None:
        """`runs`: None where there is no platform to run them on."""
        self._runs = runs
        self._loop = loop
        self._recorder = recorder
        self._guard = guard
        self._steps: dict[str, Step] = {}
        self._timers: dict[str, Timer] = {}
        self._stop_watch: Callable[[], None] | None = None
        self._is_stopped = False

    def start(self, step: Step) -> None:
        """Make the step's run, or find it again, and wait for its end."""
        assert step.request is not None
        if self._runs is None:
            self._recorder.whole(step, EntryState.FAILED, error=failures.record("RuntimeError", _NO_PLATFORM))
            return
        name = self._runs.name(step)
        if step.current is None:
            details: dict[str, Any] = {"pipelineRun": name}
            if step.request.timeout_seconds > 0:
                details["wakeAt"] = instant(step.request.timeout_seconds)
            self._recorder.begin(step, details)
        self._steps[name] = step
        wake_at = step.current.details.get("wakeAt") if step.current else None
        if wake_at:
            delay = (datetime.fromisoformat(wake_at) - datetime.now(UTC)).total_seconds()
            self._timers[name] = self._loop.later(delay, lambda: self._guard(self._late, name))
        self._ensure(name)

    def stop(self, *, kill: bool) -> None:
        """Wait for none of them any more; with `kill` end them too."""
        self._is_stopped = True
        for timer in self._timers.values():
            timer.cancel()
        if not kill:
            return
        killed = failures.record("TaskKilledError", "its run was ended")
        for name in list(self._steps):
            self._guard(self._kill, name)
            self._guard(self._end, name, EntryState.KILLED, error=killed)

    def close(self) -> None:
        """End the thread that watches; from any thread."""
        if self._stop_watch is not None:
            self._stop_watch()

    def _ensure(self, name: str) -> None:
        step = self._steps.get(name)
        if step is None or self._is_stopped:
            return
        assert self._runs is not None
        try:
            run = self._runs.ensure(step)
        except errors.UnavailableError:
            # A server that restarts; the step's start is recorded, so nothing is lost by waiting.
            self._loop.later(_RETRY_SECONDS, lambda: self._guard(self._ensure, name))
            return
        except (errors.WorkflowError, errors.ApiError) as error:
            message = f"no run of pipeline {step.task} could be started: {error}"
            self._end(name, EntryState.FAILED, error=failures.record("RuntimeError", message))
            return
        if self._stop_watch is None:
            self._stop_watch = self._runs.watch(lambda event, obj: self._loop.call(self._guard, self._seen, event, obj))
        self._seen("MODIFIED", run)

    def _seen(self, event: str, run: Object) -> None:
        name = str(run["metadata"]["name"])
        step = self._steps.get(name)
        if step is None or self._is_stopped:
            return
        state = childruns.state_of(run)
        if event == "DELETED":
            self._fail(name, f"run {name} of pipeline {step.task} was deleted")
        elif state in childruns.SUCCESSES:
            metadata = {"name": name, "namespace": run["metadata"]["namespace"]}
            result = (run.get("status") or {}).get("result")
            self._end(
                name, EntryState.SUCCEEDED, output={"metadata": metadata, "status": {"state": state}, "result": result}
            )
        elif state in childruns.FAILURES:
            why = (run.get("status") or {}).get("errorMessage")
            self._fail(name, f"run {name} of pipeline {step.task} ended {state}" + (f": {why}" if why else ""))

    def _late(self, name: str) -> None:
        step = self._steps.get(name)
        if step is None or step.request is None:
            return
        self._kill(name)
        message = f"run {name} of pipeline {step.task} took longer than {step.request.timeout_seconds:g} s; it is ended"
        self._end(name, EntryState.FAILED, error=failures.record("TimeoutError", message))

    def _kill(self, name: str) -> None:
        assert self._runs is not None
        self._runs.kill(name)

    def _fail(self, name: str, message: str) -> None:
        self._end(name, EntryState.FAILED, error=failures.record("RuntimeError", message))

    def _end(self, name: str, state: EntryState, *, output: Any = None, error: Mapping[str, Any] | None = None) -> None:
        step = self._steps.pop(name)
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        self._recorder.end(step, Verdict(state, final=True, error=error), output=output)
