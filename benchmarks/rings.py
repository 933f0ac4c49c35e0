"""The rings' rows: packed beside split, and each kind of back-end beside vhost's.

The workload is both sides of one queue of 256 descriptors, taking turns of 64 buffers in one piece: offered, published,
taken, returned, taken back. Nothing else of a data path runs, and nothing is decided about notifications but whether.
There is no
budget: what counts for a learner is the engine's rows, of which the rings are a part.
"""

from __future__ import annotations

import gc
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.table import Row, in_turns
from virtviz.engine.state import State
from virtviz.ring.checked_device import CheckedSplitDevice
from virtviz.ring.packed import PackedLayout
from virtviz.ring.packed_device import PackedDevice
from virtviz.ring.packed_driver import PackedDriver
from virtviz.ring.rings import take
from virtviz.ring.split import SplitLayout
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from virtviz.ring.rings import DeviceRing, DriverRing

GROUP: Final = "rings"
SIZE: Final = 256
TURN: Final = 64
BUFFERS: Final = 64_000
FRAME_BYTES: Final = 72


def make_sides(kind: str, *, recording: bool) -> tuple[State, DriverRing, DeviceRing]:
    """Make both sides of a queue: `split vhost`, `split qemu` or `packed qemu`."""
    state = State(recording=recording)
    ram = state.region("ram", 1 << 20)
    if kind == "packed qemu":
        packed = PackedLayout.at(0, SIZE)
        return (
            state,
            PackedDriver(state, "driver", ram, packed, event_idx=True),
            PackedDevice(state, "device", ram, packed, back_end="qemu", event_idx=True, indirect=False),
        )
    split = SplitLayout.at(0, SIZE)
    driver = SplitDriver(state, "driver", ram, split, event_idx=True)
    if kind == "split vhost":
        return state, driver, SplitDevice(state, "device", ram, split, event_idx=True)
    device = CheckedSplitDevice(state, "device", ram, split, back_end="qemu", event_idx=True, indirect=False)
    return state, driver, device


def buffers_per_second(kind: str, *, recording: bool) -> float:
    """Let so many buffers go round."""
    state, driver, device = make_sides(kind, recording=recording)
    gc.collect()
    start = perf_counter()
    for _ in range(BUFFERS // TURN):
        turn(driver, device)
        if state.journal is not None:
            state.journal.pack()
    return BUFFERS / (perf_counter() - start)


def turn(driver: DriverRing, device: DeviceRing) -> None:
    """Let 64 buffers go round."""
    for i in range(TURN):
        driver.write_single(0x40000 + 0x800 * i, FRAME_BYTES, 0, 1)
        driver.list_head()
        driver.publish()
    driver.kick_needed()
    device.disable_kicks()
    heads = []
    while take(device) == "buffer":
        heads.append(device.cells.head)
    device.write_used(heads, [0] * len(heads))
    device.publish()
    device.interrupt_wanted()
    device.enable_kicks()
    driver.disable_callbacks()
    while driver.more_used():
        driver.take_used()
    driver.enable_callbacks_delayed()


def rows(repetitions: int) -> Iterator[Row]:
    """Measure all of them."""
    for kind in ("split qemu", "packed qemu"):
        for recording in (False, True):
            measured, base, ratio = in_turns(
                lambda k=kind, r=recording: buffers_per_second(k, recording=r),  # type: ignore[misc]
                lambda r=recording: buffers_per_second("split vhost", recording=r),  # type: ignore[misc]
                repetitions,
            )
            yield Row(
                GROUP,
                f"{kind}, {'everything journaled' if recording else 'nothing journaled'}",
                f"{measured / 1e3:.0f} k buffers/s",
                f"{base / 1e3:.0f} k buffers/s, split vhost",
                f"{ratio:.2f}x",
                "",
                holds=True,
            )
