"""The Spark of a task: variables from which pyspark's own builder makes a session of the size that was asked for.

Nothing is started here, and pyspark is not even imported: the JVM starts when the task's code asks for a session, and
ends with the attempt's process group.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from michelangelo import errors

__all__ = ["variables"]


def variables(settings: Mapping[str, Any], environment: Mapping[str, str], folder: str) -> dict[str, str]:
    """What `SparkSession.builder.getOrCreate()` goes by. `settings` are the fields of a SparkTask; Spark's temporary
    files go to `folder`. Raises ExecutorError when Spark cannot run here."""
    if importlib.util.find_spec("pyspark") is None:
        raise errors.ExecutorError("a SparkTask needs pyspark: pip install 'michelangelo-oss[spark]'")
    home = environment.get("JAVA_HOME", "")
    has_home = bool(home) and os.access(os.path.join(home, "bin", "java"), os.X_OK)
    if not has_home and not shutil.which("java", path=environment.get("PATH", os.defpath)):
        raise errors.ExecutorError(
            "a SparkTask needs Java 17 or newer, and there is neither `java` on the PATH nor a JAVA_HOME that has it: "
            "install one (Debian: apt-get install openjdk-17-jre-headless)"
        )
    arguments = ["--master", f"local[{_threads(settings)}]"]
    if memory := settings.get("driver_memory"):
        arguments += ["--driver-memory", f"{max(1, int(memory) >> 20)}m"]
    options = {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
    if folder:
        options |= {"spark.local.dir": folder, "spark.sql.warehouse.dir": os.path.join(folder, "warehouse")}
    for name, value in options.items():
        arguments += ["--conf", f"{name}={value}"]
    rest = environment.get("PYSPARK_SUBMIT_ARGS", "pyspark-shell")
    return {
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_SUBMIT_ARGS": f"{shlex.join(arguments)} {rest}",
    }


def _threads(settings: Mapping[str, Any]) -> int:
    """The executors' cores together: in local mode they are threads of one JVM."""
    cores = float(settings.get("executor_cpu", settings.get("driver_cpu", 1)))
    return max(1, math.ceil(cores * int(settings.get("executor_instances") or 1)))
