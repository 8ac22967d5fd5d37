"""Which of three models finds breast cancer best? A real pipeline on scikit-learn's bundled data, from data to report.

    python examples/breast_cancer/pipeline.py --svm-c 10

prepare → train (three models, in parallel) → evaluate (each on held-out data) → pick the best → report. Every step is
cached by its code and its inputs: a second run does nothing again, and a changed hyper-parameter runs only what depends
on it. The same parameters give the same bytes, so a model's digest says what it is.

scikit-learn and matplotlib start threads when they are imported, so the tasks import them, in their own processes.
"""

from __future__ import annotations

import html
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from michelangelo import uniflow

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Split:
    """Measurements of cell nuclei (rows are patients) and the diagnosis: 1 malignant, 0 benign."""

    x_train: np.ndarray[Any, Any]
    y_train: np.ndarray[Any, Any]
    x_test: np.ndarray[Any, Any]
    y_test: np.ndarray[Any, Any]


@dataclass
class ModelConfig:
    """One candidate: which model, and its hyper-parameters."""

    name: str
    parameters: dict[str, float]


@dataclass
class Model:
    """A trained candidate. `file` holds it as joblib writes it."""

    config: ModelConfig
    file: uniflow.File
    digest: str


@dataclass
class Evaluation:
    """How a candidate does on patients that it has not seen."""

    name: str
    accuracy: float
    recall: float
    f1: float
    roc_auc: float
    false_positive_rates: list[float]
    true_positive_rates: list[float]


@dataclass
class Report:
    """What the run leaves: the folder has report.html, report.md, metrics.json, roc.png, roc.svg and model.joblib."""

    best: str
    model_digest: str
    evaluations: list[Evaluation]
    folder: uniflow.Directory


@uniflow.task(cache_enabled=True)
def prepare(test_share: float, seed: int) -> Split:
    """Load the data and hold a share of the patients back."""
    from sklearn import datasets, model_selection

    data = datasets.load_breast_cancer()
    malignant = 1 - data.target
    parts = model_selection.train_test_split(
        data.data, malignant, test_size=test_share, random_state=seed, stratify=malignant
    )
    x_train, x_test, y_train, y_test = parts
    return Split(x_train, y_train, x_test, y_test)


@uniflow.task(cache_enabled=True, retry_attempts=1)
def train(config: ModelConfig, split: Split, seed: int) -> Model:
    """Fit one candidate."""
    import joblib
    import threadpoolctl

    model = _estimator(config, seed)
    # One thread: sums in another order would give other bytes on another machine.
    with threadpoolctl.threadpool_limits(limits=1):
        model.fit(split.x_train, split.y_train)
    path = Path(_folder()) / f"{config.name}.joblib"
    joblib.dump(model, path)
    file = uniflow.File(path)
    return Model(config, file, file.digest)


@uniflow.task(cache_enabled=True)
def evaluate(model: Model, split: Split) -> Evaluation:
    """Measure one candidate on the held-out patients."""
    import joblib
    import threadpoolctl
    from sklearn import metrics

    estimator = joblib.load(model.file.path)
    with threadpoolctl.threadpool_limits(limits=1):
        scores = _scores(estimator, split.x_test)
        predicted = estimator.predict(split.x_test)
    false_positives, true_positives, _ = metrics.roc_curve(split.y_test, scores)
    return Evaluation(
        name=model.config.name,
        accuracy=float(metrics.accuracy_score(split.y_test, predicted)),
        recall=float(metrics.recall_score(split.y_test, predicted)),
        f1=float(metrics.f1_score(split.y_test, predicted)),
        roc_auc=float(metrics.roc_auc_score(split.y_test, scores)),
        false_positive_rates=false_positives.tolist(),
        true_positive_rates=true_positives.tolist(),
    )


@uniflow.task(cache_enabled=True)
def report(best: Model, evaluations: list[Evaluation]) -> Report:
    """Write tables, curves and the best model into one folder."""
    folder = Path(_folder()) / "report"
    folder.mkdir()
    (folder / "model.joblib").write_bytes(best.file.read_bytes())
    _draw(evaluations, folder)
    rows = [{key: value for key, value in vars(e).items() if not key.endswith("_rates")} for e in evaluations]
    summary = {"best": best.config.name, "modelDigest": best.digest, "metrics": rows}
    (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    (folder / "report.md").write_text(_markdown(best, evaluations))
    (folder / "report.html").write_text(_page(best, evaluations))
    return Report(best.config.name, best.digest, evaluations, uniflow.Directory(folder))


@uniflow.workflow
def breast_cancer(
    test_share: float = 0.25,
    seed: int = 7,
    logistic_c: float = 1.0,
    svm_c: float = 3.0,
    boosting_rate: float = 0.1,
) -> Report:
    """Train three models on the Wisconsin breast cancer data, compare them, and report the best."""
    split = prepare(test_share, seed)
    candidates = [
        ModelConfig("logistic", {"C": logistic_c}),
        ModelConfig("svm", {"C": svm_c}),
        ModelConfig("boosting", {"learning_rate": boosting_rate}),
    ]
    models = train.map(candidates, split=split, seed=seed).result()
    evaluations = evaluate.map(models, split=split).result()
    ranked = sorted(zip(evaluations, models, strict=True), key=lambda pair: (-pair[0].roc_auc, pair[0].name))
    return report(ranked[0][1], [evaluation for evaluation, _ in ranked])


def _estimator(config: ModelConfig, seed: int) -> Any:
    from sklearn import ensemble, linear_model, pipeline, preprocessing, svm

    if config.name == "logistic":
        model = linear_model.LogisticRegression(max_iter=1000, **config.parameters)
        return pipeline.make_pipeline(preprocessing.StandardScaler(), model)
    if config.name == "svm":
        return pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVC(**config.parameters))
    return ensemble.HistGradientBoostingClassifier(max_iter=60, random_state=seed, **config.parameters)


def _scores(estimator: Any, x: Any) -> Any:
    if hasattr(estimator, "decision_function"):
        return estimator.decision_function(x)
    return estimator.predict_proba(x)[:, 1]


def _folder() -> str:
    """A folder of this attempt; what is returned as File or Directory outlives it as a blob."""
    import tempfile

    context = uniflow.task_context.current()
    return tempfile.mkdtemp(dir=context.scratch if context and context.scratch else None)


def _draw(evaluations: list[Evaluation], folder: Path) -> None:
    os.environ.setdefault("MPLBACKEND", "agg")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # No date and no random identifiers: the same curves are the same bytes.
    with mpl.rc_context({"svg.hashsalt": "breast_cancer", "svg.fonttype": "none"}):
        figure = Figure(figsize=(5.4, 4.6), layout="constrained")
        axes = figure.subplots()
        for one in evaluations:
            label = f"{one.name} (AUC {one.roc_auc:.4f})"
            axes.plot(one.false_positive_rates, one.true_positive_rates, label=label, linewidth=2)
        axes.plot([0, 1], [0, 1], color="0.8", linestyle="--", linewidth=1)
        axes.set(xlabel="False positive rate", ylabel="True positive rate", title="ROC on held-out patients")
        axes.legend(loc="lower right", frameon=False)
        figure.savefig(folder / "roc.png", dpi=110, metadata={"Software": None})
        figure.savefig(folder / "roc.svg", metadata={"Date": None})


_COLUMNS = ("Model", "ROC AUC", "Accuracy", "Recall", "F1")


def _cells(one: Evaluation) -> list[str]:
    return [one.name, *(f"{value:.4f}" for value in (one.roc_auc, one.accuracy, one.recall, one.f1))]


def _markdown(best: Model, evaluations: list[Evaluation]) -> str:
    lines = [
        "# Breast cancer: three models compared",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + " --- |" * len(_COLUMNS),
        *("| " + " | ".join(_cells(one)) + " |" for one in evaluations),
        "",
        f"The best is **{best.config.name}** {json.dumps(best.config.parameters)}: `model.joblib`, `{best.digest}`.",
        "",
        "![ROC curves](roc.png)",
    ]
    return "\n".join(lines) + "\n"


def _page(best: Model, evaluations: list[Evaluation]) -> str:
    head = "".join(f"<th>{title}</th>" for title in _COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in _cells(one)) + "</tr>" for one in evaluations)
    style = "body{font:16px system-ui;max-width:46rem;margin:3rem auto} td,th{padding:.3rem .8rem;text-align:left}"
    model = f"<b>{html.escape(best.config.name)}</b>: <code>model.joblib</code>, <code>{best.digest}</code>"
    return (
        f'<!doctype html>\n<meta charset="utf-8">\n<title>Breast cancer</title>\n<style>{style}</style>\n'
        f"<h1>Breast cancer: three models compared</h1>\n<table><tr>{head}</tr>{body}</table>\n"
        f"<p>The best is {model}</p>\n"
        '<img src="roc.svg" alt="ROC curves of the three models">\n'
    )


if __name__ == "__main__":
    uniflow.main(breast_cancer)
