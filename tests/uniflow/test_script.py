"""The command line of a workflow: flags from its signature, options of the run, exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from michelangelo import uniflow
from michelangelo.errors import ArgumentsError, SettingsError
from michelangelo.uniflow import runner, script
from michelangelo.uniflow.runner import RunOptions


@uniflow.workflow
def flow(n: int, learning_rate: float = 0.1, path: Path | None = None, force: int = 0) -> str:
    """Trains something: 100% of it.

    In detail.
    """
    return f"{n} {learning_rate} {path} {force}"


class PlainRunner:
    """Calls the function; `raises` instead when set."""

    raises: BaseException | None = None
    options: RunOptions | None = None

    def run(self, workflow: Any, args: Any, kwargs: Any, options: RunOptions) -> Any:
        self.options = options
        if self.raises is not None:
            raise self.raises
        return workflow.fn(*args, **kwargs)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> PlainRunner:
    """A runner of the same protocol in place of the application's, which is another room."""
    found = PlainRunner()
    monkeypatch.setattr(runner, "resolve_runner", lambda: found)
    return found


def exit_of(*argv: str) -> Any:
    with pytest.raises(SystemExit) as caught:
        uniflow.main(flow, argv)
    return caught.value.code


def test_flags_are_the_parameters(plain: PlainRunner, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of("--n", "3", "--learning-rate=0.5", "--path", "a/b", "--arg", "force=2") == 0
    assert capsys.readouterr().out == "3 0.5 a/b 2\n"
    assert plain.options == RunOptions()


def test_options_of_the_run(plain: PlainRunner) -> None:
    assert script.parse(flow, ["--n", "1", "--resume", "run-7", "--force", "--project", "p", "--ephemeral"]) == (
        {"n": 1},
        RunOptions(project="p", resume="run-7", force=True, ephemeral=True),
    )
    assert script.parse(flow, ["--resume"]) == ({}, RunOptions(resume=""))


def test_wrong_arguments_are_all_named_and_nothing_starts(
    plain: PlainRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_of("--learning-rate", "fast", "--arg", "depth=3") == 2
    error = capsys.readouterr().err
    for text in ("n: is missing", "learning_rate: must be float; got 'fast'", "depth: there is no such parameter"):
        assert text in error
    assert plain.options is None
    with pytest.raises(ArgumentsError, match="must be NAME=VALUE"):
        script.parse(flow, ["--arg", "depth"])


def test_help_shows_types_defaults_and_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "Trains something: 100% of it.",
        "--n int required",
        "--learning-rate float default: 0.1",
        "--resume [RUN]",
    ):
        assert part in text


def test_exit_status_is_the_errors(plain: PlainRunner, capsys: pytest.CaptureFixture[str]) -> None:
    plain.raises = SettingsError("no home")
    assert exit_of("--n", "1") == 2
    assert capsys.readouterr().err == "error: no home\n"
    plain.raises = KeyboardInterrupt()
    assert exit_of("--n", "1") == 130
    assert exit_of("--n", "1", "--nonsense") == 2


def test_users_exception_is_shown_without_frames_of_the_platform(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(
        "from michelangelo import uniflow\nfrom michelangelo.uniflow import runner\n"
        "class Plain:\n    def run(self, workflow, args, kwargs, options):\n        return workflow.fn()\n"
        "runner.resolve_runner = Plain\n"
        "@uniflow.workflow\ndef flow():\n    return {}['missing']\n"
        "uniflow.main(flow, [])\n"
    )
    done = subprocess.run([sys.executable, "flow.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("KeyError: 'missing'\n")
    assert "return {}['missing']" in done.stderr
    assert "script.py" not in done.stderr


def test_run_passes_arguments_and_options(plain: PlainRunner) -> None:
    assert uniflow.run(flow, 1, learning_rate=2.0) == "1 2.0 None 0"
    uniflow.run(flow, 1, options=RunOptions(ephemeral=True))
    assert plain.options == RunOptions(ephemeral=True)
    assert flow(4) == "4 0.1 None 0"
