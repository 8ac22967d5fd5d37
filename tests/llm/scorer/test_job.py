"""A whole job over the stub engine: formats in and out, tasks, bad rows, resumption, refusals, the report."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.llm.scorer import scoring_jobs

from michelangelo import errors
from michelangelo.llm.scorer import config as configuration
from michelangelo.llm.scorer import job, manifest
from michelangelo.llm.scorer.config import ErrorBudget, ReplicaConfig
from michelangelo.llm.scorer.dispatching import wanted_replicas
from michelangelo.llm.scorer.engine import Request
from michelangelo.llm.scorer.engines.stub import StubConfig, StubEngine
from michelangelo.llm.scorer.manifest import JobFolder, Lock

FAULTS = {"engine": {"kind": "stub", "faults": True, "capacity": 4}}


def answer(prompt: str) -> str:
    """What the stub says to it, by itself."""
    engine = StubEngine(StubConfig())
    engine.submit(Request("a", prompt=prompt))
    return next(iter(engine.poll())).text


def test_rows_come_out_in_order_with_their_answers(tmp_path: Path) -> None:
    rows = scoring_jobs.rows_of(40)
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    report = scoring_jobs.score(source, tmp_path / "out.jsonl", replicas={"max": 3}, shard_rows=3)
    found = scoring_jobs.lines(tmp_path / "out.jsonl")
    assert [line["row"] for line in found] == list(range(40))
    assert [line["id"] for line in found] == [row["id"] for row in rows]
    assert [line["text"] for line in found] == [answer(row["prompt"]) for row in rows]
    assert report["rows"] == {"total": 40, "scored": 40, "failed": 0, "rescored": 0, "damaged_lines": 0}
    assert report["tokens"]["output"] == sum(line["output_tokens"] for line in found)
    assert report["latency_seconds"]["p95"] >= report["latency_seconds"]["p50"]


@pytest.mark.parametrize("sections", [{"shard_rows": 1}, {"shard_rows": 100}, {"replicas": {"max": 4}}, {}])
def test_bytes_do_not_depend_on_who_scores_what(tmp_path: Path, sections: dict[str, Any]) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", [*scoring_jobs.rows_of(30), "torn {", {"prompt": 7}])
    scoring_jobs.score(source, tmp_path / "one.jsonl", shard_rows=7)
    scoring_jobs.score(source, tmp_path / "other.jsonl", **sections)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "other.jsonl").read_bytes()


def test_formats_of_input_give_the_same_answers(tmp_path: Path) -> None:
    import datasets

    rows = scoring_jobs.rows_of(12)
    plain = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pa.OSFile(str(tmp_path / "in.jsonl.zst"), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as packed:
        packed.write(plain.read_bytes())
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=5)
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "hf")
    expected = None
    for name in ("in.jsonl", "in.jsonl.gz", "in.jsonl.zst", "in.parquet", "hf"):
        scoring_jobs.score(tmp_path / name, tmp_path / "out.jsonl", folder=str(tmp_path / f"job-{name}"), shard_rows=5)
        found = (tmp_path / "out.jsonl").read_bytes()
        assert found == (expected or found), name
        expected = found


def test_input_and_output_may_be_behind_urls(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/scorer/in.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in scoring_jobs.rows_of(6)))
    config = configuration.parse(
        {
            "input": {"path": "memory://scorer/in.jsonl"},
            "output": {"path": "memory://scorer/out.jsonl"},
            "engine": {"kind": "stub"},
            "replicas": {"runner": "thread"},
            "folder": str(tmp_path / "job"),
        }
    )
    assert job.score(config).report["rows"]["scored"] == 6
    assert [json.loads(line)["row"] for line in memory.cat("/scorer/out.jsonl").splitlines()] == list(range(6))
    assert [path["name"] for path in memory.ls("/scorer")] == ["/scorer/in.jsonl", "/scorer/out.jsonl"]


def test_parquet_output_has_the_lines_as_columns(tmp_path: Path) -> None:
    rows = [*scoring_jobs.rows_of(9), "no json"]
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    scoring_jobs.score(source, tmp_path / "out.jsonl", output={"keep": ["id"]}, sampling={"logprobs": 1})
    scoring_jobs.score(source, tmp_path / "out.parquet", output={"keep": ["id"]}, sampling={"logprobs": 1})
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    for line, row in zip(scoring_jobs.lines(tmp_path / "out.jsonl"), table, strict=True):
        for name in ("row", "id", "text", "error", "output_tokens"):
            assert row[name] == line.get(name)
        for name in ("logprobs", "input"):
            assert (row[name] and json.loads(row[name])) == line.get(name)


def test_batch_file_is_answered_as_a_batch(tmp_path: Path) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    rows: list[Any] = [
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body},
        {"custom_id": "b", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Hi", "logprobs": 1}},
        {"custom_id": "c", "method": "POST", "url": "/v1/embeddings", "body": {"input": "Hi", "model": "m"}},
        {"custom_id": "d", "method": "GET", "url": "/v1/images", "body": {}},
        {"custom_id": "e", "method": "POST", "url": "/v1/chat/completions", "body": {**body, "n": 2, "stop": [1]}},
        "torn",
    ]
    source = scoring_jobs.write_rows(tmp_path / "batch.jsonl", rows)
    scoring_jobs.score(source, tmp_path / "out.jsonl", input={"format": "openai"})
    chat, text, vector, *bad = scoring_jobs.lines(tmp_path / "out.jsonl")
    assert [chat["custom_id"], text["custom_id"], vector["custom_id"]] == ["a", "b", "c"]
    choice = chat["response"]["body"]["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert chat["response"]["body"]["usage"]["completion_tokens"] == 3
    assert (choice["finish_reason"], chat["error"]) == ("length", None)
    assert len(text["response"]["body"]["choices"][0]["logprobs"]["tokens"]) > 0
    assert len(vector["response"]["body"]["data"][0]["embedding"]) == 64
    messages = [one["error"]["message"] for one in bad]
    assert "method must be POST; url must be one of" in messages[0]
    assert "body.n: 2 is not supported" in messages[1]
    assert "malformed JSON" in messages[2]
    assert [one["response"] for one in bad] == [None, None, None]
    assert [one["custom_id"] for one in bad] == ["d", "e", None]


def test_choices_are_weighed_and_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"{n}?", "options": ["yes", "no way"], "right": n % 2} for n in range(20)]
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", [*rows, {"prompt": "?", "options": []}])
    choices = {"column": "options", "answer_column": "right"}
    report = scoring_jobs.score(source, tmp_path / "out.jsonl", task="choices", choices=choices)
    *found, bad = scoring_jobs.lines(tmp_path / "out.jsonl")
    for line, row in zip(found, rows, strict=True):
        assert line["choice"] == max(range(2), key=line["choice_logprobs"].__getitem__)
        assert line["choice_text"] == row["options"][line["choice"]]
        assert line["correct"] == (line["choice"] == row["right"])
    right = sum(line["correct"] for line in found)
    assert report["accuracy"] == {"share": right / 20, "rows": 20}
    assert "no list of texts" in bad["error"]


def test_judge_answers_become_scores(tmp_path: Path) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", [{"question": "Why?", "answer": "So."}, {"question": "?"}])
    prompt = {"template": "Rate {{ answer }} to {{ question }} from 1 to 5.", "system": "You judge."}
    scoring_jobs.score(source, tmp_path / "out.jsonl", task="judge", prompt=prompt)
    good, bad = scoring_jobs.lines(tmp_path / "out.jsonl")
    assert good["score"] in range(1, 6)
    assert good["scaled_score"] == (good["score"] - 1) / 4
    assert good["verdict"] == {"score": good["score"]}
    assert "'answer' is undefined" in bad["error"]


@pytest.mark.parametrize(("task", "column"), [("embed", "embedding"), ("reward", "score")])
def test_other_tasks_have_their_columns(tmp_path: Path, task: str, column: str) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", scoring_jobs.rows_of(3))
    scoring_jobs.score(source, tmp_path / "out.jsonl", task=task)
    assert all(line[column] is not None for line in scoring_jobs.lines(tmp_path / "out.jsonl"))


def test_schema_makes_documents_and_short_ones_fail(tmp_path: Path) -> None:
    rows = [{"prompt": "a"}, {"prompt": "b", "sampling": {"max_tokens": 1}}, {"prompt": "c", "sampling": {"top_p": 7}}]
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    scoring_jobs.score(source, tmp_path / "out.jsonl", sampling={"json_schema": schema})
    good, short, wrong = scoring_jobs.lines(tmp_path / "out.jsonl")
    assert isinstance(good["json"]["n"], int)
    assert "no whole JSON document" in short["error"]
    assert "the column sampling: top_p" in wrong["error"]


# --- what goes wrong --------------------------------------------------------------------------------------


def test_bad_rows_are_recorded_and_the_others_scored(tmp_path: Path) -> None:
    rows = [*scoring_jobs.rows_of(3), "{", "[1]", {"other": 1}, {"prompt": 3}, {"prompt": "[[stub error]]", "id": "x"}]
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    report = scoring_jobs.score(source, tmp_path / "out.jsonl", **FAULTS)
    found = [line["error"] for line in scoring_jobs.lines(tmp_path / "out.jsonl")]
    assert found[:3] == [None, None, None]
    reasons = ["malformed JSON", "no JSON object", "no column prompt", "no text but int"]
    for reason, error in zip(reasons, found[3:7], strict=True):
        assert reason in error
    assert found[7] == "the stub engine fails this row, as its prompt asks"
    assert report["rows"]["failed"] == sum(one["rows"] for one in report["errors"]) == 5


def test_hung_request_times_out_and_the_others_go_on(tmp_path: Path) -> None:
    rows = scoring_jobs.rows_of(10)
    rows[4]["prompt"] = "[[stub hang]]"
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    report = scoring_jobs.score(source, tmp_path / "out.jsonl", limits={"request_seconds": 0.1}, **FAULTS)
    assert report["rows"]["failed"] == 1
    assert "longer than 0.1 seconds" in scoring_jobs.lines(tmp_path / "out.jsonl")[4]["error"]


def test_dead_engine_is_replaced(tmp_path: Path) -> None:
    rows = scoring_jobs.rows_of(12)
    rows[5]["prompt"] = f"[[stub die once={tmp_path}/once]]"
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    report = scoring_jobs.score(source, tmp_path / "out.jsonl", **FAULTS)
    assert report["rows"]["failed"] == 0
    assert 1 <= report["rows"]["rescored"] <= 4
    assert [one["name"] for one in report["replicas"] if one["error"]] == ["r0"]


def test_row_that_ends_engines_is_given_up_and_those_beside_it_are_not(tmp_path: Path) -> None:
    rows = scoring_jobs.rows_of(12)
    rows[5]["prompt"] = "[[stub die]]"
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    report = scoring_jobs.score(source, tmp_path / "out.jsonl", **FAULTS)
    failed = [line for line in scoring_jobs.lines(tmp_path / "out.jsonl") if line["error"]]
    assert [line["row"] for line in failed] == [5]
    assert "it ended 2 engines while it was alone with them" in failed[0]["error"]
    assert len([one for one in report["replicas"] if one["error"]]) in (2, 3)


def test_engine_that_always_dies_ends_the_job(tmp_path: Path) -> None:
    rows = [{"prompt": "[[stub die]]"} for _ in range(9)]
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    limits = {"max_restarts": 2, "max_deaths_per_row": 9}
    with pytest.raises(errors.EngineError, match="3 engines were lost and no row was done in between"):
        scoring_jobs.score(source, tmp_path / "out.jsonl", limits=limits, **FAULTS)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("budget", ["3", "10%"])
def test_too_many_errors_stop_the_job_and_a_larger_limit_goes_on(tmp_path: Path, budget: str) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", ["{"] * 20 + scoring_jobs.rows_of(20))
    with pytest.raises(errors.ScoringError, match=r"rows failed, more than limits\.max_errors"):
        scoring_jobs.score(source, tmp_path / "out.jsonl", limits={"max_errors": budget}, shard_rows=5)
    report = scoring_jobs.score(source, tmp_path / "out.jsonl", limits={"max_errors": "20"}, shard_rows=5)
    assert (report["rows"]["failed"], report["rows"]["rescored"]) == (20, 0)


def test_share_of_errors_waits_for_rows() -> None:
    budget = ErrorBudget(share=0.1)
    assert not budget.is_over(failed=50, done=99, total=1000)
    assert budget.is_over(failed=11, done=100, total=1000)
    assert not budget.is_over(failed=10, done=100, total=1000)
    assert budget.is_over(failed=5, done=20, total=20)


# --- again ------------------------------------------------------------------------------------------------


def test_stopped_job_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", scoring_jobs.rows_of(60))
    scoring_jobs.score(source, tmp_path / "whole.jsonl")
    config = scoring_jobs.config_of(source, tmp_path / "out.jsonl", shard_rows=4)
    calls = iter(range(1000))
    outcome = job.score(config, should_stop=lambda: next(calls) >= 12)
    assert not outcome.is_complete
    assert not (tmp_path / "out.jsonl").exists()
    outcome = job.score(config)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert outcome.report["rows"]["total"] == 60
    assert outcome.report["sessions"] == 2


def test_finished_job_is_not_done_again(tmp_path: Path) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", scoring_jobs.rows_of(5))
    first = scoring_jobs.score(source, tmp_path / "out.jsonl")
    stamp = (tmp_path / "out.jsonl").stat().st_mtime_ns
    assert scoring_jobs.score(source, tmp_path / "out.jsonl") == first
    assert (tmp_path / "out.jsonl").stat().st_mtime_ns == stamp
    (tmp_path / "out.jsonl").unlink()
    with pytest.raises(errors.ScoringError, match="start over with --fresh"):
        scoring_jobs.score(source, tmp_path / "out.jsonl")


def test_damaged_part_is_scored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", scoring_jobs.rows_of(20))
    scoring_jobs.score(source, tmp_path / "whole.jsonl")
    config = scoring_jobs.config_of(
        source, tmp_path / "no folder" / "out.jsonl", shard_rows=4, folder=f"{tmp_path}/job"
    )
    (tmp_path / "no folder").write_text("in the way")
    with pytest.raises(errors.SettingsError, match="cannot be written to"):
        job.score(config)
    (tmp_path / "no folder").unlink()
    calls = iter(range(1000))
    job.score(config, should_stop=lambda: next(calls) >= 8)
    parts = sorted((tmp_path / "job" / "parts").iterdir())
    assert parts, "no shard was done before the stop"
    parts[0].write_bytes(b"{}\n")
    job.score(config)
    assert (tmp_path / "no folder" / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sampling": {"max_tokens": 3}}, "sampling.max_tokens was 256, is 3"),
        ({"engine": {"kind": "stub", "name": "other"}}, 'engines.0.name was nothing, is "other"'),
        ({"input": {"limit": 7}}, "input.limit was 0, is 7"),
    ],
)
def test_changed_job_is_refused_with_what_differs(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", scoring_jobs.rows_of(9))
    scoring_jobs.score(source, tmp_path / "out.jsonl")
    before = (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(errors.ScoringError) as caught:
        scoring_jobs.score(source, tmp_path / "out.jsonl", **change)
    assert said in caught.value.message
    assert "--fresh" in caught.value.message
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_changed_input_is_refused_and_a_touched_one_is_not(tmp_path: Path) -> None:
    rows = scoring_jobs.rows_of(9)
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", rows)
    first = scoring_jobs.score(source, tmp_path / "out.jsonl")
    source.touch()
    assert scoring_jobs.score(source, tmp_path / "out.jsonl") == first
    scoring_jobs.write_rows(source, [*rows[:8], {"id": "q8", "prompt": "What is 9?"}])
    with pytest.raises(errors.ScoringError, match=r"in\.jsonl had 9 rows, has 9, or others"):
        scoring_jobs.score(source, tmp_path / "out.jsonl")
    outcome = job.score(scoring_jobs.config_of(source, tmp_path / "out.jsonl"), is_fresh=True)
    assert outcome.report["rows"]["scored"] == 9


def test_input_that_is_not_there_leaves_nothing_new_and_forgets_nothing(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    config = scoring_jobs.config_of(source, tmp_path / "out.jsonl")
    with pytest.raises(errors.DatasetError, match="there is no such file"):
        job.score(config)
    assert list(tmp_path.iterdir()) == []
    scoring_jobs.write_rows(source, scoring_jobs.rows_of(9))
    job.score(config)
    content = source.read_bytes()
    source.unlink()
    with pytest.raises(errors.DatasetError, match="there is no such file"):
        job.score(config, is_fresh=True)
    source.write_bytes(content)
    assert job.score(config).report["rows"]["scored"] == 9
    sessions = [event for event in JobFolder(config.job_folder).events() if event["kind"] == "session"]
    assert len(sessions) == 1, "what was scored before was kept"


def test_second_driver_is_refused(tmp_path: Path) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", scoring_jobs.rows_of(9))
    config = scoring_jobs.config_of(source, tmp_path / "out.jsonl")
    with Lock(config.job_folder), pytest.raises(errors.ScoringError, match=r"process \d+ on .* works on this job"):
        job.score(config)
    assert job.score(config).is_complete


def test_record_of_a_shard_is_whoever_was_first(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    folder.done.mkdir()
    assert folder.commit(3, {"part": "a"})
    assert not folder.commit(3, {"part": "b"})
    assert folder.record(3) == {"part": "a"}
    assert folder.done_shards() == {3}
    (folder.done / "000003.json").write_bytes(b"00000000 {}\n")
    assert folder.record(3) is None
    assert folder.done_shards() == set()


def test_events_survive_a_torn_line(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    folder.add_event("session", number=1)
    with open(tmp_path / "events.jsonl", "ab") as file:
        file.write(b'1234 {"kind": "lo')
    folder.add_event("session", number=2)
    assert [event["number"] for event in folder.events()] == [1, 2]


def test_differences_are_named_leaf_by_leaf() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "d": "x"}}
    now = {"a": 1, "b": {"c": [1, 3]}, "e": True}
    assert list(manifest.differences(before, now)) == [
        "b.c.1 was 2, is 3",
        'b.d was "x", is nothing',
        "e was nothing, is true",
    ]


# --- many -------------------------------------------------------------------------------------------------


def test_replicas_grow_with_what_waits() -> None:
    group = ReplicaConfig(min=1, max=8)
    assert wanted_replicas(group, live=1, waiting=0) == 0
    assert wanted_replicas(group, live=1, waiting=2) == 1
    assert wanted_replicas(group, live=1, waiting=3) == 8
    assert wanted_replicas(group, live=4, waiting=8) == 1


def test_replicas_of_several_kinds_share_a_job(tmp_path: Path) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", scoring_jobs.rows_of(200))
    kinds = [
        {
            "name": "slow",
            "runner": "thread",
            "price_per_hour": 1.0,
            "engine": {"kind": "stub", "latency_steps": 20_000},
        },
        {"name": "quick", "runner": "thread", "price_per_hour": 2.0, "engine": {"kind": "stub"}},
    ]
    config = scoring_jobs.config_of(source, tmp_path / "out.jsonl").model_dump()
    outcome = job.score(configuration.parse({**config, "replicas": kinds, "shard_rows": 8}))
    rows = {one["group"]: one["rows"] for one in outcome.report["replicas"]}
    assert rows["slow"] + rows["quick"] == 200
    assert rows["quick"] > rows["slow"]
    assert outcome.report["cost"]["per_million_output_tokens"] > 0


def test_planner_is_beside_the_measurement(tmp_path: Path) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", scoring_jobs.rows_of(20))
    prediction = {"model": "llama-3.1-8b", "hardware": "h100", "input_tokens": 100, "output_tokens": 20}
    report = scoring_jobs.score(source, tmp_path / "out.jsonl", prediction=prediction, replicas={"hardware": "h100"})
    before, after = report["prediction"]["before"], report["prediction"]["after"]
    assert (before["input_tokens"], before["output_tokens"]) == (100, 20)
    assert after["output_tokens"] == round(report["tokens"]["output"] / 20)
    assert after["error"] == pytest.approx(after["output_tokens_per_second"] / after["measured"] - 1)
    assert report["cost"]["hardware"] > 0
    page = (tmp_path / "out.jsonl.job" / "report.html").read_text()
    assert "<svg" in page
    assert "http" not in page.replace("http-equiv", "")


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    source = scoring_jobs.write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}, {"<script>alert(1)</script>": 1}])
    scoring_jobs.score(source, tmp_path / "<b>.jsonl")
    page = (tmp_path / "<b>.jsonl.job" / "report.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
