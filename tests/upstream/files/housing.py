"""Ray, Spark, Ray: features, a cast, and a model, in the manner of the housing example; the data is scikit-learn's."""

import os
from dataclasses import dataclass

import michelangelo.uniflow.core as uniflow
from michelangelo.uniflow.plugins.ray import UF_PLUGIN_RAY_USE_FSSPEC, RayTask
from michelangelo.uniflow.plugins.spark import SparkTask
from michelangelo.workflow.variables import DatasetVariable


@dataclass
class Prepared:
    train: DatasetVariable
    validation: DatasetVariable


@dataclass
class Trained:
    path: str
    error: float
    rows: int


@uniflow.task(config=RayTask(head_cpu=1, head_memory="4Gi", worker_cpu=1, worker_instances=1), cache_enabled=True)
def feature_prep(columns: str, fraction: float) -> Prepared:
    import ray
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True).frame[columns.split(",")]
    frame.columns = [name.upper() for name in frame.columns]
    train, validation = ray.data.from_pandas(frame).train_test_split(test_size=fraction)
    prepared = Prepared(DatasetVariable.create(train), DatasetVariable.create(validation))
    prepared.train.save_ray_dataset()
    prepared.validation.save_ray_dataset()
    return prepared


@uniflow.task(config=SparkTask(driver_cpu=1, executor_cpu=1, executor_instances=1))
def preprocess(prepared: Prepared) -> Prepared:
    from pyspark.sql import functions

    variables = []
    for variable in (prepared.train, prepared.validation):
        variable.load_spark_dataframe()
        frame = variable.value
        frame = frame.select([functions.col(name).cast("float").alias(name) for name in frame.columns])
        made = DatasetVariable.create(frame)
        made.save_spark_dataframe()
        variables.append(made)
    return Prepared(*variables)


@uniflow.task(config=RayTask(head_cpu=1, head_memory="4Gi", worker_cpu=1, worker_instances=1))
def train(prepared: Prepared, params: dict) -> Trained:
    import numpy as np

    prepared.train.load_ray_dataset()
    prepared.validation.load_ray_dataset()
    data, check = prepared.train.value.to_pandas(), prepared.validation.value.to_pandas()
    assert str(data["BMI"].dtype).startswith("float"), data.dtypes
    data, check = data.astype("float32"), check.astype("float32")
    inputs, target = data.drop(columns=[params["target"]]), data[params["target"]]
    weights, *_ = np.linalg.lstsq(np.c_[inputs, np.ones(len(inputs))], target, rcond=None)
    inputs, target = check.drop(columns=[params["target"]]), check[params["target"]]
    error = float(np.sqrt(np.mean((np.c_[inputs, np.ones(len(inputs))] @ weights - target) ** 2)))
    return Trained(path=os.environ["UF_STORAGE_URL"], error=error, rows=len(data) + len(check))


@uniflow.workflow()
def housing_workflow(columns: str):
    prepared = feature_prep(columns, fraction=0.25)
    prepared = preprocess(prepared)
    trained = train.with_overrides(alias="train_linear", config=RayTask(head_cpu=1, worker_instances=0))(
        prepared, {"target": "TARGET"}
    )
    return trained.rows, trained.error < 75


if __name__ == "__main__":
    ctx = uniflow.create_context()
    ctx.environ[UF_PLUGIN_RAY_USE_FSSPEC] = "0"
    print(ctx.run(housing_workflow, columns="bmi,bp,s5,target"))
