"""What Ray Data reads, as Parquet files in the job's folder: written once by Ray's own tasks, and then scored as files.

So a job on a data set can be resumed, and its rows never pass through the driver.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.finetune.data import locations
from michelangelo.llm.scorer.config import ScoreConfig

__all__ = ["forget", "materialised"]

_FOLDER: Final = "input"
_READERS: Final = {".csv": "read_csv", ".tsv": "read_csv", ".parquet": "read_parquet", ".txt": "read_text"}


def materialised(config: ScoreConfig, dataset: Any, folder: Path) -> ScoreConfig:
    """The configuration that scores those files. Raises DatasetError."""
    import ray.data
    import ray.exceptions

    place = folder / _FOLDER
    unfinished = folder / f".{_FOLDER}.unfinished"
    if not place.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        try:
            rows = dataset if dataset is not None else _read(list(config.input.path))
            rows.write_parquet(str(unfinished))
        except (OSError, ValueError, TypeError, ray.exceptions.RayError) as e:
            raise errors.DatasetError(f"input.path: Ray Data cannot read or write it: {_first(e)}") from e
        unfinished.rename(place)
    given = config.input.model_copy(update={"path": (str(place),), "format": "parquet"})
    return config.model_copy(update={"input": given})


def forget(folder: Path) -> None:
    shutil.rmtree(folder / _FOLDER, ignore_errors=True)


def _read(paths: list[str]) -> Any:
    import ray.data

    endings = {Path(path.split("?", 1)[0]).suffix.lower() for path in paths}
    if len(endings) != 1:
        raise errors.DatasetError(f"input.path: Ray Data reads files of one kind; these end in {', '.join(endings)}")
    ending = endings.pop()
    if ending in _READERS:
        return getattr(ray.data, _READERS[ending])(paths)
    if locations.format_of(paths[0]) == "jsonl":
        return ray.data.read_json(paths, lines=True)
    return ray.data.read_parquet(paths)


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
