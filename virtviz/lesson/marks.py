"""Where things stand in a lesson file, and problems collected with their places.

A path is a tuple of keys and list positions, such as `("script", 3, "when", "op")`. For people, an item of a list is
called by its `id` where it has one, and by its number, from 1, where it has none: `script.slow-worker.when.op`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from virtviz.errors import Problem

Path = tuple[str | int, ...]
SHOWN_MAX = 40
"""Characters of a value that a message quotes."""
PROBLEMS_MAX = 50
"""Problems of one file that are told one by one."""
LINES_NAMED_MAX = 5
"""Further lines that a merged problem names."""


class Marks(Struct):
    """Places of keys and values of one file.

    Attributes:
        path: the file as the person named it.
        values: path of a value -> line and column where it begins, from 1.
        keys: path of a value -> line and column of its key.
        ids: path of a list's item -> what it is called.
        found: problems so far: line, column, path, what is wrong.
        lines: how many the file has; a parser may place what is missing at the end one line further.
    """

    path: str = ""
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    ids: dict[Path, str] = field(default_factory=dict)
    found: list[tuple[int, int, Path, str]] = field(default_factory=list)
    lines: int = 1 << 30

    def add(self, at: Path, what: str, *, key: bool = False) -> None:
        """Note a problem of a value, or of its key; what the file does not have stands where its parent does."""
        places = self.keys if key else self.values
        near = at
        while near and near not in places:
            near, places = near[:-1], self.values
        line, column = places.get(near, (1, 1))
        self.add_at(line, column, what, at)

    def add_at(self, line: int, column: int, what: str, at: Path = ()) -> None:
        """Note a problem at a line and column, both from 1."""
        self.found.append((min(line, self.lines), column, at, what))

    def where(self, at: Path) -> str:
        """Spell a path for people."""
        words = []
        for i, part in enumerate(at, 1):
            if isinstance(part, int):
                words.append(self.ids.get(at[:i], str(part + 1)))
            else:
                words.append(shown_key(part))
        return ".".join(words)

    def find(self, where: str) -> Path:
        """Give the path that is spelled so for people; the longest part of it that the file has."""
        spelled = {self.where(path): path for path in self.values}
        while where and where not in spelled:
            where = where.rpartition(".")[0]
        return spelled.get(where, ())

    def like(self) -> Marks:
        """Give marks of the same file without problems."""
        return Marks(self.path, self.values, self.keys, self.ids, lines=self.lines)

    def problems(self) -> list[Problem]:
        """Give the problems in file order, equal ones as one, and no more than people can use."""
        every = sorted(Problem(line, column, self.where(at), what, self.path) for line, column, at, what in self.found)
        by_text: dict[str, list[Problem]] = {}
        for problem in every:
            by_text.setdefault(problem.what, []).append(problem)
        found = []
        for same in by_text.values():
            first, lines = same[0], sorted({problem.line for problem in same[1:]} - {same[0].line})
            what = first.what + (f" (also in {_lines(lines)})" if lines else "")
            found.append(Problem(first.line, first.column, first.where, what, first.path))
        found.sort()
        if len(found) > PROBLEMS_MAX:
            more, first = len(found) - PROBLEMS_MAX, found[PROBLEMS_MAX]
            what = f"{more} more problems from here on; correct the others first"
            found = [*found[:PROBLEMS_MAX], Problem(first.line, first.column, "", what, first.path)]
        return found


def _lines(lines: list[int]) -> str:
    named = ", ".join(map(str, lines[:LINES_NAMED_MAX]))
    more = f" and {len(lines) - LINES_NAMED_MAX} more" if len(lines) > LINES_NAMED_MAX else ""
    return f"line{'s' if len(lines) > 1 else ''} {named}{more}"


def shown(value: object) -> str:
    """Quote a value of the file in a message: short, on one line, with nothing in it that a terminal would obey."""
    if isinstance(value, Mapping):
        return "a mapping of keys"
    if isinstance(value, list | tuple):
        return "a list"
    text = value if isinstance(value, str) else str(value)
    text = text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 3] + "..."
    return ascii(text) if not text.isprintable() else f"`{text}`"


def shown_key(key: str) -> str:
    """Spell a key in a path: as it stands if it is short and harmless."""
    short = key if len(key) <= SHOWN_MAX else key[: SHOWN_MAX - 3] + "..."
    return short if short.isprintable() else ascii(short)[1:-1]


def did_you_mean(word: str, words: Iterable[str], otherwise: str = "") -> str:
    """Say which of the words was probably meant, in brackets; what to say instead where none is near."""
    from difflib import get_close_matches  # noqa: PLC0415 - only what is misspelled needs it

    near = get_close_matches(word[:SHOWN_MAX], list(words), 1)
    return f" (did you mean `{near[0]}`?)" if near else otherwise
