"""Tuple unpacking, attributes of dataclass results, overrides, and variables of the context."""

from examples.churn.data import load_data
from examples.churn.train import train

import michelangelo.uniflow.core as uniflow


@uniflow.workflow()
def churn_workflow(threshold: float = 0.5):
    train_data, validation_data, origin = load_data("glue", name="cola", limit=500)
    result = train(train_data, validation_data, threshold)
    careful = train.with_overrides(alias="train_careful", retry_attempts=2)(
        train_data, validation_data=validation_data, threshold=0.1
    )
    best = result
    if careful.metrics.accuracy > result.metrics.accuracy:
        best = careful
    print("result:", best.path, origin["name"])
    return {"path": best.path, "accuracy": best.metrics.accuracy, "rows": best.metrics.counts["validation"]}


# For Local Run: PYTHONPATH=. python3 examples/churn/churn.py
if __name__ == "__main__":
    ctx = uniflow.create_context()
    ctx.environ["DATA_SIZE"] = "100"
    ctx.environ["UNUSED"] = "0"
    found = ctx.run(churn_workflow, threshold=0.5)
    if ctx.is_local_run():
        print("found:", found)
