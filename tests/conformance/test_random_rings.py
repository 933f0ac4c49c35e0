"""Any bytes in the rings: every side comes to an end, touches nothing that is not its own, and can be taken back."""

from __future__ import annotations

import os
import struct
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest
from random_rings import MEMORY, Plan, TrespassError, Watch, random_memory, random_plan
from ring_device import Device

from virtviz.engine.state import State
from virtviz.ring.packed import PackedLayout
from virtviz.ring.packed_driver import PackedDriver
from virtviz.ring.split import SplitLayout
from virtviz.ring.split_driver import SplitDriver
from virtviz.ring.verdicts import BackEnd, what_of
from virtviz.spec.virtio import Feature

if TYPE_CHECKING:
    from virtviz.engine.memory import Port

BACK_ENDS: tuple[BackEnd, ...] = ("qemu", "vhost", "strict")
RINGS_A_PLAN = 40


def frames(random: Random) -> list[bytes]:
    return [random.randbytes(random.choice((14, 60, 60, 200, 900))) for _ in range(2)]


class Subject:
    """A device over memory that is filled anew for each ring."""

    def __init__(self, plan: Plan, back_end: BackEnd) -> None:
        self.plan = plan
        self.memory = bytearray(MEMORY)
        self.watch: Watch | None = None

        def watch(port: Port) -> Port:
            self.watch = Watch(port, plan)
            # Between two kicks avail.idx cannot say more than 65535 buffers; a buffer cannot have more descriptors than
            # its table, and no table more than memory has room for.
            self.watch.most = 65536 * (2 * MEMORY // 16 + 64)
            return self.watch

        self.device = Device(self.memory, 0, plan.features, plan.queues(), back_end, recording=True, watch=watch)

    def serve(self, content: bytes, random: Random) -> str:
        """Put a ring to the device, see what it does about it, and take all of that back; answers the verdict."""
        device, watch = self.device, self.watch
        assert watch is not None
        journal = device.state.journal
        assert journal is not None
        self.memory[:] = content
        journal.clear()
        before = device.state.snapshot()
        watch.begin()
        for action in random.sample((0, 1, 2, "frames", "frames", 1), 5):
            if action == "frames":
                for frame in frames(random):
                    device.inject(frame)
            else:
                device.kick(action)
        verdict = device.verdict()
        if verdict is not None:
            assert verdict.why
            assert device.broken() >= (verdict.what == "needs reset")
        # Undone in the order of the journal, everything is as it was.
        device.state.undo(journal.tail, journal.blobs, len(journal.blobs))
        journal.clear()
        after = device.state.snapshot(before)
        assert all(a is b or a == b for a, b in zip(before, after, strict=True))
        assert bytes(self.memory) == content
        device.frames()
        device._backlog.clear()
        return f"{verdict.what}: {verdict.problem}" if verdict else "nothing wrong"


def search(seed: int, rings: int) -> dict[str, Counter[str]]:
    """Put so many random rings through every device side; answers how often each came to which verdict."""
    random, found = Random(seed), {back_end: Counter[str]() for back_end in BACK_ENDS}
    done = 0
    while done < rings:
        plan = random_plan(random)
        subjects = {back_end: Subject(plan, back_end) for back_end in BACK_ENDS}
        for _ in range(min(RINGS_A_PLAN, rings - done)):
            content, seed = random_memory(random, plan), random.randrange(1 << 32)
            for back_end, subject in subjects.items():
                found[back_end][subject.serve(content, Random(seed))] += 1
            done += 1
    return found


def test_the_watch_notices_what_it_is_there_for():
    plan = Plan(1 << Feature.F_VERSION_1, 4)
    subject = Subject(plan, "qemu")
    watch = subject.watch
    assert watch is not None
    struct.pack_into("<QIHH", subject.memory, 16, 0x2000, 32, 2, 0)
    watch.begin()
    watch.write(0x2000, bytes(32))
    watch.u16[plan.queues()[1]["device"] // 2] = 1
    for address, length in ((0x2000, 33), (0, 2), (plan.queues()[0]["driver"], 2)):
        with pytest.raises(TrespassError, match="written at"):
            watch.write(address, bytes(length))
    with pytest.raises(TrespassError, match="written at"):
        watch.u16[0] = 1
    watch.most = watch.accesses
    with pytest.raises(TrespassError, match="accesses"):
        watch.read(0, 1)


@pytest.mark.parametrize("seed", range(6))
def test_any_bytes_come_to_a_verdict_and_nothing_else_is_touched(seed: int):
    for back_end, verdicts in search(seed, 400).items():
        assert len(verdicts) > 5, "the search reaches many ways of being wrong"
        for verdict in verdicts:
            what, _, problem = verdict.partition(": ")
            if what == "ignored":
                assert back_end != "strict" or what_of(problem, "strict") == "ignored"


@pytest.mark.campaign
def test_a_hundred_thousand_random_rings_through_every_device_side():
    total: dict[str, Counter[str]] = {back_end: Counter() for back_end in BACK_ENDS}
    start = int(os.environ.get("SEED", "1000"))
    for part in range(100):
        for back_end, verdicts in search(start + part, 1000).items():
            total[back_end] += verdicts
    for verdicts in total.values():
        assert verdicts.total() == 100_000
        assert len(verdicts) > 15


class HostileSubject:
    """A driver whose device writes anything."""

    def __init__(self, random: Random) -> None:
        self.packed = random.random() < 0.5
        self.size = random.randint(1, 12) if self.packed else random.choice((1, 2, 4, 8))
        self.state = State(recording=True)
        self.memory = bytearray(0x1000)
        ram = self.state.adopt("ram", self.memory)
        event_idx = random.random() < 0.5
        if self.packed:
            packed = PackedLayout.at(0, self.size)
            in_order = random.random() < 0.5
            self.driver = PackedDriver(
                self.state, "driver", ram, packed, event_idx=event_idx, indirect=True, in_order=in_order
            )
            self.theirs = [*range(16 * self.size), *range(packed.device_event, packed.device_event + 4)]
            self.end = packed.end
        else:
            split = SplitLayout.at(0, self.size)
            self.driver = SplitDriver(self.state, "driver", ram, split, event_idx=event_idx, indirect=True)
            self.theirs = list(range(split.used, split.end))
            self.end = split.end

    def live(self, random: Random) -> None:
        """Offer, take back, ask, while the device writes what it likes where it may."""
        driver, outstanding, token = self.driver, {}, 0
        for _ in range(30):
            move = random.randrange(8)
            if move < 3 and driver.fits(count := random.randint(1, 3)) and not driver.cells.broken:
                token += 1
                outstanding[token] = count
                driver.write_chain([(0x800, 8)] * count, random.randint(0, count), token)
                driver.list_head()
                driver.publish()
                driver.kick_needed()
            elif move < 5:
                for at in self.theirs:
                    if random.random() < 0.3:
                        self.memory[at] = random.choice((0, 0, 1, 2, 3, 0x80, random.randrange(256)))
            elif move < 7:
                times = 0
                while not driver.cells.broken and driver.more_used():
                    times += 1
                    assert times <= self.size + 1, "no more come back than went out"
                    if driver.take_used():
                        assert outstanding.pop(driver.cells.token), "what comes back was out"
                        driver.move_used_event()
                assert driver.cells.num_free + sum(outstanding.values()) == self.size
            else:
                random.choice(
                    (
                        driver.disable_callbacks,
                        driver.enable_callbacks,
                        driver.enable_callbacks_delayed,
                        driver.note_interrupt,
                    )
                )()
                driver.too_many_used()
        assert not any(self.memory[self.end :]), "nothing behind the queue was written"


def hostile(seed: int, devices: int) -> int:
    random, broken = Random(seed), 0
    for _ in range(devices):
        subject = HostileSubject(random)
        before = [subject.state.value(i) for i in range(len(subject.state.names))]
        subject.live(random)
        broken += subject.driver.cells.broken
        journal = subject.state.journal
        assert journal is not None
        subject.state.undo(journal.tail, journal.blobs, len(journal.blobs))
        assert [subject.state.value(i) for i in range(len(subject.state.names))] == before
    return broken


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_device_returns_the_driver_keeps_its_books(seed: int):
    assert hostile(seed, 500) > 50, "some of these devices are caught"


@pytest.mark.campaign
def test_a_hundred_thousand_hostile_devices():
    assert hostile(int(os.environ.get("SEED", "1000")), 100_000)
