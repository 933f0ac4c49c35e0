"""At every step of any run each descriptor is free or in use, just once, and no index is ahead of where it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from simulated import STEPS_MAX, Habits, habits, traffics, worlds

from virtviz.paths.wiring import Vm, simulate
from virtviz.ring.dpdk_driver import PollingDriver
from virtviz.ring.driver import FREE
from virtviz.ring.index import pending
from virtviz.ring.packed import is_available
from virtviz.ring.packed_device import PackedDevice
from virtviz.ring.packed_driver import PackedDriver
from virtviz.ring.split_device import SplitDevice
from virtviz.ring.split_driver import SplitDriver

if TYPE_CHECKING:
    from virtviz.paths.knobs import World
    from virtviz.paths.traffic import Traffic
    from virtviz.ring.rings import DeviceRing, DriverRing


def queues(vm: Vm) -> list[tuple[DriverRing, DeviceRing]]:
    """Give both queues of a virtual machine, each with its two sides."""
    return [(vm.tx_driver, vm.tx_device), (vm.rx_driver, vm.rx_device)]


def account(vm: Vm, driver: DriverRing, device: DeviceRing) -> tuple[int, int]:
    """Check a queue; answers how many buffers are described but not published, and how many the device holds."""
    if isinstance(driver, PackedDriver):
        assert isinstance(device, PackedDevice)
        return packed_account(driver, device)
    assert isinstance(driver, SplitDriver)
    assert isinstance(device, SplitDevice)
    return split_account(vm, driver, device)


def packed_account(driver: PackedDriver, device: PackedDevice) -> tuple[int, int]:
    """Check a packed queue; its positions are compared as places in two laps, one for each wrap counter."""
    mine, its, size = driver.cells, device.cells, driver.layout.size
    ids = [number for number in range(size) if mine.tokens[number] != FREE]
    outstanding = sum(mine.chain[number] for number in ids)
    assert mine.num_free + outstanding == size
    # Walking the free list and the buffers' ids meets every id once.
    met: list[int] = []
    for first, count in [(mine.free_head, mine.num_free), *((number, mine.chain[number]) for number in ids)]:
        at = first
        for _ in range(count):
            met.append(at)
            at = mine.next[at]
    assert sorted(met) == list(range(size))

    def place(slot: int, wrap: int) -> int:
        return slot + size * (1 - wrap)

    back, returned = place(mine.last_used, mine.used_wrap), place(its.next_used, its.used_wrap)
    taken, offered = place(its.next_avail, its.avail_wrap), place(mine.next_avail, mine.avail_wrap)
    ways = [(b - a) % (2 * size) for a, b in ((back, returned), (returned, taken), (taken, offered))]
    assert sum(ways) == outstanding
    assert ways[1] == its.in_flight
    flags = driver.memory.read(driver.layout.desc(mine.head_slot) + 14, 2)
    unpublished = (
        bool(ways[2]) and mine.head in ids and not is_available(int.from_bytes(flags, "little"), head_wrap(driver))
    )
    return int(unpublished), ways[1]


def head_wrap(driver: PackedDriver) -> int:
    """Give the wrap counter with which the buffer added last is to be read."""
    mine = driver.cells
    return mine.avail_wrap if mine.head_slot < mine.next_avail else 1 - mine.avail_wrap


def split_account(vm: Vm, driver: SplitDriver, device: SplitDevice) -> tuple[int, int]:
    """Check a split queue."""
    mine, its, size = driver.cells, device.cells, driver.layout.size
    words = vm.memory.plain_u16
    avail_idx, used_idx = words[driver.layout.avail_idx // 2], words[driver.layout.used_idx // 2]
    heads = [head for head in range(size) if mine.tokens[head] != FREE]
    in_flight = sum(mine.chain[head] for head in heads)
    assert mine.num_free + in_flight == size
    # Walking the free list and the chains meets every descriptor once.
    met: list[int] = []
    for first, count in [(mine.free_head, mine.num_free), *((head, mine.chain[head]) for head in heads)]:
        at = first
        for _ in range(count):
            met.append(at)
            at = mine.next[at]
    assert sorted(met) == list(range(size))
    outstanding = pending(mine.avail_idx_shadow, mine.last_used_idx)
    # Who publishes once for a burst has entered some that the device cannot see.
    entered = pending(mine.avail_idx_shadow, avail_idx)
    assert entered == 0 or (isinstance(driver, PollingDriver) and entered <= size)
    assert len(heads) - outstanding in (0, 1)
    assert pending(used_idx, mine.last_used_idx) <= outstanding
    assert pending(avail_idx, its.last_avail_idx) <= size
    taken = pending(its.last_avail_idx, its.last_used_idx)
    returned = pending(its.last_used_idx, mine.last_used_idx)
    assert pending(avail_idx, its.last_avail_idx) + taken + returned + entered == outstanding
    assert pending(its.last_used_idx, used_idx) <= returned
    return len(heads) - outstanding + entered, taken


@given(worlds(store_buffer="off"), traffics(longest=6), habits())
def test_free_plus_in_flight_is_the_queue_size_at_every_step(world: World, traffic: Traffic, schedule: Habits):
    accounts_hold(world, traffic, schedule)


def accounts_hold(world: World, traffic: Traffic, schedule: Habits) -> None:
    """Run a world step by step, and check both queues at each."""
    simulation = simulate(world, traffic)
    (vm,) = simulation.vms
    scheduler = schedule.scheduler()
    for _ in range(STEPS_MAX):
        for driver, device in queues(vm):
            account(vm, driver, device)
        if not simulation.machine.run(1, scheduler):
            break
    for driver, device in queues(vm):
        assert account(vm, driver, device) == (0, 0), "at rest nothing is half done"
