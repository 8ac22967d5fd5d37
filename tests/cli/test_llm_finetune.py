"""`mactl llm finetune` and `mactl llm search`: the real program and real, tiny models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.llm.conftest import _one_thread, model_folder, tokenizer_folder  # noqa: F401 fixtures

Mactl = Callable[..., Any]


@pytest.fixture
def config_file(tmp_path: Path, model_folder: Path) -> Path:  # noqa: F811 a fixture
    """Four steps of LoRA on 64 rows."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"say {n}", "completion": f"{n} it is"}) + "\n" for n in range(64)))
    file = tmp_path / "config.yaml"
    document = {
        "model": {"path": str(model_folder)},
        "data": {"train": [{"path": str(rows)}], "sequence_length": 64, "validation_share": 0.2},
        "output": str(tmp_path / "out"),
        "adapter": {"rank": 4},
        "optimizer": {"learning_rate": 1e-3},
        "training": {"max_steps": 4, "precision": "fp32", "device": "cpu"},
    }
    file.write_text(yaml.safe_dump(document))
    return file


def test_a_run_says_its_progress_to_stderr_and_its_result_to_stdout(mactl: Mactl, config_file: Path) -> None:
    done = mactl("llm", "finetune", str(config_file), "--set", "training.max_steps=3")
    assert done.code == 0, done
    assert "step 3/3" in done.err
    assert "step 3/3" not in done.out
    shown = dict(line.split("   ", 1) for line in done.out.splitlines())
    shown = {title.strip(): text.strip() for title, text in shown.items()}
    assert shown["outcome"].startswith("Succeeded")
    assert shown["steps"] == "3"
    assert float(shown["loss"]) > 0.0
    assert shown["output"] == str(config_file.parent / "out")


def test_the_result_is_json_for_programs_and_a_second_call_goes_on_from_the_checkpoint(
    mactl: Mactl, config_file: Path
) -> None:
    done = mactl("llm", "finetune", str(config_file), "--quiet", "-o", "json")
    assert done.code == 0, done
    assert json.loads(done.out)["step"] == 4
    assert done.err == ""
    again = mactl("llm", "finetune", str(config_file), "-o", "json")
    assert again.code == 0, again
    assert json.loads(again.out)["step"] == 4
    assert "resumes after step 4 of 4" in again.err
    anew = mactl("llm", "finetune", str(config_file), "-o", "json", "--resume", "never")
    assert "resumes" not in anew.err
    assert json.loads(anew.out)["step"] == 4


def test_a_dry_run_prints_the_plan_and_trains_nothing(mactl: Mactl, config_file: Path) -> None:
    done = mactl("llm", "finetune", str(config_file), "--dry-run", "-o", "json")
    assert done.code == 0, done
    assert json.loads(done.out)["device"]
    assert not (config_file.parent / "out").exists()


def test_all_wrong_fields_are_said_at_once_and_nothing_is_written(mactl: Mactl, config_file: Path) -> None:
    done = mactl(
        "llm",
        "finetune",
        str(config_file),
        "--set",
        "training.max_steps=many",
        "--set",
        "optimizer.rate=1",
        "--set",
        "x",
    )
    assert done.code == 2
    for part in ("training.max_steps", "optimizer.rate", "x: is no change PATH=VALUE"):
        assert part in done.err
    assert "Traceback" not in done.err
    assert not (config_file.parent / "out").exists()


def test_a_model_that_is_not_there_exits_2_with_its_path(mactl: Mactl, config_file: Path) -> None:
    done = mactl("llm", "finetune", str(config_file), "--set", "model.path=/nowhere/model")
    assert done.code == 2, done
    assert "/nowhere/model" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_and_exits_130(config_file: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("mactl")), "llm", "finetune", str(config_file)]
    environment = os.environ | {"MA_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--set", "training.max_steps=100000", "-o", "json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if line.startswith("step "):
                run.send_signal(signal.SIGINT)
                break
        out, err = run.communicate()
    assert run.returncode == 130, err
    assert "stopping after this step" in err
    report = json.loads(out)
    assert report["outcome"] == "Stopped"
    again = subprocess.run(
        [*command, "--set", f"training.max_steps={report['step'] + 2}", "-o", "json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"resumes after step {report['step']} " in again.stderr


@pytest.mark.slow
def test_a_run_with_every_tracker_prints_nothing_but_its_result(config_file: Path, tmp_path: Path) -> None:
    kinds = ("mlflow", "comet", "tensorboard", "wandb")
    trackers = f"trackers=[{', '.join(f'{{kind: {kind}}}' for kind in kinds)}]"
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("mactl")),
            "llm",
            "finetune",
            str(config_file),
            "-o",
            "json",
            "--set",
            trackers,
        ],
        env=os.environ | {"MA_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["outcome"] == "Succeeded"
    assert not [alert for alert in report["alerts"] if "SinkLost" in alert]
    out = tmp_path / "out"
    assert {file.name.partition("-")[0] for file in (out / "trackers").iterdir()} == set(kinds)
    for pattern in ("mlflow.db", "comet/*.zip", "tensorboard/events*", "wandb/offline-run-*/*.wandb"):
        assert list(out.glob(pattern)), pattern


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--learning-rate", "fast"], "is no range LOW:HIGH"),
        (["--rank", "4,x"], "are no whole numbers"),
        (["--rank", "4,4"], "different values"),
        (["--choose", "training.micro_batch=4"], "is no list in brackets"),
        (["--choose", "training.micro=[1, 2]"], "training.micro=1"),
        (["--method", "magic"], "adapter.method=magic"),
    ],
)
def test_a_search_that_cannot_start_says_why(mactl: Mactl, config_file: Path, words: list[str], said: str) -> None:
    done = mactl("llm", "search", str(config_file), *words)
    assert done.code == 2, done
    assert said in done.err
    assert not (config_file.parent / "out").exists()


@pytest.mark.slow
def test_a_search_trains_its_trials_and_its_best_can_be_run(
    mactl: Mactl, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    done = mactl("llm", "search", str(config_file), "--trials", "2", "--rank", "2,4", "-o", "json")
    assert done.code == 0, done
    report = json.loads(done.out)
    assert [trial["state"] for trial in report["trials"]] == ["Succeeded", "Succeeded"]
    assert report["trials"][0]["loss"] <= report["trials"][1]["loss"]
    best = mactl("llm", "finetune", f"{report['folder']}/best.yaml", "-o", "json")
    assert best.code == 0, best
    assert json.loads(best.out)["validation_loss"] == pytest.approx(report["trials"][0]["loss"])


@pytest.mark.parametrize("verb", ["finetune", "search"])
def test_help_loads_nothing_heavy(verb: str) -> None:
    script = (
        "import sys\nfrom michelangelo.cli.main import main\n"
        f"try:\n    main(['llm', '{verb}', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'transformers', 'matplotlib', 'numpy', 'ssl'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Example:" in done.stdout
