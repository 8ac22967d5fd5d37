"""PipelineRun: from created to being driven, and back to being driven when its driver is gone.

The state machine is shared with the driver (`engine`), which owns a run by its Lease. The controller writes
`Pending`, failures from before the start, and ends that no driver is left to write; `Running` and all that follows is
the driver's. It touches nothing of a run whose lease somebody holds, whoever that is: a driver process of this
server, or `python flow.py`.

Before a driver is started, everything that the controller has to say is written: the driver takes the object from
there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from michelangelo import errors
from michelangelo.client.client import Client, Object
from michelangelo.client.informer import BY_LABEL, Informer
from michelangelo.controllers import run_source, statuses
from michelangelo.meta import conditions, timestamps
from michelangelo.meta import labels as label_keys
from michelangelo.runtime import controller, leases, processes
from michelangelo.runtime.manager import Manager
from michelangelo.runtime.reconciler import Request, Result
from michelangelo.runtime.recorder import Recorder

__all__ = ["DRIVEN", "MAX_STARTS", "RESUMABLE", "Drivers", "PipelineRunReconciler", "sources"]

DRIVEN: Final = "Driven"
"""Condition: whether a driver works on the run, as far as the controller knows. Its metadata counts the starts."""
RESUMABLE: Final = "Resumable"
"""Condition, written by the driver: the run stopped for a decision, and can go on."""
MAX_STARTS: Final = 5
"""Drivers that may be started one after the other without any progress of the run."""
_FINISHED: Final = ("Succeeded", "Killed", "Failed", "Skipped")
_FIRST_BACKOFF_SECONDS: Final = 1.0
_LIMIT_BACKOFF_SECONDS: Final = 60.0
_STARTING_SECONDS: Final = 1.0
"""How often to look at a driver process that has not taken its lease yet."""
_DRIVEN_SECONDS: Final = 5.0
"""How often to look whether the holder of a lease still lives; a term that runs out is noticed to the second."""


class Drivers(Protocol):
    """Starts and ends driver processes. May be called from any thread; none of the calls waits for a driver."""

    def start(self, run: Object) -> None:
        """Start a driver for the run; it takes the run's lease. Raises ExecutorError when it cannot be started."""
        ...

    def is_alive(self, namespace: str, name: str) -> bool:
        """Whether a driver that was started here for the run is still there."""
        ...

    def stop(self, namespace: str, name: str) -> None:
        """End the driver that was started here for the run, if there is one."""
        ...


class PipelineRunReconciler:
    def __init__(
        self,
        client: Client,
        runs: Informer,
        leases: Informer,
        drivers: Drivers,
        *,
        max_starts: int = MAX_STARTS,
        clock: timestamps.Clock = timestamps.system_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._runs = runs
        self._leases = leases
        self._drivers = drivers
        self._recorder = Recorder(client, "pipeline-run", clock=clock)
        self._max_starts = max_starts
        self._clock = clock
        self._monotonic = monotonic
        self._observed: dict[Request, tuple[str, float]] = {}
        """What was seen last of a run's holder, and since when: terms are judged by this process's own clock."""
        self._started: dict[Request, float] = {}

    def reconcile(self, request: Request) -> Result:
        run = self._runs.get(request.name, namespace=request.namespace)
        if run is None or run["metadata"].get("deletionTimestamp"):
            self._drivers.stop(request.namespace, request.name)
            self._forget(request)
            return Result()
        if _state(run) in _FINISHED and not _is_to_resume(run):
            if request in self._started:
                self._tell_end(run)
            self._end_children(run)
            self._forget(request)
            return Result()
        term = self._remaining_term(request, run)
        if term > 0:
            return Result(requeue_after_seconds=min(term, _DRIVEN_SECONDS))
        if self._drivers.is_alive(request.namespace, request.name):
            return Result(requeue_after_seconds=_STARTING_SECONDS)
        if _is_killed(run):
            self._end(run, "Killed", "the run was killed while no driver worked on it")
            return Result()
        return self._drive(request, run)

    # --- whose run it is ------------------------------------------------------------------------------------

    def _remaining_term(self, request: Request, run: Object) -> float:
        """Seconds for which somebody else may be driving the run; 0 when nobody is."""
        lease = self._leases.get(leases.run_lease_name(request.name), namespace=request.namespace)
        if lease is not None and leases.holder_of(lease):
            if leases.is_dead(lease):
                return 0.0
            seen = str(lease["metadata"]["resourceVersion"])
            term = float((lease.get("spec") or {}).get("leaseDurationSeconds") or leases.DURATION_SECONDS)
            return self._term_left(request, seen, term)
        creator = (run["metadata"].get("annotations") or {}).get(label_keys.DRIVER)
        if creator and not _state(run):
            # Its creator is about to drive it itself; only when it does not, the run is for the controller.
            identity = processes.Identity.parse(creator)
            if identity is None or not identity.is_provably_dead:
                return self._term_left(request, creator, float(leases.DURATION_SECONDS))
        return 0.0

    def _term_left(self, request: Request, seen: str, term: float) -> float:
        known = self._observed.get(request)
        if known is None or known[0] != seen:
            known = self._observed[request] = (seen, self._monotonic())
        return max(known[1] + term - self._monotonic(), 0.0)

    # --- driving --------------------------------------------------------------------------------------------

    def _drive(self, request: Request, run: Object) -> Result:
        starts = _starts(run)
        if starts >= self._max_starts:
            self._end(
                run,
                "Failed",
                f"the driver of the run ended {starts} times without getting any further; see its log",
                exception_type="System",
            )
            return Result()
        pause = self._backoff_left(request, starts)
        if pause > 0:
            return Result(requeue_after_seconds=pause)
        if _state(run) in ("", "Pending"):
            prepared = self._prepare(run)
            if prepared is None:
                return Result()
            run = prepared
        run = self._announce(run, starts + 1)
        self._started[request] = self._monotonic()
        self._drivers.start(run)
        return Result(requeue_after_seconds=_STARTING_SECONDS)

    def _backoff_left(self, request: Request, starts: int) -> float:
        started = self._started.get(request)
        if started is None or starts == 0:
            return 0.0
        delay = min(_LIMIT_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** (starts - 1))
        return max(started + delay - self._monotonic(), 0.0)

    def _prepare(self, run: Object) -> Object | None:
        """The run with its pipeline pinned; None when it cannot be run, which is then written."""
        try:
            source = run_source.resolve(self._client, run)
        except errors.WorkflowError as e:
            self._end(run, "Failed", str(e), exception_type="User")
            return None
        metadata = run_source.pinned_metadata(run, source)
        if metadata != run["metadata"]:
            run = self._client.update({**run, "metadata": metadata})
        wanted = statuses.draft(run)
        wanted["status"].update(state="Pending", **source.status())
        return statuses.write(self._client, run, wanted)

    def _announce(self, run: Object, starts: int) -> Object:
        wanted = statuses.draft(run)
        again = starts > 1 or _state(run) == "Running"
        reason = "DriverRestarted" if again else "DriverStarted"
        message = f"driver {starts} of at most {self._max_starts} without progress"
        conditions.set(wanted, DRIVEN, "True", reason=reason, message=message, clock=self._clock)
        condition = conditions.find(wanted, DRIVEN)
        if condition is not None:
            condition["metadata"] = {"starts": starts, "progress": _progress(run)}
        run = statuses.write(self._client, run, wanted)
        if again:
            self._recorder.event(run, "Warning", reason, f"the driver of the run is gone; {message}")
        else:
            self._recorder.event(run, "Normal", reason, "a driver works on the run")
        return run

    def _tell_end(self, run: Object) -> None:
        status = run["status"]
        steps = (status.get("stepCounts") or {}).get("total") or 0
        message = str(status.get("errorMessage") or f"the run ended after {steps} steps")
        self._recorder.event(run, "Normal" if _state(run) == "Succeeded" else "Warning", _state(run), message)

    def _end(self, run: Object, state: str, message: str, *, exception_type: str = "") -> None:
        wanted = statuses.draft(run)
        status = wanted["status"]
        status.update(state=state, endTime=timestamps.now(self._clock), errorMessage=message)
        if exception_type:
            status["exceptionType"] = exception_type
        conditions.set(wanted, DRIVEN, "False", reason=state, message=message, clock=self._clock)
        statuses.write(self._client, run, wanted)
        self._recorder.event(run, "Warning", state, message)
        # It is told: what is seen of it from now on is no news.
        self._started.pop(Request(run["metadata"]["namespace"], run["metadata"]["name"]), None)

    def _end_children(self, run: Object) -> None:
        """What a run started goes with it, also where no driver is left to see to that."""
        resumable = conditions.is_true(run, RESUMABLE)
        if _state(run) not in ("Killed", "Failed") or (resumable and not _is_killed(run)):
            return
        metadata = run["metadata"]
        for child in self._runs.by_index(BY_LABEL, f"{label_keys.PARENT_RUN}={metadata['name']}"):
            owners = [one["uid"] for one in child["metadata"].get("ownerReferences") or ()]
            if metadata["uid"] in owners and _state(child) not in _FINISHED and not _is_killed(child):
                where = {"namespace": metadata["namespace"]}
                self._client.patch("PipelineRun", child["metadata"]["name"], {"spec": {"kill": True}}, **where)

    def _forget(self, request: Request) -> None:
        self._observed.pop(request, None)
        self._started.pop(request, None)


def sources(manager: Manager) -> list[controller.Source]:
    """Runs, and their leases where they come and go; renewals are looked at every few seconds anyway."""
    return [
        controller.Source(manager.informer("PipelineRun"), controller.itself),
        controller.Source(
            manager.informer("Lease"),
            controller.label(label_keys.PIPELINE_RUN),
            types=frozenset(("ADDED", "DELETED")),
        ),
    ]


def _state(run: Object) -> str:
    return str((run.get("status") or {}).get("state") or "")


def _is_killed(run: Object) -> bool:
    return bool(run["spec"].get("kill")) or run["spec"].get("action") == "Kill"


def _is_to_resume(run: Object) -> bool:
    """Whether somebody has asked to go on since the run stopped: one `action: Resume` answers one stop."""
    stopped = conditions.find(run, RESUMABLE)
    if stopped is None or stopped.get("status") != "True" or _is_killed(run):
        return False
    asked_since = int(run["metadata"].get("generation") or 0) > int(stopped.get("observedGeneration") or 0)
    return run["spec"].get("action") == "Resume" and asked_since


def _starts(run: Object) -> int:
    """Drivers that were started since the run last got further."""
    told: Mapping[str, Any] = (conditions.find(run, DRIVEN) or {}).get("metadata") or {}
    return int(told.get("starts") or 0) if told.get("progress") == _progress(run) else 0


def _progress(run: Object) -> str:
    """Changes whenever the run gets further: how many steps have started, and how many have ended well."""
    counts = (run.get("status") or {}).get("stepCounts") or {}
    return "/".join(str(counts.get(key) or 0) for key in ("total", "succeeded", "cached"))
