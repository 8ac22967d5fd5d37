"""Identities of processes: the dead are known for certain, and doubt counts as life."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from michelangelo.runtime import processes


@pytest.fixture
def child() -> subprocess.Popen[bytes]:
    """A process that has ended, and that nobody has waited for or asked about yet."""
    return subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)


def identity_of(process: subprocess.Popen[bytes]) -> processes.Identity:
    started = processes._started(process.pid)
    assert started
    return replace(processes.of_this_process(), pid=process.pid, started=started)


def test_identity_survives_its_text_form() -> None:
    identity = processes.of_this_process()
    assert processes.Identity.parse(str(identity)) == identity
    assert identity.pid == os.getpid()


def test_two_identities_of_one_process_differ() -> None:
    assert processes.of_this_process() != processes.of_this_process()


def test_living_process_is_not_dead(child: subprocess.Popen[bytes]) -> None:
    assert not processes.of_this_process().is_provably_dead
    assert not identity_of(child).is_provably_dead
    child.communicate()


def test_killed_process_is_dead_also_while_it_is_a_zombie(child: subprocess.Popen[bytes]) -> None:
    identity = identity_of(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # It has ended, and is not collected.
    assert identity.is_provably_dead
    child.communicate()
    assert identity.is_provably_dead


def test_process_id_used_again_is_another_process() -> None:
    identity = replace(processes.of_this_process(), started="1")
    assert identity.is_provably_dead


def test_process_of_another_machine_or_boot_is_not_judged(child: subprocess.Popen[bytes]) -> None:
    identity = identity_of(child)
    child.kill()
    child.communicate()
    assert not replace(identity, host="elsewhere").is_provably_dead
    assert not replace(identity, boot="earlier").is_provably_dead


@pytest.mark.parametrize("text", ["", "pod-1", "a/b/c/d/e", "a/b/1/d", "a/b/1/c/d/e"])
def test_foreign_holder_is_no_identity(text: str) -> None:
    assert processes.Identity.parse(text) is None
