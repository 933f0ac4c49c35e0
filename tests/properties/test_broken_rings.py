"""Whatever is written into the rings from outside: nothing escapes, nothing hangs, and the way back is exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from simulated import FEATURES, STEPS_MAX, Habits, fates, habits

from virtviz.engine.recording import RecordingMachine
from virtviz.paths.knobs import World, make_world
from virtviz.paths.traffic import Item, Pause, Poke, Traffic, make_traffic
from virtviz.paths.wiring import simulate

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = 16
ROUND = 1 << 16
"""Who does not compare avail.idx with the queue's size goes round the ring: so many buffers at most, which is long."""
BITS: Mapping[str, int] = {
    "desc[{}].addr": 64,
    "desc[{}].len": 32,
    "desc[{}].flags": 16,
    "desc[{}].next": 16,
    "avail.flags": 16,
    "avail.idx": 16,
    "avail.ring[{}]": 16,
    "used_event": 16,
    "used.flags": 16,
    "used.idx": 16,
    "used.ring[{}].id": 32,
    "used.ring[{}].len": 32,
    "avail_event": 16,
}
TELLING = (0, 1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 60, 300, 1500, 2000, 5000, 0xFFFF, 0x1000, 0x8000, 1 << 40)


@st.composite
def pokes(draw: st.DrawFn) -> Poke:
    """Draw a change of any field, mostly to a value that means something."""
    field = draw(st.sampled_from(sorted(BITS)))
    value = draw(st.sampled_from(TELLING) | st.integers(0, (1 << 64) - 1))
    slot = draw(st.sampled_from((0, 0, 1, 1, 2, 3, SIZE - 1)))
    return Poke(draw(st.sampled_from(("transmitq1", "receiveq1"))), field.format(slot), value % (1 << BITS[field]))


def items() -> st.SearchStrategy[Item]:
    """Draw a frame, out or in."""
    return st.builds(
        Item,
        outgoing=st.booleans(),
        kind=st.just("udp"),
        length=st.sampled_from((18, 0, 1400)),
        fragments=st.sampled_from((1, 1, 3)),
    )


def broken_traffics() -> st.SearchStrategy[Traffic]:
    """Draw a scenario in which rings are changed from outside."""
    events = st.lists(items() | pokes() | st.builds(Pause), min_size=1, max_size=10)
    return events.map(lambda drawn: make_traffic([Item(kind="udp", length=18), *drawn]))


@st.composite
def checking_worlds(draw: st.DrawFn) -> World:
    """Draw settings that a malformed ring meets."""
    return make_world(
        {
            "queue.size": SIZE,
            "tx_stop_threshold": 8,
            "flows": "known",
            "device_checks": draw(st.sampled_from(("vhost", "qemu", "strict"))),
            "features": sorted(draw(st.frozensets(st.sampled_from(FEATURES)))),
            "napi_tx": draw(st.sampled_from(("on", "off"))),
            "vcpu": draw(st.sampled_from(("running", "halted"))),
            "tx_batch": draw(st.sampled_from((64, 1))),
            "store_buffer": draw(st.sampled_from(("off", "off", "on"))),
        }
    )


@given(checking_worlds(), broken_traffics(), habits())
def test_a_malformed_ring_ends_in_a_verdict_and_every_drop_is_counted(world: World, traffic: Traffic, schedule: Habits):
    simulation = simulate(world, traffic)
    machine = simulation.machine
    assert isinstance(machine, RecordingMachine)
    begin = machine.digest()
    taken = machine.run(STEPS_MAX, schedule.scheduler())
    assert taken < STEPS_MAX or world["device_checks"] == "qemu"
    counted = simulation.dropped()
    for not_dropped in ("vhost-4002.errors", "vhost-4002.unserved"):
        counted.pop(not_dropped, None)
    if taken < ROUND // 4:
        assert sum(counted.values()) == fates(simulation).drops
    machine.seek(0)
    assert machine.digest() == begin


@given(checking_worlds(), broken_traffics())
def test_counting_a_malformed_ring_equals_recording_it(world: World, traffic: Traffic):
    hits = []
    for recording in (True, False):
        machine = simulate(world, traffic, recording=recording).machine
        machine.run(STEPS_MAX // 4)
        hits.append(machine.hits)
    assert hits[0] == hits[1]
