"""The host's packet memory: as much as the traffic can need, and no more than the queues can hold."""

import pytest

from virtviz.paths.knobs import make_world
from virtviz.paths.parts import SLOTS_OF_A_PACKET
from virtviz.paths.traffic import Item, make_traffic
from virtviz.paths.wiring import simulate


def pings(count):
    sent = [Item(f"ping{i}") for i in range(count)]
    return [*sent, *(Item(f"pong{i}", outgoing=False, answers=i) for i in range(count))]


@pytest.mark.parametrize("flows", ["known", "unknown"])
@pytest.mark.parametrize("far_port", ["nic", "veth", "dummy"])
def test_a_packet_never_takes_more_than_a_quarter_of_the_slots_there_are_for_it(far_port, flows):
    packets = pings(10)
    simulation = simulate(make_world({"far_port": far_port, "flows": flows}), make_traffic(packets))
    cells, machine = simulation.pools["host"].cells, simulation.machine
    fewest = cells.free_count
    assert fewest == SLOTS_OF_A_PACKET * len(packets)
    while machine.step():
        fewest = min(fewest, cells.free_count)
    assert 0 < SLOTS_OF_A_PACKET * len(packets) - fewest <= SLOTS_OF_A_PACKET * len(packets) // 4


def test_with_much_traffic_every_queue_can_be_full_at_once():
    world = make_world()
    simulation = simulate(world, make_traffic(pings(2), 1000), recording=False)
    queues = world.number("txqueuelen") + 3 * world.number("nic_ring")
    assert queues < simulation.pools["host"].slots < 10_000
