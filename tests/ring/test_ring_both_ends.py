"""Both ends of a ring on the same memory, under any order of what they may do, against a slow and obvious model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from rings import BUFFERS, make_ring

from virtviz.ring.index import pending


class BothEnds(RuleBasedStateMachine):
    """What was offered, taken and returned is kept in plain lists; the ring must agree."""

    @initialize(
        size=st.sampled_from((1, 2, 4, 8)),
        start=st.sampled_from((0, 65530, 65535)),
        event_idx=st.booleans(),
        indirect=st.booleans(),
    )
    def build(self, *, size: int, start: int, event_idx: bool, indirect: bool) -> None:
        self.ring = make_ring(size, start=start, event_idx=event_idx, indirect=indirect)
        self.offered: list[tuple[int, list[int]]] = []
        self.taken: list[tuple[int, int]] = []
        self.returned: list[tuple[int, int]] = []
        self.used = 0
        self.token = 0

    @rule(lengths=st.lists(st.integers(1, 0xFF), min_size=1, max_size=4), writable=st.integers(0, 4))
    def offer(self, lengths: list[int], writable: int) -> None:
        driver = self.ring.driver
        self.token += 1
        pieces = [(BUFFERS + 0x100 * i, length) for i, length in enumerate(lengths)]
        if driver.uses_indirect(len(lengths)):
            driver.write_indirect(0x1800, pieces, min(writable, len(lengths)))
            driver.write_indirect_desc(0x1800, len(lengths), self.token)
            # The table is this buffer's own only until the next one: so the device takes it at once.
            self.publish(lengths)
            while self.offered:
                self.take()
        elif driver.fits(len(lengths)):
            driver.write_chain(pieces, min(writable, len(lengths)), self.token)
            self.publish(lengths)

    def publish(self, lengths: list[int]) -> None:
        self.ring.driver.write_avail_ring()
        self.ring.driver.publish_avail_idx()
        self.offered.append((self.token, lengths))

    @precondition(lambda self: self.offered)
    @rule()
    def take(self) -> None:
        token, lengths = self.offered.pop(0)
        assert self.ring.fetch() == "last"
        assert [length for _, length in self.ring.device.pieces()] == lengths
        self.taken.append((token, self.ring.device.cells.head))

    @precondition(lambda self: self.taken)
    @rule(at=st.integers(0, 7), count=st.integers(1, 3))
    def give_back(self, at: int, count: int) -> None:
        at %= len(self.taken)
        batch, self.taken[at : at + count] = self.taken[at : at + count], []
        self.ring.give_back(*(head for _, head in batch), written=len(batch))
        self.returned += [(token, len(batch)) for token, _ in batch]

    @precondition(lambda self: self.returned)
    @rule()
    def reclaim(self) -> None:
        token, written = self.returned.pop(0)
        assert self.ring.driver.more_used()
        assert self.ring.driver.take_used()
        assert (self.ring.driver.cells.token, self.ring.driver.cells.written) == (token, written)

    @invariant()
    def free_plus_in_flight_is_the_size(self) -> None:
        mine = self.ring.driver.cells
        in_flight = [head for head in range(self.ring.layout.size) if mine.tokens[head]]
        assert mine.num_free + sum(mine.chain[head] for head in in_flight) == self.ring.layout.size
        outstanding = len(self.offered) + len(self.taken) + len(self.returned)
        assert len(in_flight) == outstanding == pending(mine.avail_idx_shadow, mine.last_used_idx)

    @invariant()
    def the_device_sees_what_is_offered_and_the_driver_what_is_returned(self) -> None:
        ring = self.ring
        avail = ring.word(ring.layout.avail_idx)
        assert pending(avail, ring.device.cells.last_avail_idx) == len(self.offered)
        assert pending(ring.word(ring.layout.used_idx), ring.driver.cells.last_used_idx) == len(self.returned)
        assert ring.driver.more_used() == bool(self.returned)


TestBothEnds = BothEnds.TestCase
TestBothEnds.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
