"""Attempts on their way to the executors and back: queues by the executors' capacity, starts, cancelling, outcomes.

One queue per executor, first come first served. A thread per executor in use does nothing but hand its outcomes to the
engine's loop. What an outcome means is the scheduler's matter.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from michelangelo import errors
from michelangelo.engine import environments, failures
from michelangelo.engine.loop import Loop
from michelangelo.engine.pending import PendingAttempts
from michelangelo.engine.recorder import Recorder
from michelangelo.engine.steps import Step
from michelangelo.engine.surroundings import Guard, Surroundings
from michelangelo.engine.taskruns import task_run_name
from michelangelo.executors.base import Attempt, AttemptState, Executor, Outcome, Pending

__all__ = ["Dispatcher"]

_POLL_SECONDS: Final = 60.0


class Dispatcher:
    """Used on the engine's thread, but for its pollers."""

    def __init__(
        self,
        around: Surroundings,
        loop: Loop,
        recorder: Recorder,
        guard: Guard,
        *,
        may_start: Callable[[Step], bool],
        ended: Callable[[Step, Outcome], None],
    ) -> None:
        """`may_start` is asked right before a start; a step for which it says no is forgotten. `ended` is called on the
        engine's thread with each outcome."""
        self._around = around
        self._loop = loop
        self._recorder = recorder
        self._guard = guard
        self._may_start = may_start
        self._ended = ended
        self._queues: dict[str, deque[Step]] = {name: deque() for name in around.executors}
        self._loads = dict.fromkeys(around.executors, 0)
        self._running: dict[str, Step] = {}
        self._pollers: dict[str, threading.Thread] = {}
        self._pending = PendingAttempts(loop, recorder, guard, cancel=self._give_up)
        self._is_stopped = False
        self._is_closed = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return not self._running

    def knows(self, executor: str) -> bool:
        return executor in self._queues

    def enqueue(self, step: Step) -> None:
        """Start the step's next attempt as soon as its executor has room."""
        self._queues[step.policy.executor].append(step)
        self._launch_queued(step.policy.executor)

    def stop(self) -> None:
        """Start nothing more, and end what runs; its outcomes still come."""
        self._is_stopped = True
        for waiting in self._queues.values():
            waiting.clear()
        for attempt_id, step in self._running.items():
            self._executor(step).cancel(attempt_id)

    def close(self) -> None:
        """End the threads, when nothing runs any more; from any thread."""
        self._is_closed = True
        for name in self._pollers:
            self._around.executors[name].wake()
        for poller in self._pollers.values():
            poller.join()

    def _launch_queued(self, name: str) -> None:
        waiting = self._queues[name]
        while waiting and not self._is_stopped and self._loads[name] < self._around.executors[name].capacity:
            step = waiting.popleft()
            if self._may_start(step):
                self._launch(step)

    def _launch(self, step: Step) -> None:
        name = step.policy.executor
        attempt_id = task_run_name(self._around.run, step.id, len(step.attempts) + 1)
        details: dict[str, Any] = {"executor": name}
        if self._around.log_folder:
            details["log"] = f"{self._around.project}/{self._around.run}/{attempt_id}.log"
        if not step.attempts:
            details.update(step.cache_miss)
        details.update(environments.recorded(step.policy))
        self._recorder.begin(step, details)
        self._running[attempt_id] = step
        self._loads[name] += 1
        self._poll(name)
        try:
            self._executor(step).submit(self._attempt(attempt_id, step))
        except errors.ExecutorError as error:
            refused = Outcome(attempt_id, AttemptState.FAILED, error=failures.record("ExecutorError", str(error)))
            self._loop.call(self._guard, self._take, refused)

    def _attempt(self, attempt_id: str, step: Step) -> Attempt:
        around, policy = self._around, step.policy
        assert step.target is not None
        return Attempt(
            id=attempt_id,
            target=step.target,
            arguments=step.arguments,
            resources=policy.resources,
            timeout_seconds=policy.timeout_seconds,
            environment={**around.environment, **policy.environment},
            log_path=f"{around.log_folder}/{attempt_id}.log" if around.log_folder else "",
            context={
                "run_name": around.run,
                "project": around.project,
                "step": step.id,
                "attempt": len(step.attempts),
            },
            config=policy.config,
            secrets=around.secrets.read(policy.secrets) if policy.secrets and around.secrets else (),
            requirements=around.environments.lock(policy),
            working_directory=around.environments.working_directory(policy),
        )

    def _poll(self, name: str) -> None:
        if name in self._pollers:
            return
        executor = self._around.executors[name]

        def read() -> None:
            waits = executor if isinstance(executor, Pending) else None
            known: Mapping[str, str] = {}
            while not self._is_closed:
                for outcome in executor.poll(_POLL_SECONDS):
                    self._loop.call(self._guard, self._take, outcome)
                if waits is not None and (reasons := waits.pending()) != known:
                    known = dict(reasons)
                    self._loop.call(self._guard, self._pending.update, self._running, name, known)

        self._pollers[name] = threading.Thread(target=read, name=f"poll {name}", daemon=True)
        self._pollers[name].start()

    def _take(self, outcome: Outcome) -> None:
        step = self._running.pop(outcome.id, None)
        if step is not None:
            self._loads[step.policy.executor] -= 1
            self._ended(step, self._pending.ended(step, outcome))
            self._launch_queued(step.policy.executor)

    def _give_up(self, step: Step, attempt_id: str) -> None:
        self._executor(step).cancel(attempt_id, grace_seconds=0)

    def _executor(self, step: Step) -> Executor:
        return self._around.executors[step.policy.executor]
