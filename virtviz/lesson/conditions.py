"""Conditions on steps: when a moment of a lesson comes, where a breakpoint stops, how far `run until` runs.

A `When` is compiled once, against what the world is made of, and is then fed one step after the other. Names are
matched as people write them: a thread by its beginning, whatever belongs to a virtual machine without the machine's
name, a packet by its name in the scenario, a field with or without its owner.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtviz.engine.trace import Step
    from virtviz.lesson.model import When
    from virtviz.paths.describe import Header

Test = Callable[["Step", Mapping[str, int]], bool]

_COMPARISONS: Final[dict[str, Callable[[int, int], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON: Final = re.compile(r"\s*(>=|<=|==|!=|>|<)?\s*(\d{1,9})\s*")
_OF_MACHINE: Final = re.compile(r"vm\d+\.")
_INDEX: Final = re.compile(r"\[\d+\]")


class Matcher:
    """A condition, compiled for one world; it counts the steps that matched.

    Args:
        when: the condition.
        header: what the world is made of; from it come the numbers of packets.
    """

    def __init__(self, when: When, header: Header) -> None:
        self.nth = when.nth
        self.seen = 0
        self._tests = _compiled(when, header)

    def matches(self, step: Step, counters: Mapping[str, int]) -> bool:
        """Say whether a step matches, whatever `nth` says.

        Args:
            step: the step.
            counters: all counters by name, after this step.
        """
        return all(test(step, counters) for test in self._tests)

    def feed(self, step: Step, counters: Mapping[str, int]) -> bool:
        """Take the next step, and say whether it is the one that the condition means: the `nth` that matches.

        Args:
            step: the step; each is fed once, in order.
            counters: all counters by name, after this step.
        """
        if not self.matches(step, counters):
            return False
        self.seen += 1
        return self.seen == self.nth


def _compiled(when: When, header: Header) -> list[Test]:
    """Make one test for each key that is given, the cheap ones first."""
    made = [
        make(key, wanted)
        for make, keys in ((_equals, ("op", "outcome", "milestone", "domain")), (_names, ("place", "queue")))
        for key in keys
        if isinstance(wanted := getattr(when, key), str)
    ]
    made += [make(wanted) for key, make in _MAKERS.items() if isinstance(wanted := getattr(when, key), str)]
    if isinstance(when.packet, str | int):
        made.append(_packet(when.packet, header))
    if isinstance(when.counter, dict):
        made += [_counter(name, wanted) for name, wanted in when.counter.items()]
    if isinstance(when.any, list):
        made.append(_any([Matcher(one, header) for one in when.any]))
    return made


def _equals(key: str, wanted: str) -> Test:
    get = operator.attrgetter(key)
    return lambda step, _: get(step) == wanted


def _names(key: str, wanted: str) -> Test:
    get = operator.attrgetter(key)
    return lambda step, _: is_called(get(step), wanted)


def _thread(wanted: str) -> Test:
    return lambda step, _: begins_with(step.thread, wanted)


def _packet(wanted: str | int, header: Header) -> Test:
    if isinstance(wanted, int):
        return lambda step, _: step.packet == wanted
    numbers = {packet.number for packet in header.packets if is_packet(packet.name, wanted)}
    a_round = max(1, len(header.packets))
    return lambda step, _: step.packet > 0 and (step.packet - 1) % a_round + 1 in numbers


def _crossing(wanted: str) -> Test:
    return lambda step, _: any(crossing.kind == wanted for crossing in step.crossings)


def _effect(wanted: str) -> Test:
    return lambda step, _: any(effect.kind == wanted for effect in step.effects)


def _field(wanted: str) -> Test:
    return lambda step, _: any(
        is_field(f"{write.owner}.{write.field}" if write.owner else write.field, wanted) for write in step.writes
    )


def _counter(name: str, wanted: int | str) -> Test:
    compare, number = comparison(wanted) or (operator.eq, -1)
    return lambda _, counters: compare(counters.get(name, 0), number)


def _any(matchers: list[Matcher]) -> Test:
    return lambda step, counters: any(one.matches(step, counters) for one in matchers)


_MAKERS: Final[dict[str, Callable[[str], Test]]] = {
    "thread": _thread,
    "crossing": _crossing,
    "effect": _effect,
    "field": _field,
}

# How names match


def is_called(name: str, wanted: str) -> bool:
    """Say whether a place or queue is meant: by its name, or by its name without the virtual machine."""
    return wanted in (name, _OF_MACHINE.sub("", name, count=1))


def begins_with(name: str, wanted: str) -> bool:
    """Say whether a thread is meant: by the beginning of its name, with or without the virtual machine."""
    return bool(wanted) and (name.startswith(wanted) or _OF_MACHINE.sub("", name, count=1).startswith(wanted))


def is_packet(name: str, wanted: str) -> bool:
    """Say whether a packet is meant: by its name, or by the name of the event that it is one of several of."""
    return name == wanted or name.startswith(f"{wanted}.")


def is_field(full: str, wanted: str) -> bool:
    """Say whether a field or cell is meant: by its full name or the last parts of it, with or without an index.

    So `vm1.transmitq1.desc[3]` is meant by `transmitq1.desc[3]`, `desc[3]` and `desc`.
    """
    if not wanted:
        return False
    bare = full if "[" in wanted else _INDEX.sub("", full)
    return bare == wanted or bare.endswith(f".{wanted}")


def comparison(wanted: int | str) -> tuple[Callable[[int, int], bool], int] | None:
    """Read a comparison with a whole number, such as `>= 2`; a number alone must be equal. None if it is none."""
    if isinstance(wanted, int):
        return operator.eq, wanted
    found = _COMPARISON.fullmatch(wanted)
    return (_COMPARISONS[found[1] or "=="], int(found[2])) if found else None
