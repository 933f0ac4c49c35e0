"""The receive filter of virtio-net: which of the frames that arrive the driver gets to see.

It is switched by commands on the control queue, and works by receive modes, a table of addresses (unicast ones first)
and a bitmap of VLANs. After a reset the device is promiscuous: everything passes until the driver asks for less.

Source: virtio 1.4, 5.1.9.5; QEMU hw/net/virtio-net.c, receive_filter() and virtio_net_reset().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells

if TYPE_CHECKING:
    from virtviz.engine.state import State

MAC_BYTES: Final = 6
MAC_TABLE_ENTRIES: Final = 64
"""Addresses that QEMU's table holds; with more, everything of that kind passes (MAC_TABLE_ENTRIES)."""
VLANS: Final = 4096
_BROADCAST: Final = (1 << 48) - 1
_ALL: Final = (1 << 64) - 1
_VLAN_TAG: Final = b"\x81\x00"


@cells
class FilterCells(Cells):
    """What the filter is set to.

    Attributes:
        promisc: everything passes.
        allmulti, alluni: every multicast frame passes, every unicast one.
        nomulti, nouni, nobcast: none does.
        mac: the device's address.
        in_use: addresses in the table.
        first_multi: how many of them, at the beginning, are unicast.
        uni_overflow, multi_overflow: there were more than the table holds.
        table: the addresses.
        vlans: a bit for each VLAN that passes, 64 to a word.
    """

    promisc: int = 1
    allmulti: int = 0
    alluni: int = 0
    nomulti: int = 0
    nouni: int = 0
    nobcast: int = 0
    mac: int = 0
    in_use: int = 0
    first_multi: int = 0
    uni_overflow: int = 0
    multi_overflow: int = 0
    table: list[int]
    vlans: list[int]


class ReceiveFilter:
    """The receive filter of one device.

    Args:
        state: where its cells are made.
        name: the device's name.
        mac: the address it was made with, 6 bytes.
        by_vlan: CTRL_VLAN was negotiated: no VLAN passes until it is added; otherwise all do.
    """

    def __init__(self, state: State, name: str, mac: bytes, *, by_vlan: bool) -> None:
        self._mac = int.from_bytes(mac, "big")
        self._vlans = 0 if by_vlan else _ALL
        self.cells = state.add(
            FilterCells, name, mac=self._mac, table=[0] * MAC_TABLE_ENTRIES, vlans=[self._vlans] * (VLANS // 64)
        )

    @property
    def mac(self) -> bytes:
        """The device's address."""
        return self.cells.mac.to_bytes(MAC_BYTES, "big")

    def reset(self) -> None:
        """Go back to how the device was made."""
        mine = self.cells
        for mode in ("allmulti", "alluni", "nomulti", "nouni", "nobcast"):
            setattr(mine, mode, 0)
        mine.promisc = 1
        mine.mac = self._mac
        self.set_table([], [])
        for i in range(VLANS // 64):
            mine.vlans[i] = self._vlans

    def set_table(self, unicast: list[bytes], multicast: list[bytes]) -> None:
        """Set the table of addresses; those of a kind that do not fit let everything of that kind pass."""
        mine = self.cells
        mine.uni_overflow = int(len(unicast) > MAC_TABLE_ENTRIES)
        kept = [] if mine.uni_overflow else unicast
        mine.first_multi = len(kept)
        mine.multi_overflow = int(len(multicast) > MAC_TABLE_ENTRIES - len(kept))
        kept = kept if mine.multi_overflow else kept + multicast
        mine.in_use = len(kept)
        for i, address in enumerate(kept):
            mine.table[i] = int.from_bytes(address, "big")

    def set_vlan(self, vlan: int, *, passes: bool) -> None:
        """Let a VLAN pass, or not."""
        words, bit = self.cells.vlans, 1 << vlan % 64
        words[vlan // 64] = words[vlan // 64] | bit if passes else words[vlan // 64] & ~bit

    def passes(self, frame: bytes) -> bool:
        """Say whether the driver gets to see a frame."""
        mine = self.cells
        if mine.promisc:
            return True
        if frame[12:14] == _VLAN_TAG:
            vlan = int.from_bytes(frame[14:16], "big") % VLANS
            if not mine.vlans[vlan // 64] >> vlan % 64 & 1:
                return False
        target = int.from_bytes(frame[:MAC_BYTES], "big")
        if frame[:1] and frame[0] & 1:
            return self._multicast_passes(target)
        if mine.nouni:
            return False
        return bool(mine.alluni or mine.uni_overflow or target == mine.mac or target in mine.table[: mine.first_multi])

    def _multicast_passes(self, target: int) -> bool:
        mine = self.cells
        if target == _BROADCAST:
            return not mine.nobcast
        if mine.nomulti:
            return False
        return bool(mine.allmulti or mine.multi_overflow or target in mine.table[mine.first_multi : mine.in_use])
