"""A tunnel from another host, inward: the host's own IP and UDP, the tunnel device, and its NAPI. Block TUNNEL-RX.

The device does not hand its frames to the switch at once. It queues them and schedules a second poll on the same CPU,
in which they go up as if a card had received them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import DROPPED
from virtviz.engine.ops import RETURN, Routine, call, call_any, goto, op
from virtviz.paths.context import Level
from virtviz.paths.host_net import ProcessBacklog
from virtviz.paths.nic_poll import NAPI_WEIGHT, NapiPoll, NicPoll
from virtviz.paths.queues import Fifo
from virtviz.spec.citation import CORE_DEV, GRO_CELLS, IP_INPUT, UDP, VXLAN_DRIVER
from virtviz.spec.frames import ETH_HEADER_BYTES, ETHERTYPE_IPV4, IPV4_HEADER_BYTES, PROTO_UDP, checksum
from virtviz.spec.tunnels import OUTER_BYTES, TUNNEL_HEADER_BYTES, vni_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.ops import OpSpec
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.host_net import Backlog
    from virtviz.paths.nic import Nic
    from virtviz.paths.packets import HeadroomPool, PacketPool
    from virtviz.paths.tunnel import Tunnel

MAX_BACKLOG = 1000
"""net.core.netdev_max_backlog: a cell drops once it holds more frames than this."""
_UDP_AT = ETH_HEADER_BYTES + IPV4_HEADER_BYTES
_TUNNEL_AT = OUTER_BYTES - TUNNEL_HEADER_BYTES


@cells
class GroCellCells(Cells):
    """What a cell keeps: frames taken in this poll, frames dropped because it was full."""

    polled: int = 0
    dropped: int = 0


class GroCell:
    """One CPU's queue of frames that came out of a tunnel: a gro_cell.

    Attributes:
        queue: the frames.
        collected: those of the present poll that wait to be handed up.
    """

    def __init__(self, state: State, name: str, gro_batch: int) -> None:
        self.cells = state.add(GroCellCells, name)
        self.queue = Fifo(state, f"{name}.queue", MAX_BACKLOG + 1)
        self.collected = Fifo(state, f"{name}.gro", gro_batch)


class HostReceive(Routine):
    """A frame from the wire goes up the host's own stack, and out of the tunnel: rows 1 to 3 of TUNNEL-RX.

    Args:
        host_ip: the host's IP; `place` is the tunnel device.
        cells: for each thread, by number, the cell of its CPU; None where no frame comes in.
    """

    def __init__(
        self, name: str, place: Place, host_ip: Place, tunnel: Tunnel, cells_of: Sequence[GroCell | None]
    ) -> None:
        super().__init__(name, place)
        self.host_ip = host_ip
        self.tunnel = tunnel
        self.cells_of = cells_of
        self.functions = tunnel.functions()

    def place_of(self, spec: OpSpec) -> Place:
        """Say whose code an op is: that of the host's IP, or the tunnel's."""
        return self.host_ip if spec.name in ("ip_receive", "udp_receive") else self.place

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the tunnel."""
        tunnel = self.tunnel
        return {
            "here": ".".join(map(str, tunnel.here.ip)),
            "port": tunnel.kind.port,
            "device": tunnel.name,
            "vni": tunnel.vni(me.skb) if me.skb else "?",
            "outer": OUTER_BYTES,
        }

    def _drop(self, me: Context) -> str:
        self.tunnel.pool.release(me.skb)
        return DROPPED

    @op(
        "TUNNEL-RX.1",
        "receive by the host's IP",
        "ip_rcv",
        IP_INPUT,
        text={
            "mine": "The card is no port of the switch: the frame goes up the host's own stack. It is for {here}: us.",
            DROPPED: "The frame is not for this host, or its IP header is damaged: the host's IP drops it.",
        },
        to={"mine": goto("udp_receive"), DROPPED: RETURN},
        cost="stack",
    )
    def ip_receive(self, me: Context) -> str:
        frame = self.tunnel.pool.data(me.skb)
        here = self.tunnel.here
        header = bytes(frame[ETH_HEADER_BYTES:_UDP_AT])
        if (
            frame[:6] == here.mac
            and frame[12:14] == ETHERTYPE_IPV4.to_bytes(2)
            and header[16:] == here.ip
            and not checksum(header)
        ):
            return "mine"
        self.tunnel.cells.not_for_us += 1
        return self._drop(me)

    @op(
        "TUNNEL-RX.1",
        "find the UDP socket",
        "__udp4_lib_rcv",
        UDP,
        text={
            "tunnel": "UDP port {port} has a socket in the kernel itself: it belongs to {device}, no program reads it.",
            DROPPED: "Nobody listens on this UDP port: the packet is dropped, and an ICMP error says so to its sender.",
        },
        to={"tunnel": goto("decapsulate"), DROPPED: RETURN},
        private=True,
    )
    def udp_receive(self, me: Context) -> str:
        frame = self.tunnel.pool.data(me.skb)
        if frame[ETH_HEADER_BYTES + 9] == PROTO_UDP:
            port = int.from_bytes(frame[_UDP_AT + 2 : _UDP_AT + 4])
            if port == self.tunnel.kind.port:
                return "tunnel"
        self.tunnel.cells.no_port += 1
        return self._drop(me)

    @op(
        "TUNNEL-RX.2",
        "take the frame out",
        "vxlan_rcv",
        VXLAN_DRIVER,
        text={
            "frame": "The {outer} outer bytes come off. What they said goes along as the tunnel key: VNI {vni}.",
            DROPPED: "This is no header of such a tunnel: the packet is dropped.",
        },
        to={"frame": goto("queue_frame"), DROPPED: RETURN},
        cost="tunnel",
    )
    def decapsulate(self, me: Context) -> str:
        tunnel, pool = self.tunnel, self.tunnel.pool
        vni = vni_of(tunnel.kind, pool.data(me.skb)[_TUNNEL_AT:OUTER_BYTES])
        if vni < 0:
            tunnel.cells.rx_dropped += 1
            return self._drop(me)
        pool.pull(me.skb, OUTER_BYTES)
        pool.metadata.tunnel[me.skb] = vni + 1
        return "frame"

    @op(
        "TUNNEL-RX.3",
        "queue it for a second poll",
        "gro_cells_receive",
        GRO_CELLS,
        text={
            "scheduled": "{device} queues the frame on this CPU and schedules a poll of its own, after the card's.",
            "queued": "{device} queues the frame on this CPU; its own poll is scheduled already.",
            DROPPED: "More than 1000 frames wait on this CPU already: this one is dropped.",
        },
        to={"scheduled": RETURN, "queued": RETURN, DROPPED: RETURN},
        into={"scheduled": "{device}.queue", "queued": "{device}.queue"},
    )
    def queue_frame(self, me: Context) -> str:
        cell = self.cells_of[me.index]
        assert cell is not None, me.index
        if not cell.queue.put(me.skb):
            cell.cells.dropped += 1
            return self._drop(me)
        return "scheduled" if len(cell.queue) == 1 else "queued"


class GroCellPoll(NapiPoll):
    """The tunnel device's own poll, in the same softirq: row 4 of TUNNEL-RX, and the switch runs inside it."""

    first = "begin"
    links: Mapping[str, str] = {"over": "", "go_on": "begin"}
    rows: Mapping[str, str] = {"N-IN.3": "TUNNEL-RX.4"}
    functions = {"ixgbe_clean_rx_irq": ("gro_cell_poll", GRO_CELLS)}  # noqa: RUF012 - set anew for each machine

    def __init__(
        self, name: str, place: Place, tunnel: Tunnel, cell: GroCell, pool: HeadroomPool, receive: Routine, port: int
    ) -> None:
        super().__init__(name, place, cell.queue, cell.collected, cell.cells, pool, receive, port)
        self.tunnel = tunnel

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the tunnel."""
        device = self.tunnel.name
        return {
            "device": device,
            "source": f"{device}'s queue on this CPU",
            "next": "the switch",
            "after": f"nothing waits in {device}",
        }

    @op(
        "TUNNEL-RX.4",
        "begin the second poll",
        "gro_cell_poll",
        GRO_CELLS,
        text="The same softirq polls {device}, as if it were a card: the frames that came out of the tunnel go up now.",
        to=goto("take_frame"),
    )
    def begin(self, me: Context) -> None:
        if self.cells.polled:
            self.cells.polled = 0


class NicPollBelowTunnel(NicPoll):
    """The card's poll, after which the same softirq polls what it has brought to the tunnel.

    Args:
        second: the tunnel device's poll.
        cell: the queue that it empties.
    """

    links: Mapping[str, str] = {"over": "next_poll", "go_on": "next_poll"}

    def __init__(
        self,
        name: str,
        place: Place,
        nic: Nic,
        receive: Routine,
        port: int,
        run_queue: Routine,
        cell: GroCell,
        second: Routine,
    ) -> None:
        super().__init__(name, place, nic, receive, port, run_queue)
        self.cell = cell
        self.second = second

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the card; above it is the host's IP."""
        return {**super().words(me), "next": "the host's own IP"}

    def end(self, me: Context) -> None:
        """Let the card interrupt again; the softirq goes on."""
        self.nic.cells.masked = 0

    @op(
        "TUNNEL-RX.4",
        "see who else is to be polled",
        "net_rx_action",
        CORE_DEV,
        text={
            "tunnel": "The softirq is not over: another poll has been scheduled meanwhile.",
            "card": "Nobody else is to be polled: the card's poll goes on.",
            "none": "Nobody else is to be polled: the softirq ends.",
        },
        to={"tunnel": call("second", "next_poll"), "card": goto("clean_tx"), "none": goto("wait")},
    )
    def next_poll(self, me: Context) -> str:
        if self.cell.queue:
            return "tunnel"
        if self.nic.cells.polled >= NAPI_WEIGHT:
            return "card"
        me.level = Level.PROCESS
        return "none"


class ProcessBacklogBelowTunnel(ProcessBacklog):
    """The softirq that works a backlog off, and then polls the tunnel device on the same CPU.

    Args:
        cells_of: for each thread, by number, the cell of its CPU.
        second: thread's name -> the tunnel device's poll there.
        names: the threads' names, by number.
    """

    def __init__(
        self,
        name: str,
        place: Place,
        backlogs: list[Backlog | None],
        pool: PacketPool,
        receive: Routine,
        peer: Routine,
        port: int,
        cells_of: Sequence[GroCell | None],
        second: Mapping[str, Routine],
        names: Sequence[str],
    ) -> None:
        super().__init__(name, place, backlogs, pool, receive, peer, port)
        self.cells_of = cells_of
        self.second = second
        self.names = names

    @op(
        "N-IN.3",
        {"empty": "end the softirq", "": "take the next frame of the backlog"},
        "process_backlog",
        CORE_DEV,
        text={
            "far end": "The frame comes out at the far end of the pair, in another network namespace.",
            "switch": "The frame comes out at the host's end of the pair, and goes up the host's own stack.",
            "empty": "The backlog is empty, and no other poll is scheduled: the softirq ends.",
            "": "The backlog is empty, but another poll has been scheduled meanwhile.",
        },
        to={
            "far end": call("peer", "next_frame"),
            "switch": call("receive", "next_frame"),
            "empty": RETURN,
            "second poll": call_any("second", "next_frame"),
        },
        private=True,
    )
    def next_frame(self, me: Context) -> str:
        backlog, cell = self._backlog(me), self.cells_of[me.index]
        if not backlog.queue and cell is not None and cell.queue:
            return self.names[me.index]
        return super().next_frame(me) or ""
