"""What happens to the steps of a run, decided and recorded in one place, on the engine's thread.

Admission, queueing by the executors' capacity, starts, ends, retries, losses, timers, signals, stopping. Every rule of
durable execution that concerns order is here: a start is recorded before anything happens, an end before the workflow
sees it, and ends get their completion index in the order in which they are recorded. What the workflow may see of it is
the driver's matter (engine/driver.py), what a failed attempt leads to is in engine/steps.py.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Protocol

from michelangelo import errors
from michelangelo.blobs.blob_store import BlobStore
from michelangelo.engine import arguments, failures, loop, steps
from michelangelo.engine.cache import Cache, Hit
from michelangelo.engine.journal import Entry, EntryState, Journal
from michelangelo.engine.signals import Mailbox, Signal, SignalSource
from michelangelo.engine.steps import Step, Verdict
from michelangelo.engine.taskruns import DECISION, task_run_name
from michelangelo.executors.base import Attempt, AttemptState, Executor, Outcome
from michelangelo.uniflow import retry

__all__ = ["Lease", "Observer", "Scheduler", "Stop", "Surroundings", "rfc3339"]


class Lease(Protocol):
    """The right to drive the run (`runtime.leases.Lease`)."""

    @property
    def is_held(self) -> bool: ...


class Observer(Protocol):
    """Told of every recorded start and end, on the engine's thread; must be quick and must not raise."""

    def restored(self, entries: Sequence[Entry]) -> None:
        """What earlier drivers recorded; the first call."""
        ...

    def changed(self, entry: Entry) -> None: ...


@dataclass(frozen=True)
class Surroundings:
    """What a run is driven with. Who made these closes them."""

    journal: Journal
    executors: Mapping[str, Executor]
    blobs: BlobStore
    driver: str
    """Identity of this driver, written into every entry."""
    lease: Lease | None = None
    cache: Cache | None = None
    signals: SignalSource | None = None
    log_folder: str = ""
    """Where the logs of the run's attempts go; entries name them by `<project>/<run>/<attempt>.log`. Empty: nowhere."""
    observers: Sequence[Observer] = ()
    project: str = ""
    default_executor: str = "process"
    unknown_is_retried: bool = False
    """Whether steps whose outcome is unknown, and for which nothing else was decided, are run again."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Variables that every task of the run gets."""


class Stop(Enum):
    """How what still runs is ended."""

    CANCEL = "cancel"
    """For good: recorded as KILLED."""
    SUSPEND = "suspend"
    """To be continued: recorded as ended without result, and run again when the run is resumed."""
    ABANDON = "abandon"
    """Without a further write: another driver owns the run."""


class Scheduler:
    """Used on the thread of `loop` only, but for `wait_idle`."""

    def __init__(self, run: str, around: Surroundings, engine: loop.Loop, settled: Callable[[], None]) -> None:
        """`settled` is called after each change that a waiting workflow may be waiting for."""
        self.stopped: Stop | None = None
        self.failure: errors.MichelangeloError | None = None
        """Why the run cannot go on, when it is not the workflow's own doing."""
        self.completions = 0
        self._run = run
        self._around = around
        self._loop = engine
        self._settled = settled
        self._queues: dict[str, deque[Step]] = {name: deque() for name in around.executors}
        self._loads: dict[str, int] = dict.fromkeys(around.executors, 0)
        self._running: dict[str, Step] = {}
        self._timers: dict[str, loop.Timer] = {}
        self._mailbox = Mailbox()
        self._waiting: dict[str, Step] = {}
        self._stop_signals: Callable[[], None] | None = None
        self._pollers: dict[str, threading.Thread] = {}
        self._closed = False
        self._blocking: dict[str, Step] = {}
        """Timers and signals that the workflow waits for, by step."""

    # --- from the driver, through the loop ---

    def restore(self, entries: Sequence[Entry], completions: int) -> None:
        """Take over where the journal ends."""
        self.completions = completions
        consumed = [str(entry.details["signal"]) for entry in entries if entry.final and entry.details.get("signal")]
        self._mailbox = Mailbox(consumed)
        for observer in self._around.observers:
            observer.restored(entries)

    def admit(self, step: Step) -> None:
        """Begin a task's step, as soon as what it depends on has ended."""
        if self.stopped:
            return
        waiting = [one for one in step.dependencies.values() if one.final is None]
        step.blockers = len(waiting)
        for one in waiting:
            one.dependents.append(step)
        if not waiting:
            self._guarded(self._ready, step)

    def sleep(self, step: Step, seconds: float) -> None:
        if not self.stopped:
            self._guarded(self._start_timer, step, seconds)

    def await_signal(self, step: Step, timeout_seconds: float | None) -> None:
        if not self.stopped:
            self._guarded(self._start_signal, step, timeout_seconds)

    def observe(self, step: Step, value: Any) -> None:
        """Record a value of the outside, as one entry."""
        if not self.stopped:
            self._guarded(self._record_whole, step, EntryState.SUCCEEDED, value, None, {})

    def stop(self, how: Stop, failure: errors.MichelangeloError | None = None) -> None:
        """End everything that runs; nothing new begins. The first reason stays, but ABANDON replaces the others."""
        if self.stopped is not None and how is not Stop.ABANDON:
            return
        self.stopped = how
        self.failure = failure or self.failure
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for waiting in self._queues.values():
            waiting.clear()
        for attempt_id, step in self._running.items():
            self._around.executors[step.policy.executor].cancel(attempt_id)
        if how is Stop.CANCEL:
            killed = failures.record("TaskKilledError", "its run was ended")
            for step in list(self._blocking.values()):
                self._guarded(self._fire, step, EntryState.KILLED, None, killed, {})
        self._settled()

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return not self._running

    def close(self) -> None:
        """End the threads that read from executors and signals; the last call."""
        self._closed = True
        for name in self._pollers:
            self._around.executors[name].wake()
        for poller in self._pollers.values():
            poller.join()
        if self._stop_signals:
            self._stop_signals()

    # --- tasks ---

    def _ready(self, step: Step) -> None:
        if self.stopped:
            return
        failed = next((one for one in step.dependencies.values() if one.final and one.final.error is not None), None)
        if failed is not None and failed.final is not None:
            details = {"upstream": failed.id}
            self._record_whole(step, EntryState.FAILED, None, failed.final.error, details)
            return
        if step.dependencies:
            step.arguments = arguments.resolve(step.arguments, lambda one: _output(step, one), self._around.blobs)
        last = step.attempts[-1] if step.attempts else None
        if last is None:
            if not self._from_cache(step):
                self._enqueue(step)
        elif last.state is EntryState.RUNNING:
            gone = failures.record("WorkerLostError", "the driver of the run went away while it ran")
            self._judge(step, AttemptState.LOST, None, gone, {})
        elif last.state is EntryState.UNKNOWN:
            self._decide(step, last)
        elif last.state is EntryState.FAILED:
            failed_before = sum(entry.state is EntryState.FAILED for entry in step.attempts)
            delay = retry.delay_seconds(step.policy.retries, max(1, failed_before), seed=step.id)
            waited = datetime.now(UTC) - datetime.fromisoformat(last.ended_at)
            self._enqueue_later(step, delay - waited.total_seconds())
        else:
            self._enqueue(step)

    def _from_cache(self, step: Step) -> bool:
        cache = self._around.cache
        if step.cache_request is None or cache is None:
            return False
        step.cache = step.cache_request(step.arguments)
        found = cache.find(step.cache)
        if isinstance(found, Hit):
            details = {"cachedOutput": found.name, "source": dict(found.source)}
            self._record_whole(step, EntryState.CACHED, found.output, None, details)
            return True
        step.cache_miss = found
        return False

    def _decide(self, step: Step, last: Entry) -> None:
        """A person's answer to an unknown outcome, or the question."""
        decision = last.details.get("decision") or ("retry" if self._around.unknown_is_retried else "")
        if decision == "retry":
            self._enqueue(step)
        elif decision == "done":
            self._record_whole(step, EntryState.SUCCEEDED, None, None, {"decision": decision})
        elif decision == "fail":
            self._record_whole(step, EntryState.FAILED, None, last.error, {"decision": decision})
        else:
            self._ask(step)

    def _ask(self, step: Step) -> None:
        name = task_run_name(self._run, step.id, len(step.attempts))
        place = f" ({step.location.file}:{step.location.line})" if step.location else ""
        self.stop(
            Stop.SUSPEND,
            errors.UnknownOutcomeError(
                f"task {step.task}{place} is not idempotent, and its process was lost: it may or may not have done its "
                f"work. Find out, then set the annotation {DECISION} of the TaskRun {name} to 'retry' (run it "
                "again), 'done' (go on, its result is None) or 'fail' (raise WorkerLostError in the workflow), and "
                f"resume the run {self._run}"
            ),
        )

    def _enqueue_later(self, step: Step, delay_seconds: float) -> None:
        if delay_seconds <= 0:
            self._enqueue(step)
            return

        def due() -> None:
            self._timers.pop(step.id, None)
            self._guarded(self._enqueue, step)

        self._timers[step.id] = self._loop.later(delay_seconds, due)

    def _enqueue(self, step: Step) -> None:
        name = step.policy.executor
        if name not in self._queues:
            known = ", ".join(sorted(self._queues))
            error = failures.record("ExecutorError", f"there is no executor {name!r} here; there are: {known}")
            self._record_whole(step, EntryState.FAILED, None, error, {})
            return
        self._queues[name].append(step)
        self._launch_queued(name)

    def _launch_queued(self, name: str) -> None:
        waiting = self._queues[name]
        while waiting and not self.stopped and self._loads[name] < self._around.executors[name].capacity:
            self._launch(waiting.popleft())

    def _launch(self, step: Step) -> None:
        policy = step.policy
        attempt_id = task_run_name(self._run, step.id, len(step.attempts) + 1)
        log_path = f"{self._around.log_folder}/{attempt_id}.log" if self._around.log_folder else ""
        details: dict[str, Any] = {"executor": policy.executor}
        if log_path:
            details["log"] = f"{self._around.project}/{self._run}/{attempt_id}.log"
        if step.cache_miss:
            details["cacheMiss"] = step.cache_miss
        self._begin(step, step.arguments, details)
        self._running[attempt_id] = step
        self._loads[policy.executor] += 1
        self._poll(policy.executor)
        assert step.target is not None
        attempt = Attempt(
            id=attempt_id,
            target=step.target,
            arguments=step.arguments,
            resources=policy.resources,
            timeout_seconds=policy.timeout_seconds,
            environment={**self._around.environment, **policy.environment},
            log_path=log_path,
            context={
                "run_name": self._run,
                "project": self._around.project,
                "step": step.id,
                "attempt": len(step.attempts),
            },
        )
        try:
            self._around.executors[policy.executor].submit(attempt)
        except errors.ExecutorError as error:
            refused = failures.record("ExecutorError", str(error))
            self._loop.call(self._guarded, self._ended, Outcome(attempt_id, AttemptState.FAILED, error=refused))

    def _poll(self, name: str) -> None:
        """A thread per executor in use, which does nothing but hand its outcomes to the loop."""
        if name in self._pollers:
            return
        executor = self._around.executors[name]

        def read() -> None:
            while not self._closed:
                for outcome in executor.poll(60.0):
                    self._loop.call(self._guarded, self._ended, outcome)

        self._pollers[name] = threading.Thread(target=read, name=f"poll {name}", daemon=True)
        self._pollers[name].start()

    def _ended(self, outcome: Outcome) -> None:
        step = self._running.pop(outcome.id, None)
        if step is None:
            return
        self._loads[step.policy.executor] -= 1
        details: dict[str, Any] = {}
        if outcome.exit_code is not None:
            details["exitCode"] = outcome.exit_code
        if outcome.max_rss_bytes:
            details["maxRssBytes"] = outcome.max_rss_bytes
        if self.stopped is None:
            self._judge(step, outcome.state, outcome.output, outcome.error, details)
            self._launch_queued(step.policy.executor)
        elif self.stopped is not Stop.ABANDON:
            self._end_stopped(step, outcome, details)
        self._settled()

    def _judge(
        self, step: Step, state: AttemptState, output: Any, error: Mapping[str, Any] | None, details: dict[str, Any]
    ) -> None:
        """Record the end of the current attempt, and do what follows from it."""
        verdict = steps.judge(step.policy, step.attempts[:-1], state, error, seed=step.id)
        self._record_end(step, verdict, output, details)
        if verdict.state is EntryState.UNKNOWN:
            self._ask(step)
        elif not verdict.final:
            self._enqueue_later(step, verdict.delay_seconds)
        elif verdict.state is EntryState.SUCCEEDED and step.cache is not None and self._around.cache is not None:
            self._around.cache.keep(step.cache, output, run=self._run, step=step.id)

    def _end_stopped(self, step: Step, outcome: Outcome, details: dict[str, Any]) -> None:
        """The end of an attempt after the run was stopped: what it did stands; what was cut short is killed for good,
        or, when the run is to be continued, may run again. Of a step that may not run twice nothing is known then."""
        verdict = steps.judge(step.policy, step.attempts[:-1], outcome.state, outcome.error, seed=step.id)
        if self.stopped is Stop.CANCEL:
            self._record_end(step, dataclasses.replace(verdict, final=True), outcome.output, details)
        elif outcome.state not in (AttemptState.KILLED, AttemptState.LOST):
            self._record_end(step, verdict, outcome.output, details)
        elif step.policy.idempotent:
            self._record_end(step, Verdict(EntryState.KILLED, final=False, error=verdict.error), None, details)

    # --- timers and signals ---

    def _start_timer(self, step: Step, seconds: float) -> None:
        self._blocking[step.id] = step
        if step.current is None:
            self._begin(step, None, {"wakeAt": rfc3339(seconds)})
        self._wake_at(step, lambda: self._fire(step, EntryState.SUCCEEDED, None, None, {}))

    def _start_signal(self, step: Step, timeout_seconds: float | None) -> None:
        self._blocking[step.id] = step
        if step.current is None:
            self._begin(step, None, {} if timeout_seconds is None else {"wakeAt": rfc3339(timeout_seconds)})
        self._waiting[step.task] = step
        source = self._around.signals
        if source is not None and self._stop_signals is None:
            self._stop_signals = source(lambda signal: self._loop.call(self._guarded, self._arrived, signal))
        self._deliver(step.task)
        if step.final is None and step.current and step.current.details.get("wakeAt"):
            late = failures.record("TimeoutError", f"no signal {step.task!r} came in time")
            self._wake_at(step, lambda: self._fire(step, EntryState.FAILED, None, late, {}))

    def _arrived(self, signal: Signal) -> None:
        self._mailbox.put(signal)
        self._deliver(signal.name)

    def _deliver(self, name: str) -> None:
        step = self._waiting.get(name)
        if step is None or self.stopped:
            return
        signal = self._mailbox.consume(name)
        if signal is not None:
            timer = self._timers.pop(step.id, None)
            if timer:
                timer.cancel()
            self._fire(step, EntryState.SUCCEEDED, signal.payload, None, {"signal": signal.uid})

    def _wake_at(self, step: Step, call: Callable[[], None]) -> None:
        assert step.current is not None
        wake_at = datetime.fromisoformat(step.current.details["wakeAt"])

        def due() -> None:
            self._timers.pop(step.id, None)
            self._guarded(call)

        self._timers[step.id] = self._loop.later((wake_at - datetime.now(UTC)).total_seconds(), due)

    def _fire(
        self, step: Step, state: EntryState, output: Any, error: Mapping[str, Any] | None, details: dict[str, Any]
    ) -> None:
        self._waiting.pop(step.task, None)
        self._blocking.pop(step.id, None)
        self._record_end(step, Verdict(state, final=True, error=error), output, details)

    # --- the journal ---

    def _begin(self, step: Step, inputs: Any, details: Mapping[str, Any]) -> None:
        entry = self._entry(step, EntryState.RUNNING, details)
        entry = dataclasses.replace(entry, inputs=inputs)
        self._check_lease()
        self._around.journal.start(entry)
        step.attempts.append(entry)
        self._tell(entry)

    def _record_whole(
        self, step: Step, state: EntryState, output: Any, error: Mapping[str, Any] | None, details: Mapping[str, Any]
    ) -> None:
        """An end without a start: a cache hit, an observed value, a step that cannot run."""
        entry = self._entry(step, state, details)
        self._finish(
            step,
            dataclasses.replace(
                entry,
                inputs=step.arguments,
                output=output,
                error=error,
                ended_at=entry.started_at,
                completion=self.completions + 1,
                final=True,
            ),
        )

    def _record_end(self, step: Step, verdict: Verdict, output: Any, details: Mapping[str, Any]) -> None:
        entry = step.attempts.pop()
        self._finish(
            step,
            dataclasses.replace(
                entry,
                state=verdict.state,
                output=output if verdict.state is EntryState.SUCCEEDED else None,
                error=verdict.error,
                ended_at=rfc3339(),
                completion=self.completions + 1 if verdict.final else 0,
                final=verdict.final,
                driver=self._around.driver,
                details={**entry.details, **details},
            ),
        )

    def _finish(self, step: Step, entry: Entry) -> None:
        """Record an end; only then let it be seen."""
        self._check_lease()
        self._around.journal.end(entry)
        step.attempts.append(entry)
        self._tell(entry)
        if not entry.final:
            return
        self.completions = entry.completion
        step.final = entry
        self._settled()
        for dependent in step.dependents:
            dependent.blockers -= 1
            if not dependent.blockers:
                # Through the queue: a long chain of dependents must not become a deep stack.
                self._loop.call(self._guarded, self._ready, dependent)
        step.dependents.clear()

    def _entry(self, step: Step, state: EntryState, details: Mapping[str, Any]) -> Entry:
        place = {"file": step.location.file, "line": step.location.line} if step.location else {}
        return Entry(
            step=step.id,
            attempt=len(step.attempts) + 1,
            type=step.type,
            task=step.task,
            fingerprint=step.fingerprint,
            state=state,
            started_at=rfc3339(),
            driver=self._around.driver,
            details={**place, **details},
        )

    def _tell(self, entry: Entry) -> None:
        for observer in self._around.observers:
            observer.changed(entry)

    def _check_lease(self) -> None:
        lease = self._around.lease
        if lease is not None and not lease.is_held:
            raise errors.LeaseLostError(
                f"the lease of run {self._run} could not be renewed in time; another driver may own the run now"
            )

    def _guarded(self, function: Callable[..., None], *args: Any) -> None:
        """A call of the loop: what makes it fail ends the run."""
        try:
            function(*args)
        except errors.LeaseLostError as error:
            self.stop(Stop.ABANDON, error)
        except errors.MichelangeloError as error:
            self.stop(Stop.SUSPEND, error)


def rfc3339(delay_seconds: float = 0.0) -> str:
    """Now, or `delay_seconds` later: UTC with microseconds."""
    now = (
        datetime.now(UTC)
        if not delay_seconds
        else datetime.fromtimestamp(datetime.now(UTC).timestamp() + delay_seconds, UTC)
    )
    return now.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _output(step: Step, dependency: str) -> Any:
    final = step.dependencies[dependency].final
    return final.output if final else None
