"""Open vSwitch gets a new port: ovs-vsctl asks a database, and ovs-vswitchd does what it says. Rows CP.9.1 to 4.

Nobody tells the switch's program what to do. ovsdb-server keeps what is wanted; ovs-vswitchd is told of every change,
makes it true, and notes in the database how far it has come. ovs-vsctl waits for that note.

Source: Open vSwitch 3.1 utilities/ovs-vsctl.c (do_vsctl), ovsdb/jsonrpc-server.c, ovsdb/transaction.c,
vswitchd/bridge.c (bridge_run, bridge_reconfigure), lib/dpif-netlink.c (dpif_netlink_port_add); OVSDB is RFC 7047.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import ALREADY_AWAKE, WOKE
from virtviz.engine.ops import RETURN, Routine, block, call, goto, op
from virtviz.spec.citation import CORE_SOCK, POLL
from virtviz.spec.setup_sources import (
    AF_UNIX,
    OVS_BRIDGE,
    OVS_DPIF_NETLINK,
    OVS_VSCTL,
    OVSDB_SERVER,
    OVSDB_TRANSACTION,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context

VSCTL, SWITCH = 1, 2
"""Who has something to say to the database, as bits."""


@cells
class SwitchCells(Cells):
    """What Open vSwitch's programs keep and tell each other.

    Attributes:
        vsctl_started, vsctl_done: 1 once ovs-vsctl runs, and once it has ended.
        ports: ports in the database.
        next_cfg, cur_cfg: number of the configuration that is wanted, and of the one that is true (table Open_vSwitch).
        to_server: who has sent a request that ovsdb-server has not read, as bits.
        to_switch, to_vsctl: 1 while an update waits to be read.
        seen_cfg: number of the configuration that ovs-vswitchd was told of.
    """

    vsctl_started: int = 0
    vsctl_done: int = 0
    ports: int = 1
    next_cfg: int = 1
    cur_cfg: int = 1
    to_server: int = 0
    to_switch: int = 0
    to_vsctl: int = 0
    seen_cfg: int = 1


class Send(Routine):
    """A message over a UNIX socket: it is put into the receiver's queue, and the receiver is woken.

    Args:
        field, bit: what the message sets.
        receiver: who waits for it.
    """

    def __init__(
        self, name: str, place: Place, mine: SwitchCells, field: str, bit: int, receiver: Thread, row: str
    ) -> None:
        super().__init__(name, place)
        self.mine = mine
        self.field, self.bit = field, bit
        self.receiver = receiver
        self.rows = {"send": row}

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the receiver."""
        return {"receiver": self.receiver.name}

    @op(
        "send",
        "put the message into the socket's queue",
        "unix_stream_sendmsg",
        AF_UNIX,
        text="The message waits in the socket's queue until {receiver} reads it.",
    )
    def put(self, me: Context) -> None:
        setattr(self.mine, self.field, getattr(self.mine, self.field) | self.bit)

    @op(
        "send",
        "wake the receiver",
        "sock_def_readable",
        CORE_SOCK,
        text={
            WOKE: "{receiver} sleeps in poll() and is made runnable.",
            ALREADY_AWAKE: "{receiver} is awake already, and will find the message.",
        },
        to={WOKE: RETURN, ALREADY_AWAKE: RETURN},
        target="receiver",
        cause="return from sendmsg()",
        fence=True,
    )
    def wake(self, me: Context) -> str:
        return self.receiver.me.wake()


class Poll(Routine):
    """poll() on sockets: sleep until a message is there.

    Args:
        field: the cell that is not 0 while a message waits.
    """

    def __init__(self, name: str, place: Place, mine: SwitchCells, field: str, row: str) -> None:
        super().__init__(name, place)
        self.mine = mine
        self.field = field
        self.rows = {"poll": row}

    @op(
        "poll",
        {"ready": "find a message", "": "sleep until there is a message"},
        "do_sys_poll",
        POLL,
        text={
            "ready": "A message waits: poll() returns.",
            "sleep": "There is no message: the thread sleeps in the kernel.",
        },
        to={"ready": RETURN, "sleep": block("wait")},
        cause="return from the system call",
        fence=True,
    )
    def wait(self, me: Context) -> str:
        return "ready" if getattr(self.mine, self.field) else "sleep"


class Vsctl(Routine):
    """ovs-vsctl add-port: one transaction, and waiting until it has come true.

    Args:
        send: sends to ovsdb-server.
        poll: waits for an update.
    """

    def __init__(self, name: str, place: Place, mine: SwitchCells, send: Routine, poll: Routine) -> None:
        super().__init__(name, place)
        self.mine = mine
        self.send = send
        self.poll = poll

    def is_started(self) -> bool:
        """Say whether it has been started."""
        return bool(self.mine.vsctl_started)

    @op(
        "CP.9.1",
        "ask the database for a port",
        "do_vsctl",
        OVS_VSCTL,
        text="ovs-vsctl knows nothing of the kernel: it asks the database, in one transaction, to have one more port.",
        to=call("send", "wait"),
        guard="is_started",
        cause="sendmsg() to ovsdb-server",
    )
    def ask(self, me: Context) -> None: ...

    @op(
        "CP.9.1",
        "wait until it is true",
        "do_vsctl",
        OVS_VSCTL,
        text="That the database knows is not enough: ovs-vsctl waits until ovs-vswitchd has noted that it is done.",
        to=call("poll", "look"),
        cause="poll()",
    )
    def wait(self, me: Context) -> None: ...

    @op(
        "CP.9.1",
        "see whether it is true",
        "do_vsctl",
        OVS_VSCTL,
        text={
            "not yet": "cur_cfg is still older than what was asked for: wait on.",
            "true": "cur_cfg has caught up: the port exists. ovs-vsctl ends.",
        },
        to={"not yet": goto("wait"), "true": goto("gone")},
    )
    def look(self, me: Context) -> str:
        mine = self.mine
        mine.to_vsctl = 0
        if mine.cur_cfg < mine.next_cfg:
            return "not yet"
        mine.vsctl_done = 1
        return "true"

    @op(
        "CP.9.1",
        "end",
        "exit",
        OVS_VSCTL,
        text={"sleep": "The program has ended, and whoever waited for it goes on."},
        to={"sleep": block("gone")},
    )
    def gone(self, me: Context) -> str:
        return "sleep"


class OvsdbServer(Routine):
    """ovsdb-server: commit what is asked for, tell whoever monitors it.

    Args:
        poll: waits for a request.
        tell_switch, tell_vsctl: send an update.
    """

    first = "wait"

    def __init__(
        self, name: str, place: Place, mine: SwitchCells, poll: Routine, tell_switch: Routine, tell_vsctl: Routine
    ) -> None:
        super().__init__(name, place)
        self.mine = mine
        self.poll = poll
        self.tell_switch = tell_switch
        self.tell_vsctl = tell_vsctl

    def words(self, me: Context) -> Mapping[str, object]:
        """Give the numbers."""
        return {"next": self.mine.next_cfg, "cur": self.mine.cur_cfg}

    @op(
        "CP.9.2",
        "wait for requests",
        "main_loop",
        OVSDB_SERVER,
        text="The database waits for requests. It moves no packet, and knows of none.",
        to=call("poll", "commit"),
        cause="poll()",
    )
    def wait(self, me: Context) -> None: ...

    @op(
        "CP.9.2",
        "commit the transaction",
        "ovsdb_txn_propose_commit",
        OVSDB_TRANSACTION,
        text={
            "port": (
                "Rows for the port are added, and next_cfg becomes {next}: what is wanted has changed. Who monitors is "
                "told."
            ),
            "done": "cur_cfg becomes {cur}: what is wanted is true. Who monitors that is told.",
        },
        to={"port": call("tell_switch", "wait"), "done": call("tell_vsctl", "wait")},
        cause="sendmsg() of the update",
    )
    def commit(self, me: Context) -> str:
        mine = self.mine
        if mine.to_server & VSCTL:
            mine.to_server &= ~VSCTL
            mine.ports += 1
            mine.next_cfg += 1
            return "port"
        mine.to_server &= ~SWITCH
        mine.cur_cfg = mine.seen_cfg
        return "done"


class Vswitchd(Routine):
    """ovs-vswitchd's main thread: make true what the database wants.

    Args:
        poll: waits for an update.
        new_port: the netlink command, in the kernel.
        send: sends to ovsdb-server.
    """

    first = "wait"

    def __init__(
        self, name: str, place: Place, mine: SwitchCells, poll: Routine, new_port: Routine, send: Routine
    ) -> None:
        super().__init__(name, place)
        self.mine = mine
        self.poll = poll
        self.new_port = new_port
        self.send = send

    @op(
        "CP.9.3",
        "wait for updates",
        "bridge_wait",
        OVS_BRIDGE,
        text=(
            "ovs-vswitchd's main thread waits for changes of the database. Packets are the business of its other "
            "threads."
        ),
        to=call("poll", "compare"),
        cause="poll()",
    )
    def wait(self, me: Context) -> None: ...

    @op(
        "CP.9.3",
        "compare what is with what is wanted",
        "bridge_reconfigure",
        OVS_BRIDGE,
        text=(
            "The database wants a port that the switch does not have: it has to be added to the kernel's part as well."
        ),
        to=goto("add_port"),
    )
    def compare(self, me: Context) -> None:
        mine = self.mine
        mine.to_switch = 0
        mine.seen_cfg = mine.next_cfg

    @op(
        "CP.9.4",
        "ask the kernel for a port",
        "dpif_netlink_port_add",
        OVS_DPIF_NETLINK,
        text="A netlink message: OVS_VPORT_CMD_NEW, of kind “netdev”, with the TAP's name.",
        to=call("new_port", "note"),
        cause="sendmsg() on a netlink socket",
    )
    def add_port(self, me: Context) -> None: ...

    @op(
        "CP.9.4",
        "note that it is done",
        "bridge_run",
        OVS_BRIDGE,
        text="The port exists. ovs-vswitchd notes in the database that the configuration is true.",
        to=call("send", "wait"),
        cause="sendmsg() to ovsdb-server",
    )
    def note(self, me: Context) -> None: ...
