"""Spark: what a task says about the Spark session it uses. Data only; pyspark is loaded where the task runs."""

from __future__ import annotations

from michelangelo.uniflow.plugins.spark.task import SparkTask

__all__ = ["SparkTask"]
