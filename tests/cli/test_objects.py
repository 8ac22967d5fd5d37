"""get, describe, apply, delete, edit, wait, events: the same on the embedded platform and through a server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from michelangelo import errors
from michelangelo.app.platform import Platform
from michelangelo.client.client import Object

Mactl = Callable[..., Any]
Make = Callable[..., Object]
SPEC: Object = {"type": "Train", "manifest": {"type": "Uniflow", "filePath": "flow.py", "uniflowFunction": "flow"}}


def _file(folder: Path, *objects: Object, name: str = "objects.yaml") -> str:
    path = folder / name
    path.write_text("---\n".join(yaml.safe_dump(one, sort_keys=False) for one in objects))
    return str(path)


def _pipeline(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "michelangelo.api/v2",
        "kind": "Pipeline",
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {**SPEC, **spec},
    }


# --- get --------------------------------------------------------------------------------------------------


def test_get_prints_a_table(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    make("Pipeline", "train", spec=SPEC, status={"state": "Ready"})
    make("Pipeline", "score", spec=SPEC)
    result = mactl("get", "pipelines", "-n", "demo")
    lines = [line.split() for line in result.out.splitlines()]
    assert result.code == 0
    assert lines[0][:3] == ["NAME", "TYPE", "STATE"]
    assert {(line[0], line[1]) for line in lines[1:]} == {("train", "Train"), ("score", "Train")}


def test_get_shows_all_projects_with_their_names(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    make("Pipeline", "train", spec=SPEC)
    make("Pipeline", "train", spec=SPEC, namespace="local")
    lines = mactl("get", "pl", "-A").out.splitlines()
    assert lines[0].startswith("NAMESPACE")
    assert {line.split()[0] for line in lines[1:]} == {"demo", "local"}


def test_get_of_one_object_is_the_object(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    made = make("Pipeline", "train", spec=SPEC)
    assert json.loads(mactl("get", "pipeline", "train", "-n", "demo", "-o", "json").out) == made
    assert yaml.safe_load(mactl("get", "pipeline/train", "-n", "demo", "-o", "yaml").out)["spec"] == made["spec"]
    assert mactl("get", "pipeline/train", "-n", "demo", "-o", "name").out == "pipeline/train\n"


def test_get_json_of_several_is_a_list(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    make("Pipeline", "train", spec=SPEC)
    document = json.loads(mactl("get", "pipelines,projects", "-n", "demo", "-o", "json").out)
    assert document["kind"] == "List"
    assert {one["kind"] for one in document["items"]} == {"Pipeline", "Project"}


def test_get_filters_by_labels_and_fields(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    make("Pipeline", "train", spec=SPEC, labels={"team": "vision"})
    make("Pipeline", "score", spec=SPEC, labels={"team": "text"})
    assert mactl("get", "pl", "-n", "demo", "-l", "team=vision", "-o", "name").out == "pipeline/train\n"
    query = mactl("get", "pl", "-n", "demo", "--field-selector", "metadata.name=score", "-o", "name")
    assert query.out == "pipeline/score\n"


def test_get_goes_through_all_pages(
    anywhere: Platform, make: Make, mactl: Mactl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("michelangelo.cli.get._PAGE", 3)
    for i in range(8):
        make("Pipeline", f"p{i}", spec=SPEC)
    assert len(mactl("get", "pl", "-n", "demo", "-o", "name").out.splitlines()) == 8
    assert len(mactl("get", "pl", "-n", "demo", "-o", "name", "--limit", "4").out.splitlines()) == 4


def test_get_names_all_that_is_missing_and_shows_the_rest(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    make("Pipeline", "train", spec=SPEC)
    result = mactl("get", "pl", "train", "one", "two", "-n", "demo", "-o", "name")
    assert result.code == 1
    assert result.out == "pipeline/train\n"
    assert '"one"' in result.err
    assert '"two"' in result.err


def test_get_of_nothing_says_where_it_looked(platform: Platform, mactl: Mactl) -> None:
    result = mactl("get", "pr", "-n", "demo")
    assert (result.code, result.out) == (0, "")
    assert "project demo" in result.err


def test_get_of_an_unknown_kind_lists_the_kinds(mactl: Mactl) -> None:
    result = mactl("get", "widgets")
    assert result.code == 2
    assert "pipeline_run" in result.err


def test_get_watch_prints_what_changes(platform: Platform, make: Make, home: Path) -> None:
    make("Pipeline", "train", spec=SPEC)
    command = [sys.executable, "-u", "-m", "michelangelo.cli", "get", "pl", "-n", "demo", "-w", "-o", "name"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "pipeline/train\n"
            make("Pipeline", "score", spec=SPEC)
            assert process.stdout.readline() == "pipeline/score\n"
        finally:
            process.terminate()


def test_kind_group_gets_like_upstream(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    make("Pipeline", "train", spec=SPEC)
    assert mactl("pipeline", "get", "-n", "demo", "--name", "train", "-o", "name").out == "pipeline/train\n"
    assert mactl("pipeline", "get", "train", "-n", "demo", "-o", "name").out == "pipeline/train\n"


# --- describe, events -------------------------------------------------------------------------------------


def _event(make: Make, name: str, reason: str, kind: str = "Pipeline", about: str = "train", at: str = "10") -> None:
    involved = {"kind": kind, "name": about, "namespace": "demo"}
    when = f"2026-01-31T12:00:{at}Z"
    make(
        "Event", name, involvedObject=involved, reason=reason, message="it happened", type="Normal", lastTimestamp=when
    )


def test_describe_shows_fields_conditions_and_events(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    condition = {"type": "SourceValid", "status": "False", "reason": "NoFile", "message": "there is no flow.py"}
    make(
        "Pipeline", "train", spec=SPEC, status={"state": "Error", "conditions": [condition]}, labels={"team": "vision"}
    )
    _event(make, "e1", "SourceMissing")
    result = mactl("describe", "pipeline", "train", "-n", "demo")
    assert result.code == 0
    for text in ("team: ", "Uniflow Function:", "there is no flow.py", "SourceMissing"):
        assert text in result.out


def test_events_are_of_one_object_and_in_order(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    _event(make, "late", "Second", at="30")
    _event(make, "early", "First", at="20")
    _event(make, "other", "Elsewhere", about="score")
    lines = mactl("events", "-n", "demo", "--for", "pipeline/train").out.splitlines()
    assert "Elsewhere" not in " ".join(lines)
    assert [word for line in lines for word in line.split() if word in ("First", "Second")] == ["First", "Second"]


# --- apply ------------------------------------------------------------------------------------------------


def test_apply_creates_configures_and_leaves(anywhere: Platform, mactl: Mactl, tmp_path: Path) -> None:
    file = _file(tmp_path, _pipeline("train", description="one"))
    assert mactl("apply", "-f", file).out == "pipeline/train created\n"
    assert mactl("apply", "-f", file).out == "pipeline/train unchanged\n"
    _file(tmp_path, _pipeline("train"))
    assert mactl("apply", "-f", file).out == "pipeline/train configured\n"
    assert "description" not in anywhere.client.get("Pipeline", "train", namespace="demo")["spec"]


def test_apply_keeps_what_others_set(anywhere: Platform, mactl: Mactl, tmp_path: Path) -> None:
    file = _file(tmp_path, _pipeline("train"))
    mactl("apply", "-f", file)
    patch = {"metadata": {"labels": {"theirs": "yes"}}}
    anywhere.client.patch("Pipeline", "train", patch, namespace="demo")
    _file(tmp_path, _pipeline("train", description="two"))
    mactl("apply", "-f", file)
    live = anywhere.client.get("Pipeline", "train", namespace="demo")
    assert (live["metadata"]["labels"]["theirs"], live["spec"]["description"]) == ("yes", "two")


def test_apply_makes_projects_before_what_lives_in_them(anywhere: Platform, mactl: Mactl, tmp_path: Path) -> None:
    pipeline = {**_pipeline("train"), "metadata": {"name": "train", "namespace": "fresh"}}
    project = {
        "apiVersion": "michelangelo.api/v2",
        "kind": "Project",
        "metadata": {"name": "fresh"},
        "spec": {"tier": 3},
    }
    result = mactl("apply", "-f", _file(tmp_path, pipeline, project))
    assert result.code == 0, result
    assert result.out == "project/fresh created\npipeline/train created\n"


def test_apply_accepts_upstream_spellings(anywhere: Platform, mactl: Mactl, tmp_path: Path) -> None:
    spec = {"type": "PIPELINE_TYPE_TRAIN", "manifest": {"type": "PIPELINE_MANIFEST_TYPE_UNIFLOW", "file_path": "a.py"}}
    obj = {**_pipeline("train"), "spec": spec}
    file = _file(tmp_path, obj)
    assert mactl("apply", "-f", file).out == "pipeline/train created\n"
    assert mactl("apply", "-f", file).out == "pipeline/train unchanged\n"


def test_apply_says_all_errors_with_their_lines_and_writes_nothing(
    anywhere: Platform, mactl: Mactl, tmp_path: Path
) -> None:
    good, bad = _pipeline("good"), _pipeline("Bad_Name", colour="red", type="Dance")
    result = mactl("apply", "-f", _file(tmp_path, good, bad))
    assert result.code == 2
    for text in ("objects.yaml:16", "metadata.name", "spec.colour", "spec.type"):
        assert text in result.err
    assert anywhere.client.list("Pipeline", namespace="demo").items == []


def test_apply_of_a_broken_file_writes_nothing_of_the_others(platform: Platform, mactl: Mactl, tmp_path: Path) -> None:
    _file(tmp_path, _pipeline("good"), name="a.yaml")
    (tmp_path / "b.yaml").write_text("kind: [")
    result = mactl("apply", "-f", str(tmp_path))
    assert result.code == 2
    assert "b.yaml:1" in result.err
    assert platform.client.list("Pipeline", namespace="demo").items == []


def test_apply_dry_run_changes_nothing(anywhere: Platform, mactl: Mactl, tmp_path: Path) -> None:
    result = mactl("apply", "-f", _file(tmp_path, _pipeline("train")), "--dry-run")
    assert result.out == "pipeline/train created (dry run)\n"
    assert anywhere.client.list("Pipeline", namespace="demo").items == []


def test_apply_reads_standard_input(platform: Platform, home: Path) -> None:
    command = [sys.executable, "-m", "michelangelo.cli", "apply", "-f", "-"]
    text = yaml.safe_dump(_pipeline("train"))
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "pipeline/train created\n")


def test_apply_refuses_another_project_than_the_files(platform: Platform, mactl: Mactl, tmp_path: Path) -> None:
    result = mactl("apply", "-f", _file(tmp_path, _pipeline("train")), "-n", "local")
    assert result.code == 2
    assert "'demo'" in result.err


def test_apply_of_a_changed_immutable_spec_names_the_field(anywhere: Platform, mactl: Mactl, tmp_path: Path) -> None:
    run = {**_pipeline("run-1"), "kind": "PipelineRun", "spec": {"pipeline": {"name": "train"}}}
    file = _file(tmp_path, run)
    assert mactl("apply", "-f", file).code == 0
    _file(tmp_path, {**run, "spec": {"pipeline": {"name": "other"}}})
    result = mactl("apply", "-f", file)
    assert result.code != 0
    assert "spec.pipeline" in result.err
    assert "objects.yaml:" in result.err


# --- delete -----------------------------------------------------------------------------------------------


def _names(platform: Platform) -> set[str]:
    return {one["metadata"]["name"] for one in platform.client.list("Pipeline", namespace="demo").items}


def test_delete_by_name_label_and_file(anywhere: Platform, make: Make, mactl: Mactl, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        make("Pipeline", name, spec=SPEC, labels={"half": "first" if name in "ab" else "second"})
    assert mactl("delete", "pl", "a", "-n", "demo").out == "pipeline/a deleted\n"
    assert mactl("delete", "pl", "-l", "half=first", "-n", "demo").out == "pipeline/b deleted\n"
    assert mactl("delete", "-f", _file(tmp_path, _pipeline("c"))).out == "pipeline/c deleted\n"
    assert _names(anywhere) == {"d"}
    assert mactl("delete", "pl", "--all", "-n", "demo").code == 0
    assert _names(anywhere) == set()


def test_delete_of_what_is_missing_fails_but_deletes_the_rest(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    make("Pipeline", "a", spec=SPEC)
    result = mactl("delete", "pl", "missing", "a", "-n", "demo")
    assert (result.code, result.out) == (1, "pipeline/a deleted\n")
    assert "missing" in result.err
    assert mactl("delete", "pl", "missing", "-n", "demo", "--ignore-not-found").code == 0


def test_delete_without_a_choice_deletes_nothing(platform: Platform, make: Make, mactl: Mactl) -> None:
    make("Pipeline", "a", spec=SPEC)
    assert mactl("delete", "pl", "-n", "demo").code == 2
    assert _names(platform) == {"a"}


# --- edit -------------------------------------------------------------------------------------------------


def _editor(folder: Path, *commands: str) -> str:
    """An editor that runs one `sed` command per call, and keeps what it was shown."""
    script = folder / "editor.sh"
    (folder / "calls").write_text("")
    cases = "\n".join(f'  {i}) sed -i {command!r} "$1" ;;' for i, command in enumerate(commands, 1))
    script.write_text(
        f'#!/bin/sh\necho x >> {folder}/calls\ncp "$1" {folder}/shown\n'
        f"case $(wc -l < {folder}/calls) in\n{cases}\nesac\n"
    )
    script.chmod(0o755)
    return str(script)


def test_edit_writes_what_was_changed(anywhere: Platform, make: Make, mactl: Mactl, tmp_path: Path) -> None:
    make("Pipeline", "train", spec={**SPEC, "description": "old words"})
    result = mactl("edit", "pl", "train", "-n", "demo", "--editor", _editor(tmp_path, "s/old words/new words/"))
    assert (result.code, result.out) == (0, "pipeline/train edited\n"), result
    assert anywhere.client.get("Pipeline", "train", namespace="demo")["spec"]["description"] == "new words"


def test_edit_shows_the_error_and_asks_again(anywhere: Platform, make: Make, mactl: Mactl, tmp_path: Path) -> None:
    make("Pipeline", "train", spec=SPEC)
    editor = _editor(tmp_path, "s/type: Train/type: Dance/", "s/type: Dance/type: Eval/")
    assert mactl("edit", "pl", "train", "-n", "demo", "--editor", editor).code == 0
    assert "# " in (tmp_path / "shown").read_text()
    assert "Dance" in (tmp_path / "shown").read_text()
    assert anywhere.client.get("Pipeline", "train", namespace="demo")["spec"]["type"] == "Eval"


def test_edit_without_a_change_writes_nothing(platform: Platform, make: Make, mactl: Mactl, tmp_path: Path) -> None:
    before = make("Pipeline", "train", spec=SPEC)
    result = mactl("edit", "pl", "train", "-n", "demo", "--editor", _editor(tmp_path, ""))
    assert (result.code, result.out) == (0, "")
    assert platform.client.get("Pipeline", "train", namespace="demo") == before


# --- wait -------------------------------------------------------------------------------------------------


def test_wait_returns_when_the_state_comes(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    make("PipelineRun", "run-1", spec={"pipeline": {"name": "train"}}, status={"state": "Running"})

    def finish() -> None:
        patch = {"status": {"state": "Succeeded"}}
        anywhere.client.patch("PipelineRun", "run-1", patch, namespace="demo", subresource="status")

    timer = threading.Timer(0.1, finish)
    timer.start()
    result = mactl("wait", "pr/run-1", "-n", "demo", "--for=state=Succeeded", "--timeout=20s")
    timer.join()
    assert (result.code, result.out) == (0, "pipeline_run/run-1 condition met\n"), result


def test_wait_ends_when_the_state_can_no_longer_come(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    status = {"state": "Failed", "errorMessage": "task train failed"}
    make("PipelineRun", "run-1", spec={"pipeline": {"name": "train"}}, status=status)
    result = mactl("wait", "pr/run-1", "-n", "demo", "--for=state=Succeeded")
    assert result.code == 1
    assert "task train failed" in result.err


@pytest.mark.parametrize(
    "wanted",
    [
        "condition=Ready",
        "condition=ready=true",
        "jsonpath={.status.state}=Ready",
        "jsonpath={.status.conditions[0].type}",
    ],
)
def test_wait_understands_conditions_and_paths(platform: Platform, make: Make, mactl: Mactl, wanted: str) -> None:
    condition = {"type": "Ready", "status": "True"}
    make("Pipeline", "train", spec=SPEC, status={"state": "Ready", "conditions": [condition]})
    assert mactl("wait", "pipeline/train", "-n", "demo", f"--for={wanted}").code == 0


def test_wait_gives_up_after_its_time(platform: Platform, make: Make, mactl: Mactl) -> None:
    make("Pipeline", "train", spec=SPEC)
    result = mactl("wait", "pipeline/train", "-n", "demo", "--for=condition=Ready", "--timeout=50ms")
    assert result.code == 3
    assert "within 0.05 s" in result.err


def test_wait_for_deletion(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    assert mactl("wait", "pipeline/train", "-n", "demo", "--for=delete").code == 0
    assert mactl("wait", "pipeline/train", "-n", "demo", "--for=condition=Ready").code == 1


def test_wait_refuses_what_it_does_not_understand(mactl: Mactl) -> None:
    result = mactl("wait", "pipeline/train", "--for=sunshine")
    assert result.code == 2
    assert "sunshine" in result.err


# --- runs -------------------------------------------------------------------------------------------------


def test_kill_asks_in_the_spec(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    make("PipelineRun", "run-1", spec={"pipeline": {"name": "train"}}, status={"state": "Running"})
    assert mactl("pipeline_run", "kill", "run-1", "-n", "demo", "--yes").code == 0
    assert anywhere.client.get("PipelineRun", "run-1", namespace="demo")["spec"]["kill"] is True


def test_kill_of_an_ended_run_changes_nothing(platform: Platform, make: Make, mactl: Mactl) -> None:
    make("PipelineRun", "run-1", spec={"pipeline": {"name": "train"}}, status={"state": "Failed"})
    assert "already ended: Failed" in mactl("pipeline_run", "kill", "run-1", "-n", "demo").out
    assert "kill" not in platform.client.get("PipelineRun", "run-1", namespace="demo")["spec"]


def test_signal_is_an_object_that_the_run_finds(anywhere: Platform, make: Make, mactl: Mactl) -> None:
    make("PipelineRun", "run-1", spec={"pipeline": {"name": "train"}})
    payload = '{"approved": true}'
    result = mactl("pipeline_run", "signal", "run-1", "approval", "-n", "demo", "--payload", payload)
    assert result.code == 0, result
    found = anywhere.client.list("Signal", namespace="demo", label_selector="michelangelo/pipeline-run=run-1").items
    assert [(one["spec"]["name"], one["spec"]["payload"]) for one in found] == [("approval", {"approved": True})]


def test_signal_to_a_missing_run_is_refused(platform: Platform, mactl: Mactl) -> None:
    assert mactl("pipeline_run", "signal", "run-9", "approval", "-n", "demo").code == 1
    assert platform.client.list("Signal", namespace="demo").items == []


def test_missing_object_error_is_one_sentence(platform: Platform, mactl: Mactl) -> None:
    result = mactl("describe", "pipeline", "train", "-n", "demo")
    assert result.code == errors.NotFoundError.exit_code
    assert result.err.startswith("error: ")
    assert len(result.err.splitlines()) == 1
    assert "mactl get pipelines -A" in result.err


def test_delete_of_an_unknown_kind_names_the_line(platform: Platform, mactl: Mactl, tmp_path: Path) -> None:
    path = _file(tmp_path, {"apiVersion": "michelangelo.api/v2", "kind": "Widget", "metadata": {"name": "a"}})
    result = mactl("delete", "-f", path)
    assert result.code == 2
    assert f"{path}:2: there is no kind 'Widget'" in result.err
