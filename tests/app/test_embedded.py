"""Which run `--resume` means."""

from __future__ import annotations

import random

from michelangelo.apiserver.inprocess import InProcessClient
from michelangelo.apiserver.verbs import ApiServer
from michelangelo.app import embedded
from michelangelo.storage.memory import MemoryStore


def test_newest_of_runs_of_the_same_second_is_the_last_one_made() -> None:
    client = InProcessClient(ApiServer(MemoryStore()))
    head = {"apiVersion": "michelangelo.api/v2"}
    client.create({**head, "kind": "Project", "metadata": {"name": "team", "namespace": "team"}, "spec": {}})
    names = [f"run-{number:02}" for number in range(20)]
    random.Random(7).shuffle(names)
    for name in names:
        spec = {"pipeline": {"name": "p"}}
        client.create({**head, "kind": "PipelineRun", "metadata": {"name": name, "namespace": "team"}, "spec": spec})
    found = sorted(client.list("PipelineRun", namespace="team").items, key=embedded.made_at)
    assert [run["metadata"]["name"] for run in found] == names
