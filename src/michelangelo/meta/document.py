"""The base of every typed document, and the scalar types of its fields: the one place where camelCase meets snake_case.

A model here checks the form of a JSON document; it is built only when it is first used. What documents mean is said
by the models that derive from it. YAML written for the upstream project is accepted: snake_case keys, and enum values
by their long protobuf names; what comes out is always camelCase and the short name.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, Strict
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError, PydanticUseDefault, core_schema

from michelangelo.meta import durations, quantity, timestamps

__all__ = [
    "Bool",
    "Document",
    "Duration",
    "Enumeration",
    "FreeForm",
    "Int32",
    "Int64",
    "Number",
    "Quantity",
    "Timestamp",
]


class Document(BaseModel):
    """A JSON object with known fields. Unknown ones are errors; `null` is the same as absent."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        serialize_by_alias=True,
        extra="forbid",
        defer_build=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


class Enumeration(StrEnum):
    """An enum of the API. `PIPELINE_TYPE_TRAIN` is read as `PipelineType.TRAIN`, `PIPELINE_TYPE_INVALID` as unset."""

    @classmethod
    def read(cls, value: Any) -> Self:
        """The member that `value` names. Raises pydantic's error that lists the members, or its sign to take the
        field's default, for protobuf's zero."""
        if isinstance(value, str):
            if value in cls._value2member_map_:
                return cls(value)
            prefix = _upper_snake(cls.__name__) + "_"
            if value.startswith(prefix):
                short = value[len(prefix) :]
                if short in cls.__members__:
                    return cls[short]
                if short == "INVALID":
                    raise PydanticUseDefault
        raise PydanticCustomError("enum", "must be one of {supported}", {"supported": [str(one) for one in cls]})

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.read,
            json_schema_input_schema=core_schema.literal_schema([str(one) for one in cls]),
            serialization=core_schema.to_string_ser_schema(),
        )


def _upper_snake(name: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in name).upper().lstrip("_")


def _checked(parse: Callable[[str], object]) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            parse(text)
        except ValueError as error:
            raise PydanticCustomError("format", "{reason}", {"reason": str(error)}) from error
        return text

    return check


def _quantity_text(value: Any) -> Any:
    # Kubernetes takes `cpu: 2` and `cpu: 0.5` as well as `cpu: "2"`.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Bool = Annotated[bool, Strict()]
Int32 = Annotated[int, Strict(), Field(ge=-(2**31), le=2**31 - 1, json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Strict(), Field(ge=-(2**63), le=2**63 - 1, json_schema_extra={"format": "int64"})]
Number = Annotated[float, Strict()]
Timestamp = Annotated[str, AfterValidator(_checked(timestamps.parse)), Field(json_schema_extra={"format": "date-time"})]
"""An RFC 3339 instant, kept as the text it came as."""
Duration = Annotated[str, AfterValidator(_checked(durations.seconds))]
"""`600s`, `10m`, `1h30m`, kept as the text it came as."""
Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    AfterValidator(_checked(quantity.Quantity)),
    Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
]
"""`500m`, `2Gi`, kept as the text it came as; `michelangelo.meta.quantity` computes with it."""
FreeForm = dict[str, Any]
"""An object whose keys are the user's, kept literally."""
