"""Every interleaving of two sides that sleep: who looks again after asking never sleeps for ever, who does not may."""

from __future__ import annotations

from typing import Any

import pytest

from virtviz.engine.state import State
from virtviz.ring.checked_device import CheckedSplitDevice
from virtviz.ring.packed import PackedLayout
from virtviz.ring.packed_device import PackedDevice
from virtviz.ring.packed_driver import PackedDriver
from virtviz.ring.rings import take
from virtviz.ring.split import SplitLayout
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver

BUFFERS = 3
KINDS = ("split vhost", "split qemu", "packed qemu", "packed strict")


def make_sides(kind: str, *, event_idx: bool) -> tuple[State, Any, Any]:
    state = State(recording=False)
    ram = state.region("ram", 0x2000)
    layout, _, back_end = kind.partition(" ")
    if layout == "packed":
        # Five descriptors, so that three and three more pass the end.
        packed = PackedLayout.at(0, 5)
        driver: Any = PackedDriver(state, "driver", ram, packed, event_idx=event_idx)
        return (
            state,
            driver,
            PackedDevice(state, "device", ram, packed, back_end=back_end, event_idx=event_idx, indirect=False),
        )
    split = SplitLayout.at(0, 4)
    driver = SplitDriver(state, "driver", ram, split, event_idx=event_idx)
    if back_end == "vhost":
        return state, driver, SplitDevice(state, "device", ram, split, event_idx=event_idx)
    device = CheckedSplitDevice(state, "device", ram, split, back_end="qemu", event_idx=event_idx, indirect=False)
    return state, driver, device


def go_round(driver: Any, device: Any, times: int) -> None:
    """Let so many buffers go round, told of or not, so that what follows crosses the end of the ring."""
    for _ in range(times):
        driver.write_single(0x1000, 8, 0, 1)
        driver.list_head()
        driver.publish()
        driver.kick_needed()
        device.disable_kicks()
        assert take(device) == "buffer"
        device.write_used([device.cells.head], [0])
        device.publish()
        device.interrupt_wanted()
        device.enable_kicks()
        driver.disable_callbacks()
        assert driver.take_used()
        driver.enable_callbacks()


class Telling:
    """One side passes buffers on and tells of them if it has to; the other sleeps until told."""

    def __init__(self, kind: str, *, event_idx: bool, looks_again: bool) -> None:
        self.state, self.driver, self.device = make_sides(kind, event_idx=event_idx)
        self.looks_again = looks_again
        self.prepare()

    def prepare(self) -> None:
        go_round(self.driver, self.device, 3)

    def pass_on(self, number: int) -> None:
        self.driver.write_single(0x1000, 8, 0, 1)
        self.driver.list_head()
        self.driver.publish()

    def must_tell(self) -> bool:
        told: bool = self.driver.kick_needed()
        return told

    def stop_asking(self) -> None:
        self.device.disable_kicks()

    def fetch(self) -> bool:
        return take(self.device) == "buffer"

    def ask(self) -> None:
        self.device.enable_kicks()

    def more(self) -> bool:
        return bool(self.device.waiting() or self.device.look() == "new")

    # A point in time: where the teller stands (two steps a buffer) and where the sleeper, was it told, how many it has.

    def successors(self, point: tuple[int, str, bool, int]) -> list[tuple[int, str, bool, int]]:
        teller, sleeper, told, got = point
        found = []
        before = self.state.snapshot()
        if teller < 2 * BUFFERS:
            if teller % 2:
                found.append((teller + 1, sleeper, told or self.must_tell(), got))
            else:
                self.pass_on(teller // 2)
                found.append((teller + 1, sleeper, told, got))
            self.after.append(self.state.snapshot())
            self.state.load_snapshot(before)
        if sleeper != "asleep" or told:
            found.append(self._wake(point))
            self.after.append(self.state.snapshot())
            self.state.load_snapshot(before)
        return found

    def _wake(self, point: tuple[int, str, bool, int]) -> tuple[int, str, bool, int]:
        teller, sleeper, told, got = point
        if sleeper == "asleep":
            return teller, "woken", False, got
        if sleeper == "woken":
            self.stop_asking()
            return teller, "fetching", told, got
        if sleeper == "fetching":
            fetched = self.fetch()
            return teller, "fetching" if fetched else "asking", told, got + fetched
        if sleeper == "asking":
            self.ask()
            return teller, "looking again" if self.looks_again else "asleep", told, got
        return teller, "woken" if self.more() else "asleep", told, got

    def explore(self) -> tuple[int, bool]:
        """Visit every state that can be reached; answers how many, and whether somebody can sleep for ever."""
        waiting: list[tuple[tuple[int, str, bool, int], Any]] = [((0, "asleep", False, 0), self.state.snapshot())]
        seen, lost = set(), False
        while waiting:
            point, content = waiting.pop()
            self.state.load_snapshot(content)
            key = point, self.state.digest()
            if key in seen:
                continue
            seen.add(key)
            self.after: list[Any] = []
            following = self.successors(point)
            if not following and point[3] < BUFFERS:
                lost = True
            waiting += zip(following, self.after, strict=True)
        return len(seen), lost


class Returning(Telling):
    """The same the other way: the device returns buffers, the driver sleeps until it is interrupted."""

    def prepare(self) -> None:
        super().prepare()
        for _ in range(BUFFERS):
            super().pass_on(0)
        self.heads = []
        for _ in range(BUFFERS):
            assert take(self.device) == "buffer"
            self.heads.append(self.device.cells.head)

    def pass_on(self, number: int) -> None:
        self.device.write_used([self.heads[number]], [0])
        self.device.publish()

    def must_tell(self) -> bool:
        told: bool = self.device.interrupt_wanted()
        return told

    def stop_asking(self) -> None:
        self.driver.disable_callbacks()

    def fetch(self) -> bool:
        return bool(self.driver.more_used() and self.driver.take_used())

    def ask(self) -> None:
        self.driver.enable_callbacks()

    def more(self) -> bool:
        return bool(self.driver.more_used())


@pytest.mark.parametrize("what", [Telling, Returning])
@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_virtio_2_7_14_who_looks_again_after_asking_never_sleeps_for_ever(what: Any, kind: str, *, event_idx: bool):
    states, lost = what(kind, event_idx=event_idx, looks_again=True).explore()
    assert not lost
    assert states > 30


@pytest.mark.parametrize("what", [Telling, Returning])
@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_who_does_not_look_again_can_sleep_for_ever(what: Any, kind: str, *, event_idx: bool):
    assert what(kind, event_idx=event_idx, looks_again=False).explore()[1]
