"""One run of the embedded platform: its object is made or found again, then driven in this process.

It is loaded late (see runner.py). What happens between the lease and the last status is the engine's conductor's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from michelangelo import errors
from michelangelo.app import children, environments, hosting, platform, progress
from michelangelo.app.settings import Settings
from michelangelo.client.client import Object
from michelangelo.engine import conductor, taskruns
from michelangelo.meta import labels
from michelangelo.runtime import processes
from michelangelo.uniflow import codecs, source, source_tree
from michelangelo.uniflow.runner import RunOptions
from michelangelo.uniflow.source_tree import SourceTree
from michelangelo.uniflow.workflow import Workflow

__all__ = ["WORKFLOW", "EmbeddedRun", "Prepared", "made_at"]

WORKFLOW: Final = "michelangelo/workflow"
"""Label on development runs: the name of the workflow function."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to be driven."""

    object: Object
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_resumed: bool

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])


class EmbeddedRun:
    """A context: the platform is open inside."""

    def __init__(self, settings: Settings, workflow: Workflow[..., Any], options: RunOptions) -> None:
        self._settings = settings
        self._workflow = workflow
        self._options = options
        self._project = options.project or settings.project
        if options.ephemeral:
            self._platform = platform.Platform.ephemeral(settings.home)
        else:
            self._platform = platform.Platform.open(settings)
        self._progress = progress.make_progress(sys.stderr, plain=settings.no_color)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._platform.close()

    def create(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Prepared:
        """Make the PipelineRun. Raises CodecError, SourceError, RequirementsError, ApiError."""
        tree = self._source()
        locks = environments.locked(self._workflow, tree, self._settings, self._platform.blobs.put)
        encoded = codecs.encode_arguments(args, dict(kwargs), self._platform.blobs)
        manifest = {**self._manifest(tree), **({"environments": locks} if locks else {})}
        platform.ensure_project(self._platform.client, self._project)
        made = self._platform.client.create(
            {
                "apiVersion": "michelangelo.api/v2",
                "kind": "PipelineRun",
                "metadata": {
                    "name": name,
                    "namespace": self._project,
                    "labels": {WORKFLOW: taskruns.label_value(self._workflow.name)},
                    # This process drives it; no controller needs to.
                    "annotations": {labels.DRIVER: str(processes.of_this_process())},
                },
                "spec": {
                    "pipelineSpec": {"manifest": manifest},
                    "input": {
                        "args": encoded["args"],
                        "kwArgs": encoded["kwargs"],
                        **({"environ": dict(self._options.environ)} if self._options.environ else {}),
                    },
                },
            }
        )
        return Prepared(made, args, kwargs, is_resumed=False)

    def find(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Prepared:
        """The run to resume: `name`, or the newest unfinished one of the workflow. WorkflowError when there is none,
        when it has ended, or when the code has changed and `force` was not asked for; ArgumentsError when arguments
        are given and the run was started with others."""
        found = self._named(name) if name else self._newest()
        conductor.check_resumable(found)
        manifest = found["spec"]["pipelineSpec"]["manifest"]
        if manifest.get("sourceDigest") != self._manifest(self._source())["sourceDigest"] and not self._options.force:
            raise errors.WorkflowError(
                f"the code has changed since the run {found['metadata']['name']} was started; start a new run, or "
                "resume with --force: what is recorded then holds, as long as the workflow still makes the same calls"
            )
        given = found["spec"].get("input") or {}
        recorded = {"args": given.get("args") or [], "kwargs": given.get("kwArgs") or {}}
        if args or kwargs:
            encoded = codecs.encode_arguments(args, dict(kwargs), self._platform.blobs)
            if codecs.digest(encoded) != codecs.digest(recorded):
                raise errors.ArgumentsError(
                    f"the run {found['metadata']['name']} was started with other arguments; resume it without any"
                )
        args, kwargs = codecs.decode_arguments(recorded, self._platform.blobs)
        return Prepared(found, args, kwargs, is_resumed=True)

    def drive(self, run: Prepared, host: hosting.TaskHost) -> Any:
        """To its end; the workflow's result."""
        self._progress.begin(run.name, self._workflow.name, self._project)
        client = self._platform.client
        child_host = (
            children.Refusing()
            if self._options.ephemeral
            else children.LocalChildren(self._settings, client, self._project, run.name)
        )
        means = conductor.Means(
            executors=host.executors,
            blobs=self._platform.blobs,
            child_host=child_host,
            workspace=self._settings.prepare_workspace(),
            log_folder=hosting.log_folder(self._platform.logs, self._project, run.name),
            observers=(self._progress,),
            source_digest=run.object["spec"]["pipelineSpec"]["manifest"].get("sourceDigest", ""),
            is_resumed=run.is_resumed,
            accept_code=self._options.force,
            lease_wait_seconds=2.0 * self._settings.lease_seconds if run.is_resumed else 0.0,
            lease_seconds=self._settings.lease_seconds,
        )
        try:
            result = conductor.conduct(client, run.object, self._workflow, run.args, run.kwargs, means)
        except KeyboardInterrupt:
            self._progress.end("was interrupted", self._advice(run))
            raise
        except errors.RunKilledError as error:
            self._progress.end("was killed", str(error))
            error.was_shown = True
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, errors.ApiError | errors.StorageError) and not isinstance(error, errors.TaskError):
                # The platform failed, not the workflow: the run is unfinished.
                self._progress.end("was interrupted", f"{conductor.describe(error)}\n{self._advice(run)}")
            else:
                self._progress.end("failed", conductor.describe(error))
            if isinstance(error, errors.MichelangeloError):
                error.was_shown = True
            raise
        finally:
            child_host.close()
        self._progress.end("succeeded")
        return result

    def _advice(self, run: Prepared) -> str:
        if self._options.ephemeral:
            return "it was ephemeral: nothing is left of it"
        return f"nothing of it is running any more; continue it with: python {sys.argv[0]} --resume {run.name}"

    def _source(self) -> SourceTree:
        target = source.target_of(self._workflow)
        return source_tree.find_source(target.path, target.module)

    def _manifest(self, tree: SourceTree) -> dict[str, Any]:
        """What the run is of, with its source packed: so any driver can take it over, whatever becomes of the file."""
        digest = source_tree.pack_source(tree, self._platform.blobs).digest
        return {
            "type": "Uniflow",
            "filePath": tree.main,
            "uniflowFunction": source.target_of(self._workflow).qualname,
            "uniflowTar": digest,
            "sourceDigest": digest,
        }

    def _named(self, name: str) -> Object:
        try:
            return self._platform.client.get("PipelineRun", name, namespace=self._project)
        except errors.NotFoundError:
            raise errors.WorkflowError(f"there is no run {name} in project {self._project}") from None

    def _newest(self) -> Object:
        listed = self._platform.client.list(
            "PipelineRun",
            namespace=self._project,
            label_selector=f"{WORKFLOW}={taskruns.label_value(self._workflow.name)}",
        )
        for found in sorted(listed.items, key=made_at, reverse=True):
            try:
                conductor.check_resumable(found)
            except errors.WorkflowError:
                continue
            return found
        raise errors.WorkflowError(
            f"no run of the workflow {self._workflow.name} in project {self._project} is unfinished; start a new one"
        )


def made_at(run: Object) -> tuple[str, str]:
    """Creation times are in seconds; of runs of the same second the stamp of the write, in microseconds, decides."""
    metadata = run["metadata"]
    stamp = (metadata.get("annotations") or {}).get(labels.SPEC_UPDATE_TIMESTAMP)
    return str(metadata["creationTimestamp"]), str(stamp or "")
