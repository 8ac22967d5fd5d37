"""The result of another pipeline's run, as this run's workflow sees it.

That pipeline has code of its own. Records of classes that this one has too are what they were; when one of the classes
cannot be found here, all records come as plain dicts of their fields, and enumerations as the names of their members.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from michelangelo import errors

__all__ = ["decode"]

_RECORDS: Final = ("dataclass", "namedtuple", "pydantic")


def decode(tree: Any, decoder: Callable[[Any], Any]) -> Any:
    """`decoder` decodes an encoded value, and raises CodecError where it cannot."""
    try:
        return decoder(tree)
    except errors.CodecError:
        return decoder(_plain(tree))


def _plain(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_plain(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    codec = tree.get("$codec")
    if codec in _RECORDS and isinstance(tree.get("fields"), dict):
        return {name: _plain(item) for name, item in tree["fields"].items()}
    if codec == "enum":
        return tree["name"] if "name" in tree else _plain(tree.get("value"))
    return {key: _plain(item) for key, item in tree.items()}
