"""From a step of a run to its node: the chain of frames in the step's identity is followed through the graph's frames.

Total: where the chain leaves what could be known, the nearest dynamic node stands for it, or else the innermost group
that it was followed into.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from michelangelo.uniflow.graph import sources
from michelangelo.uniflow.graph.drawing import START, Sketch
from michelangelo.uniflow.graph.frames import Frame, Site

__all__ = ["Atlas", "Call", "calls"]

_CALL: Final = re.compile(r"(.+?)@(-?\d+):(\d+)(?:#\d+/?|>|$)")
_MAX_PATHS: Final = 200


@dataclass(frozen=True, slots=True, repr=False)
class Call:
    """One frame of a chain."""

    qualname: str
    """Without comprehensions."""
    tag: str
    """`<listcomp>` and the like, where the frame is that of a comprehension."""
    line: int
    column: int


class Atlas:
    """The frames of one graph."""

    def __init__(self, root: Frame, frames: Sequence[Frame], sketches: dict[str, Sketch]) -> None:
        self._root = root
        self._sketches = sketches
        self._by_name: dict[str, list[Frame]] = {}
        for frame in frames:
            self._by_name.setdefault(frame.qualname, []).append(frame)
        self._known: dict[tuple[str, str], str] = {}

    def node_of(self, step: str, task: str = "") -> str:
        """The node of a step, by its identity; `task`, its name, decides between several at one place."""
        chain = re.sub(r"#\d+(?=/|$)", "#1", step)
        known = self._known.get((chain, task))
        if known is None:
            known = self._known[chain, task] = self._find(calls(step), task)
        return known

    def _find(self, chain: list[Call], task: str) -> str:
        if not chain or chain[0].qualname != self._root.qualname:
            return START
        furthest: tuple[int, Frame] = (0, self._root)
        second = ""
        for number, (index, frame) in enumerate(self._paths(chain, 0, self._root, 0)):
            if index == len(chain) - 1:
                found = self._at(frame, chain, index, task)
                if found and self._sketches[found].name == task:
                    return found
                second = second or found
            if index >= furthest[0]:
                furthest = (index, frame)
            if number > _MAX_PATHS:
                break
        return second or self._nearest(chain, *furthest, task)

    def _paths(self, chain: list[Call], index: int, frame: Frame, depth: int) -> Iterator[tuple[int, Frame]]:
        """Frames that the chain's call at `index` may be in; the deepest first."""
        if index + 1 < len(chain) and depth < 3 * len(chain):
            following = chain[index + 1]
            if following.tag and following.qualname == frame.qualname:
                yield from self._paths(chain, index + 1, frame, depth + 1)
            seen: set[int] = set()
            for callee in self._callees(chain, index, frame):
                if id(callee) in seen:
                    continue
                seen.add(id(callee))
                # A wrapper of a foreign kind may lie between a call and what it leads to.
                for later in range(index + 1, len(chain)):
                    if chain[later].qualname == callee.qualname:
                        yield from self._paths(chain, later, callee, depth + 1)
                        break
        yield index, frame

    def _callees(self, chain: list[Call], index: int, frame: Frame) -> Iterator[Frame]:
        for site in self._sites(frame, chain, index):
            yield from site.into
        line = _line(frame, chain, index)
        for call in chain[index + 1 :]:
            places = frame.into.get(call.qualname, ())
            yield from (callee for _, callee in sorted(places, key=lambda one: abs(one[0] - line)))
        # A closure that was handed on: of one of the functions that are being called.
        around: Frame | None = frame
        while around is not None:
            if chain[index + 1].qualname.startswith(f"{around.qualname}.<locals>."):
                yield from self._by_name.get(chain[index + 1].qualname, ())
            around = around.caller

    def _sites(self, frame: Frame, chain: list[Call], index: int) -> list[Site]:
        """The sites of a call in its frame. A comprehension's lines count from its own, so there may be several:
        the one that is nearest to where the comprehension was begun."""
        call = chain[index]
        found = frame.sites.get((call.tag, call.line, call.column), [])
        if len(found) < 2 or not call.tag or frame.code is None:
            return found
        line = _line(frame, chain, index)
        nearest = min(abs(site.line - line) for site in found)
        return [site for site in found if abs(site.line - line) == nearest]

    def _at(self, frame: Frame, chain: list[Call], index: int, task: str) -> str:
        """The node of a step that begins at a call."""
        here = [node for site in self._sites(frame, chain, index) for node in site.nodes]
        named = [node for node in here if self._sketches[node].name == task]
        if named:
            return named[0]
        if any(self._sketches[node].kind == "dynamic" for node in here):
            return next(node for node in here if self._sketches[node].kind == "dynamic")
        if here:
            return here[0]
        return self._near(frame, chain[index], task)

    def _near(self, frame: Frame, call: Call, task: str) -> str:
        """What a lazy iterator or a callback begins: at another place, that of who asks for it."""
        first = frame.code.first_line if frame.code else 1
        found: list[tuple[int, str]] = []
        for site in frame.site_of.values():
            for node in site.nodes:
                sketch = self._sketches[node]
                distance = abs(getattr(sketch.place, "lineno", 0) - first - call.line)
                if sketch.name == task and (distance == 0 or node in frame.loose):
                    found.append((distance, node))
        return min(found)[1] if found else ""

    def _nearest(self, chain: list[Call], index: int, innermost: Frame, task: str) -> str:
        last = START
        frame: Frame | None = innermost
        for node in (node for site in self._sites(innermost, chain, index) for node in site.nodes):
            if self._sketches[node].kind == "dynamic":
                return node
        while frame is not None:
            inside = [node for site in frame.site_of.values() for node in site.nodes]
            dynamic = [node for node in inside if self._sketches[node].kind == "dynamic"]
            for node in dynamic:
                if task in self._sketches[node].candidates:
                    return node
            if dynamic:
                return dynamic[0]
            if last == START and frame.group in self._sketches:
                last = frame.group
            frame = frame.caller
        return last


def _line(frame: Frame, chain: list[Call], index: int) -> int:
    """The line in the file of a call in `frame`. A comprehension's lines count from its own first one."""
    line = frame.code.first_line if frame.code else 1
    for one in chain[index::-1]:
        line += one.line
        if not one.tag:
            break
    return line


def calls(step: str) -> list[Call]:
    """The frames of a step's identity, outermost first, those of the workflows around a nested one too."""
    found = []
    for match in _CALL.finditer(step):
        qualname = match[1]
        last = qualname.rpartition(".")[2]
        tag = last if last in ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>") else ""
        found.append(Call(sources.canonical(qualname), tag, int(match[2]), int(match[3])))
    return found
