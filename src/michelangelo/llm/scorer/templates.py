"""A row's columns → what is asked of the engine, by Jinja templates in a sandbox.

A row that cannot be asked raises RowError with the reason; it never ends a job. It knows nothing of files and shards.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2
import jinja2.sandbox
import pydantic

from michelangelo import errors
from michelangelo.llm.scorer import batch_format
from michelangelo.llm.scorer.config import SamplingConfig, ScoreConfig
from michelangelo.llm.scorer.engine import Request, Sampling, Task
from michelangelo.llm.scorer.row_error import RowError

__all__ = ["Asked", "Prompter", "inlined"]

_NOTHING: Final = Request("")
_MAX_TEMPLATE_BYTES: Final = 1 << 20
_ENGINE_TASKS: Final[Mapping[str, Task]] = {
    "generate": "generate",
    "choices": "choices",
    "embed": "embed",
    "reward": "reward",
    "judge": "generate",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A request without its id, and what of the row its answer needs."""

    request: Request
    row_id: Any
    """None: the row has none."""
    kept: Mapping[str, Any]
    answer: Any = None
    """Task choices: the right one."""
    batch: Mapping[str, Any] | None = None
    """Of a batch file: the model and the address that were asked for."""


class Prompter:
    """Raises SettingsError that names all templates that are none."""

    def __init__(self, config: ScoreConfig) -> None:
        self._config = config
        self._sampling = config.sampling.to_sampling()
        if config.task == "judge":
            self._sampling = dataclasses.replace(self._sampling, json_schema=config.judge.json_schema)
        self._environment = jinja2.sandbox.SandboxedEnvironment(
            undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
        )
        self._wrong: list[str] = []
        self._template = self._compiled("prompt.template", config.prompt.template)
        self._system = self._compiled("prompt.system", config.prompt.system)
        self._choices = [
            self._compiled(f"choices.values.{number}", value) for number, value in enumerate(config.choices.values)
        ]
        if self._wrong:
            raise errors.SettingsError("wrong templates:\n" + "\n".join(self._wrong))

    def ask(self, row: Mapping[str, Any]) -> Asked:
        """Raises RowError."""
        known = self.known(row)
        if self._config.input.format == "openai":
            made = batch_format.request_of(row, self._sampling)
            return Asked(made.request, known.row_id, known.kept, batch=made.facts)
        answer = row.get(self._config.choices.answer_column) if self._config.choices.answer_column else None
        return Asked(self._request(row), known.row_id, known.kept, answer)

    def known(self, row: Mapping[str, Any]) -> Asked:
        """What the output has of a row also when it cannot be asked; the request is empty."""
        keep = self._config.output.keep
        kept = row if "*" in keep else {name: row[name] for name in keep if name in row}
        name = "custom_id" if self._config.input.format == "openai" else self._config.prompt.id_column
        return Asked(_NOTHING, row.get(name), kept)

    def _request(self, row: Mapping[str, Any]) -> Request:
        prompt = self._config.prompt
        system = self._system and _rendered(self._system, row, "prompt.system")
        task = _ENGINE_TASKS[self._config.task]
        choices: tuple[str, ...] = ()
        if task == "choices":
            choices = self._choices_of(row)
        sampling = self._sampling_of(row)
        tools = _tools(row.get(prompt.tools_column), prompt.tools_column)
        if self._template is None and row.get(prompt.messages_column) is not None:
            messages = _messages(row[prompt.messages_column], prompt.messages_column)
            if system and messages[0]["role"] != "system":
                messages = ({"role": "system", "content": system}, *messages)
            return Request("", messages=messages, task=task, sampling=sampling, choices=choices, tools=tools)
        text = self._prompt(row)
        if prompt.chat or system or tools:
            said: tuple[Mapping[str, Any], ...] = ({"role": "user", "content": text},)
            if system:
                said = ({"role": "system", "content": system}, *said)
            return Request("", messages=said, task=task, sampling=sampling, choices=choices, tools=tools)
        return Request("", prompt=text, task=task, sampling=sampling, choices=choices)

    def _prompt(self, row: Mapping[str, Any]) -> str:
        if self._template is not None:
            return _rendered(self._template, row, "prompt.template")
        name = self._config.prompt.prompt_column
        value = row.get(name)
        if value is None:
            columns = ", ".join(list(row)[:8]) or "none"
            raise RowError(f"there is no column {name}, and prompt.template is not set; the row has {columns}")
        if not isinstance(value, str):
            raise RowError(f"the column {name} is no text but {type(value).__name__}")
        return value

    def _choices_of(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        column = self._config.choices.column
        if not column:
            return tuple(
                _rendered(template, row, f"choices.values.{number}")
                for number, template in enumerate(self._choices)
                if template is not None
            )
        values = row.get(column)
        if not isinstance(values, list | tuple) or not values or not all(isinstance(one, str) for one in values):
            raise RowError(f"the column {column} is no list of texts to choose from")
        return tuple(values)

    def _sampling_of(self, row: Mapping[str, Any]) -> Sampling:
        name = self._config.prompt.sampling_column
        given = row.get(name)
        if given is None:
            return self._sampling
        if not isinstance(given, Mapping):
            raise RowError(f"the column {name} is no object of sampling parameters")
        # Tables have every key in every row; what is None was not there.
        values = {key: value for key, value in given.items() if value is not None}
        try:
            checked = SamplingConfig.model_validate(values)
        except pydantic.ValidationError as e:
            faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in e.errors())
            raise RowError(f"the column {name}: {faults}") from e
        return dataclasses.replace(self._sampling, **{key: getattr(checked, key) for key in values})

    def _compiled(self, path: str, source: str) -> jinja2.Template | None:
        if not source:
            return None
        try:
            return self._environment.from_string(source)
        except jinja2.TemplateError as e:
            self._wrong.append(f"  {path}: is no Jinja template: {e}")
        return None


def inlined(config: ScoreConfig) -> ScoreConfig:
    """With what `@FILE` names in its place, so that a changed file is a changed job. Raises SettingsError."""
    wrong: list[str] = []
    changes = {}
    for name in ("template", "system"):
        source = getattr(config.prompt, name)
        if source.startswith("@"):
            try:
                changes[name] = _read(Path(source[1:]))
            except (OSError, ValueError) as e:
                wrong.append(f"  prompt.{name}: {source} cannot be read: {e}")
    if wrong:
        raise errors.SettingsError("wrong templates:\n" + "\n".join(wrong))
    return config.model_copy(update={"prompt": config.prompt.model_copy(update=changes)}) if changes else config


def _read(file: Path) -> str:
    if file.stat().st_size > _MAX_TEMPLATE_BYTES:
        raise ValueError(f"larger than {_MAX_TEMPLATE_BYTES:,} bytes, so it is no template")
    return file.read_text(encoding="utf-8")


def _rendered(template: jinja2.Template, row: Mapping[str, Any], path: str) -> str:
    try:
        return template.render(row)
    # A template may call anything of a value: whatever it raises is the row's fault, as the values are.
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as e:
        raise RowError(f"{path}: {e}") from e
    except (OverflowError, RecursionError, MemoryError) as e:
        raise RowError(f"{path}: {type(e).__name__}") from e


def _messages(value: Any, name: str) -> tuple[Mapping[str, Any], ...]:
    if isinstance(value, str):
        value = _json(value, name)
    if not isinstance(value, list | tuple) or not value:
        raise RowError(f"the column {name} is no list of messages")
    made = []
    for number, message in enumerate(value):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RowError(f"{name}[{number}] is no message with a role and content")
        made.append({key: one for key, one in message.items() if one is not None})
    return tuple(made)


def _tools(value: Any, name: str) -> tuple[Mapping[str, Any], ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        value = _json(value, name)
    if not isinstance(value, list | tuple) or not all(isinstance(tool, Mapping) for tool in value):
        raise RowError(f"the column {name} is no list of tools")
    return tuple(value)


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise RowError(f"the column {name} is no JSON: {e}") from e
