"""What happens to the steps of a run, decided in one place, on the engine's thread.

Admission when dependencies have ended, the cache, retries, losses, unknown outcomes, stopping. Its parts: recorder.py
writes the journal, dispatcher.py brings attempts to the executors, waits.py holds timers and signals; the rule for one
failed attempt is in steps.py. What the workflow may see of it all is the driver's matter (engine/driver.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from michelangelo import errors
from michelangelo.engine import arguments, failures, steps
from michelangelo.engine.caching import Caching
from michelangelo.engine.children import Children
from michelangelo.engine.dispatcher import Dispatcher
from michelangelo.engine.journal import Entry, EntryState, StepType
from michelangelo.engine.loop import Loop, Timer
from michelangelo.engine.recorder import Recorder
from michelangelo.engine.repair import Repairs
from michelangelo.engine.steps import Step, Verdict
from michelangelo.engine.surroundings import Surroundings
from michelangelo.engine.taskruns import DECISION, task_run_name
from michelangelo.engine.waits import Waits
from michelangelo.executors.base import AttemptState, Outcome
from michelangelo.uniflow import codecs, retry

__all__ = ["Scheduler", "Stop"]


class Stop(Enum):
    """How what still runs is ended."""

    CANCEL = "cancel"
    """For good: recorded as KILLED."""
    SUSPEND = "suspend"
    """To be continued: recorded as ended without result, and run again when the run is resumed."""
    ABANDON = "abandon"
    """Without a further write: another driver owns the run."""


class Scheduler:
    """Used on the engine's thread, but for the three properties and `close`."""

    def __init__(
        self,
        around: Surroundings,
        loop: Loop,
        notify: Callable[[], None],
        steps: Callable[[], Collection[Step]],
    ) -> None:
        """`notify` is called after each change that a waiting workflow may be waiting for; `steps` gives all steps that
        the workflow has come to."""
        self.stopped: Stop | None = None
        self.failure: errors.MichelangeloError | None = None
        """Why the run cannot go on, when it is not the workflow's own doing."""
        self._around = around
        self._loop = loop
        self._notify = notify
        self._recorder = Recorder(around, self._settled)
        self._caching = Caching(around, loop, self._recorder, self._guarded, enqueue=self._enqueue)
        self._dispatcher = Dispatcher(
            around, loop, self._recorder, self._guarded, may_start=self._caching.may_start, ended=self._ended
        )
        self._waits = Waits(around, loop, self._recorder, self._guarded)
        self._children = Children(around.children, loop, self._recorder, self._guarded)
        self._repairs = Repairs(around, steps)
        self._delays: dict[str, Timer] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return self._dispatcher.is_idle

    def restore(self, entries: Sequence[Entry], completions: int) -> None:
        """Take over where the journal ends; before the loop starts."""
        self._recorder.completions = completions
        self._waits.restore(entries)
        self._repairs.restore(entries)
        self._caching.restore(entries)
        for observer in self._around.observers:
            observer.restored(entries)

    def admit(self, step: Step) -> None:
        """Begin the step of a task or of another run, as soon as what it depends on has ended."""
        waiting = [one for one in step.dependencies.values() if one.final is None]
        step.blockers = len(waiting)
        for one in waiting:
            one.dependents.append(step)
        if not waiting:
            self._guarded(self._ready, step)

    def sleep(self, step: Step, seconds: float) -> None:
        if not self.stopped:
            self._guarded(self._waits.sleep, step, seconds)

    def await_signal(self, step: Step, timeout_seconds: float | None) -> None:
        if not self.stopped:
            self._guarded(self._waits.await_signal, step, timeout_seconds)

    def observe(self, step: Step, value: Any) -> None:
        """Record a value of the outside, as one entry."""
        if not self.stopped:
            self._guarded(self._recorder.whole, step, EntryState.SUCCEEDED, output=value)

    def stop(self, how: Stop, failure: errors.MichelangeloError | None = None) -> None:
        """End everything that runs; nothing new begins. The first reason stays, but ABANDON replaces the others."""
        if self.stopped is not None and how is not Stop.ABANDON:
            return
        self.stopped = how
        self.failure = failure or self.failure
        for timer in self._delays.values():
            timer.cancel()
        self._dispatcher.stop()
        self._caching.stop(give_back=how is not Stop.ABANDON)
        self._waits.stop(kill=how is Stop.CANCEL)
        self._children.stop(kill=how is Stop.CANCEL)
        self._notify()

    def close(self) -> None:
        """End the threads that read from executors and signals; the last call."""
        self._dispatcher.close()
        self._caching.close()
        self._waits.close()
        self._children.close()

    # --- from admitted to queued ---

    def _ready(self, step: Step) -> None:
        if self.stopped:
            return
        failed = next((one for one in step.dependencies.values() if one.final and one.final.error is not None), None)
        if failed is not None and failed.final is not None:
            self._recorder.whole(step, EntryState.FAILED, error=failed.final.error, details={"upstream": failed.id})
            return
        if step.dependencies:
            step.arguments = arguments.resolve(step.arguments, lambda one: _output(step, one), self._around.blobs)
        if step.type is StepType.RUN:
            if not self._take_over(step):
                self._children.start(step)
            return
        if not step.attempts:
            if not self._take_over(step) and not self._caching.find(step):
                self._enqueue(step)
            return
        last = step.attempts[-1]
        if last.state is EntryState.RUNNING:
            gone = failures.record("WorkerLostError", "the driver of the run went away while it ran")
            self._judge(step, AttemptState.LOST, None, gone, {})
        elif last.state is EntryState.UNKNOWN:
            self._decide(step, last)
        elif last.state is EntryState.FAILED:
            failed_before = sum(entry.state is EntryState.FAILED for entry in step.attempts)
            delay = retry.delay_seconds(step.policy.retries, failed_before, seed=step.id)
            waited = datetime.now(UTC) - datetime.fromisoformat(last.ended_at)
            self._enqueue_later(step, delay - waited.total_seconds())
        else:
            self._enqueue(step)

    def _take_over(self, step: Step) -> bool:
        earlier = self._around.earlier
        if step.taken_over is None or earlier is None:
            return False
        if not all(map(self._around.blobs.touch, codecs.blobs_in(step.taken_over.output))):
            return False  # its data is gone, with the run that it was in
        source = {"pipelineRun": earlier.run, "step": step.id}
        self._recorder.whole(step, EntryState.CACHED, output=step.taken_over.output, details={"source": source})
        return True

    def _decide(self, step: Step, last: Entry) -> None:
        """A person's answer to an unknown outcome, or the question."""
        decision = last.details.get("decision") or ("retry" if self._around.unknown_is_retried else "")
        details = {"decision": decision}
        if decision == "retry":
            self._enqueue(step)
        elif decision == "done":
            self._recorder.whole(step, EntryState.SUCCEEDED, details=details)
        elif decision == "fail":
            self._recorder.whole(step, EntryState.FAILED, error=last.error, details=details)
        else:
            self._ask(step)

    def _ask(self, step: Step) -> None:
        run = self._around.run
        name = task_run_name(run, step.id, len(step.attempts))
        place = f" ({step.location.file}:{step.location.line})" if step.location else ""
        self.stop(
            Stop.SUSPEND,
            errors.UnknownOutcomeError(
                f"task {step.task}{place} is not idempotent, and its process was lost: it may or may not have done its "
                f"work. Find out, then set the annotation {DECISION} of the TaskRun {name} to 'retry' (run it "
                "again), 'done' (go on, its result is None) or 'fail' (raise WorkerLostError in the workflow), and "
                f"resume the run {run}"
            ),
        )

    def _enqueue(self, step: Step) -> None:
        if self._dispatcher.knows(step.policy.executor):
            self._dispatcher.enqueue(step)
            return
        known = ", ".join(sorted(self._around.executors))
        message = f"there is no executor {step.policy.executor!r} here; there are: {known}"
        self._recorder.whole(step, EntryState.FAILED, error=failures.record("ExecutorError", message))

    def _enqueue_later(self, step: Step, delay_seconds: float) -> None:
        if delay_seconds <= 0:
            self._enqueue(step)
            return

        def due() -> None:
            del self._delays[step.id]
            self._guarded(self._enqueue, step)

        self._delays[step.id] = self._loop.later(delay_seconds, due)

    # --- from ended to settled ---

    def _ended(self, step: Step, outcome: Outcome) -> None:
        details: dict[str, Any] = {}
        if outcome.exit_code is not None:
            details["exitCode"] = outcome.exit_code
        if outcome.max_rss_bytes:
            details["maxRssBytes"] = outcome.max_rss_bytes
        if self.stopped is None:
            self._judge(step, outcome.state, outcome.output, outcome.error, details)
        elif self.stopped is not Stop.ABANDON:
            self._guarded(self._end_stopped, step, outcome, details)
        self._notify()

    def _judge(
        self, step: Step, state: AttemptState, output: Any, error: Mapping[str, Any] | None, details: dict[str, Any]
    ) -> None:
        """Record the end of the current attempt, and do what follows from it."""
        verdict = steps.judge(step.policy, step.attempts[:-1], state, error, seed=step.id)
        if failures.is_of_the_store(error):
            # Not the task failed but the platform: the run stops here, and goes on with this step when it is resumed.
            if step.policy.idempotent:
                cut = Verdict(EntryState.KILLED, final=False, error=verdict.error)
                self._recorder.end(step, cut, details=details)
            raise errors.StoreUnavailableError(f"task {step.task}: {(error or {}).get('message')}")
        again = self._repairs.of(step, error)
        if again is not None:
            cut = Verdict(EntryState.KILLED, final=False, error=verdict.error)
            self._recorder.end(step, cut, details={**details, "repair": again.id})
            self._after(again, step)
            return
        self._recorder.end(step, verdict, output=output, details=details)
        if verdict.state is EntryState.UNKNOWN:
            self._ask(step)
        elif not verdict.final:
            self._enqueue_later(step, verdict.delay_seconds)
        else:
            self._caching.ended(step, verdict.state, output)

    def _after(self, again: Step, consumer: Step) -> None:
        """Have `consumer` go on when the data that it needs was made again."""
        if again.final is not None:
            self._enqueue(consumer)
            return
        consumer.blockers += 1
        again.dependents.append(consumer)
        if len(again.dependents) == 1:
            self._enqueue(again)

    def _end_stopped(self, step: Step, outcome: Outcome, details: dict[str, Any]) -> None:
        """The end of an attempt after the run was stopped: what it did stands; what was cut short is killed for good,
        or, when the run is to be continued, may run again. Of a step that may not run twice nothing is known then."""
        verdict = steps.judge(step.policy, step.attempts[:-1], outcome.state, outcome.error, seed=step.id)
        if self.stopped is Stop.CANCEL:
            self._recorder.end(step, dataclasses.replace(verdict, final=True), output=outcome.output, details=details)
        elif outcome.state not in (AttemptState.KILLED, AttemptState.LOST):
            self._recorder.end(step, verdict, output=outcome.output, details=details)
        elif step.policy.idempotent:
            cut = Verdict(EntryState.KILLED, final=False, error=verdict.error)
            self._recorder.end(step, cut, details=details)

    def _settled(self, step: Step) -> None:
        self._notify()
        for dependent in step.dependents:
            dependent.blockers -= 1
            if not dependent.blockers:
                # Through the queue: a long chain of dependents must not become a deep stack.
                self._loop.call(self._guarded, self._ready, dependent)
        step.dependents.clear()

    def _guarded(self, function: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """A call of the loop: what makes it fail ends the run."""
        try:
            function(*args, **kwargs)
        except errors.LeaseLostError as error:
            self.stop(Stop.ABANDON, error)
        except errors.MichelangeloError as error:
            self.stop(Stop.SUSPEND, error)


def _output(step: Step, dependency: str) -> Any:
    final = step.dependencies[dependency].final
    return final.output if final else None
