"""Pickles, read without unpickling: their opcodes are interpreted here, and no function or class is ever looked up or called.

What a pickle names stays a :class:`Name`, and what it would make by a call stays a :class:`Call`. Whoever reads a file says
which of them it knows; the rest is refused by name where it is met, or is never looked at.
"""

from __future__ import annotations

import math
import pickletools
import warnings
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet.core.errors import printable

MAX_OPCODES = 500_000
"""Most opcodes of a pickle; each may make an object. A CIFAR-10 batch has some 50,000."""
MAX_NAME = 400
"""Most letters of a function's or class's name with its module."""
MAX_INT = (1 << 31) - 1
"""Largest integer that is a key here."""
NUMPY_NAMES = frozenset(
    {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
)
"""What a pickle of a NumPy array names."""

_ORDERED_DICT = "collections OrderedDict"
_MARK = object()
_CONSTANTS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
"""Opcodes that push their argument."""


class PickleFault(ValueError):
    """A pickle that is damaged, or that this program does not read. The message is short and on one line."""


class ForeignName(PickleFault):
    """A pickle names something that the file should not need."""

    def __init__(self, path: str) -> None:
        self.path = printable(path)[:80]
        super().__init__(f"refers to {self.path}")


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names: module, a space, name."""

    path: str


@dataclass(frozen=True, eq=False)
class Stored:
    """What a pickle keeps elsewhere, by the description that it gives of it."""

    description: Any


@dataclass(eq=False)
class Call:
    """A call that a pickle asks for, and that is not made."""

    function: Any
    arguments: Any
    state: Any = None

    def calls(self, *paths: str) -> bool:
        return isinstance(self.function, Name) and self.function.path in paths


def read_pickle(stream: BinaryIO, known: Container[str] | None = None, stored: list[Stored] | None = None) -> Any:
    """The value of the pickle that begins where ``stream`` stands, which is then behind it. An OrderedDict is a dict; keys
    other than text, bytes and numbers are kept as objects of no use. What is kept elsewhere is added to ``stored``. ``stream``
    must hold its bytes in memory, for a damaged pickle asks for any number of them.

    Raises :class:`PickleFault` for a damaged pickle, and :class:`ForeignName` for a name that is not among ``known``, if that is
    given."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # about an escape in a string that Python does not write
            return _interpreted(stream, known, [] if stored is None else stored)
    except PickleFault:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, OverflowError, Warning) as error:
        said = "" if isinstance(error, LookupError | StopIteration) else printable(error)[:150]  # a place, or nothing
        raise PickleFault(said or "its opcodes do not fit together") from error


class _Interpreter:
    """The stack and the memo of a pickle. Each method does the opcodes of one kind, and says whether this was one."""

    def __init__(self, known: Container[str] | None, stored: list[Stored]) -> None:
        self.known, self.stored = known, stored
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.pairs = 0
        """That were given to constructors of OrderedDict, which one opcode can do with any number of them again and again."""

    def do(self, name: str, argument: Any) -> None:
        """One opcode but STOP."""
        if not (self._value(name, argument) or self._container(name) or self._call(name, argument)):
            raise PickleFault(f"pickle opcode {name}, which is not read here")

    def _value(self, name: str, argument: Any) -> bool:
        """What is pushed as it is, and what the memo holds."""
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            pass
        elif name in _CONSTANTS:
            stack.append(argument)
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            if not 0 <= argument <= MAX_INT:
                raise PickleFault("a memo without a sound number")
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._pop_to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("PERSID", "BINPERSID"):
            self.stored.append(Stored(argument if name == "PERSID" else stack.pop()))
            stack.append(self.stored[-1])
        else:
            return False
        return True

    def _container(self, name: str) -> bool:
        """Tuples, lists and dicts."""
        stack = self.stack
        if name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        elif name in ("TUPLE", "LIST"):
            items = self._pop_to_mark()
            stack.append(tuple(items) if name == "TUPLE" else items)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "DICT":
            items = self._pop_to_mark()
            stack.append({})
            _set_items(stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop_to_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _set_items(stack[-1], items)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self._pop_to_mark()
            if not isinstance(stack[-1], Call):  # what a call would give holds items that nobody reads
                stack[-1].extend(items)
        else:
            return False
        return True

    def _call(self, name: str, argument: Any) -> bool:
        """Names, and calls that are not made."""
        stack = self.stack
        if name == "GLOBAL":
            stack.append(self._named(argument))
        elif name == "STACK_GLOBAL":
            module, attribute = stack.pop(-2), stack.pop()
            if len(module) + len(attribute) > MAX_NAME:  # which the memo can join again and again
                raise PickleFault(f"a name of {len(module) + len(attribute):,} letters")
            stack.append(self._named(f"{text_of(module)} {text_of(attribute)}"))
        elif name in ("EXT1", "EXT2", "EXT4"):
            stack.append(self._named(f"extension {argument}"))
        elif name == "EMPTY_SET":
            stack.append(Call(self._named("builtins set"), ()))
        elif name == "FROZENSET":
            stack.append(Call(self._named("builtins frozenset"), (self._pop_to_mark(),)))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            stack.append(self._called(stack.pop(), arguments))
        elif name == "NEWOBJ_EX":
            del stack[-1]
            arguments = stack.pop()
            stack.append(Call(stack.pop(), arguments))
        elif name == "INST":
            stack.append(Call(self._named(argument), tuple(self._pop_to_mark())))
        elif name == "OBJ":
            function, *items = self._pop_to_mark()
            stack.append(Call(function, tuple(items)))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Call):
                stack[-1].state = state
            elif not isinstance(stack[-1], dict):  # an OrderedDict of PyTorch has attributes, which nobody reads
                raise PickleFault(f"a state for a {type(stack[-1]).__name__}")
        else:
            return False
        return True

    def _called(self, function: Any, arguments: Any) -> Any:
        if not (isinstance(function, Name) and function.path == _ORDERED_DICT):
            return Call(function, arguments)
        made: dict[Any, Any] = {}
        for pair in arguments[0] if arguments else ():  # Python 2 gives the pairs at once
            self.pairs += 1
            if not isinstance(pair, list | tuple) or len(pair) != 2 or self.pairs > MAX_OPCODES:
                raise PickleFault("items for an OrderedDict that are no pairs, or too many")
            _set_items(made, list(pair))
        return made

    def _pop_to_mark(self) -> list[Any]:
        start = len(self.stack) - 1 - next(i for i, item in enumerate(reversed(self.stack)) if item is _MARK)
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def _named(self, path: str) -> Name:
        if self.known is not None and path not in self.known:
            raise ForeignName(path)
        return Name(path)


def _interpreted(stream: BinaryIO, known: Container[str] | None, stored: list[Stored]) -> Any:
    interpreter = _Interpreter(known, stored)
    for num, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if num == MAX_OPCODES:
            raise PickleFault(f"more than {MAX_OPCODES:,} opcodes")
        if opcode.name == "STOP":
            return interpreter.stack.pop()
        interpreter.do(opcode.name, argument)
    raise PickleFault("the pickle does not end")


def _set_items(target: Any, items: list[Any]) -> None:
    if isinstance(target, Call):  # of what a call would give
        return
    if not isinstance(target, dict) or len(items) % 2:
        raise PickleFault("items for something that is no dict")
    target.update(zip(map(_key, items[::2]), items[1::2], strict=True))


def _key(key: Any) -> Any:
    """A key that a dict can have without taking for ever: the hash of tuples which share their parts a thousand times does, and
    so do thousands of large integers, which can be chosen to have one hash."""
    small = key is None or isinstance(key, str | bytes | float) or (isinstance(key, int) and -MAX_INT <= key <= MAX_INT)
    return key if small else Stored(None)


def text_of(key: Any) -> str:
    """A name in a pickle; what Python 2 wrote is bytes. :class:`TypeError` for anything else."""
    if not isinstance(key, str | bytes):  # str() of what shares its parts a thousand times fills the memory
        raise TypeError(f"a {type(key).__name__} for a name")
    return key.decode("latin-1") if isinstance(key, bytes) else key


def is_array(value: Any) -> bool:
    """Whether this is the call that makes a NumPy array."""
    return isinstance(value, Call) and value.calls(*(name for name in NUMPY_NAMES if name.endswith(" _reconstruct")))


def array_of(value: Call, code: str) -> NDArray[Any]:
    """The NumPy array that the call would make, if its type is ``code``, as ``u1`` or ``f4``. Raises :class:`PickleFault`."""
    try:
        _, shape, dtype, column_order, data = value.state  # version, shape, dtype, Fortran order, bytes
        if text_of(dtype.arguments[0]) != code or text_of(dtype.state[1]) == ">":
            raise PickleFault(f"an array of something else than {code}")
        raw = data.encode("latin-1") if isinstance(data, str) else data
        array = np.frombuffer(raw, dtype=np.dtype(code))
        if not all(type(extent) is int and extent >= 0 for extent in shape) or math.prod(shape) != array.size:
            raise PickleFault(f"an array whose shape does not fit its {len(raw):,} bytes")
        return array.reshape(shape, order="F" if column_order else "C")
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise PickleFault(printable(error)[:150]) from error
