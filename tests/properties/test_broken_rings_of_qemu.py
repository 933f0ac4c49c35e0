"""Malformed rings under QEMU's own back-end: whatever a guest writes, the run goes on, and can be gone back through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from simulated import Habits, habits
from test_broken_rings import SIZE, TELLING, broken_traffics, checking_worlds, items

from virtviz.engine.recording import RecordingMachine
from virtviz.paths.knobs import World, make_world
from virtviz.paths.traffic import Item, Pause, Poke, make_traffic
from virtviz.paths.wiring import simulate

if TYPE_CHECKING:
    from virtviz.paths.traffic import Traffic

STEPS_MAX = 20_000
"""A ring whose index has jumped offers its buffers tens of thousands of times, and QEMU does not notice."""


@given(checking_worlds(), broken_traffics(), habits(), st.sampled_from(("on", "off")))
def test_no_malformed_ring_ends_a_run_of_qemu(world: World, traffic: Traffic, schedule: Habits, ioeventfd: str):
    there_and_back(make_world(world.plain(), {**QEMU, "ioeventfd": ioeventfd}), traffic, schedule)


BITS = {
    "desc[{}].addr": 64,
    "desc[{}].len": 32,
    "desc[{}].id": 16,
    "desc[{}].flags": 16,
    "driver_event.desc": 16,
    "driver_event.flags": 16,
    "device_event.desc": 16,
    "device_event.flags": 16,
}
"""Fields of a packed ring."""
FLAGS = (0, 0x80, 0x8000, 0x8080, 0x81, 0x82, 0x84, 0x8083)


@st.composite
def packed_pokes(draw: st.DrawFn) -> Poke:
    """Draw a change of any field of a packed ring, mostly to a value that means something."""
    field = draw(st.sampled_from(sorted(BITS)))
    value = draw(st.sampled_from((*TELLING, *FLAGS)) | st.integers(0, (1 << 64) - 1))
    slot = draw(st.sampled_from((0, 0, 1, 1, 2, 3, SIZE - 1)))
    return Poke(draw(st.sampled_from(("transmitq1", "receiveq1"))), field.format(slot), value % (1 << BITS[field]))


@given(
    checking_worlds(),
    st.lists(items() | packed_pokes() | st.builds(Pause), min_size=1, max_size=10),
    habits(),
    st.sampled_from(("on", "off")),
    st.integers(0, 65535),
)
def test_no_malformed_packed_ring_ends_a_run_of_qemu(
    world: World, events: list[Item | Poke | Pause], schedule: Habits, ioeventfd: str, start: int
):
    packed = {"queue.format": "packed", "queue.size": SIZE + 3, "queue.start": start}
    traffic = make_traffic([Item(kind="udp", length=18), *events])
    there_and_back(make_world(world.plain(), {**QEMU, **packed, "ioeventfd": ioeventfd}), traffic, schedule)


QEMU = {"path": "virtio-qemu", "device_checks": "vhost"}


def there_and_back(world: World, traffic: Traffic, schedule: Habits) -> None:
    """Run a world, go back to its beginning, and come again to where it was."""
    machine = simulate(world, traffic).machine
    assert isinstance(machine, RecordingMachine)
    begin = machine.digest()
    taken = machine.run(STEPS_MAX, schedule.scheduler())
    end = machine.digest()
    machine.seek(0)
    assert machine.digest() == begin
    machine.seek(taken)
    assert machine.digest() == end
