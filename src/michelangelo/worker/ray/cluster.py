"""The only module that calls ray: starts a local one or connects to a cluster, submits, and reads what Ray says.

Ray's exceptions become outcomes here. It keeps no attempts and knows no driver.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import ray as untyped_ray
from ray import exceptions
from ray import util as placement_groups
from ray._private.runtime_env import py_modules, working_dir
from ray.util import scheduling_strategies

from michelangelo import errors
from michelangelo.executors.base import AttemptState
from michelangelo.executors.ray import request as requests
from michelangelo.executors.ray.request import STARTING, Request
from michelangelo.worker.ray import attempt as attempts

__all__ = ["Cluster", "Submitted", "connect", "verdict_of"]

_ray: Any = untyped_ray
"""Half of its functions have no types."""

_REACH_SECONDS: Final = 5.0
_ZONE: Final = "ray.io/availability-zone"


@dataclass
class Submitted:
    """An attempt that Ray has. `done` is called once, from a thread of Ray's, with the exception it ended by."""

    reference: Any
    group: Any = field(default=None)


class Cluster:
    """A Ray that this process is a driver of."""

    def __init__(self, host: str) -> None:
        self.host = host
        """The address under which the workers of this Ray reach this process."""
        self._task = _ray.remote(max_retries=0)(attempts.run)

    def submit(
        self,
        request: Request,
        place: tuple[str, int, str],
        attempt_id: str,
        done: Callable[[BaseException | None], None],
    ) -> Submitted:
        """`place`: host, port and token for the worker. Raises ExecutorError with what Ray refuses."""
        group = None
        try:
            options: dict[str, Any] = dict(_options(request), name=attempt_id)
            if request.instances:
                group = placement_groups.placement_group(request.bundles(), strategy="PACK", name=attempt_id)
                options["scheduling_strategy"] = scheduling_strategies.PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
                )
            reference = self._task.options(**options).remote(*place, attempt_id)
        except (TypeError, ValueError, exceptions.RayError) as e:
            if group is not None:
                placement_groups.remove_placement_group(group)
            raise errors.ExecutorError(f"Ray refuses attempt {attempt_id}: {_words(e)}") from e
        reference.future().add_done_callback(lambda future: done(future.exception()))
        return Submitted(reference, group)

    def cancel(self, submitted: Submitted, *, force: bool) -> None:
        with contextlib.suppress(exceptions.RayError, ValueError):
            _ray.cancel(submitted.reference, force=force)

    def release(self, submitted: Submitted) -> None:
        """Give back what an ended attempt has reserved, with all that still uses it."""
        if submitted.group is not None:
            with contextlib.suppress(exceptions.RayError):
                placement_groups.remove_placement_group(submitted.group)

    def shortage(self, wanted: Mapping[str, tuple[Request, Submitted]]) -> dict[str, str]:
        """Why attempts that have not started wait, by their ids."""
        total, free = _ray.cluster_resources(), _ray.available_resources()
        nodes = [node["Resources"] for node in _ray.nodes() if node["Alive"]]
        return {
            name: STARTING if _is_placed(submitted) else requests.shortage(request, total, free, nodes)
            for name, (request, submitted) in wanted.items()
        }


def connect(address: str, resources: Mapping[str, float], object_store_bytes: int, folder: str) -> Cluster:
    """A local Ray in `folder` with `resources`, or, with an address, a cluster. Raises ExecutorError in Ray's words."""
    arguments: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    if address:
        _check_answers(address)
        arguments = {"address": address, **arguments}
        del arguments["include_dashboard"]
    else:
        amounts = dict(resources)
        arguments |= {"address": "local", "num_cpus": int(-(-amounts.pop("CPU", 1.0) // 1)), "_temp_dir": folder}
        arguments |= {"_memory": int(amounts.pop("memory", 0)) or None, "_node_ip_address": "127.0.0.1"}
        arguments |= {"resources": amounts or None, "object_store_memory": object_store_bytes or None}
    try:
        _ray.init(**arguments)
    except (exceptions.RayError, OSError, RuntimeError, ValueError, AssertionError) as e:
        what = f"the Ray cluster at {address} cannot be used" if address else "the local Ray does not start"
        raise errors.ExecutorError(f"{what}: {_words(e)}") from e
    return Cluster(_ray.util.get_node_ip_address() if address else "127.0.0.1")


def verdict_of(error: BaseException, attempt_id: str) -> tuple[AttemptState, str]:
    """How an attempt ended that Ray has ended, and in which words. FAILED: it could not be run."""
    words = _words(error)
    if isinstance(error, exceptions.OutOfMemoryError):
        return AttemptState.OUT_OF_MEMORY, f"Ray ended attempt {attempt_id}, for its node was out of memory: {words}"
    if isinstance(error, exceptions.RuntimeEnvSetupError):
        return AttemptState.FAILED, f"the runtime_env of attempt {attempt_id} cannot be set up: {words}"
    if isinstance(error, exceptions.RayTaskError):
        return AttemptState.FAILED, f"attempt {attempt_id} could not be run in a worker of Ray: {words}"
    if isinstance(error, exceptions.TaskUnschedulableError | exceptions.ActorUnschedulableError):
        return AttemptState.FAILED, f"Ray cannot place attempt {attempt_id}: {words}"
    return AttemptState.LOST, f"the worker process of attempt {attempt_id} was lost: {words}"


def _is_placed(submitted: Submitted) -> bool:
    """Whether what it has reserved is there already, and counts as taken."""
    if submitted.group is None:
        return False
    table: Any = placement_groups.placement_group_table(submitted.group)
    return bool(table.get("state") == "CREATED")


def _options(request: Request) -> dict[str, Any]:
    amounts = dict(request.head)
    options: dict[str, Any] = {"num_cpus": amounts.pop("CPU", 0), "num_gpus": amounts.pop("GPU", 0)}
    if memory := amounts.pop("memory", 0):
        options["memory"] = int(memory)
    if amounts:
        options["resources"] = amounts
    if request.runtime_env:
        options["runtime_env"] = _uploaded(request.runtime_env)
    if request.accelerator:
        options["accelerator_type"] = request.accelerator
    if request.zone:
        options["label_selector"] = {_ZONE: request.zone}
    return options


def _uploaded(environment: Mapping[str, Any]) -> dict[str, Any]:
    """A runtime_env whose folders are packages in the cluster: Ray uploads them for a job, and not for a task."""
    found: dict[str, Any] = dict(environment)
    for upload in (working_dir.upload_working_dir_if_needed, py_modules.upload_py_modules_if_needed):
        found = upload(found, include_gitignore=True, scratch_dir=tempfile.gettempdir())
    found.pop("excludes", None)
    return found


def _check_answers(address: str) -> None:
    """Before Ray tries for long, and in words of our own. Raises ExecutorError."""
    host, separator, port = address.rpartition(":")
    if "://" in address or not separator or not port.isdigit():
        raise errors.ExecutorError(
            f"{address!r} is no address of a Ray cluster: give host:port of its head, such as 10.0.0.7:6379. Ray "
            "Client (ray://…) cannot be used, as workers report to the driver: run the driver on a node of the cluster"
        )
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except OSError as e:
        raise errors.ExecutorError(
            f"no Ray answers at {address}: {e.strerror or e}; is the cluster up, and is this its head's port "
            "(`ray start --head --port=6379`)?"
        ) from e


def _words(error: BaseException) -> str:
    """What Ray says, without its colours and lists of advice."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, exceptions.RayTaskError):
        text = f"{type(error.cause).__name__}: {error.cause}" if error.cause else text
    return os.linesep.join(line for line in text.splitlines() if line.strip())[:4000]
