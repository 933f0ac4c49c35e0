"""A guest and a device over split and over packed rings: the same frames, in whatever order things happen."""

from __future__ import annotations

from typing import Any

from bare_guest import BareGuest
from hypothesis import given
from hypothesis import strategies as st

from virtviz.spec.virtio import Feature

lengths = st.integers(14, 300)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.lists(lengths, min_size=1, max_size=3)),
        st.tuples(st.just("kick")),
        st.tuples(st.just("arrive"), lengths),
        st.tuples(st.just("give room"), st.lists(st.integers(12, 200), min_size=1, max_size=3)),
        st.tuples(st.just("poll"), st.booleans()),
        st.tuples(st.just("ask"), st.sampled_from((0, 1)), st.sampled_from(("never", "next", "later"))),
    ),
    max_size=40,
)


class Talk:
    """What a guest and the network saw of each other."""

    def __init__(self, layout: str, back_end: Any, *features: Feature, start: int) -> None:
        self.guest = BareGuest(*features, layout=layout, back_end=back_end, start=start)
        self.log: list[Any] = []
        self.number = 0
        self.rooms: dict[int, tuple[int, int]] = {}

    def frame(self, length: int) -> bytes:
        self.number += 1
        return self.number.to_bytes(4, "big") + bytes((self.number + i) % 256 for i in range(length - 4))

    def step(self, action: str, *how: Any) -> None:
        guest = self.guest
        if action == "send":
            for length in how[0]:
                at, data = guest.at(self.number % 16), bytes(12) + self.frame(length)
                if guest.drivers[1].fits(2):
                    guest.ram.write(at, data)
                    guest.offer(1, [(at, 12), (at + 12, length)], 0, self.number)
        elif action == "kick":
            self.log.append(("out", guest.net.kick(1)))
        elif action == "arrive":
            self.log.append(("arrived", guest.net.receive(self.frame(how[0]))))
        elif action == "give room":
            for length in how[0]:
                self.number += 1
                if guest.drivers[0].fits(1):
                    self.rooms[self.number] = guest.at(16 + self.number % 16), length
                    guest.offer(0, [self.rooms[self.number]], 1, self.number)
        elif action == "poll":
            self.poll(receiving=how[0])
        else:
            driver = guest.drivers[how[0]]
            ask = {
                "never": driver.disable_callbacks,
                "next": driver.enable_callbacks,
                "later": driver.enable_callbacks_delayed,
            }
            ask[how[1]]()

    def poll(self, *, receiving: bool) -> None:
        if not receiving:
            self.log.append(("sent", self.guest.back(1)))
            return
        for token, written in self.guest.back(0):
            address, length = self.rooms.pop(token)
            assert written <= length
            self.log.append(("in", token, bytes(self.guest.ram.read(address, written))))


@given(
    back_end=st.sampled_from(("qemu", "vhost", "strict")),
    mergeable=st.booleans(),
    event_idx=st.booleans(),
    start=st.sampled_from((0, 65532)),
    script=actions,
)
def test_split_and_packed_guests_send_and_receive_the_same(back_end, mergeable, event_idx, start, script):
    features = [Feature.NET_F_MRG_RXBUF] * mergeable + [Feature.RING_F_EVENT_IDX] * event_idx
    logs = []
    for layout in ("split", "packed"):
        talk = Talk(layout, back_end, *features, start=start)
        for step in [*script, ("kick",), ("poll", True), ("poll", False)]:
            talk.step(*step)
        assert talk.guest.net.verdict() is None
        assert talk.guest.drivers[1].fits(8)
        logs.append(talk.log)
    assert logs[0] == logs[1]
