"""Nobody is left asleep: with every notification that is not wanted left out, everything still arrives."""

from __future__ import annotations

from collections import deque
from typing import Any

from bare_guest import BareGuest
from hypothesis import given
from hypothesis import strategies as st

from virtviz.spec.virtio import Feature

actions = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 5)),
        st.tuples(st.just("arrive"), st.integers(14, 300)),
        st.tuples(st.just("give room"), st.integers(1, 5), st.integers(50, 400)),
    ),
    max_size=40,
)


class Sleepers:
    """A guest that looks only when it is interrupted, and a device that looks only when it is kicked."""

    def __init__(self, layout: str, back_end: Any, *features: Feature, start: int) -> None:
        self.guest = BareGuest(*features, layout=layout, back_end=back_end, start=start)
        self.backlog: deque[bytes] = deque()
        self.sent = self.out = self.arrived = self.received = self.number = 0
        for queue in (0, 1):
            self.guest.drivers[queue].enable_callbacks()

    def send(self, count: int) -> None:
        guest = self.guest
        for _ in range(count):
            if guest.drivers[1].fits(1):
                guest.offer(1, [(guest.at(0), 72)], 0, 1)
                self.sent += 1
                if guest.drivers[1].kick_needed():
                    self.out += len(guest.net.kick(1))
                    self.interrupt()

    def arrive(self, length: int) -> None:
        self.backlog.append(bytes(length))
        self.arrived += 1
        # Frames behind one that waits wait too, as in QEMU's queue: nobody looks at the ring for them.
        if len(self.backlog) == 1:
            self.deliver()

    def give_room(self, count: int, length: int) -> None:
        guest = self.guest
        for _ in range(count):
            if guest.drivers[0].fits(1):
                guest.offer(0, [(guest.at(1), length)], 1, 1)
        if guest.drivers[0].kick_needed():
            self.deliver()

    def deliver(self) -> None:
        while self.backlog:
            answer = self.guest.net.receive(self.backlog[0])
            if answer == "no room":
                return
            self.backlog.popleft()
            self.arrived -= answer == "too long"
            self.interrupt()

    def interrupt(self) -> None:
        """Poll as NAPI does, if there was an interrupt: until nothing more has come back after asking for the next."""
        if not self.guest.net.read_isr() & 1:
            return
        for queue in (0, 1):
            driver = self.guest.drivers[queue]
            driver.note_interrupt()
            driver.disable_callbacks()
            while driver.more_used():
                assert driver.take_used()
                driver.move_used_event()
            driver.enable_callbacks()
            assert not driver.more_used()


@given(
    layout=st.sampled_from(("split", "packed")),
    back_end=st.sampled_from(("qemu", "vhost", "strict")),
    mergeable=st.booleans(),
    event_idx=st.booleans(),
    start=st.sampled_from((0, 65532)),
    script=actions,
)
def test_no_kick_and_no_interrupt_is_lost(layout, back_end, mergeable, event_idx, start, script):
    features = [Feature.NET_F_MRG_RXBUF] * mergeable + [Feature.RING_F_EVENT_IDX] * event_idx
    world = Sleepers(layout, back_end, *features, start=start)
    for action, *how in script:
        getattr(world, action.replace(" ", "_"))(*how)
    assert world.out == world.sent, "every frame that was offered went out"
    if world.backlog:
        assert world.guest.net.receive(world.backlog[0]) == "no room", "what waits has something to wait for"
    for queue in (0, 1):
        assert not world.guest.drivers[queue].more_used(), "everything that came back was looked at"
    assert world.guest.net.verdict() is None
