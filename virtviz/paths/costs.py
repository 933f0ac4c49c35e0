"""Cost profiles: what operations cost in simulated time. All of it is assumption, kept in files with its sources.

A profile is a TOML file: a title, what it is about, perhaps another profile that it begins with, and a table `cost` of
entries by the key of an op, a crossing or an effect. An entry is `{ ns = 250, confidence = "E", source = "..." }`, or
just the number of nanoseconds, which is then an estimate of whoever wrote it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from msgspec import Struct

from virtviz.errors import KnobError, printable
from virtviz.resources import data_folder

CONFIDENCE: Final = {
    "A": "a primary source was read",
    "B": "a secondary source, or part of one, was read",
    "C": "a remembered figure, its source not opened",
    "M": "measured by this project",
    "E": "an estimate without a source",
}
"""How far a figure can be trusted."""
BASE: Final = "estimates"
"""The profile that has an entry for everything, and that others begin with if they name none."""
ENDING: Final = ".toml"
"""What the path of a profile of one's own ends in."""
NS_MAX: Final = 10**9
BYTES_MAX: Final = 100_000
"""A profile's file is not larger."""


class Cost(Struct, frozen=True):
    """One assumption: nanoseconds, how far they can be trusted (a key of `CONFIDENCE`), and where they come from."""

    ns: int
    confidence: str
    source: str


class CostProfile(Struct, frozen=True):
    """A set of assumptions.

    Attributes:
        name: of a profile that comes with virtviz, or the path of a file.
        title: a few words.
        about: what to know before trusting it.
        costs: by key of op, crossing or effect.
        own: keys that this profile gives itself; the others are those of the profile it begins with.
    """

    name: str
    title: str
    about: str
    costs: dict[str, Cost]
    own: frozenset[str]

    @property
    def nanoseconds(self) -> dict[str, int]:
        """Give the figures alone."""
        return {key: cost.ns for key, cost in self.costs.items()}


def profile_names() -> tuple[str, ...]:
    """Name the profiles that come with virtviz: the files of `assets/costs`, the one that others begin with first."""
    found = sorted(path.stem for path in (data_folder("assets") / "costs").glob(f"*{ENDING}"))
    return (BASE, *(name for name in found if name != BASE))


def load_costs(name: str) -> CostProfile:
    """Read a cost profile.

    Args:
        name: of one that comes with virtviz, or the path of a file, which ends in `.toml`.

    Raises:
        KnobError: there is no such file, or something in it is wrong; the message names file and line.
    """
    path = Path(name) if name.endswith(ENDING) else data_folder("assets") / "costs" / f"{name}{ENDING}"
    return _Reader(name, path).read()


class _Reader:
    """Reads one file, and says of what is wrong in which line it stands."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.text = ""

    def read(self) -> CostProfile:
        import tomllib  # noqa: PLC0415 - a world that is only listed does not need it

        try:
            with self.path.open("rb") as file:
                data = file.read(BYTES_MAX + 1)
            self.text = data.decode("utf-8")
            found = tomllib.loads(self.text)
        except OSError as error:
            raise self._wrong(f"{error.strerror}; costs is a profile that `virtviz costs` lists, or a file") from error
        except UnicodeDecodeError as error:
            raise self._wrong("it is not text in UTF-8") from error
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"at line (\d+)", str(error))
            raise self._wrong(f"not TOML: {error}", int(line[1]) if line else 0) from error
        if len(data) > BYTES_MAX:
            raise self._wrong(f"a cost profile has at most {BYTES_MAX} bytes")
        for key in found.keys() - {"title", "about", "base", "cost"}:
            raise self._wrong(f"unknown key {key!r}; there are title, about, base and cost", key)
        base = self._base(found)
        own = {key: self._cost(key, value, base) for key, value in self._table(found).items()}
        return CostProfile(
            self.name,
            self._words(found, "title", self.path.stem),
            self._words(found, "about", ""),
            {**base, **own},
            frozenset(own),
        )

    def _base(self, found: dict[str, object]) -> dict[str, Cost]:
        if self.name == BASE:
            return {}
        name = self._words(found, "base", BASE)
        if name not in profile_names() or name == self.name:
            names = ", ".join(other for other in profile_names() if other != self.name)
            raise self._wrong(f"base is one of {names}, not {name!r}", "base")
        return load_costs(name).costs

    def _table(self, found: dict[str, object]) -> dict[str, object]:
        table = found.get("cost", {})
        if not isinstance(table, dict):
            raise self._wrong("cost is a table: write [cost], and below it such as vm-exit = 250", "cost")
        return table

    def _words(self, found: dict[str, object], key: str, default: str) -> str:
        words = found.get(key, default)
        if not isinstance(words, str) or not words.isprintable():
            raise self._wrong(f"{key} is a line of text", key)
        return words

    def _cost(self, key: str, value: object, base: dict[str, Cost]) -> Cost:
        if base and key not in base:
            from difflib import get_close_matches  # noqa: PLC0415 - only what is misspelled needs it

            near = get_close_matches(key, base, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(base)}"
            raise self._wrong(f"nothing costs {key!r}; {hint}", key)
        entry = value if isinstance(value, dict) else {"ns": value}
        for name in entry.keys() - {"ns", "confidence", "source"}:
            raise self._wrong(f"{key}: unknown key {name!r}; an entry has ns, confidence and source", key)
        ns, confidence, source = (
            entry.get("ns"),
            entry.get("confidence", "E"),
            entry.get("source", "the profile's author"),
        )
        if not isinstance(ns, int) or isinstance(ns, bool) or not 0 <= ns <= NS_MAX:
            raise self._wrong(f"{key}: ns is a whole number of nanoseconds from 0 to {NS_MAX}, not {ns!r}", key)
        if confidence not in CONFIDENCE:
            raise self._wrong(f"{key}: confidence is one of {', '.join(CONFIDENCE)}, not {confidence!r}", key)
        if not isinstance(source, str) or not source.strip() or not source.isprintable():
            raise self._wrong(f"{key}: source is a line of text that says where the figure comes from", key)
        return Cost(ns, confidence, source)

    def _line_of(self, key: str) -> int:
        """Find the line in which a key stands; 0 if it cannot be found."""
        spelled = re.compile(rf"""^\s*(?:\[\s*)?(?:{re.escape(key)}|"{re.escape(key)}"|'{re.escape(key)}')\s*[=\].]""")
        return next((n for n, line in enumerate(self.text.splitlines(), 1) if spelled.match(line)), 0)

    def _wrong(self, what: str, at: str | int = 0) -> KnobError:
        """Make the error; `at` is the key it is about, or the line, 0 where there is none."""
        line = self._line_of(at) if isinstance(at, str) else at
        where = f"{printable(str(self.path))}:{line}" if line else printable(str(self.path))
        return KnobError("costs", f"{where}: {what}")
