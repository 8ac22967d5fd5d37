"""Signal: a message to a run that waits for it, such as a person's approval. One object per message; never changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from michelangelo import errors
from michelangelo.api.v2.resource import AGE, Column, Resource
from michelangelo.api.v2.user_info import UserInfo
from michelangelo.meta import causes, names
from michelangelo.meta.document import Document

__all__ = ["Signal", "SignalSpec"]


class SignalSpec(Document):
    """The message."""

    pipeline_run: Annotated[str, Field(min_length=1)]
    """Name of the run that the message is for, in the same namespace."""
    name: Annotated[str, Field(min_length=1)]
    """What the run waits for."""
    payload: Any = None
    """What the wait returns, as JSON."""
    actor: UserInfo | None = None
    """Who sent the message."""


class Signal(Resource):
    """A message to a run that waits for it, such as a person's approval."""

    spec: SignalSpec
    """The message."""

    frozen = ("spec",)
    example: ClassVar[Mapping[str, Any]] = {"spec": {"pipelineRun": "my-run", "name": "approved", "payload": True}}
    printed_columns: ClassVar[tuple[Column, ...]] = (
        Column("Run", ".spec.pipelineRun", description="The run that the message is for"),
        Column("Signal", ".spec.name", description="What the run waits for"),
        Column("Actor", ".spec.actor.name", description="Who sent the message"),
        AGE,
    )

    def cross_validate(self) -> list[errors.FieldError]:
        # The name also is the value of a label, by which the run finds its signals.
        return [causes.invalid("spec.name", self.spec.name, text) for text in names.check_label_value(self.spec.name)]
