"""Runs the pipeline on the embedded platform of a folder, shows what came out, and copies the report beside it.

    python examples/tiny_llm/main.py [--out FOLDER] [--quick] [--resume [RUN]] [--learning-rate 0.001 --steps 500 …]

Everything is inside the folder (default `out`): the platform's home, and `tiny_llm/` with the report and the models. It
starts no server, and leaves no process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from evaluate import Evaluation
    from pipeline import Report

QUICK: Final[dict[str, Any]] = {
    "steps": 60,
    "batch_size": 8,
    "hidden": 128,
    "layers": 2,
    "lora_epochs": 2,
    "prompts": 2,
}
"""Parameters of a run that shows that everything works, in seconds; the model is worth less."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Train a small Llama, tune it, measure it. Other flags are the pipeline's parameters and --resume.",
        epilog="All parameters: python examples/tiny_llm/pipeline.py --help",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for everything (default: out)")
    parser.add_argument("--quick", action="store_true", help="a smaller model and fewer steps, unless given")
    arguments, rest = parser.parse_known_args()
    home = (arguments.out / "home").resolve()
    os.environ["MA_HOME"] = str(home)

    # After the home is chosen: the platform reads it when it is first used.
    import pipeline

    from michelangelo import errors, uniflow
    from michelangelo.uniflow import script

    try:
        kwargs, options = script.parse(pipeline.tiny_llm, rest)
        if options.resume is None:
            kwargs = (QUICK if arguments.quick else {}) | kwargs
        pipeline.check(**kwargs)
        report = uniflow.run(pipeline.tiny_llm, options=options, **kwargs)
    except errors.MichelangeloError as e:
        if not e.was_shown:
            print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print("stopped; continue with --resume", file=sys.stderr)
        return 130
    folder = arguments.out / "tiny_llm"
    shutil.rmtree(folder, ignore_errors=True)
    # Outside of tasks data stays a reference until somebody asks for it.
    made = cast(uniflow.Ref, report.folder).load()
    shutil.copytree(made.path, folder)
    _print(report, folder, home)
    return 0


def _print(report: Report, folder: Path, home: Path) -> None:
    for subject, title in (("text", "HELD-OUT TEXT"), ("answers", "ANSWERS")):
        print(f"\n{title:<14} {'NATS/TOKEN':>11} {'BITS/BYTE':>10} {'PERPLEXITY':>11}")
        for one in report.evaluations:
            if one.subject == subject:
                print(_line(one))
    print()
    for verdict in report.verdicts:
        print(verdict)
    print(f"\nreport   {folder / 'report.html'}")
    print(f"metrics  {folder / 'metrics.json'}")
    print(f"model    {folder / 'model'}  {report.model_digest}  (trained at {report.tokens_per_second:,.0f} tokens/s)")
    mactl = f"MA_HOME={os.path.relpath(home)} {os.path.relpath(Path(sys.executable).with_name('mactl'))}"
    print(f"runs     {mactl} get pipeline_run")
    print(f"steps    {mactl} get task_run -o wide")


def _line(one: Evaluation) -> str:
    return f"{one.name:<14} {one.loss:>11.4f} {one.bits_per_byte:>10.4f} {one.perplexity:>11,.1f}"


if __name__ == "__main__":
    sys.exit(main())
