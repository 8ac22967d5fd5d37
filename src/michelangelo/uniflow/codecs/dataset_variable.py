"""`DatasetVariable`: a table that one task saves as pandas, Ray or Spark and the next loads as another of them.

    rows = DatasetVariable.create(frame)  # in one task
    return rows

    rows.load_ray_dataset()               # in the next
    rows.value

It is a value: a workflow gets it too, and nothing is loaded before somebody asks. None of the three libraries is
imported, no Ray and no JVM started, before a value of theirs is there or asked for.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

from michelangelo.blobs.blob_store import BlobStore
from michelangelo.errors import CodecError, StorageError
from michelangelo.uniflow import content, scratch
from michelangelo.uniflow.codecs.registry import Codec, install
from michelangelo.uniflow.codecs.tree import Decoder, Encoder, Unencodable

__all__ = ["DatasetVariable"]

_KINDS: Final = {"pandas": ("pandas", "DataFrame"), "ray": ("ray", "Dataset"), "spark": ("pyspark", "DataFrame")}
_NO_VALUE: Final = "this DatasetVariable has no value; make it with DatasetVariable.create(value)"
_FORMS: Final = "michelangelo.uniflow.codecs.dataset_forms"


class DatasetVariable:
    """A table in Parquet files. `metadata` is the user's own: any value that goes between tasks."""

    def __init__(self, path: str | None = None, metadata: Any = None, _io_metadata: Any = None) -> None:
        self.metadata = metadata
        self._io_metadata = _io_metadata
        self._path = path
        self._value: Any = None
        self._is_saved = path is not None
        """Whether the files at the path are the value."""
        self._kept: scratch.Folder | None = None
        self._stored: tuple[Mapping[str, Any], BlobStore] | None = None

    @classmethod
    def create(cls, value: Any) -> Self:
        """A variable of a pandas DataFrame, a Ray Dataset or a Spark DataFrame. TypeError for anything else."""
        _kind_of(value)
        made = cls()
        made._value = value
        return made

    @property
    def path(self) -> str:
        """A folder of this machine that holds the Parquet files; of a value that was not saved, will hold them.

        For what came from another task, a private copy is made. StorageError when the data is gone.
        """
        if self._path is None:
            self._kept = scratch.Folder()
            self._path = os.path.join(self._kept.path, "dataset")
            if self._stored is not None:
                self._copy_to(self._path)
        return self._path

    @property
    def value(self) -> Any:
        """The value; if not loaded yet, as Spark's in an active session, as Ray's where that runs, or pandas'."""
        if self._value is None:
            self._load(_running() or "pandas")
        return self._value

    def save(self) -> None:
        """Write the value to the path. What goes to another task need not be saved before."""
        self._save("" if self._value is None else _kind_of(self._value))

    def save_pandas_dataframe(self) -> None:
        self._save("pandas")

    def save_ray_dataset(self) -> None:
        self._save("ray")

    def save_spark_dataframe(self) -> None:
        self._save("spark")

    def load_pandas_dataframe(self) -> Any:
        """The value as a pandas DataFrame, in the memory of this process."""
        return self._load("pandas")

    def load_ray_dataset(self) -> Any:
        """The value as a Ray Dataset, which reads when it is used."""
        return self._load("ray")

    def load_spark_dataframe(self) -> Any:
        """The value as a Spark DataFrame, in the session that is active, or in Spark's default one."""
        return self._load("spark")

    def __repr__(self) -> str:
        place = f"{self._stored[0]['size']} bytes in blobs" if self._stored else self._path or "not saved"
        return f"<DatasetVariable {'' if self._value is None else type(self._value).__name__ + ', '}{place}>"

    def _save(self, kind: str) -> None:
        if self._value is None:
            raise ValueError(_NO_VALUE)
        if _kind_of(self._value) != kind:
            raise TypeError(f"the value is a {type(self._value).__name__}; save it with save_{_method(self._value)}()")
        if not self._is_saved and self._stored is None:
            os.makedirs(self.path)
            _form("save", kind)(self._value, self.path)
            self._is_saved = True

    def _load(self, kind: str) -> Any:
        if self._value is not None:
            if _kind_of(self._value) == kind:
                return self._value
            self.save()
        if self._stored is not None:
            self._value = _form("load", kind)(*self._stored)
        elif self._is_saved:
            self._value = _form("open", kind)(self.path)
        else:
            raise ValueError(_NO_VALUE)
        return self._value

    def _copy_to(self, folder: str) -> None:
        assert self._stored is not None
        leaf, blobs = self._stored
        os.makedirs(folder)
        for number, digest in enumerate(leaf["blobs"]):
            content.copy(blobs, digest, os.path.join(folder, f"part-{number:05d}.parquet"))


def _encode(value: DatasetVariable, encoder: Encoder) -> dict[str, Any]:
    if value._stored is not None and all(map(encoder.blobs.has, value._stored[0]["blobs"])):
        leaf = dict(value._stored[0])
    elif value._is_saved:
        leaf = _form("store", "files")(value.path, encoder)
    else:
        if value._value is None:
            raise Unencodable(_NO_VALUE)
        leaf = _form("store", _kind_of(value._value))(value._value, encoder)
    return {
        **leaf,
        "type": "michelangelo.workflow.variables:DatasetVariable",
        "user": encoder.child(value.metadata),
        "io": encoder.child(value._io_metadata),
    }


def _decode(leaf: Mapping[str, Any], decoder: Decoder) -> DatasetVariable:
    gone = [digest for digest in leaf["blobs"] if not decoder.blobs.has(digest)]
    if gone:
        raise StorageError(f"blob {gone[0]} of a DatasetVariable is gone; run the step again that made it")
    made = DatasetVariable(None, decoder.child(leaf["user"]), decoder.child(leaf["io"]))
    made._stored = (leaf, decoder.blobs)
    return made


def _kind_of(value: Any) -> str:
    """By the name of its class, so that no library is imported to ask."""
    for kind, (library, name) in _KINDS.items():
        for base in type(value).__mro__:
            if base.__module__.partition(".")[0] == library and base.__name__ == name:
                return kind
    raise TypeError(
        f"a DatasetVariable holds a pandas DataFrame, a Ray Dataset or a Spark DataFrame, not a {type(value).__name__}"
    )


def _method(value: Any) -> str:
    return {"pandas": "pandas_dataframe", "ray": "ray_dataset", "spark": "spark_dataframe"}[_kind_of(value)]


def _running() -> str:
    """Whose value is nearest at hand; a library that is not loaded runs nothing."""
    spark = sys.modules.get("pyspark.sql")
    if spark is not None and spark.SparkSession.getActiveSession() is not None:
        return "spark"
    ray = sys.modules.get("ray")
    return "ray" if ray is not None and ray.is_initialized() else ""


def _form(verb: str, kind: str) -> Callable[..., Any]:
    """A function of dataset_forms.py, which imports Arrow; those of a library import it when they are called."""
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(_FORMS), f"{verb}_{kind}")
    except ImportError as error:
        raise CodecError(f"tables need pyarrow: {error}; install michelangelo-oss[data]") from error
    return found


install(Codec("dataset-variable", _encode, _decode), DatasetVariable)
