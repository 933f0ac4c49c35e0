"""Exploration: every order in which the threads of a machine could move, not just the one that happened.

The search goes depth first over the machine's states, from where it stands. Each move is made by the machine itself and
taken back by its journal, so nothing is copied. States are told apart by a fingerprint that is kept up to date from
what each move overwrote: what costs time is what changes, not how large the machine is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from virtviz.engine.journal import CELL, KIND, SLICE, STORE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from virtviz.engine.recording import RecordingMachine

CELLS, BYTES = "cell", "byte"
IGNORED: Final = (".clock", ".parked", ".packet")
"""Ends of the names of registers that no thread's behaviour depends on."""


@dataclass(slots=True)
class Found:
    """What a search found.

    Attributes:
        states: different states seen.
        moves: moves made.
        finals: states in which nothing can move any more.
        complete: False if the search ended at its bound, so that there is more it has not seen.
        bad: what was wrong with the first bad state; empty if there was none.
        schedule: the numbers of the threads that move, from the beginning of the search to that state.
    """

    states: int = 1
    moves: int = 0
    finals: int = 0
    complete: bool = True
    bad: str = ""
    schedule: list[int] = field(default_factory=list)


def explore(
    machine: RecordingMachine,
    *,
    wrong_at_rest: Callable[[], str] = lambda: "",
    wrong: Callable[[], str] = lambda: "",
    held: Collection[int] = (),
    limit: int = 1_000_000,
) -> Found:
    """Search all orders of moves from where a machine stands; it stands there again afterwards.

    A private move of a thread that nothing interrupts is made at once: no other thread could tell when it was made.
    Where nothing can move, those that time out do, as in any run.

    Args:
        machine: it stands at the end of its timeline.
        wrong_at_rest: says what is wrong with a state in which nothing can move; empty if nothing is.
        wrong: says what is wrong with any state.
        held: threads that do not move.
        limit: different states after which the search gives up.
    """
    return _Search(machine, wrong_at_rest, wrong, held, limit).run()


@dataclass(slots=True)
class _Move:
    """A move of the present path: who made it, who else may still be tried there, and the fingerprint before."""

    thread: int
    choices: list[int]
    put_off: list[int]
    fingerprint: int


class _Search:
    def __init__(
        self,
        machine: RecordingMachine,
        wrong_at_rest: Callable[[], str],
        wrong: Callable[[], str],
        held: Collection[int],
        limit: int,
    ) -> None:
        self.machine = machine
        self.wrong_at_rest = wrong_at_rest
        self.wrong = wrong
        self.held = held
        self.limit = limit
        self.found = Found()
        self.start = machine.position
        self.fingerprint = 0
        self.parts: dict[tuple[str, tuple[int, ...]], int] = {}
        state, names = machine.state, {f"{thread.name}{end}" for thread in machine.threads for end in IGNORED}
        self.ignored = {number for number in range(len(state.names)) if state.names[number] in names}

    def run(self) -> Found:
        machine, found = self.machine, self.found
        path: list[_Move] = []
        key = self._key()
        seen, on_path = {key}, [key]
        choices, put_off = self._choices()
        self._judge(choices)
        while not found.bad:
            if choices and found.states < self.limit:
                move = _Move(choices.pop(), choices, put_off, self.fingerprint)
                path.append(move)
                self._move(move.thread)
                key = self._key()
                on_path.append(key)
                if key not in seen:
                    seen.add(key)
                    found.states += 1
                    choices, put_off = self._choices()
                    self._judge(choices)
                    continue
                if move.put_off and key in on_path[:-1]:
                    # Round in a circle of private moves: the others must have a turn after all.
                    move.choices += move.put_off
                    move.put_off = []
            elif choices:
                found.complete = False
            if not path:
                break
            move = path.pop()
            on_path.pop()
            choices, put_off, self.fingerprint = move.choices, move.put_off, move.fingerprint
            machine.back()
            machine.cut()
        if found.bad:
            found.schedule = [move.thread for move in path]
        machine.seek(self.start)
        machine.cut()
        return found

    def _choices(self) -> tuple[list[int], list[int]]:
        """List the threads to try, the last one first; and those that are put off because of a private move."""
        machine = self.machine
        movable = [index for index in machine.movable() if index not in self.held]
        for index in movable:
            thread = machine.threads[index]
            if thread.intercept is None and machine.op_next(index).spec.private:
                return [index], [other for other in movable if other != index]
        return movable[::-1], []

    def _judge(self, choices: list[int]) -> None:
        found = self.found
        found.bad = self.wrong()
        if not choices:
            found.finals += 1
            found.bad = found.bad or self.wrong_at_rest()

    # Fingerprints

    def _key(self) -> int:
        """Give the fingerprint of the state and of where every thread stands."""
        key = self.fingerprint
        for thread in self.machine.threads:
            key ^= self._part(thread.name, (thread.pc, *thread.stack))
        return key

    def _move(self, index: int) -> None:
        """Make a move, and bring the fingerprint up to date with what it overwrote."""
        machine = self.machine
        machine.move(index)
        self.found.moves += 1
        words = machine.timeline.entries_of(machine.position - 1)
        blobs, at = machine.timeline.journal.blobs, machine.blob_end
        # Of several stores to one place the first holds what was there before the move, and is met last.
        before: dict[tuple[str, int], int] = {}
        for i in range(len(words) - 4, -1, -2):
            word, old = words[i], words[i + 1]
            kind, where = word & KIND, word >> 3
            if kind == CELL:
                if where not in self.ignored:
                    before[CELLS, where] = old
            elif kind == STORE:
                before[BYTES, 2 * where] = old & 0xFF
                before[BYTES, 2 * where + 1] = old >> 8
            elif kind == SLICE:
                at -= old
                for offset in range(old):
                    before[BYTES, where + offset] = blobs[at + offset]
        state = machine.state
        for (space, where), old in before.items():
            if space == CELLS:
                new = state.value(where)
            else:
                region = state.region_at(where)
                new = region.bytes[where - region.base]
            if new != old:
                self.fingerprint ^= self._part(space, (where, old)) ^ self._part(space, (where, new))

    def _part(self, space: str, content: tuple[int, ...]) -> int:
        """Give what one cell, byte or thread adds to the fingerprint, 128 bits."""
        part = self.parts.get((space, content))
        if part is None:
            digest = hashlib.blake2b(repr((space, content)).encode(), digest_size=16).digest()
            part = self.parts[space, content] = int.from_bytes(digest, "little")
        return part
