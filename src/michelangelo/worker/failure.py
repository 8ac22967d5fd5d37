"""A failure of the user's code as JSON: what the journal keeps and what people are shown.

The JSON form: type and types (qualified names of the exception's class and of its bases, nearest first), message,
traceback (the user's frames), file, line, function and source of the innermost frame that is the user's.
Made from any exception, also from those that misbehave when they are looked at; nothing here raises.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from michelangelo import errors
from michelangelo.uniflow import retry

__all__ = ["from_exception"]

_MAX_MESSAGE = 16 * 1024
_MAX_FRAMES = 50
_MAX_GROUP = 10
_MAX_DEPTH = 10
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def from_exception(error: BaseException) -> dict[str, Any]:
    """The JSON form of what the user's code raised."""
    names = retry.type_names(error)
    form: dict[str, Any] = {"type": names[0], "types": names, "message": _message(error)}
    location = _location(error)
    form["traceback"] = "\n".join(_describe(error))[-4 * _MAX_MESSAGE :]
    form["file"], form["line"] = location.file, location.line
    form["function"], form["source"] = location.function, location.source
    return form


def _message(error: BaseException) -> str:
    """What it says. KeyError and its like would show the repr of their argument; some raise when asked."""
    try:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    except RecursionError:
        text = f"<{type(error).__name__} with a message that recurses without end>"
    except BaseException as failure:  # noqa: BLE001 - the user's __str__ may raise anything, and this must not
        text = f"<{type(error).__name__} whose message cannot be shown: {type(failure).__name__}>"
    if isinstance(error, SystemExit):
        text = f"it called sys.exit({text})"
    # A lone surrogate cannot be sent as UTF-8.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"


def _location(error: BaseException) -> errors.CodeLocation:
    """The innermost frame that is the user's; without one, the innermost that is not ours; else none."""
    if isinstance(error, errors.SourceError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, SyntaxError) and error.filename and error.__traceback__ is not None:
        frames = list(_frames(error.__traceback__))
        if not any(_is_users(file) for file, _, _ in frames):
            return errors.CodeLocation(error.filename, error.lineno or 0, "<module>", (error.text or "").strip())
    if isinstance(error, BaseExceptionGroup) and error.__traceback__ is None and error.exceptions:
        return _location(error.exceptions[0])
    frames = [found for found in _frames(error.__traceback__) if not found[0].startswith(_PACKAGE)]
    if not frames:
        return errors.CodeLocation("", 0)
    file, line, function = next((found for found in reversed(frames) if _is_users(found[0])), frames[-1])
    return errors.CodeLocation(file, line, function, linecache.getline(file, line).strip())


def _describe(error: BaseException, depth: int = 0) -> Iterator[str]:
    """Lines like Python's own traceback, causes first, without our frames and with long recursions cut."""
    if depth > _MAX_DEPTH:
        yield "… and more exceptions before or within"
        return
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        yield from _describe(earlier, depth + 1)
        link = "The above exception was the direct cause of" if error.__cause__ else "During handling of it there was"
        yield f"\n{link} the following exception:\n"
    frames = [found for found in _frames(error.__traceback__) if not found[0].startswith(_PACKAGE)]
    if frames:
        yield "Traceback (most recent call last):"
    shown = frames if len(frames) <= _MAX_FRAMES else frames[: _MAX_FRAMES // 2] + frames[-_MAX_FRAMES // 2 :]
    for number, (file, line, function) in enumerate(shown):
        if len(shown) < len(frames) and number == _MAX_FRAMES // 2:
            yield f"  … {len(frames) - len(shown)} frames left out …"
        yield f'  File "{file}", line {line}, in {function}'
        source = linecache.getline(file, line).strip()
        if source:
            yield f"    {source}"
    yield f"{retry.qualified_name(type(error))}: {_message(error)}"
    if isinstance(error, BaseExceptionGroup):
        for number, inner in enumerate(error.exceptions[:_MAX_GROUP], 1):
            yield f"  + {number} of {len(error.exceptions)}:"
            for text in _describe(inner, depth + 1):
                yield "    " + text.replace("\n", "\n    ")


def _frames(found: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    while found is not None:
        code = found.tb_frame.f_code
        yield code.co_filename, found.tb_lineno or code.co_firstlineno, code.co_name
        found = found.tb_next


def _is_users(file: str) -> bool:
    """Not ours, not the interpreter's, not an installed library's."""
    return not file.startswith((_PACKAGE, _STDLIB, "<")) and not any(folder in file for folder in _INSTALLED)
