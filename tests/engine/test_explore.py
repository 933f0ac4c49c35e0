"""Exploration: all orders, each state once, and the machine as it was afterwards."""

from __future__ import annotations

from math import comb

import pytest
from toy import HOST, make_toy, step

from virtviz.engine.cells import Cells, cells
from virtviz.engine.explore import Found, explore
from virtviz.engine.ops import Routine, goto
from virtviz.engine.program import link
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.schedule import Chosen
from virtviz.engine.state import State
from virtviz.engine.threads import Registers, Thread


@cells
class Counts(Cells):
    """What the counters keep."""

    total: int = 0
    mine: list[int]


class Counter(Routine):
    """Adds 1 to the total in two steps, so that another's addition can be lost: a race."""

    def __init__(self, index: int, counts: Counts, rounds: int) -> None:
        super().__init__(f"counter{index}", HOST)
        self.index = index
        self.counts = counts
        self.rounds = rounds

    @step("load", guard="goes_on")
    def load(self, me):
        self.counts.mine[self.index] = self.counts.total << 8 | (self.counts.mine[self.index] & 0xFF) + 1

    @step("store", to=goto("load"))
    def store(self, me):
        self.counts.total = (self.counts.mine[self.index] >> 8) + 1

    def goes_on(self):
        return (self.counts.mine[self.index] & 0xFF) < self.rounds


class Independent(Routine):
    """Does a number of steps that nobody sees."""

    def __init__(self, index: int, counts: Counts, rounds: int, *, private: bool) -> None:
        super().__init__(f"independent{index}", HOST)
        self.index = index
        self.counts = counts
        self.rounds = rounds
        self.first = "quiet" if private else "loud"

    def specs(self):
        return [spec for spec in super().specs() if spec.name == self.first]

    @step("quiet", to=goto("quiet"), guard="goes_on", private=True)
    def quiet(self, me):
        self.counts.mine[self.index] += 1

    @step("loud", to=goto("loud"), guard="goes_on")
    def loud(self, me):
        self.counts.mine[self.index] += 1

    def goes_on(self):
        return self.counts.mine[self.index] < self.rounds


def machine_of(*routines: Routine, state: State) -> RecordingMachine:
    threads = [Thread(r.name, state.add(Registers, r.name, index=i), r) for i, r in enumerate(routines)]
    return RecordingMachine(link(threads, {}), state, threads)


def counters(count: int, rounds: int) -> tuple[RecordingMachine, Counts]:
    state = State(recording=True)
    counts = state.add(Counts, "counts", mine=[0] * count)
    return machine_of(*[Counter(i, counts, rounds) for i in range(count)], state=state), counts


def test_a_race_is_found_with_the_order_that_shows_it():
    machine, counts = counters(2, 1)
    before = machine.digest()
    found = explore(machine, wrong_at_rest=lambda: "" if counts.total == 2 else f"total {counts.total}")
    assert (found.bad, len(found.schedule), found.complete) == ("total 1", 4, True)
    assert (machine.position, machine.length, machine.digest()) == (0, 0, before)
    assert machine.run(scheduler=Chosen(found.schedule)) == 4
    assert counts.total == 1


def test_where_nothing_is_wrong_every_state_is_seen_once():
    machine, counts = counters(2, 1)
    found = explore(machine)
    assert (found.bad, found.complete, found.schedule) == ("", True, [])
    assert found.states == len(states_by_hand())
    assert found.finals == len({state for state in states_by_hand() if state[0] == state[1] == 2})
    assert found.moves > found.states
    assert counts.total == 0


def states_by_hand() -> set[tuple[int, ...]]:
    """Give the states of two counters of one round: steps done, total, what each has loaded."""
    found = set()
    waiting = [(0, 0, 0, 0, 0)]
    while waiting:
        state = waiting.pop()
        if state in found:
            continue
        found.add(state)
        for i in (0, 1):
            done, loaded, total = list(state[:2]), list(state[3:]), state[2]
            if done[i] == 0:
                loaded[i] = total
            elif done[i] == 1:
                total = loaded[i] + 1
            else:
                continue
            done[i] += 1
            waiting.append((*done, total, *loaded))
    return found


@pytest.mark.parametrize(("private", "states"), [(False, 11 * 6), (True, 11 + 5)])
def test_private_moves_do_not_branch(*, private: bool, states: int):
    state = State(recording=True)
    counts = state.add(Counts, "counts", mine=[0, 0])
    one = Independent(0, counts, 10, private=private)
    other = Independent(1, counts, 5, private=private)
    found = explore(machine_of(one, other, state=state))
    assert (found.states, found.finals, found.complete) == (states, 1, True)
    assert comb(15, 5) > found.moves, "far fewer moves than there are orders"


class Spinner(Routine):
    """Goes round for ever, privately."""

    @step("turn", to=goto("turn"), private=True)
    def turn(self, me): ...


def test_a_circle_of_private_moves_does_not_keep_the_others_from_moving():
    state = State(recording=True)
    counts = state.add(Counts, "counts", mine=[0])
    machine = machine_of(Spinner("spinner", HOST), Counter(0, counts, 1), state=state)
    found = explore(machine, wrong=lambda: "counted" if counts.total else "")
    assert found.bad == "counted"
    assert sorted(set(found.schedule)) == [1]


def test_held_threads_do_not_move_and_a_bound_is_respected():
    machine, counts = counters(3, 1)
    found = explore(machine, held={2}, wrong_at_rest=lambda: "" if counts.mine[2] == 0 else "it moved")
    assert (found.bad, found.complete) == ("", True)
    machine, counts = counters(3, 3)
    found = explore(machine, limit=20)
    assert (found.states, found.complete) == (20, False)
    assert machine.position == 0


def test_a_state_that_is_wrong_from_the_beginning_needs_no_move():
    machine, _ = counters(1, 1)
    assert explore(machine, wrong=lambda: "wrong") == Found(bad="wrong")


def test_a_search_can_begin_anywhere():
    machine, counts = counters(2, 1)
    machine.move(0)
    found = explore(machine, wrong_at_rest=lambda: "" if counts.total == 2 else "lost")
    assert found.bad == "lost"
    assert machine.position == machine.length == 1
    machine.move(0)
    assert explore(machine, wrong_at_rest=lambda: "" if counts.total == 2 else "lost").bad == ""


def test_words_records_interrupts_and_naps_are_explored_too():
    toy = make_toy(2, naps=1)
    machine = toy.machine
    assert isinstance(machine, RecordingMachine)
    found = explore(machine, wrong_at_rest=lambda: "" if (toy.cells.left, toy.naps.left) == (0, 0) else "not done")
    assert (found.bad, found.complete) == ("", True)
    assert found.states > 100
    seen = set()
    explore(machine, wrong_at_rest=lambda: seen.add(toy.cells.taken) or "")
    assert seen == {2, 3}, "interrupts come together or one by one"
