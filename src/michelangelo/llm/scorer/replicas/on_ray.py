"""A replica as an actor of Ray, on whatever node has its resources; and the cluster that it is on.

The actor's thread works; the driver listens to it by a call that waits for something to be said. The job's folder must
be the same for all nodes.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.scorer.config import ReplicaConfig
from michelangelo.llm.scorer.replicas import channel as channels
from michelangelo.llm.scorer.replicas import worker
from michelangelo.llm.scorer.replicas.channel import Message
from michelangelo.llm.scorer.replicas.worker import Setup

__all__ = ["RayReplica", "cluster"]

_LISTEN_SECONDS: Final = 1.0
_END_SECONDS: Final = 15.0


@contextlib.contextmanager
def cluster(address: str, num_cpus: float) -> Iterator[None]:
    """Ray, started here unless it runs already, with so many logical processors. Raises SettingsError."""
    import ray

    is_ours = not ray.is_initialized()
    if is_ours:
        local: dict[str, Any] = {"num_cpus": max(1, round(num_cpus) + 1), "include_dashboard": False}
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else local),
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as e:
            where = f"at {address} cannot be reached" if address else "cannot be started on this machine"
            raise errors.SettingsError(f"ray_address: Ray {where}: {e}") from e
    try:
        yield
    finally:
        if is_ours:
            ray.shutdown()


class _Actor:
    """In Ray's process: the thread that works, and what it says."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._said: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._channel = channels.QueueChannel(self._said.put)
        self._thread = threading.Thread(target=self._work, args=(setup,), daemon=True)
        self._thread.start()

    def tell(self, message: Message) -> None:
        self._channel.inbox.put(message)

    def listen(self) -> list[Message]:
        """What was said; waits for something."""
        found: list[Message] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._said.get(timeout=_LISTEN_SECONDS))
            while True:
                found.append(self._said.get_nowait())
        return found

    def _work(self, setup: Mapping[str, Any]) -> None:
        try:
            worker.work(setup, self._channel)
        finally:
            self._said.put({"type": "lost", "error": "the actor's work ended"})


class RayReplica:
    """From the driver's side."""

    def __init__(self, config: ReplicaConfig, setup: Setup, inbox: queue.SimpleQueue[tuple[str, Message]]) -> None:
        import ray

        self._inbox = inbox
        self._name = setup.name
        actor: Any = ray.remote(_Actor)
        self._actor = actor.options(
            num_cpus=config.num_cpus,
            num_gpus=config.num_gpus,
            resources=dict(config.resources) or None,
            max_restarts=0,
            max_concurrency=4,
        ).remote(setup.to_json())
        self._reader = threading.Thread(target=self._listen, name=setup.name, daemon=True)
        self._reader.start()

    def send(self, message: Message) -> None:
        # Without waiting: that the actor is gone is seen by who listens to it.
        self._actor.tell.remote(message)

    def kill(self) -> None:
        import ray

        ray.kill(self._actor)

    def join(self) -> None:
        self._reader.join(_END_SECONDS)
        if self._reader.is_alive():
            self.kill()

    def _listen(self) -> None:
        import ray
        import ray.exceptions

        try:
            while True:
                for message in ray.get(self._actor.listen.remote()):
                    self._inbox.put((self._name, message))
                    if message["type"] == "lost":
                        return
        except ray.exceptions.RayError as e:
            reason = str(e).strip().splitlines() or [type(e).__name__]
            self._inbox.put((self._name, {"type": "lost", "error": f"its actor ended: {reason[0]}"}))
        finally:
            with contextlib.suppress(ray.exceptions.RayError, RuntimeError):
                ray.kill(self._actor)
