"""What a list or a watch selects: a kind, a namespace, label and field selectors, as a prefix and terms for the store
and a predicate for the rest. It reads no store.

Every scalar field can be selected by: for our kinds under `spec.` and `status.`, for Events under `involvedObject.` and
beside. Kubernetes' own API server knows `metadata.name` and `metadata.namespace` only, so controllers use labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

import pydantic

from michelangelo import errors
from michelangelo.api.v2 import registry
from michelangelo.apiserver import documents
from michelangelo.meta import fieldpath, selectors

if TYPE_CHECKING:
    from michelangelo.api.v2.registry import Kind
    from michelangelo.client.client import Object

__all__ = ["Selection"]

_EVERYWHERE: Final = ("metadata.name", "metadata.namespace")


@dataclass(frozen=True, slots=True)
class Selection:
    kind: Kind
    prefix: str
    """Of the store's keys; longer than the kind and the namespace where one name is asked for."""
    terms: frozenset[str]
    """Every selected object carries them; others may too."""
    labels: selectors.LabelSelector
    fields: selectors.FieldSelector

    @classmethod
    def parse(cls, kind: Kind, namespace: str, label_selector: str, field_selector: str) -> Selection:
        """Raises BadRequestError."""
        labels = selectors.parse_labels(label_selector)
        fields = selectors.parse_fields(field_selector)
        for path in fields.paths:
            if not _is_selectable(kind, path):
                raise errors.BadRequestError(
                    f"field label not supported: {path}; {kind.kind} has metadata.name, metadata.namespace and the "
                    "scalar fields of its schema"
                )
        if not namespace and kind.namespaced:
            namespace = fields.required("metadata.namespace") or ""
        prefix = documents.prefix(kind, namespace)
        name = fields.required("metadata.name")
        if name and (namespace or not kind.namespaced):
            prefix += name
        return cls(kind, prefix, labels.equality_terms(), labels, fields)

    @property
    def is_everything(self) -> bool:
        """Whether every object under the prefix is selected."""
        return not self.labels and not self.fields

    def matches(self, obj: Object) -> bool:
        return self.labels.matches(obj) and self.fields.matches(obj)


@lru_cache(maxsize=1024)
def _is_selectable(kind: Kind, path: str) -> bool:
    if path in _EVERYWHERE:
        return True
    parts = fieldpath.parse(path)
    ours = kind.group == registry.GROUP
    if (ours and parts[0] not in ("spec", "status")) or (not ours and parts[0] in ("metadata", "apiVersion", "kind")):
        return False
    return _has_field(kind.model, parts)


def _has_field(annotation: Any, parts: fieldpath.Path) -> bool:
    """Whether a document of this type may have a value at the path; below free-form data everything may be."""
    if not parts:
        return True
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        field = next((one for one in annotation.model_fields.values() if one.alias == parts[0]), None)
        return field is not None and _has_field(field.annotation, parts[1:])
    if get_origin(annotation) is dict:
        return _has_field(get_args(annotation)[1], parts[1:])
    if get_origin(annotation) is list:
        return isinstance(parts[0], int) and _has_field(get_args(annotation)[0], parts[1:])
    return annotation is Any or any(_has_field(one, parts) for one in get_args(annotation))
