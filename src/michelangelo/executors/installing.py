"""Attempts with requirements: they wait until their environment is there, and then go to its workplace.

An environment is made in a thread of its own, once for all attempts that wait for it, and ended when none is left. It
is made when the first attempt asks for it, so a run that takes everything from the cache installs nothing.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from michelangelo import errors
from michelangelo.executors import launch, processes, running
from michelangelo.executors.base import Attempt, AttemptState, Outcome
from michelangelo.executors.environments import Environment, Environments, package_names
from michelangelo.executors.uv import Uv
from michelangelo.executors.workplace import Terms, Workplace

__all__ = ["Installing"]

_Lock = tuple[str, ...]


@dataclass(eq=False)
class _Site:
    """One environment of this executor."""

    uv: Uv
    waiting: dict[str, Attempt] = field(default_factory=dict)
    environment: Environment | None = None
    workplace: Workplace | None = None


class Installing:
    """The workplaces of an executor's environments. Any thread; nothing here waits but `close`."""

    def __init__(self, folder: str, terms: Terms, interpreter: launch.Interpreter, changed: Callable[[], None]) -> None:
        """`folder` is where environments are kept; `interpreter` says how processes are started; `changed` is called
        when `pending` has changed."""
        self._environments = Environments(folder)
        self._terms = terms
        self._interpreter = interpreter
        self._changed = changed
        self._guard = threading.Lock()
        self._sites: dict[_Lock, _Site] = {}
        self._is_closed = False

    def start(self, attempt: Attempt) -> None:
        lock = tuple(attempt.requirements)
        with self._guard:
            site = self._sites.get(lock)
            if site is None:
                site = self._sites[lock] = _Site(
                    Uv(self._environments.folder, {processes.RUN_MARKER: self._terms.run_id})
                )
                found = self._environments.find(lock)
                if found is not None:
                    self._open(site, found)
                else:
                    threading.Thread(target=self._make, args=(lock, site), name="environment", daemon=True).start()
            if site.workplace is not None:
                site.workplace.start(attempt)
                return
            site.waiting[attempt.id] = attempt
        self._changed()

    def pending(self) -> Mapping[str, str]:
        """The attempts that wait for their environment, each with the reason."""
        with self._guard:
            return {
                attempt_id: f"its environment is being made: installing {package_names(lock)}"
                for lock, site in self._sites.items()
                for attempt_id in site.waiting
            }

    def cancel(self, attempt_id: str, grace_seconds: float) -> None:
        with self._guard:
            lock = next((lock for lock, site in self._sites.items() if attempt_id in site.waiting), None)
            if lock is None:
                for site in self._sites.values():
                    if site.workplace is not None:
                        site.workplace.cancel(attempt_id, grace_seconds)
                return
            site = self._sites[lock]
            del site.waiting[attempt_id]
            if not site.waiting:
                del self._sites[lock]
                site.uv.end()
        self._end(attempt_id, AttemptState.KILLED, f"attempt {attempt_id} was cancelled while its environment was made")
        self._changed()

    def scratch_folders(self) -> list[str]:
        with self._guard:
            return [site.workplace.scratch_folder for site in self._sites.values() if site.workplace is not None]

    def close(self) -> None:
        with self._guard:
            self._is_closed = True
            sites, self._sites = list(self._sites.values()), {}
        for site in sites:
            site.uv.end()
            for attempt_id in site.waiting:
                self._end(attempt_id, AttemptState.KILLED, f"attempt {attempt_id} was ended: its executor was closed")
            if site.workplace is not None:
                site.workplace.stop()
        for site in sites:
            if site.workplace is not None:
                site.workplace.close()
            if site.environment is not None:
                site.environment.close()

    def _make(self, lock: _Lock, site: _Site) -> None:
        try:
            environment = self._environments.make(lock, site.uv)
        except errors.RequirementsError as e:
            self._fail(lock, site, f"{package_names(lock)} cannot be installed: {e.message}")
            return
        with self._guard:
            if self._is_closed or self._sites.get(lock) is not site:
                environment.close()
                return
            self._open(site, environment)
            waiting, site.waiting = site.waiting, {}
            for attempt in waiting.values():
                assert site.workplace is not None
                site.workplace.start(attempt)
        self._changed()

    def _open(self, site: _Site, environment: Environment) -> None:
        site.environment = environment
        interpreter = dataclasses.replace(
            self._interpreter, python=environment.python, environment_folder=environment.path
        )
        site.workplace = Workplace(self._terms, interpreter)

    def _fail(self, lock: _Lock, site: _Site, message: str) -> None:
        with self._guard:
            if self._sites.get(lock) is site:
                del self._sites[lock]  # so that another attempt tries again
            waiting, site.waiting = site.waiting, {}
        for attempt_id in waiting:
            self._end(attempt_id, AttemptState.FAILED, message)
        self._changed()

    def _end(self, attempt_id: str, state: AttemptState, message: str) -> None:
        self._terms.report(Outcome(id=attempt_id, state=state, error=running.failure(state, message)))
