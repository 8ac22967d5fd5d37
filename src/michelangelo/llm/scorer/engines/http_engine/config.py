"""What can be set on the engine behind HTTP. Secrets are named here, never held: a variable or a file has the key."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

import pydantic
from pydantic import Field

from michelangelo.llm.scorer.engine import Task

__all__ = ["HttpEngineConfig"]

_Seconds = Annotated[float, Field(gt=0.0)]
_Dollars = Annotated[float, Field(ge=0.0)]
_OWN_HEADERS: Final = frozenset({"authorization", "content-type", "content-length", "host", "accept"})


class HttpEngineConfig(pydantic.BaseModel):
    """One server and one of its models."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    kind: Literal["openai"] = "openai"
    base_url: str
    """Up to the version, such as http://127.0.0.1:8000/v1."""
    model: Annotated[str, Field(min_length=1)]
    """As the server calls it."""
    api_key_env: str = ""
    """The environment variable that holds the key; empty with `api_key_file` empty: no key is sent."""
    api_key_file: str = ""
    """A file that holds the key and nothing else."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with each request, such as an organisation's. No secrets: they would stand in the job's manifest."""
    tasks: tuple[Task, ...] = ("generate", "choices", "embed")
    """What the server can do."""
    prompts_as_chat: bool = False
    """Send a prompt as a user's message, for servers that know chats only."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How chats call the limit of the output; OpenAI's newer models want the second."""
    streams: bool = False
    """Receive answers in pieces: the time to the first token is known then."""

    max_concurrency: Annotated[int, Field(ge=1, le=1024)] = 32
    """Calls at once. Fewer for a while when the server says that it is too much."""
    requests_per_minute: Annotated[float, Field(gt=0.0)] | None = None
    tokens_per_minute: Annotated[float, Field(gt=0.0)] | None = None
    """Prompt and output together; before the answer is there, an estimate."""
    max_retries: Annotated[int, Field(ge=0, le=100)] = 6
    retry_base_seconds: _Seconds = 0.5
    """The first wait before another attempt is between 0 and this, the next between 0 and twice this, and so on."""
    retry_cap_seconds: _Seconds = 60.0
    """The longest of these waits."""
    longest_pause_seconds: _Seconds = 900.0
    """A server that asks for a longer pause than this fails the row."""
    connect_seconds: _Seconds = 10.0
    request_seconds: _Seconds = 600.0
    """For one attempt, until its last byte."""

    budget_usd: _Dollars | None = None
    """Spend no more: a request that might pass it is not sent and ends with an error."""
    usd_per_million_input: _Dollars | None = None
    usd_per_million_cached_input: _Dollars | None = None
    """None: as other input."""
    usd_per_million_output: _Dollars | None = None

    @pydantic.field_validator("base_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good:
            raise ValueError("must be a URL such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must end with its path and hold no user, password or query: name the key in api_key_env")
        return value.rstrip("/")

    @pydantic.field_validator("headers")
    @classmethod
    def _check_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"{name} is set by the engine itself; for a key, name it in api_key_env")
            if not name.isascii() or not text.isascii() or not (name + text).isprintable():
                raise ValueError(f"{name!r} or its value holds characters that no header can hold")
        return value

    @pydantic.model_validator(mode="after")
    def _check_combinations(self) -> Self:
        wrong = []
        if self.api_key_env and self.api_key_file:
            wrong.append("api_key_file: api_key_env is set too; set one of the two")
        if (self.usd_per_million_input is None) != (self.usd_per_million_output is None):
            wrong.append("usd_per_million_input and usd_per_million_output: set both or neither")
        if not self.tasks:
            wrong.append("tasks: must name at least one task")
        if "reward" in self.tasks:
            wrong.append("tasks: reward has no place in OpenAI's API")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self
