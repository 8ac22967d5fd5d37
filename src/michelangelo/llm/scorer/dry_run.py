"""A look at a job before it runs: its files, the prompts of its first rows, what is expected. Nothing is scored."""

from __future__ import annotations

import itertools
from typing import Any, Final

from michelangelo import errors
from michelangelo.llm.scorer import job, prediction, sources
from michelangelo.llm.scorer.config import ScoreConfig
from michelangelo.llm.scorer.row_error import RowError
from michelangelo.llm.scorer.sources import InputRow
from michelangelo.llm.scorer.templates import Prompter

__all__ = ["look"]

_ROWS: Final = 3


def look(config: ScoreConfig) -> dict[str, Any]:
    """Raises SettingsError and DatasetError, as the job itself would."""
    config = job.check(config)
    if config.input.format == "ray":
        raise errors.SettingsError("input.format: ray is read by running Ray; a dry run does not")
    prompter = Prompter(config)
    files = sources.files_of(config.input)
    rows = list(itertools.islice(sources.open_stream(files[0]).read(), _ROWS))
    return {
        "files": [file.path for file in files],
        "rows": [_row(row, prompter) for row, _ in rows],
        "prediction": prediction.before(config),
    }


def _row(row: InputRow, prompter: Prompter) -> dict[str, Any]:
    if row.fields is None:
        return {"place": row.place, "prompt": "", "error": row.error}
    try:
        request = prompter.ask(row.fields).request
    except RowError as e:
        return {"place": row.place, "prompt": "", "error": e.message}
    if request.messages is not None:
        prompt = "\n".join(f"{message['role']}: {message.get('content')}" for message in request.messages)
    else:
        prompt = request.prompt or ""
    return {"place": row.place, "prompt": prompt, "error": ""}
