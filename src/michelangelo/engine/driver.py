"""The driver of a run: what the calls of a workflow's code lead to, and the life of the run around them.

The workflow runs in the caller's thread; steps are scheduled and recorded on the engine's thread (engine/scheduler.py).
What the workflow's code may observe depends on the journal alone: results, failures, and the order of completions. What
depends on time (a wait with a timeout, `now`) is recorded before it is seen. What stops a run is raised in its code as
`Interruption`, which is no `Exception`, so that a workflow's own `except` does not swallow it.

When a workflow returns, steps that it has not waited for are waited for, and their failures do not fail the run; when
it raises, they are ended.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from michelangelo import errors
from michelangelo.engine import childresults, failures, repair, replay
from michelangelo.engine.calls import Calls
from michelangelo.engine.callsites import CallSite
from michelangelo.engine.journal import EntryState, StepType
from michelangelo.engine.loop import Loop
from michelangelo.engine.nodes import Nodes
from michelangelo.engine.replay import History
from michelangelo.engine.scheduler import Scheduler, Stop
from michelangelo.engine.scopes import Scopes
from michelangelo.engine.steps import Step
from michelangelo.engine.surroundings import Surroundings
from michelangelo.uniflow import codecs, runner
from michelangelo.uniflow.future import Future
from michelangelo.uniflow.runner import RunRequest
from michelangelo.uniflow.task import Task
from michelangelo.uniflow.workflow import Workflow

__all__ = ["Driver", "Interruption", "Suspended"]

_SUCCESSES = (EntryState.SUCCEEDED, EntryState.CACHED)


class Interruption(BaseException):
    """The run cannot go on; `cause` says why. A BaseException, like KeyboardInterrupt, and for the same reason."""

    def __init__(self, cause: errors.MichelangeloError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Suspended(BaseException):
    """Raised in the thread of the workflow by its host, to stop here and go on in another process."""


class Driver:
    """Drives one run once; implements `uniflow.runner.RunContext`. Use: `execute`, in the thread of the workflow."""

    def __init__(self, around: Surroundings, *, accept_code: bool = False) -> None:
        """`accept_code`: recorded results hold although the code of their tasks has changed."""
        self._run = around.run
        self._around = around
        self._accept_code = accept_code
        self._thread = 0
        self._scopes = Scopes()
        self._nodes = Nodes()
        self._steps: dict[str, Step] = {}
        self._calls = Calls(around, self._steps)
        self._history = History(())
        self._held: list[tuple[Callable[[Step], None], Step]] = []
        """Steps that wait for the end of the replay."""
        self._changed = threading.Condition()
        self._crash: errors.MichelangeloError | None = None
        self._is_over = False
        self._loop = Loop(f"engine {around.run}", self._loop_ended)
        self._scheduler = Scheduler(around, self._loop, self._notify, lambda: list(self._steps.values()))

    # --- the life of the run ---

    def execute(self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the workflow to its end; its result, as the code returned it. Raises what the workflow raised, or the
        WorkflowError (StorageError, ApiError) for which the run could not go on, or KeyboardInterrupt.

        Whatever happens, nothing of the run is running afterwards.
        """
        self._thread = threading.get_ident()
        self._nodes.enter(workflow)
        entries = self._around.journal.load()
        called = [entry for entry in entries if not repair.is_repair(entry)]
        self._history = History(called, accept_code=self._accept_code)
        self._scheduler.restore(entries, self._history.completions)
        self._loop.start()
        runner.enter_run(self)
        try:
            result = self._call(workflow, "", args, kwargs)
            self._check_complete(f"the end of {workflow.name}")
            self._block(lambda: all(step.final is not None for step in self._steps.values()))
            self._is_over = True
            return result
        except Interruption as interruption:
            raise interruption.cause from None
        except (Exception, SystemExit) as error:
            self._fail(workflow, error)
            raise
        except BaseException:
            # KeyboardInterrupt, Suspended: to be continued.
            self.stop(Stop.SUSPEND)
            raise
        finally:
            runner.leave_run(self)
            self._close()

    def _fail(self, workflow: Workflow[..., Any], error: BaseException) -> None:
        """The workflow's code raised: end what runs, for good, unless there is a reason behind it that the code hid."""
        try:
            self._check_stopped()
            self._check_complete(f"a failure in {workflow.name} ({type(error).__name__}: {error})")
        except Interruption as interruption:
            raise interruption.cause from error
        self.stop(Stop.CANCEL)

    def _check_complete(self, where: str) -> None:
        try:
            self._history.check_complete(where)
        except errors.NonDeterminismError as error:
            self.stop(Stop.SUSPEND, error)
            raise Interruption(error) from error

    def stop(self, how: Stop, failure: errors.MichelangeloError | None = None) -> None:
        """End everything that runs, soon. From any thread: a kill, a lost lease."""
        self._loop.call(self._scheduler.stop, how, failure)

    def abandon(self, failure: errors.MichelangeloError) -> None:
        """Another driver owns the run: stop without a further write."""
        self.stop(Stop.ABANDON, failure)

    # --- RunContext ---

    @property
    def run_name(self) -> str:
        return self._run

    @property
    def project(self) -> str:
        return self._around.project

    def submit(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Future[Any]:
        identity, site = self._locate()
        self._begin(self._calls.of_task(identity, site, task, args, kwargs), site, self._scheduler.admit)
        return Future(self, task=task.name, step=identity)

    def submit_run(self, request: RunRequest, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Future[Any]:
        identity, site = self._locate()
        self._begin(self._calls.of_run(identity, site, request, args, kwargs), site, self._scheduler.admit)
        return Future(self, task=request.pipeline, step=identity)

    def call_workflow(self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        identity, _ = self._locate()
        return self._call(workflow, identity + "/", args, kwargs)

    def wait(
        self, futures: Sequence[Future[Any]], *, count: int, timeout_seconds: float | None = None
    ) -> list[Future[Any]]:
        self._check_thread()
        steps = [self._steps[future.step] for future in futures]
        count = min(count, len(steps))
        if timeout_seconds is None:
            self._block(lambda: sum(step.final is not None for step in steps) >= count)
            ended = self._ended(steps, count)
        else:
            ended = self._observe_ended(steps, count, timeout_seconds)
        by_step = {future.step: future for future in futures}
        found = [by_step[step.id] for step in ended]
        for future, step in zip(found, ended, strict=True):
            self._settle(future, step)
        return found

    def sleep(self, seconds: float) -> None:
        self._observe(StepType.TIMER, "sleep", f"{float(seconds)!r}", lambda step: self._scheduler.sleep(step, seconds))

    def wait_for_signal(self, name: str, *, timeout_seconds: float | None = None) -> Any:
        step = self._observe(
            StepType.SIGNAL, name, "", lambda step: self._scheduler.await_signal(step, timeout_seconds)
        )
        assert step.final is not None
        if step.final.error is not None:
            raise failures.exception(step.final.error, task=name, step=step.id)
        return step.final.output

    def now(self) -> datetime:
        present = datetime.now(UTC).isoformat()
        step = self._observe(StepType.VALUE, "now", "", lambda step: self._scheduler.observe(step, present))
        assert step.final is not None
        return datetime.fromisoformat(step.final.output)

    def derive(self, purpose: str) -> bytes:
        identity, _ = self._locate()
        return hashlib.sha256(f"{self._around.project}/{self._run}/{identity}/{purpose}".encode()).digest()

    # --- steps ---

    def _begin(self, step: Step, site: CallSite, admit: Callable[[Step], None]) -> None:
        """A step that the journal has ended has ended; any other goes to the scheduler, but not before the workflow has
        come to all that is recorded: if it is to turn out that it does something else now, nothing new has begun."""
        try:
            attempts = self._history.reach(step.id, step.type, step.task, step.fingerprint, site)
        except errors.NonDeterminismError as error:
            self.stop(Stop.SUSPEND, error)
            raise Interruption(error) from error
        step.attempts = list(attempts)
        self._steps[step.id] = step
        if step.attempts and step.attempts[-1].final:
            step.final = step.attempts[-1]
        else:
            step.node = self._nodes.of(step.id, step.task)
            self._held.append((admit, step))
        if self._held and self._history.is_complete:
            for held_admit, held in self._held:
                self._loop.call(held_admit, held)
            self._held.clear()

    def _observe(self, kind: StepType, name: str, what: str, admit: Callable[[Step], None]) -> Step:
        """A step that the workflow waits for at once."""
        identity, site = self._locate()
        location = errors.CodeLocation(site.file, site.line, site.function)
        fingerprint = hashlib.sha256(f"{kind} {name} {what}".encode()).hexdigest()[:16]
        step = Step(id=identity, type=kind, task=name, fingerprint=fingerprint, location=location)
        self._begin(step, site, admit)
        self._block(lambda: step.final is not None)
        return step

    def _observe_ended(self, steps: Sequence[Step], count: int, timeout_seconds: float) -> list[Step]:
        """A wait whose answer depends on time: it is recorded, as positions in `steps`."""

        def admit(step: Step) -> None:
            self._scheduler.observe(step, [steps.index(one) for one in self._ended(steps, count)])

        identity, site = self._locate()
        names = "\n".join(step.id for step in steps)
        fingerprint = hashlib.sha256(f"wait {count} {names}".encode()).hexdigest()[:16]
        location = errors.CodeLocation(site.file, site.line, site.function)
        step = Step(id=identity, type=StepType.VALUE, task="wait", fingerprint=fingerprint, location=location)
        if not self._history.has_ended(identity):
            self._block(lambda: sum(one.final is not None for one in steps) >= count, timeout_seconds)
        self._begin(step, site, admit)
        self._block(lambda: step.final is not None)
        assert step.final is not None
        return [steps[index] for index in step.final.output]

    def _ended(self, steps: Sequence[Step], count: int) -> list[Step]:
        """The first `count` to end: by the journal's order, whatever else has ended since."""
        return sorted((step for step in steps if step.final is not None), key=lambda step: step.completion)[:count]

    def _settle(self, future: Future[Any], step: Step) -> None:
        final = step.final
        assert final is not None
        if future.settled:
            return
        if final.state in _SUCCESSES:

            def decode(tree: Any) -> Any:
                return codecs.decode(tree, self._around.blobs, data=False, allow_pickle=True)

            is_run = step.type is StepType.RUN
            future.settle(final.output, (lambda tree: childresults.decode(tree, decode)) if is_run else decode)
        else:
            future.fail(failures.exception(final.error, task=step.task, step=step.id))

    # --- scopes and places ---

    def _call(self, workflow: Workflow[..., Any], path: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        with self._scopes.entered(path, workflow.fn.__code__):
            return workflow.fn(*args, **kwargs)

    def _locate(self) -> tuple[str, CallSite]:
        """The identity of the step that is being begun, and where that is."""
        self._check_thread()
        return self._scopes.locate()

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise errors.ForeignThreadError(
                f"the thread {threading.current_thread().name!r} called into the run {self._run}, but only the thread "
                "of its workflow may: the order of calls from other threads cannot be repeated. For parallel work use "
                "task.submit() or task.map()"
            )
        self._check_stopped()

    def _check_stopped(self) -> None:
        if self._crash is not None:
            raise Interruption(self._crash)
        if self._scheduler.stopped is not None:
            failure = self._scheduler.failure or errors.RunKilledError(f"the run {self._run} was ended")
            raise Interruption(failure)

    # --- waiting for the engine's thread ---

    def _block(self, reached: Callable[[], bool], timeout_seconds: float | None = None) -> None:
        """Until `reached`, or the time is over. Raises Interruption when the run was stopped meanwhile.

        What the workflow once went past is recorded. So where it has to wait, it must have come to everything recorded.
        """
        if not self._history.is_complete and not reached():
            self._check_complete(replay.place(self._scopes.site().location()))
        with self._changed:
            self._changed.wait_for(
                lambda: reached() or self._scheduler.stopped is not None or self._crash is not None, timeout_seconds
            )
        self._check_stopped()

    def _is_stopped(self) -> bool:
        return self._scheduler.stopped is not None and self._scheduler.is_idle

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _loop_ended(self, error: BaseException | None) -> None:
        if error is not None:
            self._crash = errors.InternalError(
                f"the engine of run {self._run} failed: {type(error).__name__}: {error}; the run can be resumed"
            )
        self._notify()

    def _close(self) -> None:
        """Wait until nothing runs, then end the engine's threads. A second Ctrl-C ends the wait."""
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over or self._is_stopped() or self._crash is not None)
        finally:
            self._scheduler.close()
            self._loop.close()
