"""Following a call into a function of the user's: its frame, its parameters, recursion, and the bounds."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from michelangelo.uniflow.graph import frames, values
from michelangelo.uniflow.graph.drawing import Sketch
from michelangelo.uniflow.graph.expressions import Expressions
from michelangelo.uniflow.graph.frames import Frame, Place
from michelangelo.uniflow.graph.values import NOTHING, UNKNOWN, Arguments, FunctionTarget, Value

__all__ = ["Following"]


class Following(Expressions):
    """The functions that one frame calls."""

    def follow(self, node: Place, target: FunctionTarget, args: Arguments, kind: str = "call") -> Value:
        """A call into a function of the user's: its nodes lie in a group of their own, once for each place of a call,
        or, when that would be too many, once."""
        code = target.code
        self.world.invoked.add(code)
        if self.world.is_muted:
            return UNKNOWN
        around = self.frame.caller_of(code)
        if around is not None:
            return self._recurse(node, around, args)
        frame = self._frame(node, target, kind)
        if frame.group in self.drawing.sketches and frame is self.world.shared.get(code):
            self.drawing.connect(frame.group)
            before = self.world.changes
            self._bind(frame, target, args)
            if self.world.changes != before:
                frame.env = dict(frame.ever)
                self.drawing.frontier = self.drawing.leave(frame.group, "")
                self.world.evaluate(self.world, frame, "")
            self.drawing.frontier = self.drawing.merge([*frame.returns, self.drawing.leave(frame.group, "")])
            return frame.returned
        frame.caller = self.frame
        self.drawing.node(Sketch(frame.group, kind, code.name, code.module, node, None, self.frame.qualname))
        sketch = self.drawing.sketches[frame.group]
        sketch.module, sketch.place = self.frame.module, node
        frontier = self.drawing.frontier
        for _ in range(4):
            before = self.world.changes
            self.drawing.frontier = dict(frontier)
            frame.env = dict(frame.ever) if frame.is_recursive else {}
            self._bind(frame, target, args)
            self.world.evaluate(self.world, frame, "")
            if not frame.is_recursive or self.world.changes == before:
                break
        return frame.returned

    def _frame(self, node: Place, target: FunctionTarget, kind: str) -> Frame:
        """The frame of this call of a function."""
        code, world = target.code, self.world
        too_many = self.frame.depth >= frames.MAX_DEPTH or len(world.drawing.sketches) >= frames.MAX_NODES
        key = (f"{self.frame.prefix}{self.place(node)}", code)
        frame = world.frames.get(key)
        if frame is None:
            frame = world.shared.get(code) if too_many else None
            if frame is None:
                group = self.drawing.identify(f"{key[0]}>", node, kind, code.key)
                frame = Frame(code.module, code, key[0] + ">", group, self.frame, target.definer)
                if too_many:
                    world.shared[code] = frame
            world.frames[key] = frame
        self.frame.lead(node, frame)
        return frame

    def _recurse(self, node: Place, around: Frame, args: Arguments) -> Value:
        """A call of a function that is being called already: back to its group."""
        around.is_recursive = True
        assert around.code is not None
        self._bind(around, FunctionTarget(around.code), args)
        self.frame.lead(node, around)
        if around.group:
            self.drawing.connect(around.group, "back")
        self.drawing.frontier = self.drawing.merge([*around.returns, self.drawing.frontier])
        return around.returned

    def _bind(self, frame: Frame, target: FunctionTarget, args: Arguments) -> None:
        """Parameters get what is given; what nothing is given for may be anything."""
        assert frame.code is not None
        names = frame.code.parameters()
        arguments = frame.code.node.args
        if target.receiver is not None and names:
            frame.assign(names[0], Value(targets=frozenset([target.receiver])))
            names = names[1:]
        anywhere = values.join(*(value for key, value in args if key is None))
        given = {key: value for key, value in args if key is not None}
        for number, name in enumerate(names):
            value = given.get(number, given.get(name))
            frame.assign(name, value if value is not None else values.join(anywhere, self._default(frame, name)))
        for one in arguments.kwonlyargs:
            known = given.get(one.arg)
            frame.assign(one.arg, known if known is not None else values.join(anywhere, self._default(frame, one.arg)))
        rest = [value for key, value in given.items() if isinstance(key, int) and key >= len(names)]
        if arguments.vararg is not None:
            frame.assign(arguments.vararg.arg, self._packed(frame, arguments.vararg, [anywhere, *rest]))
        if arguments.kwarg is not None:
            names_given = [v for k, v in given.items() if isinstance(k, str) and k not in names]
            frame.assign(arguments.kwarg.arg, self._packed(frame, arguments.kwarg, [anywhere, *names_given]))

    def _default(self, frame: Frame, name: str) -> Value:
        assert frame.code is not None
        arguments = frame.code.node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        pairs = list(zip(reversed(positional), reversed(arguments.defaults), strict=False))
        pairs += [(a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None]
        for argument, default in pairs:
            if argument.arg == name:
                found = type(self)(self.world, self.frame).muted(default)
                return values.join(found, UNKNOWN) if found is NOTHING else found
        return UNKNOWN

    def _packed(self, frame: Frame, place: ast.AST, inside: Sequence[Value]) -> Value:
        cell = self.world.cell(place, frame)
        cell.put(None, values.join(*inside))
        return Value(cells=frozenset([cell]))
