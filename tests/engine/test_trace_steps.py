"""Steps as readers see them: texts, reads, writes with old and new, crossings and effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toy import make_toy

from virtviz.engine import trace
from virtviz.engine.effects import EffectKind
from virtviz.engine.places import CrossingKind, Domain, Side
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.trace import Access, Crossing, Effect, Step, Trace

if TYPE_CHECKING:
    import pytest


def traced(rounds: int = 2) -> tuple[RecordingMachine, Trace, dict[str, Step]]:
    """Run the toy with the worker asleep first; answers the first step of each op too."""
    machine = make_toy(rounds).machine
    assert isinstance(machine, RecordingMachine)
    machine.run(held={0})
    machine.run()
    found = Trace(machine)
    first: dict[str, Step] = {}
    for n in range(1, len(found) + 1):
        step = found.step(n)
        first.setdefault(f"{step.routine}/{step.op}", step)
    return machine, found, first


def test_a_step_says_who_did_what_where_and_on_whose_word():
    machine, found, first = traced()
    step = first["app/count"]
    assert (step.n, step.thread, step.context, step.place, step.domain) == (
        2,
        "app",
        "process",
        "app",
        Domain.GUEST_USER,
    )
    assert (step.op, step.outcome, step.title, step.row) == ("count", "more", "count", "TOY.1")
    assert (step.function, step.source, step.spec, step.packet, step.queue) == ("toy()", "toy book.c", "", 1, "")
    assert (step.text, step.milestone) == ("1 left.", "sent")
    assert len(found) == machine.length
    assert machine.position == machine.length
    assert found.step(5).n == machine.position == 5


def test_reads_and_writes_have_old_and_new_values_and_names():
    _, _, first = traced()
    word = first["kernel/store_word"].writes
    assert word[0] == Access("mem", "field16", "toyq", "ram", 16, 2, 0, 0)
    assert word[1] == Access("cell", "toy.number", "", "", 1, 8, 0, 1)
    assert word[2] == Access("mem", "field16", "toyq", "ram", 16, 2, 0, 1), "the second write of the same step"
    record = first["kernel/write"].writes
    assert record == (Access("mem", "field32", "toyq", "ram", 32, 8, 0, 1 | 2 << 16 | 1 << 32),)
    copy = first["work/copy"]
    assert [(a.field, a.addr, a.size, a.old, a.new) for a in copy.reads] == [
        ("field32", 32, 8, None, None),
        ("field16", 16, 2, None, 2),
    ]
    assert copy.writes[-1] == Access("mem", "", "", "ram", 64, 12, "00" * 12, bytes(range(12)).hex())
    assert [access.field for access in copy.writes[:-1]] == ["toy.pending", "toy.seen[2]"]


def test_a_store_that_changes_nothing_is_shown_in_memory_but_not_for_cells():
    _, found, _ = traced(3)
    copies = [found.step(n) for n in range(1, len(found) + 1) if found.step(n).op == "copy"]
    assert [a.field for a in copies[1].writes] == ["toy.pending", ""], "seen[3] got the number it had"


def test_crossings_and_effects_have_their_cause():
    _, _, first = traced()
    ring = first["kernel/ring"]
    assert ring.crossings == (
        Crossing(CrossingKind.VM_EXIT, Side.GUEST, Domain.GUEST_KERNEL, Domain.HOST_KERNEL, "somebody rang"),
    )
    assert ring.into == "toyq"
    wake = first["right/wake"]
    assert wake.effects == (Effect(EffectKind.WAKEUP, Side.HOST, "", "worker", "host", 0, "wake the worker"),)
    assert first["work/copy"].effects[0].bytes == 512
    interrupt = first["work/interrupt"].effects[0]
    assert (interrupt.kind, interrupt.how, interrupt.target_kind) == (EffectKind.IRQ_INJECT, "posted", "vcpu")
    assert first["kernel/mb"].crossings == first["kernel/mb"].effects == ()


def test_a_step_that_ends_a_level_still_belongs_to_it():
    _, found, _ = traced()
    levels = {(s.op, s.context) for s in map(found.step, range(1, len(found) + 1)) if s.routine.startswith("take")}
    assert levels == {("take", "hardirq"), ("iret", "hardirq")}


def test_steps_are_built_once_and_forgotten_when_something_else_happens():
    machine, found, _ = traced()
    assert found.step(9) is found.step(9)
    kept = found.step(3)
    machine.seek(8)
    machine.cut()
    found.forget_after(8)
    assert found.step(3) is kept
    machine.seek(8)
    assert machine.move(1) or machine.move(0)
    assert found.step(9).n == 9


def test_few_steps_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trace, "KEPT_STEPS", 3)
    machine = make_toy(2).machine
    assert isinstance(machine, RecordingMachine)
    machine.run()
    found = Trace(machine)
    one = found.step(1)
    for n in (2, 3, 4):
        found.step(n)
    assert found.step(1) == one
    assert found.step(1) is not one


def test_held_threads_are_named_after_each_step():
    machine = make_toy(1).machine
    assert isinstance(machine, RecordingMachine)
    machine.run()
    found = Trace(machine, held_after=lambda n: ("worker",) if n == 2 else ())
    assert (found.step(1).held, found.step(2).held) == ((), ("worker",))


def test_every_step_can_be_built_in_any_order():
    _, found, _ = traced(3)
    forward = [found.step(n) for n in range(1, len(found) + 1)]
    again = Trace(found.machine)
    assert [again.step(n) for n in range(len(found), 0, -1)] == forward[::-1]
