"""QEMU as the front-end of vhost-user: what it says over the socket, and when. Rows CP.7, on either thread of QEMU.

The order of each conversation is a list of messages. What a message says is looked up when it is written: the features
the guest has accepted, the ring's address in its registers, the descriptor of an eventfd.

Source: QEMU 10.0 hw/virtio/vhost-user.c (vhost_user_backend_init), hw/virtio/vhost.c (vhost_dev_init,
vhost_dev_start, vhost_virtqueue_start), hw/net/vhost_net.c (vhost_net_start, user_feature_bits), hw/net/virtio-net.c
(virtio_net_set_queue_pairs); the order is that of setup-vhost-user.txt, the recording of a start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import RETURN, Routine, call, call_any, goto, op
from virtviz.paths.setup import features
from virtviz.paths.setup.qemu_registers import ResetDevice
from virtviz.paths.setup.qemu_start import QemuStart
from virtviz.paths.setup.qemu_vhost import StartVhost
from virtviz.paths.setup.state import HVA_BASE
from virtviz.paths.setup.vhost_user_socket import (
    ASKS,
    MQ,
    NEED_REPLY,
    PROTOCOL_FEATURES,
    REPLY_ACK,
    VERSION,
    WITH_FD,
    Request,
)
from virtviz.ring.index import U16
from virtviz.ring.packed import OFFSET
from virtviz.spec.citation import QEMU_KVM, QEMU_VIRTIO_NET, QEMU_VIRTIO_PCI
from virtviz.spec.setup_sources import QEMU_NET_VHOST_USER, QEMU_VHOST_NET, QEMU_VHOST_USER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.setup.calls import Calls
    from virtviz.paths.setup.state import SetUp
    from virtviz.paths.setup.vhost_user_socket import Socket

R = Request
Plan = tuple[tuple[Request, int], ...]
"""Messages in their order, each with the number of its ring."""
MAP: Final = (R.SET_MEM_TABLE, 0)
_RING: Final = (R.SET_VRING_NUM, R.SET_VRING_BASE, R.SET_VRING_ADDR, R.SET_VRING_KICK, R.SET_VRING_CALL)


def introduction(pairs: int) -> Plan:
    """Give what is said when QEMU starts, before any instruction of the guest: for each pair, as it had a back-end."""
    said: list[tuple[Request, int]] = []
    for pair in range(pairs):
        said += [(R.GET_FEATURES, 0), (R.GET_PROTOCOL_FEATURES, 0), (R.SET_PROTOCOL_FEATURES, 0)]
        if not pair:
            # That there are several pairs is what a protocol feature is about, and only then it is asked how many.
            said += [(R.GET_QUEUE_NUM, 0)] if pairs > 1 else []
            said.append((R.SET_OWNER, 0))
        said.append((R.GET_FEATURES, 0))
        said += [(what, ring) for ring in _rings(pair) for what in (R.SET_VRING_CALL, R.SET_VRING_ERR)]
    return tuple(said)


def enable(pairs: int) -> Plan:
    """Give what is said whenever the device settles how many queue pairs are in use: a reset, accepted features."""
    return tuple((R.SET_VRING_ENABLE, ring) for pair in range(pairs) for ring in _rings(pair))


def start(pair: int) -> Plan:
    """Give what is said of a pair inside the guest's store of DRIVER_OK; until then the first is the one in use."""
    first = () if pair else enable(1)
    memory = () if pair else (MAP,)
    rings = tuple((what, ring) for ring in _rings(pair) for what in _RING)
    return (*first, (R.SET_FEATURES, 0), *memory, *rings)


def stop(pairs: int) -> Plan:
    """Give what is said when the device is reset while it is served."""
    return tuple((R.GET_VRING_BASE, ring) for ring in range(2 * pairs))


def _rings(pair: int) -> tuple[int, int]:
    return 2 * pair, 2 * pair + 1


_OF_PROTOCOL: Final = frozenset((R.GET_PROTOCOL_FEATURES, R.SET_PROTOCOL_FEATURES, R.GET_QUEUE_NUM))
_WHY: Final = {
    R.GET_FEATURES: "which virtio features can the back-end serve?",
    R.GET_PROTOCOL_FEATURES: "and which additions to this protocol does it know?",
    R.SET_PROTOCOL_FEATURES: "these additions are used: {value}.",
    R.GET_QUEUE_NUM: "how many queue pairs can the back-end serve?",
    R.SET_OWNER: "the conversation is QEMU's from here on.",
    R.SET_VRING_CALL: "with the eventfd that the back-end is to signal for the {queue} ring.",
    R.SET_VRING_ERR: "with an eventfd by which it can say that it found the {queue} ring broken.",
    R.SET_VRING_ENABLE: "the {queue} ring belongs to a queue pair {in_use}.",
    R.SET_FEATURES: "of what the guest accepted, all that concerns the back-end: {value}.",
    R.SET_MEM_TABLE: "with the guest's memory as a descriptor; in QEMU it lies at {value}. An answer is asked for.",
    R.SET_VRING_NUM: "the {queue} ring has {number} entries.",
    R.SET_VRING_BASE: "the {queue} ring begins at {base}.",
    R.SET_VRING_ADDR: "the {queue} ring's descriptors are at {desc} of QEMU's memory.",
    R.SET_VRING_KICK: "with the eventfd that KVM signals for a kick of the {queue} ring.",
    R.GET_VRING_BASE: "stop the {queue} ring; how far did you come?",
}
ASKED: Final = (
    features.VHOST_ASKED
    | features.NEEDS_VNET_HDR
    | features.mask((features.F.NET_F_GUEST_ANNOUNCE, features.F.NET_F_MQ))
)
"""The features about which a vhost-user back-end is asked: more than one in the kernel, for there is no TAP."""


_OF_THE_TAP: Final = (
    *("open_tap", "ask_tun_features", "set_first_length", "ask_for_tap", "ask_which_tap", "probe_ufo", "probe_uso"),
    *("no_offload_yet", "set_header_length", "ask_for_sndbuf", "after_tap", "set_model_header"),
    *("reset_header_length", "reset_offloads"),
)
"""Steps of QEMU's start that are about a TAP."""
_BY_IOCTL: Final = (
    *("tie_interrupt", "unmask", "ask_backend_features", "tell_backend_features", "tell_memory", "see_map"),
    *("tell_size", "tell_base", "tell_addresses", "tell_kick", "after_ring", "set_backends", "after_backend"),
)
"""Steps of starting vhost that ask the kernel."""


def offered_by_backend(negotiable: int, *, extended: bool = True) -> int:
    """Give what the back-end answers to GET_FEATURES, out of what the settings let ring and header have.

    Args:
        negotiable: these, as bits.
        extended: it knows protocol features, and says so.
    """
    own = features.mask(
        (
            features.F.NET_F_MRG_RXBUF,
            features.F.RING_F_INDIRECT_DESC,
            features.F.RING_F_EVENT_IDX,
            features.F.F_VERSION_1,
            features.F.NET_F_MQ,
            features.F.F_RING_PACKED,
        )
    )
    return negotiable & own | int(extended) << PROTOCOL_FEATURES


@cells
class FrontCells(Cells):
    """What QEMU has heard from the back-end.

    Attributes:
        features, protocol: what it offers.
        pairs: queue pairs that it can serve; one, if nobody has asked.
        memory: descriptor of the guest's memory; 0 until it is needed.
    """

    features: int = 0
    protocol: int = 0
    pairs: int = 1
    memory: int = 0


@cells
class TalkCells(Cells):
    """The place in a list of messages."""

    at: int = 0


class Conversation(Routine):
    """Say some messages in their order, and wait for each answer that is due.

    Args:
        state: where the place in the list is kept.
        setup: what they are about.
        front: what QEMU has heard.
        socket: the socket.
        plan: the messages.
        send, receive: system calls on the socket.
    """

    def __init__(
        self,
        state: State,
        name: str,
        place: Place,
        setup: SetUp,
        front: FrontCells,
        socket: Socket,
        plan: Plan,
        send: Routine,
        receive: Routine,
    ) -> None:
        super().__init__(name, place)
        self.mine = state.add(TalkCells, name)
        self.setup = setup
        self.front = front
        self.socket = socket
        self.plan = plan
        self.send = send
        self.receive = receive

    def words(self, me: Context) -> Mapping[str, object]:
        """Say what the message is for."""
        draft = self.socket.draft
        request = Request(draft.request or R.GET_FEATURES)
        named = {
            "queue": self.setup.queue_name(draft.index),
            "value": f"{draft.value:#x}",
            "number": draft.value,
            "base": self._base(draft.value),
            "in_use": "in use" if draft.value else "that is not in use",
            "desc": f"{draft.desc:#x}",
        }
        return {"message": request.name, "why": _WHY[request].format(**named), "answer": self._answer()}

    def _base(self, value: int) -> str:
        """Say where a ring begins: at an index, or, if it is packed, at two slots with their wrap counters."""
        if not self.setup.driver_features >> features.F.F_RING_PACKED & 1:
            return f"index {value}"
        taken, returned = (f"slot {half & OFFSET}, wrap counter {half >> 15}" for half in (value & U16, value >> 16))
        return f"{value:#x}: to take {taken}; to return {returned}"

    def _answer(self) -> str:
        return f"{self.socket.cells.answer:#x}"

    @op(
        "CP.7.1",
        "write a message and send it",
        "vhost_user_write",
        QEMU_VHOST_USER,
        text="{message}: {why}",
        to=call("send", "see_whether_answered"),
        cause="sendmsg()",
    )
    def write(self, me: Context) -> None:
        request, index = self.plan[self.mine.at]
        draft, pci = self.socket.draft, self.setup.pci
        draft.request, draft.index = request, index
        draft.flags = VERSION | (NEED_REPLY if self._wants_answer(request) else 0)
        draft.value = self._value(request, index)
        draft.fd = self._fd(request, index) if request in WITH_FD else 0
        is_address = request == R.SET_VRING_ADDR
        draft.desc, draft.avail, draft.used = (
            HVA_BASE + part[index] if is_address else 0 for part in (pci.desc, pci.avail, pci.used)
        )

    def _wants_answer(self, request: Request) -> bool:
        return request == R.SET_MEM_TABLE and bool(self.front.protocol & REPLY_ACK)

    def _value(self, request: Request, index: int) -> int:
        """Give the number that a message carries."""
        setup = self.setup
        if request == R.SET_FEATURES:
            return setup.driver_features & ASKED | 1 << PROTOCOL_FEATURES
        return {
            R.SET_PROTOCOL_FEATURES: self.front.protocol & (REPLY_ACK | MQ),
            R.SET_VRING_ENABLE: int(index < 2 * setup.pairs_in_use),
            R.SET_MEM_TABLE: HVA_BASE,
            R.SET_VRING_NUM: setup.pci.size[index],
            R.SET_VRING_BASE: setup.stopped_at[index],
        }.get(request, 0)

    def _fd(self, request: Request, index: int) -> int:
        """Give the descriptor that travels with a message; makes it, if there is none yet."""
        process, setup = self.setup.process, self.setup
        if request == R.SET_VRING_KICK:
            return process.kick[index]
        if request == R.SET_VRING_ERR:
            process.error[index] = setup.new_fd()
            return process.error[index]
        if request == R.SET_MEM_TABLE:
            self.front.memory = self.front.memory or setup.new_fd()
            return self.front.memory
        if not process.call[index]:
            # Nobody can be interrupted yet: an eventfd that only notes that there was something.
            process.masked[index] = setup.new_fd()
            return process.masked[index]
        return process.call[index]

    @op(
        "CP.7.1",
        "see whether an answer is due",
        "vhost_user_write",
        QEMU_VHOST_USER,
        text={
            "answer": "This message is answered: the thread sleeps in recvmsg() until then.",
            "next": "No answer is due. On to the next message, whether the back-end has read this one or not.",
            "all": "No answer is due, and that was all.",
        },
        to={"answer": goto("await_answer"), "next": goto("write"), "all": RETURN},
        private=True,
    )
    def see_whether_answered(self, me: Context) -> str:
        draft = self.socket.draft
        if draft.request in ASKS or draft.flags & NEED_REPLY:
            return "answer"
        return self._next()

    def _next(self) -> str:
        at = self.mine.at + 1
        while at < len(self.plan) and self._makes_no_sense(self.plan[at][0]):
            at += 1
        self.mine.at = at % len(self.plan)
        return "next" if self.mine.at else "all"

    def _makes_no_sense(self, request: Request) -> bool:
        """Say whether a message is about additions to the protocol, of which the back-end knows none."""
        return request in _OF_PROTOCOL and not self.front.features >> PROTOCOL_FEATURES & 1

    def is_answered(self) -> bool:
        """Say whether an answer waits."""
        return self.socket.cells.answered > self.socket.cells.read

    @op(
        "CP.7.6",
        "find the answer",
        "vhost_user_read",
        QEMU_VHOST_USER,
        text="The answer is there.",
        to=call("receive", "use_answer"),
        guard="is_answered",
        cause="recvmsg()",
    )
    def await_answer(self, me: Context) -> None: ...

    @op(
        "CP.7.6",
        "note the answer",
        "vhost_user_read",
        QEMU_VHOST_USER,
        text={"next": "The answer to {message} is {answer}.", "all": "The answer to {message} is {answer}."},
        to={"next": goto("write"), "all": RETURN},
        private=True,
    )
    def use_answer(self, me: Context) -> str:
        draft, answer = self.socket.draft, self.socket.cells.answer
        if draft.request == R.GET_FEATURES:
            self.front.features = answer
        elif draft.request == R.GET_PROTOCOL_FEATURES:
            self.front.protocol = answer
        elif draft.request == R.GET_QUEUE_NUM:
            self.front.pairs = answer
        elif draft.request == R.GET_VRING_BASE:
            self.setup.process.base[draft.index] = answer
        return self._next()


class QemuStartWithVhostUser(QemuStart):
    """QEMU's main thread with -netdev vhost-user: no TAP, but a socket.

    Args:
        front: what QEMU hears of the back-end.
        introduce: what is said at first.
        enable: what is said at a reset.
    """

    retold: ClassVar = dict.fromkeys(_OF_THE_TAP)

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        calls: Calls,
        front: FrontCells,
        introduce: Routine,
        enable: Routine,
        *,
        is_7_2: bool,
        offer: int,
    ) -> None:
        super().__init__(name, place, setup, calls, opens_tap=False, is_7_2=is_7_2, offer=offer)
        self.front = front
        self.introduce = introduce
        self.enable = enable

    def offered(self) -> int:
        """Leave out what the back-end cannot do."""
        return self.mine & (~ASKED | self.front.features)

    @op(
        "CP.7.1",
        "wait for the back-end to connect",
        "net_init_vhost_user",
        QEMU_NET_VHOST_USER,
        text=(
            "-netdev vhost-user: no TAP and no /dev/vhost-net, but a UNIX socket. Open vSwitch connects to it, and "
            "QEMU begins to ask."
        ),
        to=call("introduce", "realize"),
        private=True,
    )
    def which_tap(self, me: Context) -> None: ...

    @op(
        "CP.8.10",
        "set the first interrupt routes",
        "kvm_irqchip_commit_routes",
        QEMU_KVM,
        text=(
            "So far only the old interrupt pins have routes. Those of the device come later, when the guest has chosen."
        ),
        to=call("set_routing", "reset_machine"),
        cause="ioctl(KVM_SET_GSI_ROUTING)",
    )
    def set_first_routes(self, me: Context) -> None:
        self.arguments.index = 0

    @op(
        "CP.8.10",
        "reset the machine",
        "virtio_net_set_queue_pairs",
        QEMU_VIRTIO_NET,
        text=(
            "Like any machine it begins with a reset. A device that was reset uses one queue pair, and the back-end is "
            "told so."
        ),
        to=call("enable", "let_it_run"),
        private=True,
    )
    def reset_machine(self, me: Context) -> None: ...


class FollowGuestByMessage(Routine):
    """Tell the back-end how many queue pairs are in use, after features were accepted or the device was reset."""

    def __init__(self, name: str, place: Place, enable: Routine) -> None:
        super().__init__(name, place)
        self.enable = enable

    @op(
        "CP.7.1",
        "settle how many queue pairs are in use",
        "virtio_net_set_multiqueue",
        QEMU_VIRTIO_NET,
        text=(
            "Features were accepted or taken back, so the number of queue pairs in use is settled anew. It is one, and "
            "is said all the same."
        ),
        to=call("enable", None),
        private=True,
    )
    def settle(self, me: Context) -> None: ...


class ChangePairsByMessage(Routine):
    """What the driver's command to use several pairs leads to, besides its answer: the back-end is told of each.

    Args:
        enable: tells it.
    """

    def __init__(self, name: str, place: Place, enable: Routine) -> None:
        super().__init__(name, place)
        self.enable = enable

    @op(
        "CP.7.1",
        "tell the back-end which pairs are in use",
        "virtio_net_set_queue_pairs",
        QEMU_VIRTIO_NET,
        spec="5.1.9.5.6",
        text="The driver wants several queue pairs. There is no TAP to switch queues of: the back-end is told.",
        to=call("enable", None),
        private=True,
    )
    def change(self, me: Context) -> None: ...


class ResetVhostUserDevice(ResetDevice):
    """A reset of a device that has no TAP."""

    retold: ClassVar = {
        "adjust_tap": {
            "title": "go back to no features",
            "text": "A device without accepted features uses one queue pair, and the back-end has to know.",
        }
    }


class StartVhostUser(StartVhost):
    """Everything that happens inside the guest's store of DRIVER_OK.

    Args:
        tells: by pair, what the back-end is told; each has a name, the pair's.
    """

    retold: ClassVar = dict.fromkeys(_BY_IOCTL)

    def __init__(
        self,
        name: str,
        place: Place,
        setup: SetUp,
        calls: Calls,
        tells: Mapping[str, Routine],
        *,
        interrupts_first: bool,
    ) -> None:
        super().__init__(name, place, setup, calls, None, interrupts_first=interrupts_first)
        self.tells = tells

    @op(
        "CP.6.8",
        "add an interrupt route",
        "kvm_virtio_pci_vector_vq_use",
        QEMU_VIRTIO_PCI,
        text="Interrupt number {gsi} is to mean MSI-X entry {vector} of this device, the one that the guest chose.",
        to=call("set_routing", "after_interrupt"),
        cause="ioctl(KVM_SET_GSI_ROUTING)",
    )
    def add_route(self, me: Context) -> None:
        self.take_route()

    @op(
        "CP.6.9",
        "tie the eventfd to the route",
        "virtio_pci_one_vector_unmask",
        QEMU_VIRTIO_PCI,
        text=(
            "Entry {vector} is not masked: eventfd {fd} interrupts the guest from now on. The back-end gets it with "
            "its ring."
        ),
        to=call("irqfd", "after_unmask"),
        cause="ioctl(KVM_IRQFD)",
    )
    def update_route(self, me: Context) -> None:
        self.aim(self.process.call[self.process.queue])

    @op(
        "CP.7.1",
        "tell the back-end everything",
        "vhost_net_start_one",
        QEMU_VHOST_NET,
        text="Kicks and calls go past QEMU. Now the back-end is told of memory and rings, message by message.",
        to=call_any("tells", "tell_all"),
        private=True,
    )
    def tell_features(self, me: Context) -> str:
        return list(self.tells)[self.setup.sequence.pair]

    @op(
        "CP.7.1",
        {"started": "go back to the guest", "": "go on to the next pair"},
        "vhost_net_start",
        QEMU_VHOST_NET,
        text={
            "next pair": "That was all about this pair's rings. The next pair is started in the same way.",
            "next pair, kicks first": "That was all about this pair. This QEMU (7.2) ties the next one's kicks now.",
            "started": (
                "Everything is said; when it will be done is the back-end's affair. A kick that nobody hears is lost "
                "without harm: who polls finds the buffers all the same."
            ),
        },
        to={"next pair": goto("tell_features"), "next pair, kicks first": goto("make_kick_fd"), "started": RETURN},
    )
    def tell_all(self, me: Context) -> str:
        if self.next_pair():
            return "next pair, kicks first" if self.interrupts_first else "next pair"
        self.process.started = 1
        return "started"


class StopVhostUser(Routine):
    """Stop the back-end before a reset.

    Args:
        ask: asks how far it came.
        untie: unties the eventfds.
    """

    def __init__(self, name: str, place: Place, ask: Routine, untie: Routine) -> None:
        super().__init__(name, place)
        self.ask = ask
        self.untie = untie

    @op(
        "CP.7.1",
        "stop the rings",
        "vhost_net_stop_one",
        QEMU_VHOST_NET,
        text="There is no message that only stops a ring: asking how far the back-end came does it.",
        to=call("ask", "go_on"),
        private=True,
    )
    def stop(self, me: Context) -> None: ...

    @op(
        "CP.7.1",
        "take kicks and calls back",
        "vhost_net_stop",
        QEMU_VHOST_NET,
        text="Both rings are stopped. The eventfds can go.",
        to=goto("untie"),
        private=True,
    )
    def go_on(self, me: Context) -> None: ...
