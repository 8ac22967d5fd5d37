"""One run from the lease to its last status: everything around the driver, the same for every host of a driver.

A host (`python flow.py`, the driver process of a server) brings the client, the run's object, the workflow and what
executes tasks; `conduct` owns the run by its lease, ends what an earlier driver left running, watches for a kill,
drives, and writes how it ended. Finding and loading the workflow is the host's matter.
"""

from __future__ import annotations

import linecache
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from michelangelo import errors
from michelangelo.blobs.blob_store import BlobStore
from michelangelo.client.client import Client, Object
from michelangelo.engine import claims, environments, signals, status
from michelangelo.engine.cache import Cache
from michelangelo.engine.childruns import ChildHost, ChildRuns
from michelangelo.engine.driver import Driver
from michelangelo.engine.earlier import EarlierRun
from michelangelo.engine.scheduler import Stop
from michelangelo.engine.secrets import SecretReader
from michelangelo.engine.status import RunStatus
from michelangelo.engine.surroundings import Observer, Surroundings
from michelangelo.engine.taskruns import TaskRunJournal
from michelangelo.engine.watcher import Watcher
from michelangelo.executors.base import Executor, Orphans
from michelangelo.meta import conditions, timestamps
from michelangelo.runtime import leases
from michelangelo.uniflow import codecs
from michelangelo.uniflow.workflow import Workflow

__all__ = ["Means", "check_resumable", "conduct", "describe", "fail"]

_FINISHED: Final = ("Succeeded", "Killed", "Failed", "Skipped")
_LASTING: Final = (errors.BadRequestError, errors.InvalidError, errors.RequestTooLargeError, errors.ForbiddenError)
_LEASE_PAUSE_SECONDS: Final = 0.25


@dataclass(frozen=True)
class Means:
    """What a host drives a run with. The host closes it."""

    executors: Mapping[str, Executor]
    blobs: BlobStore
    child_host: ChildHost | None = None
    """Who drives the runs that this one starts; None: the controllers of a server."""
    folder: str = ""
    """What relative working directories of tasks are relative to; empty: where this process runs."""
    log_folder: str = ""
    """Where the logs of attempts go; empty: nowhere."""
    observers: Sequence[Observer] = ()
    default_executor: str = "process"
    source_digest: str = ""
    is_resumed: bool = False
    """Whether an earlier driver may have left something running."""
    accept_code: bool = False
    """Recorded results hold although the code of their tasks has changed."""
    workspace: str = ""
    """A folder or URL where tasks may leave files; they find it in UF_STORAGE_URL."""
    earlier: EarlierRun | None = None
    """The run whose results this one takes over."""
    lease_wait_seconds: float = 0.0
    """How long to wait for an earlier driver's lease to end."""
    lease_seconds: int = leases.DURATION_SECONDS


def conduct(
    client: Client,
    run: Object,
    workflow: Workflow[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    means: Means,
) -> Any:
    """Drive the run to its end; the workflow's result. Raises what `Driver.execute` raises, and LeaseLostError when
    another driver has the run. The object's status tells the same afterwards."""
    lease = _owned(client, run, means)
    try:
        run = client.get("PipelineRun", _name(run), namespace=run["metadata"]["namespace"])
        check_resumable(run)
        if means.is_resumed:
            for executor in means.executors.values():
                if isinstance(executor, Orphans):
                    executor.end_orphans()
    except errors.MichelangeloError:
        lease.release()
        raise
    # Who learns that the run is lost, or killed, tells the driver, which is made a few lines below.
    drivers: list[Driver] = []
    summary = RunStatus(client, run, driver=lease.identity, on_lost=lambda error: drivers[0].abandon(error))
    driver = Driver(_surroundings(client, run, means, lease, summary), accept_code=means.accept_code)
    drivers.append(driver)
    keeper = leases.Keeper(lease, driver.abandon)
    kills = _watch_for_kill(client, run, driver)
    try:
        digest = {"sourceDigest": means.source_digest} if means.source_digest else {}
        summary.begin({"workflowId": _name(run), **digest})
        keeper.start()
        kills.start()
        return _drive(driver, workflow, args, kwargs, summary, means.blobs)
    finally:
        kills.stop()
        summary.pause()
        keeper.stop()


def fail(client: Client, run: Object, error: errors.MichelangeloError, means: Means) -> None:
    """The end of a run whose workflow cannot even be called: its source does not load, its arguments do not fit."""
    lease = _owned(client, run, means)
    try:
        run = client.get("PipelineRun", _name(run), namespace=run["metadata"]["namespace"])
        summary = RunStatus(client, run, driver=lease.identity, on_lost=lambda error: None)
        summary.begin({})
        summary.finish(_ended("Failed", error, "User"))
    finally:
        lease.release()


def check_resumable(run: Object) -> None:
    """Raises WorkflowError when the run has ended for good."""
    state = (run.get("status") or {}).get("state", "Pending")
    if state in _FINISHED and not conditions.is_true(run, status.RESUMABLE):
        raise errors.WorkflowError(
            f"the run {_name(run)} has ended ({state}), so there is nothing to resume; start a new run, which takes "
            "the results of cached tasks from it"
        )


def describe(error: BaseException) -> str:
    """What a person is told: what failed, and the place in their own code."""
    text = str(error) or type(error).__name__
    if isinstance(error, errors.UserCodeError):
        name = error.cause_type.removeprefix("builtins.") or "error"
        text = f"task {error.task}: {name}: {error}"
        return text + _shown(error.location)
    if isinstance(error, errors.MichelangeloError):
        return text
    return f"{type(error).__name__}: {text}" + _shown(_location(error))


def _owned(client: Client, run: Object, means: Means) -> leases.Lease:
    """The run's lease, held. Waits only while its holder gives no sign of life."""
    lease = leases.of_run(client, run, duration_seconds=means.lease_seconds)
    name, namespace = leases.run_lease_name(_name(run)), run["metadata"]["namespace"]
    deadline = time.monotonic() + means.lease_wait_seconds
    first_seen = ""
    while not lease.acquire():
        try:
            present = client.get("Lease", name, namespace=namespace)
        except errors.NotFoundError:
            continue
        seen = str(present["metadata"]["resourceVersion"])
        first_seen = first_seen or seen
        if seen != first_seen or time.monotonic() >= deadline:
            raise errors.LeaseLostError(
                f"the run {_name(run)} is being driven by another process ({leases.holder_of(present)}); wait for its "
                "end, or end it"
            )
        time.sleep(_LEASE_PAUSE_SECONDS)
    return lease


def _surroundings(client: Client, run: Object, means: Means, lease: leases.Lease, summary: RunStatus) -> Surroundings:
    namespace = run["metadata"]["namespace"]
    return Surroundings(
        run=_name(run),
        journal=TaskRunJournal(client, run, driver=lease.identity, is_owner=lambda: lease.is_held),
        executors=means.executors,
        blobs=means.blobs,
        driver=lease.identity,
        lease=lease,
        cache=Cache(client, namespace, lambda tree: all(map(means.blobs.touch, codecs.blobs_in(tree)))),
        claims=claims.Claims(client, run, holder=lease.identity),
        watch_claims=claims.watch_claims(client, namespace),
        signals=signals.watch_signals(client, namespace, _name(run)),
        children=ChildRuns(client, run, means.child_host),
        secrets=SecretReader(client, namespace),
        environments=environments.of_run(run, means.blobs, means.folder),
        earlier=means.earlier,
        log_folder=means.log_folder,
        observers=(summary, *means.observers),
        project=namespace,
        default_executor=means.default_executor,
        environment=_variables(run, means),
        unknown_is_retried=run["spec"].get("action") == "Resume",
    )


def _variables(run: Object, means: Means) -> dict[str, str]:
    """What every task of the run finds in its environment."""
    workspace = run["spec"].get("workspaceRootDir") or means.workspace
    return {
        "MA_NAMESPACE": run["metadata"]["namespace"],
        "MA_PIPELINE_RUN_NAME": _name(run),
        **({"UF_STORAGE_URL": workspace} if workspace else {}),
        **((run["spec"].get("input") or {}).get("environ") or {}),
    }


def _watch_for_kill(client: Client, run: Object, driver: Driver) -> Watcher:
    metadata = run["metadata"]

    def look(event: str, obj: Object) -> None:
        if obj["metadata"]["uid"] != metadata["uid"]:
            return
        if event == "DELETED":
            driver.abandon(errors.LeaseLostError(f"the run {metadata['name']} was deleted"))
        elif obj["spec"].get("kill") or obj["spec"].get("action") == "Kill":
            driver.stop(Stop.CANCEL, errors.RunKilledError(f"the run {metadata['name']} was killed"))

    return Watcher(
        client,
        "PipelineRun",
        look,
        namespace=metadata["namespace"],
        field_selector=f"metadata.name={metadata['name']}",
    )


def _drive(
    driver: Driver,
    workflow: Workflow[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    summary: RunStatus,
    blobs: BlobStore,
) -> Any:
    try:
        result = driver.execute(workflow, args, kwargs)
        encoded = _encoded(workflow, result, blobs)
    except errors.TaskError as error:
        # Before ours, for it may be one of those too: what a task ran into says nothing about this run's own platform.
        summary.finish(_ended("Failed", error, "User"))
        raise
    except errors.LeaseLostError:
        raise
    except errors.RunKilledError as error:
        summary.finish(_ended("Killed", error))
        raise
    except (errors.UnknownOutcomeError, errors.NonDeterminismError) as error:
        summary.finish(_ended("Failed", error, "System"), resumable=type(error).__name__.removesuffix("Error"))
        raise
    except (errors.ApiError, errors.StorageError) as error:
        # The platform failed, not the run: it stays as it is, to be taken up again, unless that would fail again.
        if isinstance(error, _LASTING):
            summary.finish(_ended("Failed", error, "System"), resumable="Refused")
        raise
    except (Exception, SystemExit) as error:
        summary.finish(_ended("Failed", error, "User"))
        raise
    except KeyboardInterrupt:
        # Whoever stopped it wants it stopped: it ends, and no controller takes it up, until somebody resumes it.
        stopped = errors.RunKilledError("the run was interrupted from the keyboard; it can be resumed")
        summary.finish(_ended("Killed", stopped), resumable="Interrupted")
        raise
    summary.finish({"state": "Succeeded", "endTime": timestamps.now(), "code": 0, "result": encoded})
    return result


def _encoded(workflow: Workflow[..., Any], result: Any, blobs: BlobStore) -> Any:
    try:
        return codecs.encode(result, blobs)
    except errors.CodecError as error:
        code = workflow.fn.__code__
        raise errors.CodecError(
            f"the result of workflow {workflow.name} ({code.co_filename}, line {code.co_firstlineno}): {error.message}"
        ) from error


def _ended(state: str, error: BaseException, kind: str = "") -> dict[str, Any]:
    fields: dict[str, Any] = {
        "state": state,
        "endTime": timestamps.now(),
        "errorMessage": describe(error),
        "code": error.exit_code if isinstance(error, errors.MichelangeloError) else 1,
    }
    return {**fields, "exceptionType": kind} if kind else fields


def _location(error: BaseException) -> errors.CodeLocation | None:
    """The innermost frame that is neither ours nor a library's."""
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = os.path.abspath(frame.filename)
        if not file.startswith(own) and "site-packages" not in file and os.path.dirname(os.__file__) not in file:
            return errors.CodeLocation(file, frame.lineno or 0, frame.name, (frame.line or "").strip())
    return None


def _shown(location: errors.CodeLocation | None) -> str:
    if location is None:
        return ""
    source = location.source or linecache.getline(location.file, location.line).strip()
    return f"\n  {location.file}, line {location.line}, in {location.function}\n    {source}"


def _name(run: Object) -> str:
    return str(run["metadata"]["name"])
