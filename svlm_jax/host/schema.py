"""Values from files, checked where they are read: what a field must be is declared, and what does not fit is one sentence.

A reader wraps what it got into a `Record` and asks for fields by name and kind:

    record = Record(parsed, "train.jsonl, line 3", DataError)
    start = record.get("start", Number(least=0))
    title = record.get("title", Text(), "")          # "" when the field is absent or null

`null` is an absent field everywhere, unless the kind is `Nullable`.
"""

import abc
import dataclasses
import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, NoReturn, TypeVar, overload

from svlm_jax.errors import SvlmError

T = TypeVar("T")
D = TypeVar("D")
T_co = TypeVar("T_co", covariant=True)

REQUIRED: Final = object()
LARGEST = 2**53  # beyond it, whole numbers are not exact in JSON
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def brief(text: str, most: int = 80) -> str:
    """A text from a file for a sentence: its beginning, in one line."""
    text = " ".join(text[: most + 1].split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


class Unfit(Exception):
    """A value that is not of its kind; `path` leads to it from the field, e.g. "[3]"."""

    def __init__(self, value: Any, expected: str, path: str = "") -> None:
        super().__init__(expected)
        self.value, self.expected, self.path = value, expected, path


class Kind(abc.ABC, Generic[T_co]):
    """What a value must be."""

    @property
    @abc.abstractmethod
    def expected(self) -> str:
        """In words, with an article."""

    @abc.abstractmethod
    def read(self, value: Any) -> T_co:
        """The value as this kind; raises Unfit."""

    def refuse(self, value: Any) -> NoReturn:
        raise Unfit(value, self.expected)


@dataclasses.dataclass(frozen=True)
class Number(Kind[float]):
    """A finite number in range. `digits`: text that spells one is taken too, as some published files have it."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    digits: bool = False

    @property
    def expected(self) -> str:
        return "a finite number" + _range(self.least, self.most, self.above)

    def read(self, value: Any) -> float:
        number = _finite(_spelled(value, float) if self.digits and isinstance(value, str) else value)
        if number is None or not _inside(number, self.least, self.most, self.above):
            self.refuse(value)
        return float(number)


@dataclasses.dataclass(frozen=True)
class Whole(Kind[int]):
    """A whole number in range; 2.0 is one."""

    least: int = -LARGEST
    most: int = LARGEST
    digits: bool = False

    @property
    def expected(self) -> str:
        least = None if self.least == -LARGEST else self.least
        return "a whole number" + _range(least, None if self.most == LARGEST else self.most, None)

    def read(self, value: Any) -> int:
        number = _finite(_spelled(value, int) if self.digits and isinstance(value, str) else value)
        if number is None or number != int(number) or not self.least <= number <= self.most:
            self.refuse(value)
        return int(number)


@dataclasses.dataclass(frozen=True)
class Text(Kind[str]):
    """Text. `numbers`: a number is taken as its digits, as ids in published files."""

    numbers: bool = False

    @property
    def expected(self) -> str:
        return "text or a number" if self.numbers else "text"

    def read(self, value: Any) -> str:
        if self.numbers and _finite(value) is not None:
            return str(value)
        if not isinstance(value, str):
            self.refuse(value)
        return value


@dataclasses.dataclass(frozen=True)
class Flag(Kind[bool]):
    """true or false."""

    expected = "true or false"

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            self.refuse(value)
        return value


@dataclasses.dataclass(frozen=True)
class Choice(Kind[Any]):
    """One of some texts."""

    allowed: tuple[str, ...]

    @property
    def expected(self) -> str:
        return self.allowed[0] if len(self.allowed) == 1 else f"one of {', '.join(self.allowed)}"

    def read(self, value: Any) -> Any:
        if not isinstance(value, str) or value not in self.allowed:
            self.refuse(value)
        return value


@dataclasses.dataclass(frozen=True)
class ListOf(Kind[tuple[T, ...]]):
    """An array whose elements are all of one kind."""

    element: Kind[T]
    least: int = 0
    most: int | None = None

    @property
    def expected(self) -> str:
        count = "" if self.least == 0 else f" of at least {self.least}"
        if self.most is not None:
            count = f" of {self.least}" if self.least == self.most else f" of {self.least} to {self.most}"
        return f"an array{count}" + ("" if isinstance(self.element, Anything) else f", each {self.element.expected}")

    def read(self, value: Any) -> tuple[T, ...]:
        fits = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        if not fits or len(value) < self.least or (self.most is not None and len(value) > self.most):
            self.refuse(value)
        return tuple(_at(i, self.element, part) for i, part in enumerate(value))


@dataclasses.dataclass(frozen=True)
class Row(Kind[tuple[Any, ...]]):
    """An array with one element of each kind, e.g. [start, end, word]."""

    elements: tuple[Kind[Any], ...]

    @property
    def expected(self) -> str:
        return f"an array of {len(self.elements)}: {', '.join(kind.expected for kind in self.elements)}"

    def read(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or len(value) != len(self.elements):
            self.refuse(value)
        return tuple(_at(i, kind, part) for i, (kind, part) in enumerate(zip(self.elements, value, strict=True)))


@dataclasses.dataclass(frozen=True)
class Object(Kind[Mapping[str, Any]]):
    """An object with named fields, which a `Record` of its own reads."""

    expected = "an object"

    def read(self, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self.refuse(value)
        return value


@dataclasses.dataclass(frozen=True)
class Either(Kind[Any]):
    """A value of any of some kinds; the first that fits counts."""

    kinds: tuple[Kind[Any], ...]

    @property
    def expected(self) -> str:
        return " or ".join(kind.expected for kind in self.kinds)

    def read(self, value: Any) -> Any:
        for kind in self.kinds:
            try:
                return kind.read(value)
            except Unfit:
                continue
        self.refuse(value)


@dataclasses.dataclass(frozen=True)
class Nullable(Kind[T | None]):
    """A field in which null means something of its own."""

    kind: Kind[T]

    @property
    def expected(self) -> str:
        return f"{self.kind.expected}, or null"

    def read(self, value: Any) -> T | None:
        try:
            return None if value is None else self.kind.read(value)
        except Unfit as error:
            raise error if error.path else Unfit(value, self.expected) from None


@dataclasses.dataclass(frozen=True)
class Anything(Kind[Any]):
    """What is carried along and not looked at."""

    expected = "anything"

    def read(self, value: Any) -> Any:
        return value


class Record:
    """An object from a file whose fields are asked for by name and kind.

    Args:
      data: what was parsed. where: what errors call it, e.g. "a.jsonl, line 3". error: what they are.
    Raises:
      `error`: the data is no object; or, when a field is asked for, it is missing or not of its kind.
    """

    def __init__(self, data: Any, where: str, error: type[SvlmError]) -> None:
        if not isinstance(data, Mapping):
            raise error(f"{where} is {_SHORT.repr(data)}: expected an object with named fields.")
        self.data: Mapping[str, Any] = data
        self.where, self.error = where, error

    def __contains__(self, name: str) -> bool:
        return self.data.get(name) is not None

    @overload
    def get(self, name: str, kind: Kind[T]) -> T: ...
    @overload
    def get(self, name: str, kind: Kind[T], default: D) -> T | D: ...

    def get(self, name: str, kind: Kind[Any], default: Any = REQUIRED) -> Any:
        """The field as its kind; the default when it is absent or null, an error when there is no default."""
        value = self.data.get(name, REQUIRED)
        if value is REQUIRED or (value is None and not isinstance(kind, Nullable | Anything)):
            if default is REQUIRED:
                has = ", ".join(brief(name) for name in sorted(map(str, self.data))[:20]) or "none"
                raise self.error(f"{self.where} has no field {name!r}, expected {kind.expected}; it has {has}.")
            return default
        try:
            return kind.read(value)
        except Unfit as error:
            raise self.wrong(f"{name}{error.path}", error.value, error.expected) from None

    def record(self, name: str) -> "Record":
        """The object in a field."""
        return Record(self.get(name, Object()), f"{self.where}, {name}", self.error)

    def records(self, name: str) -> "list[Record]":
        """The objects in the array of a field."""
        parts = self.get(name, ListOf(Anything()))
        return [Record(part, f"{self.where}, {name}[{i}]", self.error) for i, part in enumerate(parts)]

    def wrong(self, name: str, value: Any, expected: str) -> SvlmError:
        """The error that a field's value is not what was expected."""
        return self.error(f"{self.where}, field {_SHORT.repr(name)} is {_SHORT.repr(value)}: expected {expected}.")

    def known(self, kinds: Mapping[str, Kind[Any]]) -> dict[str, Any]:
        """Those fields that the kinds name and that are there, each as its kind; null is there where it means something."""
        return {
            name: self.get(name, kind) for name, kind in kinds.items()
            if name in self or (isinstance(kind, Nullable) and name in self.data)
        }  # fmt: skip

    def fields(self, kinds: Mapping[str, Kind[Any]]) -> dict[str, Any]:
        """Those of the fields that are there, each as its kind; an error for one that is none of them."""
        for name in self.data:
            if name not in kinds:
                raise self.error(f"{self.where} has a field {_SHORT.repr(name)}: expected any of {', '.join(kinds)}.")
        return self.known(kinds)


def _at(index: int, kind: Kind[T], value: Any) -> T:
    try:
        return kind.read(value)
    except Unfit as error:
        raise Unfit(error.value, error.expected, f"[{index}]{error.path}") from None


def _finite(value: Any) -> float | int | None:
    """A number that is one and can be computed with; None for all else, also for true and false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return value if abs(value) < 10**300 else None
    return value if math.isfinite(value) else None


def _spelled(text: str, kind: type[T]) -> T | None:
    try:
        return kind(text[:400])  # type: ignore[call-arg]
    except ValueError:
        return None


def _inside(number: float, least: float | None, most: float | None, above: float | None) -> bool:
    return (least is None or number >= least) and (most is None or number <= most) and (above is None or number > above)


def _range(least: float | None, most: float | None, above: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least:.10g} to {most:.10g}"
    limits = (("of at least", least), ("above", above), ("of at most" if above is None else "and at most", most))
    return "".join(f" {word} {limit:.10g}" for word, limit in limits if limit is not None)
