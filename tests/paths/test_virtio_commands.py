"""The control queue, the receive filter and the configuration of virtio-net."""

from __future__ import annotations

from typing import Any

import pytest
from bare_guest import MAC, BareGuest, frame_to
from hypothesis import given
from hypothesis import strategies as st

from virtviz.paths.virtio_device.control import GUEST_OFFLOADS, run_command
from virtviz.spec.virtio import Feature

OK, ERR = 0, 1
OURS, OTHER, GROUP, BROADCAST = MAC.hex(), "02deadbeef01", "01005e000001", "ffffffffffff"
PROMISC, ALLMULTI, ALLUNI, NOMULTI, NOUNI, NOBCAST = range(6)


def guest_with(*features: Feature, **more: Any) -> BareGuest:
    return BareGuest(Feature.NET_F_CTRL_VQ, *features, **more)


def seen(guest: BareGuest, *frames: bytes) -> list[bool]:
    return [guest.net.filter.passes(frame) for frame in frames]


def kinds(guest: BareGuest) -> list[bool]:
    """Say which of these pass: to us, to another, to a group, to all."""
    return seen(guest, *map(frame_to, (OURS, OTHER, GROUP, BROADCAST)))


@pytest.mark.parametrize("layout", ["split", "packed"])
@pytest.mark.parametrize("back_end", ["qemu", "vhost", "strict"])
def test_a_command_is_answered_in_its_last_byte(layout: Any, back_end: Any):
    guest = guest_with(layout=layout, back_end=back_end)
    assert guest.command(0, PROMISC, b"\0") == OK
    assert guest.command(99, 0, b"\0") == ERR
    assert guest.net.read_isr() == 1


@pytest.mark.parametrize(
    ("modes", "passes"),
    [
        ({}, [True, True, True, True]),
        ({PROMISC: 0}, [True, False, False, True]),
        ({PROMISC: 0, ALLMULTI: 1}, [True, False, True, True]),
        ({PROMISC: 0, ALLUNI: 1}, [True, True, False, True]),
        ({PROMISC: 0, ALLMULTI: 1, NOMULTI: 1}, [True, False, False, True]),
        ({PROMISC: 0, ALLUNI: 1, NOUNI: 1}, [False, False, False, True]),
        ({PROMISC: 0, NOBCAST: 1}, [True, False, False, False]),
    ],
)
def test_virtio_5_1_9_5_1_receive_modes(modes: dict[int, int], passes: list[bool]):
    guest = guest_with()
    for mode, on in modes.items():
        assert guest.command(0, mode, bytes([on])) == OK
    assert kinds(guest) == passes


def test_frames_the_filter_keeps_away_take_no_buffer():
    guest = guest_with()
    guest.offer_room(1526)
    guest.command(0, PROMISC, b"\0")
    guest.net.read_isr()
    assert guest.net.receive(frame_to(OTHER)) == "filtered"
    assert guest.back(0) == []
    assert guest.net.read_isr() == 0
    assert guest.net.receive(frame_to(OURS)) == "received"
    assert not guest.net.filter.passes(b"")


def test_virtio_5_1_9_5_2_the_table_lets_addresses_pass_until_it_is_set_anew():
    guest = guest_with()
    guest.command(0, PROMISC, b"\0")
    assert guest.set_table([bytes.fromhex(OTHER)], [bytes.fromhex(GROUP)]) == OK
    assert kinds(guest) == [True, True, True, True]
    assert guest.set_table([], []) == OK
    assert kinds(guest) == [True, False, False, True]


@pytest.mark.parametrize(
    ("unicast", "multicast", "passes"),
    [(65, 0, [True, True, False, True]), (0, 65, [True, False, True, True]), (60, 5, [True, False, True, True])],
)
def test_a_table_that_overflows_lets_all_of_that_kind_pass(unicast: int, multicast: int, passes: list[bool]):
    guest = guest_with()
    guest.command(0, PROMISC, b"\0")
    one, many = b"\x02\0\0\0\0\x07", b"\x01\0\0\0\0\x07"
    assert guest.set_table([one] * unicast, [many] * multicast) == OK
    assert kinds(guest) == passes


def test_virtio_5_1_9_5_2_the_address_itself_can_be_set():
    guest = guest_with()
    guest.command(0, PROMISC, b"\0")
    assert guest.command(1, 1, bytes.fromhex(OTHER)) == OK
    assert kinds(guest) == [False, True, False, True]
    assert guest.net.config()[:6].hex() == OTHER
    assert guest.command(1, 1, b"\2\2\2\2\2") == ERR


def test_virtio_5_1_9_5_3_vlans_pass_once_they_are_added():
    guest = guest_with(Feature.NET_F_CTRL_VLAN)
    guest.command(0, PROMISC, b"\0")
    tagged, plain = frame_to(OURS, tag=0x3FF | 0xE000), frame_to(OURS)
    assert seen(guest, tagged, plain) == [False, True]
    assert guest.command(2, 0, (0x3FF).to_bytes(2, "little")) == OK
    assert seen(guest, tagged, frame_to(OTHER, tag=0x3FF)) == [True, False]
    assert guest.command(2, 1, (0x3FF).to_bytes(2, "little")) == OK
    assert seen(guest, tagged) == [False]
    assert seen(guest_with(), frame_to(OURS, tag=5)) == [True], "not negotiated: all pass"


def test_virtio_5_1_9_5_4_an_announcement_is_asked_for_and_acknowledged_once():
    guest = guest_with(Feature.NET_F_GUEST_ANNOUNCE)
    assert guest.command(3, 0) == ERR, "nobody asked"
    guest.net.read_isr()
    guest.net.ask_to_announce()
    assert (guest.net.config()[6], guest.net.cells.generation) == (3, 1)
    assert guest.net.read_isr() == 2
    assert guest.command(3, 1) == ERR
    assert guest.command(3, 0) == OK
    assert guest.net.config()[6] == 1
    assert guest.command(3, 0) == ERR
    quiet = guest_with()
    quiet.net.ask_to_announce()
    assert quiet.net.read_isr() == 0


def test_the_cable_can_be_pulled_out_and_put_in():
    guest = guest_with()
    guest.net.set_link(up=False)
    assert (guest.net.config()[6], guest.net.read_isr()) == (0, 2)
    guest.net.set_link(up=True)
    assert (guest.net.config()[6], guest.net.read_isr(), guest.net.read_isr()) == (1, 2, 0)
    assert guest.net.cells.generation == 2


@pytest.mark.parametrize(("pairs", "answer"), [(1, OK), (3, OK), (0, ERR), (4, ERR)])
def test_virtio_5_1_9_5_5_as_many_pairs_as_there_are(pairs: int, answer: int):
    guest = guest_with(Feature.NET_F_MQ, pairs=3)
    assert guest.command(4, 0, pairs.to_bytes(2, "little")) == answer
    assert guest.net.cells.pairs == (pairs if answer == OK else 1)
    assert guest.net.config()[8:] == b"\3\0"


def test_virtio_5_1_9_5_8_offloads_are_a_part_of_what_was_negotiated():
    guest = guest_with(Feature.NET_F_CTRL_GUEST_OFFLOADS, Feature.NET_F_GUEST_CSUM, Feature.NET_F_GUEST_TSO4)
    assert guest.net.cells.offloads == 1 << 1 | 1 << 7
    assert guest.command(5, 0, (1 << 1).to_bytes(8, "little")) == OK
    assert guest.net.cells.offloads == 1 << 1
    assert guest.command(5, 0, (1 << 8).to_bytes(8, "little")) == ERR
    guest.net.reset()
    assert guest.net.cells.offloads == guest.features & GUEST_OFFLOADS
    blind = guest_with(Feature.NET_F_CTRL_GUEST_OFFLOADS, vnet_hdr=False)
    assert blind.command(5, 0, bytes(8)) == ERR


@pytest.mark.parametrize(
    ("group", "command", "data"),
    [
        (0, 6, b"\1"),
        (0, PROMISC, b""),
        (1, 2, MAC),
        (1, 0, b"\1\0\0"),
        (1, 0, b"\1\0\0\0" + MAC),
        (1, 0, b"\1\0\0\0" + MAC + bytes(4) + b"\0"),
        (1, 0, b"\xff\xff\xff\xff" + MAC),
        (2, 0, b"\1"),
        (2, 0, b"\0\x10"),
        (2, 2, b"\1\0"),
        (4, 0, b"\1"),
        (4, 1, b"\1\0"),
        (4, 0, b"\1\0"),
        (5, 0, bytes(8)),
        (5, 1, bytes(8)),
        (5, 0, bytes(7)),
        (255, 255, b""),
    ],
)
def test_what_is_unknown_or_incomplete_is_an_error_and_changes_nothing(group: int, command: int, data: bytes):
    guest = guest_with()
    before = [guest.state.value(i) for i, name in enumerate(guest.state.names) if name.startswith("net.")]
    assert guest.command(group, command, data) == ERR
    after = [guest.state.value(i) for i, name in enumerate(guest.state.names) if name.startswith("net.")]
    changed = {
        name
        for name, a, b in zip(
            [name for name in guest.state.names if name.startswith("net.")], before, after, strict=True
        )
        if a != b
    }
    assert changed <= {"net.isr"}


def test_offloads_too_short_are_an_error_even_where_they_can_be_set():
    guest = guest_with(Feature.NET_F_CTRL_GUEST_OFFLOADS)
    assert guest.command(5, 0, bytes(7)) == ERR


@given(st.binary(min_size=2, max_size=40), st.sampled_from((0, 1, 2, 3, 4, 5, 6, 255)), st.binary(max_size=40))
def test_any_bytes_are_a_command_that_is_carried_out_or_not(data, group, frame):
    guest = guest_with(Feature.NET_F_MQ, Feature.NET_F_CTRL_VLAN, Feature.NET_F_CTRL_GUEST_OFFLOADS, pairs=2)
    for command in (data, bytes([group]) + data, bytes([group, 0]) + data):
        assert run_command(guest.net, command) in (OK, ERR)
        assert guest.net.filter.passes(frame) in (True, False)
    assert 1 <= guest.net.cells.pairs <= 2
    assert guest.net.filter.cells.first_multi <= guest.net.filter.cells.in_use <= 64


def test_several_commands_of_one_kick_are_all_carried_out():
    guest = guest_with()
    for i, mode in enumerate((PROMISC, ALLMULTI)):
        where = guest.at(i)
        guest.ram.write(where, bytes([0, mode, mode]) + b"\xaa")
        guest.offer(guest.control, [(where, 3), (where + 3, 1)], 1, i + 1)
    guest.net.kick(guest.control)
    assert guest.back(guest.control) == [(1, 1), (2, 1)]
    assert (guest.net.filter.cells.promisc, guest.net.filter.cells.allmulti) == (0, 1)
