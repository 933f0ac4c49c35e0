"""Any bytes in the rings under DPDK's vhost library: each burst comes to an end, and can be taken back."""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest
from random_rings import MEMORY, Plan, Watch, random_memory, random_plan

from virtviz.engine.memory import Region
from virtviz.engine.state import State
from virtviz.ring.dpdk_device import PIECES_MAX, DpdkDevice
from virtviz.ring.dpdk_packed_device import DpdkPackedDevice
from virtviz.ring.packed import PackedLayout
from virtviz.ring.rings import layout_of
from virtviz.ring.verdicts import is_malformed, what_of
from virtviz.spec.virtio import Feature

if TYPE_CHECKING:
    from virtviz.ring.rings import DpdkRing
    from virtviz.ring.verdicts import Malformed

BURST = 32
RINGS_A_PLAN = 40


class Subject:
    """The library's side of a receive and of a transmit queue, over memory that is filled anew for each ring."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.memory = bytearray(MEMORY)
        self.state = State(recording=True)
        region = self.state.adopt("ram", self.memory)
        assert isinstance(region, Region)
        self.watch = Watch(region, plan)
        # A burst has so many buffers, each of as many pieces, read off no longer a table, and the pieces that fit none.
        self.watch.most = 5 * (BURST + 1) * (PIECES_MAX + 2 * MEMORY // 16)
        self.rings = [self._ring(region, queue) for queue in plan.queues()[:2]]

    def _ring(self, region: Region, queue: dict[str, int]) -> DpdkDevice | DpdkPackedDevice:
        areas = queue["desc"], queue["driver"], queue["device"]
        layout = layout_of(queue["size"], *areas, packed=self.plan.packed)
        kind = DpdkPackedDevice if isinstance(layout, PackedLayout) else DpdkDevice
        has = {name: bool(self.plan.features >> bit & 1) for name, bit in NEGOTIATED.items()}
        return kind(self.state, f"ring{queue['index']}", self.watch, layout, region=region, **has)  # type: ignore[arg-type]

    def serve(self, content: bytes, random: Random) -> str:
        """Poll a ring some times, and take all of that back; answers what was found wrong last."""
        journal = self.state.journal
        assert journal is not None
        self.memory[:] = content
        journal.clear()
        before = self.state.snapshot()
        self.watch.begin()
        found = "nothing wrong"
        for receives in random.sample((True, True, True, False, False), 5):
            ring = self.rings[not receives]
            problem = fill(ring, random) if receives else send(ring)
            ring.interrupt_wanted()
            found = problem or found
        self.state.undo(journal.tail, journal.blobs, len(journal.blobs))
        journal.clear()
        after = self.state.snapshot(before)
        assert all(a is b or a == b for a, b in zip(before, after, strict=True))
        assert bytes(self.memory) == content
        return found


NEGOTIATED = {"event_idx": Feature.RING_F_EVENT_IDX, "indirect": Feature.RING_F_INDIRECT_DESC}


def take(ring: DpdkRing) -> Malformed | None:
    """Take one buffer; answers what is wrong with it."""
    answer: str = ring.begin()
    for _ in range(2 * MEMORY):
        if is_malformed(answer):
            assert what_of(answer, "dpdk") != "ignored"
            return answer
        if answer == "last":
            assert all(ring.memory.holds(address, length) for address, length in ring.pieces())
            return None
        answer = ring.read_desc()
    raise AssertionError("a chain without end")


def send(ring: DpdkDevice | DpdkPackedDevice) -> Malformed | None:
    """Take a burst out of a transmit queue, and return it."""
    taken: list[int] = []
    problem = None
    for _ in range(ring.available(BURST)):
        problem = take(ring)
        if problem:
            ring.give_up()
        if isinstance(ring, DpdkPackedDevice):
            ring.return_sent()
        elif not problem:
            taken.append(ring.cells.head)
        if problem:
            break
    if isinstance(ring, DpdkPackedDevice):
        if ring.cells.hidden:
            ring.write_first_id()
            ring.publish()
    else:
        if taken:
            ring.write_used(taken, [0] * len(taken))
            ring.publish()
        assert not (problem and ring.has_something()), "nothing has changed, so a poll would find the same"
    return problem


def fill(ring: DpdkDevice | DpdkPackedDevice, random: Random) -> Malformed | None:
    """Take some buffers of a receive queue, and return them as filled."""
    taken: list[int] = []
    problem = None
    ring.available(BURST)
    while len(taken) < min(4, ring.layout.size) and (
        ring.look() == "new" if isinstance(ring, DpdkPackedDevice) else ring.waiting()
    ):
        problem = take(ring)
        if problem:
            break
        taken.append(ring.cells.head)
    if taken and random.random() < 0.3:
        # The packet in hand found too little room: its buffers are not taken.
        ring.put_back(taken[1:])
        del taken[1:]
    if taken:
        ring.write_used(taken, [100] * len(taken))
        ring.publish()
    return problem


def search(seed: int, rings: int) -> dict[str, Counter[str]]:
    """Put so many random rings through the library; answers how often what was found wrong, by layout."""
    random, found = Random(seed), {"split": Counter[str](), "packed": Counter[str]()}
    done = 0
    while done < rings:
        plan = random_plan(random)
        subject = Subject(plan)
        for _ in range(min(RINGS_A_PLAN, rings - done)):
            content, choices = random_memory(random, plan), random.randrange(1 << 32)
            found["packed" if plan.packed else "split"][subject.serve(content, Random(choices))] += 1
            done += 1
    return found


@pytest.mark.parametrize("seed", range(4))
def test_any_bytes_end_each_burst_and_nothing_else_is_touched(seed: int):
    for problems in search(seed, 400).values():
        assert len(problems) >= 4, "the search reaches many ways of being wrong"


@pytest.mark.campaign
def test_a_hundred_thousand_random_rings_through_the_library():
    start, total = int(os.environ.get("SEED", "1000")), Counter[str]()
    for part in range(100):
        for problems in search(start + part, 1000).values():
            total += problems
    assert total.total() == 100_000
    assert len(total) > 6
