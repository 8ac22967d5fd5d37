"""Secret: the core kind for what nobody may read by accident: tokens, passwords, keys. Its values are in base64."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Field, model_validator

from michelangelo import errors
from michelangelo.api.v2.resource import AGE, Column, Resource
from michelangelo.meta import causes, fieldpath, secrecy
from michelangelo.meta.document import Bool

__all__ = ["MAX_BYTES", "Secret"]

MAX_BYTES: Final = 1 << 20
"""Of all values together, as Kubernetes has it."""
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")


class Secret(Resource):
    """Values that are encrypted at rest, and given only to who asks for this Secret by name."""

    data: dict[str, str] = Field(default_factory=dict)
    """The values by key, in base64."""
    string_data: Annotated[dict[str, str] | None, Field(json_schema_extra={"writeOnly": True})] = None
    """Values as plain text, for writing only: they go into data, over those of the same keys."""
    type: str = "Opaque"
    """What the values are for, such as Opaque."""
    immutable: Bool | None = None
    """Whether the values may never be changed."""

    frozen = ("type",)
    example: ClassVar[Mapping[str, Any]] = {"stringData": {"token": "change-me"}}
    printed_columns: ClassVar[tuple[Column, ...]] = (
        Column("Type", ".type", description="What the values are for"),
        AGE,
    )

    @model_validator(mode="after")
    def _merge(self) -> Self:
        if self.string_data is not None:
            given = {key: base64.b64encode(text.encode()).decode() for key, text in self.string_data.items()}
            self.data = {**self.data, **given}
            self.string_data = None
        return self

    def cross_validate(self) -> list[errors.FieldError]:
        found = []
        if secrecy.WITHHELD in (self.metadata.annotations or {}):
            path = fieldpath.text(("metadata", "annotations", secrecy.WITHHELD))
            found.append(
                causes.forbidden(path, "this is how listings show a Secret, without its values; get it by name")
            )
        size = 0
        for key, text in self.data.items():
            path = fieldpath.text(("data", key))
            if not _KEY.match(key):
                found.append(causes.invalid(path, key, "must consist of letters, digits, '-', '_' and '.'"))
            try:
                size += len(base64.b64decode(text, validate=True))
            except (binascii.Error, ValueError):
                # Without the value: it is secret, whatever is wrong with it.
                found.append(errors.FieldError(path, "must be base64; plain text goes into stringData"))
        if size > MAX_BYTES:
            found.append(causes.too_long("data", MAX_BYTES))
        return found

    @classmethod
    def check_update(cls, old: dict[str, Any], new: dict[str, Any]) -> list[errors.FieldError]:
        found = super().check_update(old, new)
        if old.get("immutable"):
            if old.get("data") != new.get("data"):
                found.append(causes.forbidden("data", "field is immutable when `immutable` is set"))
            if not new.get("immutable"):
                found.append(causes.forbidden("immutable", "field is immutable when `immutable` is set"))
        return found
