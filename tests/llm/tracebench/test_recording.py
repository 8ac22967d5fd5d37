"""Recordings and their store: asked, kept whole, found again, judged anew; and never believed when damaged."""

from __future__ import annotations

import concurrent.futures
import json
from pathlib import Path

import pytest
from tests.llm.tracebench import answering

from michelangelo import errors
from michelangelo.llm.scorer.engine import Completion, Request, Timing, TokenLogprob
from michelangelo.llm.scorer.engines.stub import StubConfig, StubEngine
from michelangelo.llm.tracebench import recorder, recording, store, suite
from michelangelo.llm.tracebench.recorder import Options


def test_every_repeat_is_asked_and_kept_in_the_order_of_the_suite() -> None:
    made = answering.recorded(answering.yes_suite(40, repeats=3), answering.by_rate(0.5, seed=1))
    assert [(row.answer.case, row.answer.repeat) for row in made.rows] == [
        (f"case-{i}", repeat) for i in range(40) for repeat in range(3)
    ]
    assert {row.answer.latency_seconds for row in made.rows} == {0.5}
    assert 30 < sum(row.passed for row in made.rows) < 90


def test_the_version_adds_system_prompt_template_and_sampling() -> None:
    document = {"id": "a", "prompt": "2 + 2", "vars": {"unit": "apples"}, "sampling": {"seed": 5, "stop": ["."]}}
    asked = suite.from_document({"cases": [{**document, "repeats": 2}]})
    engine = answering.saying("4")
    options = {"system": "Count.", "template": "{{ prompt }} {{ vars.unit }}?", "sampling": {"temperature": 0.5}}
    made = answering.recorded(asked, engine, **options)
    assert engine.asked[0].messages == (
        {"role": "system", "content": "Count."},
        {"role": "user", "content": "2 + 2 apples?"},
    )
    assert [(r.sampling.seed, r.sampling.temperature, r.sampling.stop) for r in engine.asked] == [
        (5, 0.5, (".",)),
        (6, 0.5, (".",)),
    ]
    assert made.header.settings["system"] == "Count."


@pytest.mark.parametrize(
    "template", ["{{ prompt", "{{ vars.missing }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}"]
)
def test_a_template_that_fails_is_refused(template: str) -> None:
    with pytest.raises(errors.SuiteError, match="template"):
        answering.recorded(answering.yes_suite(1), answering.saying("x"), template=template)


def test_errors_of_the_engine_are_failed_answers_of_their_own_class() -> None:
    def answer(request: Request) -> Completion:
        if request.prompt == "question 1":
            return Completion(id=request.id, error="500 from the server", finish_reason="error")
        if request.prompt == "question 2":
            return Completion(id=request.id, text="ye", finish_reason="cancelled")
        return Completion(id=request.id, text="yes")

    made = answering.recorded(answering.yes_suite(4), answering.Answering(answer))
    assert [row.passed for row in made.rows] == [True, False, False, True]
    assert [row.outcomes[0].error for row in made.rows] == ["", "engine", "engine", ""]


def test_an_engine_that_makes_up_requests_is_not_believed() -> None:
    with pytest.raises(errors.EngineError, match="does not have: 'other'"):
        answering.recorded(answering.yes_suite(1), answering.Answering(lambda request: Completion(id="other")))


def test_what_an_engine_measured_is_kept_if_it_is_a_number() -> None:
    logprobs = (TokenLogprob("ye", -0.5), TokenLogprob("s", -1.5))

    def answer(request: Request) -> Completion:
        timing = Timing(1.0, 1.25, 3.0)
        return Completion(id=request.id, text="yes\udc80", logprobs=logprobs, timing=timing, cost_usd=float("nan"))

    found = answering.recorded(answering.yes_suite(1), answering.Answering(answer)).rows[0].answer
    assert (found.mean_logprob, found.first_token_seconds, found.latency_seconds) == (-1.0, 0.25, 2.0)
    assert (found.text, found.cost_usd) == ("yes?", None)


def test_a_huge_answer_is_cut_and_said() -> None:
    made = answering.recorded(answering.yes_suite(1), answering.saying("x" * 3_000_000))
    assert (len(made.rows[0].answer.text), made.rows[0].answer.is_cut) == (1_000_000, True)


def test_a_real_engine_with_faults_is_recorded() -> None:
    cases = [{"id": f"c{i}", "prompt": f"say {i}" + (" [[stub error]]" if i == 2 else "")} for i in range(5)]
    asked = suite.from_document({"defaults": {"sampling": {"logprobs": 0}}, "cases": cases})
    made = recorder.record(asked, StubEngine(StubConfig(faults=True)), Options(embeds=False), answering.NOW)
    assert [row.passed for row in made.rows] == [True, True, False, True, True]
    assert made.rows[0].answer.mean_logprob is not None


# --- the store --------------------------------------------------------------------------------------------


def test_versions_count_up_and_are_found_by_every_reference(tmp_path: Path) -> None:
    made = answering.recorded(answering.yes_suite(3), answering.saying("yes"), name="main")
    first, second = store.save(tmp_path, made), store.save(tmp_path, made)
    assert (first.reference, second.reference) == ("main@1", "main@2")
    assert store.read(tmp_path, "main").header == second
    assert store.read(tmp_path, "main@1").header == first
    assert store.read(tmp_path, first.digest[:12]).header == first
    assert store.read(tmp_path, str(tmp_path / "main" / "000001")).header == first
    assert [header.reference for header in store.headers(tmp_path)] == ["main@1", "main@2"]


def test_what_is_stored_is_read_as_it_was(tmp_path: Path) -> None:
    made = answering.recorded(answering.yes_suite(5, repeats=2, slices=2), answering.by_rate(0.5, seed=1))
    store.save(tmp_path, made)
    read = store.read(tmp_path, "main")
    assert read.rows == made.rows
    assert read.suite.digest == made.suite.digest


def test_a_recording_cannot_be_changed_unseen(tmp_path: Path) -> None:
    store.save(tmp_path, answering.recorded(answering.yes_suite(5), answering.saying("yes")))
    folder = tmp_path / "main" / "000001"
    assert all((folder / name).stat().st_mode & 0o222 == 0 for name in recording.FILES)
    rows = (folder / "rows.jsonl").read_bytes()
    for damaged in (rows[:-30], rows.replace(b"yes", b"noo"), b""):
        (folder / "rows.jsonl").chmod(0o644)
        (folder / "rows.jsonl").write_bytes(damaged)
        with pytest.raises(errors.SuiteError, match="is not what was recorded"):
            store.read(tmp_path, "main")
    (folder / "rows.jsonl").unlink()
    with pytest.raises(errors.SuiteError, match=r"rows\.jsonl cannot be read"):
        store.read(tmp_path, "main")
    (folder / "recording.json").chmod(0o644)
    (folder / "recording.json").write_text("{}")
    with pytest.raises(errors.SuiteError, match="no header"):
        store.read(tmp_path, "main")


def test_a_recording_of_a_later_format_is_refused(tmp_path: Path) -> None:
    store.save(tmp_path, answering.recorded(answering.yes_suite(1), answering.saying("yes")))
    file = tmp_path / "main" / "000001" / "recording.json"
    document = json.loads(file.read_text())
    file.chmod(0o644)
    file.write_text(json.dumps({**document, "format": 99}))
    with pytest.raises(errors.SuiteError, match="has format 99"):
        store.read(tmp_path, "main")


def test_recordings_stored_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    made = answering.recorded(answering.yes_suite(2), answering.saying("yes"))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: store.save(tmp_path, made).version, range(16)))
    assert sorted(found) == list(range(1, 17))
    assert sorted(path.name for path in (tmp_path / "main").iterdir()) == [f"{n:06d}" for n in range(1, 17)]


@pytest.mark.parametrize("reference", ["other", "main@9", "main@x", "deadbeefdeadbeef", "../main"])
def test_a_reference_to_nothing_says_what_there_is(tmp_path: Path, reference: str) -> None:
    store.save(tmp_path, answering.recorded(answering.yes_suite(1), answering.saying("yes")))
    with pytest.raises(errors.SuiteError, match="main"):
        store.read(tmp_path, reference)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 101, "a@b"])
def test_names_that_are_paths_are_refused(name: str) -> None:
    with pytest.raises(errors.SuiteError, match="no name for a recording"):
        store.check_name(name)


# --- judging anew -----------------------------------------------------------------------------------------


def test_answers_are_judged_anew_without_an_engine(tmp_path: Path) -> None:
    store.save(tmp_path, answering.recorded(answering.yes_suite(6), answering.saying("Yes!")))
    old = store.read(tmp_path, "main")
    assert not any(row.passed for row in old.rows)
    lenient = answering.yes_suite(6, checks=[{"regex": "(?i)^yes"}])
    made = recorder.rescored(old, lenient, Options(name="main"), answering.NOW)
    assert all(row.passed for row in made.rows)
    header = store.save(tmp_path, made)
    assert (header.version, header.source, header.parent) == (2, "rescoring", old.header.digest)
    assert header.engine == old.header.engine


def test_cases_that_ask_something_else_are_not_judged_anew() -> None:
    old = answering.recorded(answering.yes_suite(4), answering.saying("yes"))
    cases = [{"id": "case-0", "prompt": "question 0"}, {"id": "case-1", "prompt": "another"}]
    made = recorder.rescored(old, suite.from_document({"cases": cases}), Options(), answering.NOW)
    assert [row.answer.case for row in made.rows] == ["case-0"]
    assert made.header.notes == (
        "1 cases of the suite have no answer here: case-1",
        "3 recorded cases are asked otherwise or no more: case-1, case-2, case-3",
    )
    with pytest.raises(errors.SuiteError, match="asks nothing that"):
        recorder.rescored(old, suite.from_document({"cases": cases[1:]}), Options(), answering.NOW)
