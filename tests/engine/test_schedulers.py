"""The three schedulers, guards and patience, and what is asked of a machine before a step."""

from __future__ import annotations

import itertools
from array import array

import pytest
from toy import HOST, make_toy, step

from virtviz.engine.counting import CountingMachine
from virtviz.engine.machine import Machine
from virtviz.engine.ops import Routine, goto
from virtviz.engine.program import link
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.schedule import BySimulatedTime, Chosen, RunUntilBlocked, Scheduler
from virtviz.engine.state import State
from virtviz.engine.threads import Registers, Thread
from virtviz.errors import ModelError, UndeclaredOutcome

APP, WORKER = 0, 1


def ops(machine: Machine) -> list[str]:
    assert isinstance(machine, RecordingMachine)
    return [machine.arc_at(i).op.path for i in range(machine.length)]


def threads(machine: Machine) -> list[int]:
    assert isinstance(machine, RecordingMachine)
    return list(machine.timeline.threads)


def test_run_until_blocked_lets_a_thread_go_on_until_it_cannot():
    machine = make_toy(2).machine
    machine.run()
    order = threads(machine)
    switches = sum(one != two for one, two in itertools.pairwise(order))
    assert (order[0], switches) == (APP, 2)
    assert machine.movable() == []
    assert machine.run() == 0


def test_a_run_stops_at_its_limit_and_goes_on_from_there():
    whole, parts = make_toy(4).machine, make_toy(4).machine
    total = whole.run()
    assert parts.run(0) == 0
    taken = 0
    while done := parts.run(5):
        taken += done
    assert taken == total
    assert ops(parts) == ops(whole)
    assert parts.digest() == whole.digest()


def test_a_held_thread_does_not_move_and_nobody_jumps_the_queue_of_patience():
    toy = make_toy(1, naps=1)
    machine = toy.machine
    machine.run(held={WORKER})
    assert set(threads(machine)) == {APP}
    assert machine.can_move(WORKER)
    assert toy.naps.left == 1, "the app does not time out while the worker could move"
    machine.run()
    assert (toy.naps.left, toy.cells.taken) == (0, 2)
    held = make_toy(1).machine
    assert held.run(held={APP, WORKER}) == 0


def test_patience_runs_out_only_when_nothing_else_can_move():
    toy = make_toy(0, naps=2)
    machine = toy.machine
    assert not machine.can_move(APP) or machine.op_next(APP).name == "count"
    machine.run(1)
    assert machine.op_next(APP).name == "rest"
    assert not machine.can_move(APP)
    assert machine.can_move_at_last(APP)
    assert machine.movable() == [WORKER]
    assert not machine.move(APP), "not yet"
    assert machine.move(WORKER)
    assert machine.movable() == [APP]
    machine.run()
    assert (toy.naps.left, toy.cells.taken) == (0, 2)
    assert machine.movable() == []


def test_patience_does_not_help_a_held_thread():
    machine = make_toy(0, naps=1).machine
    machine.run(1)
    machine.run(held={APP})
    assert machine.run(held={APP}) == 0
    assert machine.run() > 0


def test_by_simulated_time_the_clock_that_is_furthest_behind_moves():
    machine = make_toy(3).machine
    assert isinstance(machine, RecordingMachine)
    scheduler = BySimulatedTime()
    clocks = []
    while machine.movable():
        clocks.append(min(machine.clock_if_moved(i) for i in machine.movable()))
        assert machine.run(1, scheduler) == 1
    assert clocks == sorted(clocks)
    assert scheduler.pick(machine, ()) == -1
    order = threads(machine)
    assert sum(one != two for one, two in itertools.pairwise(order)) > 2


def test_a_wake_up_takes_its_latency():
    machine = make_toy(1).machine
    machine.run(held={APP})
    machine.run(held={WORKER})
    app, worker = (thread.me for thread in machine.threads)
    wake = next(i for i, path in enumerate(ops(machine)) if path.endswith("/wake"))
    machine.seek(wake)
    before = app.clock
    machine.seek(wake + 1)
    assert app.clock == before + 10 + 7
    assert worker.clock == app.clock + 1000


def test_a_copy_takes_time_by_its_bytes_and_an_interrupt_reaches_the_other_clock():
    machine = make_toy(1).machine
    machine.run()
    paths = ops(machine)
    copy = paths.index("work/copy")
    machine.seek(copy)
    before = machine.threads[WORKER].me.clock
    machine.seek(copy + 1)
    assert machine.threads[WORKER].me.clock - before == 10 + 512
    machine.seek(paths.index("work/interrupt") + 1)
    assert machine.threads[APP].me.clock == machine.threads[WORKER].me.clock + 50


def test_a_thread_that_waited_for_a_condition_goes_on_no_earlier_than_it_came_true():
    toy = make_toy(0)
    machine = toy.machine
    machine.run()
    app = machine.threads[APP].me
    assert app.parked
    machine.threads[WORKER].me.asleep = 0
    machine.run(1)
    toy.cells.left = 1
    assert machine.clock_if_moved(APP) == max(app.clock, machine.now)
    machine.run(1)
    assert not app.parked


def test_a_chosen_order_is_followed_and_ends_the_run_when_it_cannot_be():
    machine = make_toy(2).machine
    assert machine.run(scheduler=Chosen([APP, APP, WORKER, APP])) == 4
    assert threads(machine) == [APP, APP, WORKER, APP]
    assert machine.run(scheduler=Chosen([WORKER])) == 0, "it is asleep"
    assert machine.run(scheduler=Chosen([APP]), held={APP}) == 0
    assert machine.run(scheduler=Chosen([])) == 0
    assert machine.run(3, scheduler=Chosen(lambda machine: machine.movable()[0])) == 3
    assert machine.run(scheduler=Chosen(lambda machine: -1)) == 0


def test_interrupts_are_taken_between_ops_in_either_mode():
    toy = make_toy(2)
    machine = toy.machine
    machine.run(held={APP})
    machine.run(10, Chosen(lambda machine: APP))
    machine.run(scheduler=RunUntilBlocked(), held={APP})
    assert toy.cells.on == 2
    assert machine.run(1) == 1
    assert ops(machine)[-1] in ("take.user/take", "take.kernel/take")
    machine.run()
    taken = make_toy(4)
    for index in range(400):
        if not taken.machine.move((APP, WORKER)[index % 3 == 0]) and not taken.machine.movable():
            break
    assert {"take.user/take", "take.kernel/take"} <= set(ops(taken.machine))


@pytest.mark.parametrize("scheduler", [RunUntilBlocked(), BySimulatedTime()])
def test_schedulers_are_deterministic(scheduler: Scheduler):
    one, two = make_toy(5).machine, make_toy(5).machine
    one.run(scheduler=scheduler)
    two.run(scheduler=scheduler)
    assert ops(one) == ops(two)
    assert one.digest() == two.digest()


class Liar(Routine):
    """Answers what its table does not name, from the third time on."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__("liar", HOST)
        self.numbers = numbers

    @step("lie", to={"true": goto("lie"), "false": goto("lie")})
    def lie(self, me):
        self.numbers.append(1)
        return "true" if len(self.numbers) < 3 else "nonsense"


@pytest.mark.parametrize("kind", [RecordingMachine, CountingMachine])
@pytest.mark.parametrize("limit", [10, None])
def test_an_outcome_that_the_table_does_not_name_says_where(kind: type[Machine], limit: int | None):
    state = State(recording=kind is RecordingMachine)
    liar = Liar([])
    thread = Thread("liar", state.add(Registers, "liar", index=0), liar)
    machine = kind(link([thread]), state, [thread])
    message = "liar/lie answered 'nonsense', which its table does not name"
    start = machine.checkpoint()
    with pytest.raises(UndeclaredOutcome, match=message):
        machine.run(limit)
    if isinstance(machine, CountingMachine):
        liar.numbers.clear()
        with pytest.raises(UndeclaredOutcome, match=message):
            machine.scout(start, limit and 100, array("H"), array("B"), ())


def test_a_recording_machine_needs_a_state_that_journals():
    toy = make_toy(1, recording=False)
    with pytest.raises(ModelError, match="needs a state that journals"):
        RecordingMachine(toy.machine.program, toy.state, toy.machine.threads)


def test_a_plain_machine_cannot_run_by_itself():
    toy = make_toy(1)
    machine = Machine(toy.machine.program, toy.state, toy.machine.threads)
    with pytest.raises(NotImplementedError):
        machine.run()
    assert State(recording=False).journal is None
    assert isinstance(make_toy(1, recording=False).machine, CountingMachine)
