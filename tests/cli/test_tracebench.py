"""`mactl tracebench`, as a user runs it: record, list, compare, report, gate, watch; what it says of bad words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from michelangelo.cli import main

ENGINES = """
from michelangelo.llm.scorer.engine import Completion, Timing

class Model:
    name, tasks, capacity = "model", frozenset({"generate"}), 8

    def __init__(self, broken):
        self.broken, self.waiting = broken, []

    def submit(self, request):
        self.waiting.append(request)

    def poll(self, timeout=None):
        taken, self.waiting = self.waiting, []
        return [Completion(id=r.id, text=self.answer(r), timing=Timing(0.0, 0.1, 0.2)) for r in taken]

    def answer(self, request):
        number = int(request.prompt.split()[-1])
        return "no" if self.broken and number % 3 == 0 else "yes"

    def cancel(self, request_id):
        pass

    def close(self):
        pass

def model(broken=False):
    return Model(broken)
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `mactl tracebench WORDS` in a folder with a suite and two engines; exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    Path("engines.py").write_text(ENGINES)
    Path("good.yaml").write_text("kind: python\ntarget: engines.py:model\n")
    Path("bad.yaml").write_text("kind: python\ntarget: engines.py:model\nbroken: true\n")
    cases = [{"id": f"c{i}", "prompt": f"question {i}", "slices": {"third": str(i % 3)}} for i in range(150)]
    Path("suite.yaml").write_text(json.dumps({"defaults": {"checks": [{"exact": "yes"}]}, "cases": cases}))

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main.main(["tracebench", *words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def test_a_regression_is_recorded_compared_reported_and_gated(run: Run) -> None:
    code, out, _ = run("record", "suite.yaml", "--engine", "good.yaml", "--name", "old")
    assert (code, out.split()[0], "150 of 150 answers passed" in out) == (0, "old@1", True)
    run("record", "suite.yaml", "--engine", "bad.yaml", "--name", "new")
    code, out, _ = run("list", "-o", "json")
    assert [one["reference"] for one in json.loads(out)] == ["new@1", "old@1"]
    code, out, _ = run("compare", "old", "new@1")
    assert code == 0
    assert "regression:" in out
    assert "third=0" in out
    code, out, _ = run("gate", "old", "new", "--report", "r.html", "--report", "r.xml", "-o", "json")
    assert (code, json.loads(out)["verdict"]) == (1, "regression")
    assert Path("r.html").read_text().startswith("<!doctype html>")
    code, _, _ = run("report", "old", "new", "comment.md")
    assert (code, "regression" in Path("comment.md").read_text()) == (0, True)
    code, out, _ = run("gate", "old", "old@1")
    assert (code, "pass:" in out) == (0, True)


def test_too_few_cases_are_inconclusive(run: Run) -> None:
    Path("small.jsonl").write_text("".join(json.dumps({"id": str(i), "prompt": f"q {i}"}) + "\n" for i in range(9)))
    run("record", "small.jsonl", "--engine", "good.yaml")
    assert run("gate", "main", "main")[0] == 4
    assert run("gate", "main", "main", "--allow-inconclusive")[0] == 0


def test_answers_are_judged_anew_and_read_from_traces(run: Run) -> None:
    run("record", "suite.yaml", "--engine", "bad.yaml")
    document = json.loads(Path("suite.yaml").read_text())
    document["defaults"]["checks"] = [{"regex": "yes|no"}]
    Path("lenient.yaml").write_text(json.dumps(document))
    code, out, _ = run("record", "lenient.yaml", "--rescore", "main", "-o", "json")
    assert (code, json.loads(out)["passed"], json.loads(out)["reference"]) == (0, 150, "main@2")
    Path("trace.jsonl").write_text('{"id": "c1", "text": "yes"}\n{"id": "stranger", "text": "yes"}\n')
    code, out, err = run("record", "suite.yaml", "--trace", "trace.jsonl", "--name", "prod")
    assert (code, "1 of 1 answers passed" in out) == (0, True)
    assert "149 cases of the suite are not in the trace" in err


def test_a_watch_alarms_when_the_endpoint_gets_worse(run: Run) -> None:
    run("record", "suite.yaml", "--engine", "good.yaml", "--repeats", "2")
    code, out, _ = run("watch", "main", "--engine", "good.yaml", "--looks", "3", "--every", "0s")
    assert (code, "no alarm" in out) == (0, True)
    code, out, _ = run("watch", "main", "--engine", "bad.yaml", "--looks", "0", "--every", "0s", "-o", "json")
    found = json.loads(out)
    assert (code, found["alarm"]) == (1, True)
    assert 4 <= len(found["looks"]) < 40
    # The alarm stays: nothing is asked any more.
    code, out, err = run("watch", "main", "--engine", "good.yaml")
    assert (code, "alarm:" in out, "look" in err) == (1, True, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("record", "suite.yaml"), "exactly one of --engine, --trace and --rescore"),
        (("record", "suite.yaml", "--engine", "absent.yaml"), "is no file that names an engine"),
        (("record", "suite.yaml", "--engine", "{kind: magic}"), "'magic' is no engine"),
        (("record", "suite.yaml", "--engine", "{model: x}"), "names no engine: give its kind"),
        (("record", "absent.yaml", "--engine", "good.yaml"), "cannot be read as a suite"),
        (("record", "suite.yaml", "--engine", "good.yaml", "--name", "../x"), "no name for a recording"),
        (("record", "suite.yaml", "--engine", "good.yaml", "--template", "absent"), "absent cannot be read"),
        (("record", "suite.yaml", "--rescore", "main"), "there is no recording main in traces"),
        (("compare", "a", "b"), "there is no recording a in traces"),
        (("compare", "a", "b", "--alpha", "x"), "'x' is no share"),
        (("report", "a", "b", "r.pdf"), "a report is one of"),
        (("gate", "a", "b", "--report", "r.doc"), "a report is one of"),
        (("watch", "a", "--engine", "good.yaml"), "there is no recording a in traces"),
    ],
)
def test_bad_words_are_said_in_a_sentence(run: Run, words: tuple[str, ...], said: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert not Path("traces").exists()


def test_a_case_for_a_judge_without_one_is_refused_before_anything_is_asked(run: Run) -> None:
    Path("judge.yaml").write_text("cases: [{id: a, prompt: question 1, checks: [{judge: Is it kind?}]}]")
    code, _, err = run("record", "judge.yaml", "--engine", "good.yaml")
    assert (code, "checks for the engine 'judge'" in err) == (2, True)


def test_an_empty_store_is_said(run: Run) -> None:
    code, out, err = run("list")
    assert (code, out, "There are no recordings in traces" in err) == (0, "", True)
