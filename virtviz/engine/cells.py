"""Integer cells: the named, journaled numbers in which a component keeps its state.

A component declares its state as a class with annotated fields, and uses it like any object:

    @cells
    class WorkerCells(Cells):
        queued: int = 0
        heads: list[int]

    worker.queued = 1
    worker.heads[3] = 7

`State.add` makes the instance. In a machine that records, it makes it of a subclass that journals every store; in one
that only counts, of the plain class, whose stores cost nothing extra. Reading costs the same in both. Fields are slots:
an instance with a dictionary of its own would be read and written several times more slowly.

Values are unsigned and fit in 64 bits. A list field has a fixed length, given when the instance is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar, cast, dataclass_transform

from virtviz.engine.journal import cell_word

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T", bound="Cells")


class Cells:
    """Base class of component state; see the module's text."""

    __slots__ = ()
    fields: ClassVar[dict[str, int | None]] = {}
    """Field -> initial value; None for a list, whose content is given to `State.add`."""


@dataclass_transform(kw_only_default=True)
def cells(cls: type[T]) -> type[T]:
    """Make the annotated fields of a `Cells` class its slots.

    A field is `int`, with an optional initial value, or `list[int]`. Methods of such a class must not use `super()`,
    because the class is made anew.
    """
    content = dict(vars(cls))
    own: dict[str, int | None] = {}
    for name, kind in cls.__annotations__.items():
        if "ClassVar" not in str(kind):
            default = content.pop(name, 0)
            own[name] = None if "list" in str(kind) else default
    for name in ("__dict__", "__weakref__"):
        content.pop(name, None)
    made = {**content, "__slots__": tuple(own), "fields": {**cls.fields, **own}}
    return cast("type[T]", type(cls.__name__, cls.__bases__, made))


class JournaledSlots(list[int]):
    """A list field of a recording machine: journals every store of an element."""

    __slots__ = ("_append", "_first")

    def __init__(self, values: list[int], first: int, append: Callable[[int], None]) -> None:
        super().__init__(values)
        self._first = cell_word(first)
        self._append = append

    def __setitem__(self, index: int, value: int) -> None:  # type: ignore[override]
        self._append((index << 3) + self._first)
        self._append(self[index])
        list.__setitem__(self, index, value)


def journaled(cls: type[T], words: dict[str, int], append: Callable[[int], None]) -> type[T]:
    """Give a subclass whose instance's stores go through the journal's `append`.

    Each instance has a class of its own, so that a store is one look-up from field to cell.

    Args:
        cls: a class made by `cells`.
        words: the journal's word for the cell of each field that is not a list; storing to any other name is an error.
        append: takes the words of the journal.
    """
    access = {name: (word, getattr(cls, name).__get__, getattr(cls, name).__set__) for name, word in words.items()}

    def __setattr__(self: T, name: str, value: int) -> None:  # noqa: N807 - becomes the method of that name
        word, get, put = access[name]
        append(word)
        append(get(self))
        put(self, value)

    return type(cls.__name__, (cls,), {"__slots__": (), "__setattr__": __setattr__})
