"""What a tracker holds after a run, read with its own library: the same four things for all of them."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Found:
    parameters: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[int, float]] = field(default_factory=dict)
    """By name and step."""
    alerts: list[str] = field(default_factory=list)
    summary: dict[str, str] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    """The tracker's names of the runs in the project `demo`."""

    def add(self, name: str, step: int, value: float) -> None:
        self.metrics.setdefault(name, {})[step] = value


def _mlflow(uri: str) -> Found:
    from mlflow import MlflowClient, environment_variables

    variables: Any = environment_variables
    variables.MLFLOW_ALLOW_FILE_STORE.set(True)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    found = Found()
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.run_name == "one"
        assert run.info.status == "FINISHED"
        found.runs.append(run.info.run_id)
        found.parameters |= run.data.params
        for name in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, name):
                found.add(name, metric.step, metric.value)
        found.alerts += [text for key, text in run.data.tags.items() if key.startswith("alert.")]
        results = {**run.data.tags, **run.data.metrics}
        found.summary |= {k.removeprefix("summary."): str(v) for k, v in results.items() if k.startswith("summary.")}
    return found


def mlflow_folder(folder: Path) -> Found:
    return _mlflow((folder / "mlruns").as_uri())


def mlflow_database(folder: Path) -> Found:
    return _mlflow(f"sqlite:///{folder}/mlflow.db")


def comet(folder: Path) -> Found:
    """The offline archives, as `comet upload` sends them."""
    found = Found()
    for archive in sorted((folder / "comet").glob("*.zip"), key=lambda file: file.stat().st_mtime_ns):
        with zipfile.ZipFile(archive) as opened:
            about = json.loads(opened.read("experiment.json"))
            messages = [json.loads(line) for line in opened.read("messages.json").splitlines()]
        found.runs.append(about["offline_id"])
        for message in messages:
            payload = message["payload"]
            if message["type"] == "parameter_msg" and payload["param"]["source"] == "manual":
                found.parameters[payload["param"]["paramName"]] = str(payload["param"]["paramValue"])
            elif message["type"] == "metric_msg":
                metric = payload["metric"]
                found.add(metric["metricName"], metric["step"], metric["metricValue"])
            elif message["type"] == "log_other" and payload["key"].startswith("alert."):
                found.alerts.append(payload["value"])
            elif message["type"] == "log_other" and payload["key"].startswith("summary."):
                found.summary[payload["key"].removeprefix("summary.")] = str(payload["value"])
    return found


def tensorboard(folder: Path) -> Found:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    accumulator = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    accumulator.Reload()
    found = Found(runs=["tensorboard"])
    for tag in accumulator.Tags()["scalars"]:
        for event in accumulator.Scalars(tag):
            found.add(tag, event.step, event.value)
    for tag in accumulator.Tags()["tensors"]:
        texts = [event.tensor_proto.string_val[0].decode() for event in accumulator.Tensors(tag)]
        name = tag.removesuffix("/text_summary")
        if name == "parameters":
            rows = [line.strip("| ").split(" | ") for text in texts for line in text.splitlines()[2:]]
            found.parameters |= dict(rows)
        elif name.startswith("alerts/"):
            found.alerts += texts
        elif name == "summary":
            found.summary |= {key: str(value) for key, value in json.loads(texts[-1]).items()}
    return found


def wandb(folder: Path) -> Found:
    """The records that `wandb sync` sends."""
    import wandb as library
    from wandb.proto import wandb_internal_pb2

    # The end of a run does not wait until W&B's own process has written the file; its end does.
    library.teardown()
    messages: Any = wandb_internal_pb2
    found = Found()
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    for file in files:
        for data in _records(file.read_bytes()):
            record = messages.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found.runs.append(record.run.run_id)
                assert (record.run.project, record.run.display_name) == ("demo", "one")
            elif kind == "config":
                found.parameters |= {
                    ".".join(item.nested_key) or item.key: str(json.loads(item.value_json))
                    for item in record.config.update
                }
            elif kind == "history":
                row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                for name, value in row.items():
                    if "/" in name:
                        found.add(name, row["step"], value)
            elif kind == "summary":
                for item in record.summary.update:
                    name = ".".join(item.nested_key) or item.key
                    if name.startswith("summary."):
                        found.summary[name.removeprefix("summary.")] = str(json.loads(item.value_json))
            elif kind == "alert":
                found.alerts.append(record.alert.text)
    return found


def _records(data: bytes) -> Iterator[bytes]:
    """LevelDB's log format behind a header of seven bytes: blocks of 32 KiB; CRC, length, type of each part."""
    assert data[:4] == b":W&B"
    position, whole = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


READERS: Mapping[str, tuple[dict[str, Any], Callable[[Path], Found]]] = {
    "mlflow": ({"kind": "mlflow"}, mlflow_database),
    "mlflow-folder": ({"kind": "mlflow", "address": "mlruns"}, mlflow_folder),
    "comet": ({"kind": "comet"}, comet),
    "tensorboard": ({"kind": "tensorboard"}, tensorboard),
    "wandb": ({"kind": "wandb"}, wandb),
}
"""Configurations, with addresses within the run's folder, and their readers."""
