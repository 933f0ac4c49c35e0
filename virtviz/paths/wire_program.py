"""Putting together a host without a virtual machine: a program holds the TAP or the TUN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.effects import DROPPED
from virtviz.engine.places import Domain, Place
from virtviz.paths.host_forward import Forward, ForwardFromCard, RoutedWire, Router
from virtviz.paths.host_program import HostProgram, Poll, Read, WakeReader, Write, WriteIp
from virtviz.paths.nic import NicEngine
from virtviz.paths.nic_poll import NicPoll
from virtviz.paths.packets import HeadroomPool
from virtviz.paths.parts import HOST_IP, tap_place
from virtviz.paths.tap import Tap, TapXmit
from virtviz.paths.wire_far import FarEnd
from virtviz.spec.frames import ETH_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtviz.engine.ops import Routine
    from virtviz.engine.threads import Thread
    from virtviz.paths.host_net import Wire
    from virtviz.paths.nic import Nic
    from virtviz.paths.parts import Parts
    from virtviz.paths.wire_switch import TapPort

PAGE: Final = 4096
PROGRAM: Final = Place("program", Domain.HOST_USER, "program")


class TapXmitToProgram(TapXmit):
    """Transmission on a TAP that a program holds."""

    retold = {  # noqa: RUF012 - as the class it is made of
        "net_xmit": {
            "text": (
                "{tap}'s queueing discipline is empty and bypassed. For the host this is transmission: what it sends "
                "on {tap}, the program reads."
            )
        }
    }


class TunXmit(TapXmit):
    """Transmission on a TUN: the same function, and no Ethernet header."""

    retold = {  # noqa: RUF012 - as the class it is made of
        "net_xmit": {
            "title": "transmit on the TUN",
            "text": (
                "{tap}'s queueing discipline is empty and bypassed. The same function as for a TAP; only the packet "
                "has no Ethernet header."
            ),
        },
        "produce": {
            "title": "put it into the TUN's queue",
            "text": {
                "queued": "The packet waits in {tap}'s queue, {count} of at most {limit}, until somebody reads it.",
                DROPPED: "The queue holds {limit} packets already: this one is dropped and counted in tx_dropped.",
            },
        },
    }


class CardOfProgram(NicEngine):
    """The card, where what it sends is a program's."""

    retold = {  # noqa: RUF012 - as the class it is made of
        "put_on_wire": {
            "text": {
                "answered": "The frame is on the wire, and the far host will answer it. write() returned long ago.",
                "sent": "The frame is on the wire. The program's write() returned long ago.",
            }
        }
    }


class CardPoll(NicPoll):
    """The CPU that serves the card: the same."""

    above: str = "the switch"
    retold = {  # noqa: RUF012 - as the class it is made of
        "clean_tx": {
            "text": {
                "nothing": "The softirq polls {nic}. Nothing it has sent is waiting to be freed.",
                "freed": "The softirq polls {nic}. Frames that were sent long ago are freed now.",
                "go on": "Frames that were sent are freed, and the stopped transmit queue goes on.",
            }
        }
    }

    def words(self, me: object) -> Mapping[str, object]:
        """Name the card, and what is above it."""
        return {**super().words(me), "next": self.above}  # type: ignore[arg-type]


class CardPollBelowIp(CardPoll):
    """The same where the card is no port of a switch."""

    above = "the host's own IP"


class ProgramFarEnd(FarEnd):
    """A network card as the switch's last port."""

    engine = CardOfProgram
    poll: type[CardPoll] = CardPoll

    def nic_poll(self, nic: Nic, driver: Place, receive: Routine, run_queue: Routine) -> NicPoll:
        """Make what the CPU does that serves the card."""
        return self.poll("eth0.poll", driver, nic, receive, self.number, run_queue)


class RoutedFarEnd(ProgramFarEnd):
    """A network card that is no port of any switch."""

    poll = CardPollBelowIp

    def make_wire(self) -> RoutedWire:
        """Make what comes in from outside."""
        return RoutedWire(self.parts.state, "wire", self.parts.traffic)


class ProgramHolder:
    """The program, and the device that it holds.

    Attributes:
        program, thread: the program, and its only thread.
        threads: the same thread, as one that sends frames.
        tap: the device.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.is_tun = parts.world["device"] == "tun"
        state, name = parts.state, "tun0" if self.is_tun else "tap0"
        self.place = Place(name, Domain.HOST_KERNEL, "TUN") if self.is_tun else tap_place(name)
        self.thread = parts.thread("program", cpu=0)
        self.threads: list[Thread] = [self.thread]
        self.tap = Tap(state, name, parts.host_pool, parts.world.number("txqueuelen"))
        memory = state.region("program.memory", 2 * PAGE)
        memory.name_stretch(0, PAGE, "program.send", lambda *_: "packet")
        memory.name_stretch(PAGE, PAGE, "program.receive", lambda *_: "packet")
        self.program = program = HostProgram(state, "program.scenario", PROGRAM, parts.traffic, 0, 0, memory, 0, PAGE)
        program.hold(state, self.tap, ETH_HEADER_BYTES if self.is_tun else 0)
        program.restless = parts.restless
        program.poll = Poll(f"{name}.poll", self.place, program)
        program.read = Read(f"{name}.read", self.place, program)
        self.thread.start = program
        parts.drops |= {
            f"{name}.tx_dropped": lambda: self.tap.cells.tx_dropped,
            f"{name}.refused": lambda: program.fd.refused,
        }

    def tap_transmit(self) -> Routine:
        """Make what transmitting on the device is, for the host."""
        name = self.tap.name
        wakeup = WakeReader(f"{name}.wakeup", self.place, self.program, self.thread)
        return (TunXmit if self.is_tun else TapXmitToProgram)(f"{name}.xmit", self.place, self.tap, wakeup)

    def wire(self, port: TapPort) -> None:
        """Join the descriptor with the switch's port that the TAP is."""
        self.program.write = Write(f"{self.tap.name}.write", self.place, self.program, port.number, port.receive)

    def route_by(self, receive: Routine) -> None:
        """Join the descriptor with the host's IP."""
        self.program.write = WriteIp(f"{self.tap.name}.write", self.place, self.program, 0, receive)


def join_by_routing(parts: Parts, holders: Sequence[ProgramHolder]) -> Wire:
    """Join a program's TUN with the network card by the host's IP."""
    (holder,) = holders
    assert isinstance(parts.host_pool, HeadroomPool)
    far = RoutedFarEnd(parts, 0)
    router = Router(parts.state, parts.host_pool, holder.tap.name, far.name)
    from_tun = Forward("host_ip.from_tun", HOST_IP, router)
    from_card = ForwardFromCard("host_ip.from_card", HOST_IP, router)
    to_card, _ = far.make(from_card, holder.threads)
    to_tun = holder.tap_transmit()
    for forward in (from_tun, from_card):
        forward.to_tun, forward.to_card = to_tun, to_card
    holder.route_by(from_tun)
    parts.drops |= {
        "host_ip.in_errors": lambda: router.cells.in_errors,
        "host_ip.no_route": lambda: router.cells.no_route,
        "host_ip.expired": lambda: router.cells.expired,
    }
    return far.wire
