"""Runs the pipeline on the embedded platform of a folder, shows what came out, and copies the report beside it.

    python examples/breast_cancer/main.py [--out FOLDER] [--resume [RUN]] [--svm-c 10 …]

Everything is inside the folder (default `out`): the platform's home, and `breast_cancer/` with the report. It starts no
server, and leaves no process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pipeline import Report


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare three models; other flags are the pipeline's parameters.")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for everything (default: out)")
    arguments, rest = parser.parse_known_args()
    home = (arguments.out / "home").resolve()
    os.environ["MA_HOME"] = str(home)

    # After the home is chosen: the platform reads it when it is first used.
    import pipeline

    from michelangelo import errors, uniflow
    from michelangelo.uniflow import script

    try:
        kwargs, options = script.parse(pipeline.breast_cancer, rest)
        report = uniflow.run(pipeline.breast_cancer, options=options, **kwargs)
    except errors.MichelangeloError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        print("stopped; continue with --resume", file=sys.stderr)
        return 130
    folder = arguments.out / "breast_cancer"
    shutil.rmtree(folder, ignore_errors=True)
    # Outside of tasks data stays a reference until somebody asks for it.
    made = cast(uniflow.Ref, report.folder).load()
    shutil.copytree(made.path, folder)
    _print(report, folder, home)
    return 0


def _print(report: Report, folder: Path, home: Path) -> None:
    print(f"\n{'MODEL':<10} {'ROC AUC':>8} {'ACCURACY':>9} {'RECALL':>8} {'F1':>8}")
    for one in report.evaluations:
        mark = "  ← best" if one.name == report.best else ""
        print(f"{one.name:<10} {one.roc_auc:>8.4f} {one.accuracy:>9.4f} {one.recall:>8.4f} {one.f1:>8.4f}{mark}")
    print(f"\nmodel    {folder / 'model.joblib'}  {report.model_digest}")
    print(f"report   {folder / 'report.html'}")
    mactl = f"MA_HOME={os.path.relpath(home)} {os.path.relpath(Path(sys.executable).with_name('mactl'))}"
    print(f"runs     {mactl} get pipeline_run")
    print(f"steps    {mactl} get task_run -o wide")


if __name__ == "__main__":
    sys.exit(main())
