"""The driver process of a run: `python -m michelangelo.app.driver`, with its job as JSON on standard input.

It speaks to the server with a token for its one run, or opens the home where there is no server; it unpacks the run's
source by its digest, loads the workflow and drives it. A server that restarts meanwhile is waited for, as long as the
run's lease lasts. SIGTERM stops it in a state from which another driver goes on. Exit status: 0 when the run succeeded.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from michelangelo import errors
from michelangelo.app import hosting, settings
from michelangelo.blobs import opening
from michelangelo.blobs.blob_store import BlobStore
from michelangelo.client.client import Client, Object
from michelangelo.client.http import HttpClient
from michelangelo.client.kubeconfig import Endpoint
from michelangelo.engine import conductor, taskruns
from michelangelo.engine.childruns import ChildHost
from michelangelo.engine.driver import Suspended
from michelangelo.engine.earlier import EarlierRun
from michelangelo.uniflow import codecs, parameters, references, source, source_tree
from michelangelo.uniflow.workflow import Workflow

__all__ = ["drive", "main"]


def main() -> int:
    job = json.load(sys.stdin)
    signal.signal(signal.SIGTERM, _suspend)
    try:
        with _reach(job) as (client, earlier, host):
            drive(
                settings.from_json(job["settings"]),
                client,
                job["namespace"],
                job["run"],
                earlier=earlier,
                child_host=host,
            )
    except Suspended:
        return 0
    except errors.MichelangeloError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the driver's log
        return error.exit_code
    except Exception:  # noqa: BLE001 - the outermost loop: whatever the workflow raised is in the run's status already
        traceback.print_exc()
        return 1
    return 0


def drive(
    chosen: settings.Settings,
    client: Client,
    namespace: str,
    name: str,
    *,
    earlier: Client,
    child_host: ChildHost | None = None,
) -> Any:
    """Drive the run to its end; the workflow's result. `earlier` reads the journal of a run that this one continues.
    Raises what `conductor.conduct` raises."""
    blobs_url = chosen.blobs_url(durability="power")
    host = hosting.TaskHost(chosen, name, blobs_url)
    try:
        blobs = opening.open_blob_store(blobs_url)
        run = client.get("PipelineRun", name, namespace=namespace)
        status = run.get("status") or {}
        resume = run["spec"].get("resume") or {}
        means = conductor.Means(
            executors=host.executors,
            blobs=blobs,
            child_host=child_host,
            workspace=chosen.prepare_workspace(),
            log_folder=hosting.log_folder(chosen.logs, namespace, name),
            is_resumed=status.get("state") not in (None, "", "Pending"),
            accept_code=bool(resume.get("forceResume")),
            lease_wait_seconds=2.0 * chosen.lease_seconds,
            lease_seconds=chosen.lease_seconds,
        )
        try:
            folder = _source(run, blobs, chosen.home / "sources")
            workflow = _load(run, folder)
            args, kwargs = _arguments(run, workflow, blobs)
            means = dataclasses.replace(means, earlier=_earlier(run, earlier), folder=str(folder))
        except (errors.WorkflowError, errors.StorageError) as error:
            conductor.fail(client, run, error, means)
            raise
        return conductor.conduct(client, run, workflow, args, kwargs, means)
    finally:
        host.close()


@contextmanager
def _reach(job: Mapping[str, Any]) -> Iterator[tuple[Client, Client, ChildHost | None]]:
    """Clients for the run and for the run that it continues, and who drives the runs that it starts."""
    if "server" not in job:
        # The run of a program without a server: the home itself is opened.
        children = importlib.import_module("michelangelo.app.children")
        with children.opened(settings.from_json(job["settings"]), job["namespace"], job["run"]) as (client, host):
            yield client, client, host
        return
    server = Endpoint(server=job["server"], token=job["token"], ca=job["authority"])
    client = HttpClient(server)
    # A run's token is for that run only; of the run that is to be continued its journal is read.
    earlier = HttpClient(dataclasses.replace(server, token=job.get("earlier_token", job["token"])))
    try:
        yield client, earlier, None
    finally:
        client.close()
        earlier.close()


def _earlier(run: Object, client: Client) -> EarlierRun | None:
    """What `spec.resume` asks for. Raises WorkflowError."""
    resume = run["spec"].get("resume") or {}
    name = (resume.get("pipelineRun") or {}).get("name")
    if not name:
        return None
    if resume.get("resumeUpTo"):
        raise errors.WorkflowError("spec.resume.resumeUpTo is not supported: a run goes on to its end; leave it out")
    entries = taskruns.read(client, run["metadata"]["namespace"], name)
    if not entries:
        raise errors.WorkflowError(f"there is nothing to take over from run {name}: it has recorded no step here")
    return EarlierRun(
        name,
        entries,
        resume_from=resume.get("resumeFrom") or (),
        accept_code=bool(resume.get("forceResume")),
    )


def _source(run: Object, blobs: BlobStore, sources: Path) -> Path:
    """The run's packed source; of one digest there is one folder, shared by all runs."""
    manifest = _manifest(run)
    digest = str(manifest.get("uniflowTar") or manifest.get("sourceDigest") or "")
    if not digest or not manifest.get("filePath"):
        raise errors.SourceError(f"the run {run['metadata']['name']} has no packed source: start it with mactl")
    folder = sources / digest.removeprefix("sha256:")
    if not folder.exists():
        _unpack(digest, blobs, folder)
    return folder


def _load(run: Object, folder: Path) -> Workflow[..., Any]:
    manifest = _manifest(run)
    main = str(manifest["filePath"])
    path = folder / main
    parts = main.removesuffix("/__init__.py").removesuffix(".py").split("/")
    module = ".".join(parts) if len(parts) > 1 else references.module_of_file(str(path))
    loaded = source.load_file(str(path), module)
    return source.find_workflow(loaded, str(manifest.get("uniflowFunction") or ""))


def _unpack(digest: str, blobs: BlobStore, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent)
    try:
        source_tree.unpack_source(digest, blobs, scratch)
        os.rename(scratch, folder)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if not folder.exists():
            raise errors.StorageError(f"the source of the run cannot be unpacked into {folder}: {error}") from error
    except errors.MichelangeloError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _manifest(run: Object) -> Object:
    """As it was pinned when the run was accepted, or that of a development run."""
    pinned = ((run.get("status") or {}).get("sourcePipeline") or {}).get("pipeline") or {}
    spec = pinned.get("spec") or run["spec"].get("pipelineSpec") or {}
    manifest: Object = spec.get("manifest") or {}
    return manifest


def _arguments(run: Object, workflow: Workflow[..., Any], blobs: BlobStore) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Plain JSON, as people write it, is converted by the signature; encoded values are what they were."""
    given = run["spec"].get("input") or {}
    args, kwargs = list(given.get("args") or ()), dict(given.get("kwArgs") or {})
    if '"$codec"' in json.dumps([args, kwargs]):
        decoded = codecs.decode_arguments({"args": args, "kwargs": kwargs}, blobs)
        return parameters.check(workflow, *decoded)
    return parameters.from_json(workflow, tuple(args), kwargs)


def _suspend(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Suspended


if __name__ == "__main__":
    sys.exit(main())
