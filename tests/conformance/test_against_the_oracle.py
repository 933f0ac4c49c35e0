"""Our sides against the oracle's, in every pairing and over both layouts, under any order of what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import PackedDeviceOracle, PackedDriverOracle, SplitDeviceOracle, SplitDriverOracle
from sides import OurDevice, OurDriver

from virtviz.engine.state import State
from virtviz.ring.checked_device import CheckedSplitDevice
from virtviz.ring.packed import PackedLayout
from virtviz.ring.packed_device import PackedDevice
from virtviz.ring.packed_driver import PackedDriver
from virtviz.ring.split import SplitLayout
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver

RING, TABLES, BUFFERS, END = 0x0, 0x1000, 0x8000, 0x10000

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=4)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), lengths, st.integers(0, 4), st.booleans()),
        st.tuples(st.just("fetch"), st.integers(1, 3)),
        st.tuples(st.just("use"), st.lists(st.integers(0, 7), min_size=1, max_size=3), st.booleans()),
        st.tuples(st.just("reclaim")),
        st.tuples(st.just("driver asks"), st.sampled_from(("never", "next", "later"))),
        st.tuples(st.just("device asks"), st.booleans()),
    ),
    max_size=40,
)


@dataclass
class World:
    """Memory, and both sides of a queue in it, each ours or the oracle's."""

    memory: bytearray
    state: State
    driver: Any
    device: Any
    shadow_driver: Any
    shadow_device: Any
    packed: bool
    size: int


def make_world(
    layout: str, size: int, drivers: str, devices: str, *, event_idx: bool, start: int, recording: bool = False
) -> World:
    memory = bytearray(END)
    state = State(recording=recording)
    region = state.adopt("ram", memory)
    ours: Any
    if layout == "split":
        where = SplitLayout.at(RING, size)
        for word in (where.avail_idx, where.used_idx, where.used_event, where.avail_event):
            memory[word : word + 2] = start.to_bytes(2, "little")
        areas = (memory, size, where.desc, where.avail, where.used, event_idx)
        shadows = (
            SplitDriverOracle(*areas, TABLES, start, start, start),
            SplitDeviceOracle(*areas, start, start, start),
        )
        # vhost reads tables in sequence as long as NEXT is set, and does not look at where it leads.
        oracles = (
            SplitDriverOracle(*areas, TABLES, start, start, start, tidy=devices == "vhost"),
            SplitDeviceOracle(*areas, start, start, start),
        )
        driver = SplitDriver(state, "driver", region, where, event_idx=event_idx, indirect=True, start=start)
        if devices == "vhost":
            ours = SplitDevice(state, "device", region, where, event_idx=event_idx, start=start)
        else:
            ours = CheckedSplitDevice(
                state,
                "device",
                region,
                where,
                back_end="strict" if devices == "strict" else "qemu",
                event_idx=event_idx,
                indirect=True,
                start=start,
            )
    else:
        packed = PackedLayout.at(RING, size)
        areas = (memory, size, packed.ring, packed.driver_event, packed.device_event, event_idx)
        shadows = PackedDriverOracle(*areas, TABLES), PackedDeviceOracle(*areas)
        oracles = PackedDriverOracle(*areas, TABLES), PackedDeviceOracle(*areas)
        driver = PackedDriver(state, "driver", region, packed, event_idx=event_idx, indirect=True)
        back_end = devices if devices != "oracle" else "qemu"
        ours = PackedDevice(state, "device", region, packed, back_end=back_end, event_idx=event_idx, indirect=True)
    return World(
        memory,
        state,
        oracles[0] if drivers == "oracle" else OurDriver(driver, TABLES, size),
        oracles[1] if devices == "oracle" else OurDevice(ours),
        *shadows,
        layout == "packed",
        size,
    )


class Run:
    """A script carried out in a world; `log` is what each side saw of the other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.log: list[Any] = []
        self.places = self.token = 0
        self.offered: list[tuple[int, int]] = []
        self.taken: list[tuple[Any, int, int]] = []
        self.told = False

    def step(self, action: str, *how: Any) -> None:
        match action:
            case "offer":
                self.offer(*how)
            case "fetch":
                for _ in range(*how):
                    self.fetch()
            case "use":
                self.use(*how)
            case "reclaim":
                self.reclaim()
            case "driver asks":
                self.world.driver.ask(*how)
            case "device asks":
                self.world.device.ask(wanted=how[0])

    def offer(self, sizes: list[int], writable: int, indirect: bool) -> None:  # noqa: FBT001
        world = self.world
        indirect = indirect and 1 < len(sizes) <= world.size
        pieces = [(BUFFERS + 64 * ((self.places + i) % 512), size) for i, size in enumerate(sizes)]
        slots = 1 if indirect else len(sizes)
        fits = world.driver.offer(pieces, min(writable, len(sizes)), self.token + 1, indirect=indirect)
        self.log.append(("offered", fits))
        if fits:
            self.token += 1
            self.places += len(sizes)
            for address, size in pieces:
                world.memory[address : address + size] = bytes((self.token + i) % 256 for i in range(size))
            self.offered.append((self.token, slots))
            world.shadow_driver.offered += slots if world.packed else 1
            assert world.driver.kick() == world.shadow_driver.kick()

    def fetch(self) -> bool:
        world = self.world
        buffer = world.device.fetch()
        assert (buffer is None) == (not self.offered)
        if buffer is None:
            return False
        token, slots = self.offered.pop(0)
        read = b"".join(world.memory[address : address + length] for address, length in buffer.readable)
        self.log.append(("fetched", token, bytes(read), [length for _, length in buffer.writable]))
        buffer.slots = slots
        self.taken.append((buffer, token, slots))
        world.shadow_device.taken += slots if world.packed else 1
        return True

    def use(self, which: list[int], full: bool) -> None:  # noqa: FBT001
        world, returned = self.world, []
        for at in which:
            if self.taken:
                buffer, token, slots = self.taken.pop(at % len(self.taken))
                written = 0
                for address, length in buffer.writable:
                    part = length if full else length // 2
                    world.memory[address : address + part] = bytes([token % 251]) * part
                    written += part
                returned.append((buffer, written))
                world.shadow_device.returned += slots if world.packed else 1
        if returned:
            world.device.give_back(returned)
            wanted = world.shadow_device.interrupt()
            # Nobody is told less than the specification asks for; the first time, ours tells in any case.
            assert world.device.interrupt() in ((wanted,) if self.told else (wanted, True))
            self.told = True

    def reclaim(self) -> None:
        self.log.append(("back", self.world.driver.reclaim()))
        self.world.shadow_driver.seen = self.world.shadow_device.returned

    def end(self) -> None:
        """Let everything come back; then all is free again."""
        while self.fetch():
            pass
        self.use([0] * len(self.taken), full=True)
        self.reclaim()
        assert self.world.driver.offer([(BUFFERS, 1)] * self.world.size, 0, self.token + 1, indirect=False)


def run(world: World, script: list[tuple[Any, ...]]) -> list[Any]:
    """Do what the script says; answers what each side saw of the other."""
    carried_out = Run(world)
    for step in script:
        carried_out.step(*step)
    carried_out.end()
    return carried_out.log


@pytest.mark.parametrize("devices", ["oracle", "vhost", "qemu", "strict"])
@pytest.mark.parametrize("drivers", ["oracle", "ours"])
@given(size=st.sampled_from((1, 2, 4, 8)), start=st.sampled_from((0, 65533)), event_idx=st.booleans(), script=actions)
def test_split_sides_agree_with_the_specification_in_every_pairing(drivers, devices, size, start, event_idx, script):
    expected = run(make_world("split", size, "oracle", "oracle", event_idx=event_idx, start=start), script)
    assert run(make_world("split", size, drivers, devices, event_idx=event_idx, start=start), script) == expected


@pytest.mark.parametrize("devices", ["oracle", "vhost", "qemu", "strict"])
@pytest.mark.parametrize("drivers", ["oracle", "ours"])
@given(size=st.integers(1, 8), event_idx=st.booleans(), script=actions)
def test_packed_sides_agree_with_the_specification_in_every_pairing(drivers, devices, size, event_idx, script):
    expected = run(make_world("packed", size, "oracle", "oracle", event_idx=event_idx, start=0), script)
    assert run(make_world("packed", size, drivers, devices, event_idx=event_idx, start=0), script) == expected


@given(
    size=st.sampled_from((1, 2, 4, 8)),
    start=st.sampled_from((0, 65533)),
    event_idx=st.booleans(),
    devices=st.sampled_from(("vhost", "qemu", "strict")),
    script=actions,
)
def test_split_and_packed_carry_the_same_frames(size, start, event_idx, devices, script):
    split = run(make_world("split", size, "ours", devices, event_idx=event_idx, start=start), script)
    assert run(make_world("packed", size, "ours", devices, event_idx=event_idx, start=0), script) == split


@given(layout=st.sampled_from(("split", "packed")), event_idx=st.booleans(), script=actions)
def test_both_sides_can_be_taken_back_to_the_last_byte(layout, event_idx, script):
    # What the script itself writes into buffers is not journaled; so the buffers stay out of it.
    script = [step for step in script if step[0] != "use"]
    world = make_world(layout, 4, "ours", "qemu", event_idx=event_idx, start=0, recording=True)
    before = bytes(world.memory[:BUFFERS]), [world.state.value(i) for i in range(len(world.state.names))]
    run(world, script)
    journal = world.state.journal
    assert journal is not None
    world.state.undo(journal.tail, journal.blobs, len(journal.blobs))
    after = bytes(world.memory[:BUFFERS]), [world.state.value(i) for i in range(len(world.state.names))]
    assert after == before


@given(
    size=st.integers(2, 8),
    batches=st.lists(
        st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=3), min_size=1, max_size=4), max_size=6
    ),
    writable=st.booleans(),
)
def test_virtio_2_8_9_in_order_a_batch_comes_back_by_its_last_buffer(size, batches, writable):
    memory = bytearray(END)
    state = State(recording=False)
    region, layout = state.adopt("ram", memory), PackedLayout.at(RING, size)
    driver = PackedDriver(state, "driver", region, layout, event_idx=False, in_order=True)
    device = OurDevice(
        PackedDevice(state, "device", region, layout, back_end="strict", event_idx=False, indirect=False, in_order=True)
    )
    ours = OurDriver(driver, TABLES, size)
    token = 0
    for batch in batches:
        sent = []
        for sizes in batch:
            pieces = [(BUFFERS + 64 * i, length) for i, length in enumerate(sizes)]
            if ours.offer(pieces, len(pieces) if writable else 0, token + 1, indirect=False):
                token += 1
                sent.append((token, sum(sizes) if writable else 0))
        buffers = [device.fetch() for _ in sent]
        if sent:
            marked = sum(memory[16 * slot + 12 : 16 * slot + 16] == b"\xff" * 4 for slot in range(size))
            assert not marked
            device.give_back([(buffer, written) for buffer, (_, written) in zip(buffers, sent, strict=True)])
        assert ours.reclaim() == sent
    assert driver.cells.num_free == size
