"""Reads a pickle as data: a small stack machine that can build plain values and nothing else.

A pickle is a program. Python's own reader runs it with every function that the file names; this one
knows an explicit list of names, each of which stands for a function of ganinv that builds an inert
value from checked arguments. There is no import, no attribute access and no call of anything found
in the file. Whatever is not needed for tensors and settings is refused, with the reason and the
byte at which it stands.

Bounds: memory is at most a few times the size of the file, as every string and byte string is
part of it and every other operation makes at most one small object; time is bounded by the number
of operations: what a name is called with counts as many as it has parts, each time. Functions
behind names that copy bytes or text must count those.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_OPERATIONS = 250_000  # NVIDIA's largest files have some fifty thousand
MAX_TEXT = 1 << 20  # bytes of a string; the longest in practice is a module's source
MAX_NAME = 256  # bytes of a module's or a class's name
MAX_INTEGER = 32  # bytes
MAX_ARGUMENTS = 16  # of a call; the most in practice are seven
REFUSED = {  # operations that are never needed to write tensors and settings, and why not
    b"i": "INST makes an instance",
    b"o": "OBJ makes an instance",
    b"P": "PERSID asks for an outside object",
    b"\x82": "EXT1 asks for a registered extension",
    b"\x83": "EXT2 asks for a registered extension",
    b"\x84": "EXT4 asks for a registered extension",
    b"\x92": "NEWOBJ_EX makes an instance",
    b"\x97": "NEXT_BUFFER asks for an outside buffer",
}


class Unreadable(ValueError):
    """Why a pickle is refused."""


class Buildable:
    """An inert value that the file may complete with a state (opcode BUILD)."""

    def build(self, state: Any) -> None:
        """Check and take over the state.

        Raises:
            Unreadable: it is not what it should be.
        """
        raise Unreadable(f"{type(self).__name__} takes no state")


class OrderedDict(dict[Any, Any], Buildable):
    """`collections.OrderedDict`: a dict. Its attributes (state dicts carry `_metadata`, the
    versions of torch's modules) are left out."""

    def build(self, state: Any) -> None:
        """Leave it out."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """How a name may be used: called (REDUCE), made (NEWOBJ), or, with neither, only mentioned."""

    call: Callable[..., Any] | None = None
    new: Callable[[], Any] | None = None


@dataclass(frozen=True, slots=True)
class Name:
    """A permitted name, as it lies on the stack: the name and nothing behind it."""

    name: str
    allowed: Allowed


Names = Mapping[str, Allowed]


class Machine:
    """Reads the pickles that stand one after the other in `data`.

    Args:
        data: the bytes; byte strings in the result are views of them.
        names: what the file may name, as "module.name".
        persistent: what a persistent id (opcode BINPERSID) stands for; None refuses them.
        operations: how many may be executed in all.
    """

    def __init__(
        self,
        data: memoryview,
        names: Names,
        persistent: Callable[[Any], Any] | None = None,
        operations: int = MAX_OPERATIONS,
    ) -> None:
        self.data, self.names, self.persistent = data, names, persistent
        self.left, self.position = operations, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The next pickle; `position` is then the byte behind it.

        Raises:
            Unreadable: it holds more than data, or breaks off.
        """
        self.stack, self.marks, self.memo = [], [], {}
        while True:
            start = self.position
            try:
                self.left -= 1
                if self.left < 0:
                    raise Unreadable("more operations than any file of tensors needs")
                if start >= len(self.data):
                    self.take(1)
                self.position += 1
                code = self.data[start]
                if code == STOP:
                    if len(self.stack) != 1 or self.marks:
                        raise Unreadable("it ends with other than one value")
                    return self.stack.pop()
                operation = TABLE[code]
                if operation is None:
                    name = bytes([code])
                    raise Unreadable(REFUSED.get(name, f"an operation of code {name!r}"))
                operation(self)
            except UnicodeDecodeError:
                raise Unreadable(f"text that is not UTF-8 (at byte {start})") from None
            except (Unreadable, RecursionError, struct.error) as error:
                raise Unreadable(f"{error} (at byte {start})") from None

    # ------------------------------------------------------------------ reading

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        if count > len(self.data) - self.position:
            left = len(self.data) - self.position
            raise Unreadable(f"it is cut short: it asks for {count} bytes where {left} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, size: int) -> int:
        """An unsigned little-endian number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        """A name that ends with a line feed."""
        end = bytes(self.data[self.position : self.position + MAX_NAME]).find(b"\n")
        if end < 0:
            if len(self.data) - self.position < MAX_NAME:
                raise Unreadable("it is cut short, within a name")
            raise Unreadable(f"a name of more than {MAX_NAME} bytes")
        text = str(self.take(end), "utf-8")
        self.position += 1
        return text

    def text(self, count: int) -> str:
        """A string of `count` bytes of UTF-8."""
        if count > MAX_TEXT:
            raise Unreadable(f"a string of {count} bytes, more than {MAX_TEXT}")
        return str(self.take(count), "utf-8")

    # ------------------------------------------------------------------ the stack

    def push(self, value: Any) -> None:
        """On top."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Off the top, not from below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Unreadable("it takes more values than it made")
        return self.stack.pop()

    def top(self, kind: type, operation: str, *others: type) -> Any:
        """The value on top, which must be of exactly this type, or one of the others."""
        value = self.pop()
        self.push(value)
        if type(value) not in (kind, *others):
            raise Unreadable(f"{operation} on a {type(value).__name__}, not on a {kind.__name__}")
        return value

    def since_mark(self) -> list[Any]:
        """All values above the last mark, and the mark."""
        if not self.marks:
            raise Unreadable("it takes values up to a mark that is not there")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    # ------------------------------------------------------------------ operations

    def mark(self) -> None:
        """MARK."""
        self.marks.append(len(self.stack))

    def discard(self) -> None:
        """POP."""
        self.pop()

    def discard_to_mark(self) -> None:
        """POP_MARK."""
        self.since_mark()

    def integer(self, size: int) -> None:
        """LONG1 and LONG4: a signed number of any length."""
        if size > MAX_INTEGER:
            raise Unreadable(f"a number of {size} bytes, more than {MAX_INTEGER}")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def protocol(self) -> None:
        """PROTO."""
        if (version := self.number(1)) > 5:
            raise Unreadable(f"pickle protocol {version}; 2 to 5 are known")

    def frame(self) -> None:
        """FRAME: a hint to the reader, checked and not used."""
        size = self.number(8)
        if size > len(self.data) - self.position:
            raise Unreadable(f"a frame of {size} bytes in {len(self.data)}")

    def extend(self, values: list[Any]) -> None:
        """APPEND, APPENDS."""
        self.top(list, "APPENDS").extend(values)

    def update(self, values: list[Any]) -> None:
        """SETITEM, SETITEMS; keys are strings or small numbers, so none collide on purpose."""
        target = self.top(dict, "SETITEMS", OrderedDict)
        if len(values) % 2:
            raise Unreadable("SETITEMS with a key but no value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) is not str and not (type(key) is int and abs(key) < 1 << 31):
                raise Unreadable(f"a {type(key).__name__} as a key")
            target[key] = value

    def add(self) -> None:
        """ADDITEMS."""
        values = self.since_mark()
        if any(type(value) is not str for value in values):
            raise Unreadable("a set of other things than strings")
        self.top(set, "ADDITEMS").update(values)

    def last_pair(self) -> list[Any]:
        """A key and its value."""
        value, key = self.pop(), self.pop()
        return [key, value]

    def tuple_of(self, count: int) -> None:
        """TUPLE1 to TUPLE3."""
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def put(self, index: int) -> None:
        """Remember the value on top."""
        self.memo[index] = self.stack[-1] if self.stack else self.pop()

    def get(self, index: int) -> None:
        """A remembered value."""
        if index not in self.memo:
            raise Unreadable(f"it recalls value {index}, which it never stored")
        self.push(self.memo[index])

    def name(self, module: Any, name: Any) -> None:
        """GLOBAL, STACK_GLOBAL: only names of the list."""
        if type(module) is not str or type(name) is not str:
            raise Unreadable("a name that is not text")
        full = f"{module}.{name}"
        if len(full) > 2 * MAX_NAME or full not in self.names:
            raise Unreadable(f"it asks for {full[:MAX_NAME]!r}, which is not a name of tensors")
        self.push(Name(full, self.names[full]))

    def stack_name(self) -> None:
        """STACK_GLOBAL."""
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def reduce(self) -> None:
        """REDUCE: call ganinv's function behind a name."""
        arguments, what = self.pop(), self.pop()
        if type(what) is not Name or what.allowed.call is None or type(arguments) is not tuple:
            raise Unreadable(f"it calls {_words(what)}")
        if len(arguments) > MAX_ARGUMENTS:
            raise Unreadable(f"it calls {_words(what)} with {len(arguments)} arguments")
        for argument in arguments:
            self.spend(argument)
        self.push(_made(what, what.allowed.call, arguments))

    def new(self) -> None:
        """NEWOBJ: make what a name stands for, without arguments."""
        arguments, what = self.pop(), self.pop()
        empty = type(arguments) is tuple and not arguments
        if type(what) is not Name or what.allowed.new is None or not empty:
            raise Unreadable(f"it makes an instance of {_words(what)}")
        self.push(_made(what, what.allowed.new, ()))

    def build(self) -> None:
        """BUILD: a state for a value that takes one; never an attribute of anything."""
        state = self.pop()
        target = self.pop()
        if not isinstance(target, Buildable):
            raise Unreadable(f"it sets the state of {_words(target)}")
        self.spend(state)
        type(target).build(target, state)
        self.push(target)

    def spend(self, value: Any) -> None:
        """Count the parts of a container that a function may look through: the file may hand the
        same one to many."""
        if isinstance(value, dict | list | tuple | set):
            self.left -= len(value)
            if self.left < 0:
                raise Unreadable("the same values read again and again")

    def outside(self) -> None:
        """BINPERSID."""
        if self.persistent is None:
            raise Unreadable("BINPERSID asks for an outside object")
        self.push(self.persistent(self.pop()))


def _words(value: Any) -> str:
    return value.name if type(value) is Name else f"a {type(value).__name__}"


def _made(name: Name, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(*arguments)
    except Unreadable:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise Unreadable(f"{name.name} with arguments that do not fit: {error}") from None


OPERATIONS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": Machine.protocol,
    b"\x95": Machine.frame,
    b"(": Machine.mark,
    b"0": Machine.discard,
    b"1": Machine.discard_to_mark,
    b"2": lambda m: m.push(m.stack[-1] if m.stack else m.pop()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
    b"K": lambda m: m.push(m.number(1)),
    b"M": lambda m: m.push(m.number(2)),
    b"\x8a": lambda m: m.integer(m.number(1)),
    b"\x8b": lambda m: m.integer(m.number(4)),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"\x8c": lambda m: m.push(m.text(m.number(1))),
    b"X": lambda m: m.push(m.text(m.number(4))),
    b"U": lambda m: m.push(m.text(m.number(1))),  # strings of Python 2: plain ASCII
    b"T": lambda m: m.push(m.text(m.number(4))),
    b"\x8d": lambda m: m.push(m.text(m.number(8))),
    b"C": lambda m: m.push(m.take(m.number(1))),
    b"B": lambda m: m.push(m.take(m.number(4))),
    b"\x8e": lambda m: m.push(m.take(m.number(8))),
    b"\x96": lambda m: m.push(m.take(m.number(8))),
    b"]": lambda m: m.push([]),
    b"a": lambda m: m.extend([m.pop()]),
    b"e": lambda m: m.extend(m.since_mark()),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.since_mark())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"}": lambda m: m.push({}),
    b"s": lambda m: m.update(m.last_pair()),
    b"u": lambda m: m.update(m.since_mark()),
    b"\x8f": lambda m: m.push(set()),
    b"\x90": Machine.add,
    b"q": lambda m: m.put(m.number(1)),
    b"r": lambda m: m.put(m.number(4)),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"h": lambda m: m.get(m.number(1)),
    b"j": lambda m: m.get(m.number(4)),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": Machine.stack_name,
    b"R": Machine.reduce,
    b"\x81": Machine.new,
    b"b": Machine.build,
    b"Q": Machine.outside,
}
STOP = ord(".")
TABLE = [OPERATIONS.get(bytes([code])) for code in range(256)]
