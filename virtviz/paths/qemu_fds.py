"""QEMU's descriptors, in the kernel: ppoll(), reading and writing eventfds, and how ppoll()'s sleeper is woken."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from virtviz.engine.effects import ALREADY_AWAKE, SIGNALLED, WOKE
from virtviz.engine.ops import RETURN, Routine, block, call, op
from virtviz.paths.qemu import TAPS
from virtviz.spec.citation import EVENTFD, POLL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.kvm import EventfdCells
    from virtviz.paths.qemu import Qemu


class WakePoller(Routine):
    """The callback that ppoll() has put on a descriptor's wait queue: wake the sleeper. KICK.4, N-IN.10.

    Args:
        row: which row it is.
        who: what has become ready, for people.
    """

    def __init__(self, name: str, place: Place, qemu: Qemu, row: str, who: str) -> None:
        super().__init__(name, place)
        self.qemu = qemu
        self.rows = {"wakeup": row}
        self.who = who
        self.main_loop = qemu.thread

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the sleeper, and what is ready."""
        return {"qemu": self.qemu.name, "who": self.who}

    @op(
        "wakeup",
        "wake who waits in ppoll()",
        "pollwake",
        POLL,
        text={
            WOKE: "{qemu} sleeps in ppoll(), and {who} is among what it waits for: it is made runnable.",
            ALREADY_AWAKE: "{qemu} has been woken already, and has not run yet: it will find {who} as well.",
            "nobody waits": "Nobody waits: {qemu} is at work, and its next ppoll() will find {who}.",
        },
        to={WOKE: RETURN, ALREADY_AWAKE: RETURN, "nobody waits": RETURN},
        target="main_loop",
        fence=True,
    )
    def wake_main_loop(self, me: Context) -> str:
        return self.main_loop.me.wake() if self.qemu.cells.polling else "nobody waits"


class WakeForKick(WakePoller):
    """The same for a kick: the back-end is notified by it."""

    retold = MappingProxyType(
        {
            "wake_main_loop": {
                "text": {
                    WOKE: (
                        "A callback runs right here, in the thread that signalled: {qemu} waits in ppoll() for {who}, "
                        "and is made runnable."
                    ),
                    ALREADY_AWAKE: "{qemu} has been woken already, and has not run yet: it will find {who} as well.",
                    "nobody waits": "Nobody waits: {qemu} is at work, and its next ppoll() will find {who}.",
                },
                "milestone": "notified",
            }
        }
    )


class PpollWait(Routine):
    """ppoll() in the kernel: sleeps until one of the descriptors is ready."""

    def __init__(self, name: str, place: Place, qemu: Qemu) -> None:
        super().__init__(name, place)
        self.qemu = qemu

    @op(
        {"sleep": "Q-TX.12", "ready": "Q-TX.1", "frame": "Q-RX.1"},
        "look at every descriptor",
        "do_sys_poll",
        POLL,
        text={
            "ready": "An eventfd is ready: ppoll() returns.",
            "frame": "The TAP's queue holds a frame, so the TAP can be read: ppoll() returns.",
            "sleep": (
                "No descriptor is ready: the thread puts itself on the wait queue of each, and sleeps in the kernel."
            ),
        },
        to={"ready": RETURN, "frame": RETURN, "sleep": block("wait")},
        cause="return from the system call",
        fence=True,
    )
    def wait(self, me: Context) -> str:
        qemu, mine = self.qemu, self.qemu.cells
        found = qemu.look()
        qemu.watch_taps(0 if found else mine.read_poll)
        mine.polling = int(not found)
        mine.ready = found
        return "sleep" if not found else "frame" if not found & ~TAPS else "ready"


class PpollNow(Routine):
    """ppoll() with a timeout of zero."""

    def __init__(self, name: str, place: Place, qemu: Qemu) -> None:
        super().__init__(name, place)
        self.qemu = qemu

    @op(
        "Q-TX.4",
        "look at every descriptor",
        "do_sys_poll",
        POLL,
        text={
            "nothing": "No descriptor is ready, and there is no time to wait: ppoll() returns 0 at once.",
            "ready": "Some are ready: ppoll() returns how many.",
        },
        to={"nothing": RETURN, "ready": RETURN},
        cause="return from the system call",
    )
    def look(self, me: Context) -> str:
        self.qemu.cells.ready = found = self.qemu.look()
        return "ready" if found else "nothing"


class ReadEventfd(Routine):
    """read() of an eventfd: one read takes all signals.

    Args:
        eventfd: its counter.
        row: which row it is.
    """

    def __init__(self, name: str, place: Place, eventfd: EventfdCells, row: str) -> None:
        super().__init__(name, place)
        self.eventfd = eventfd
        self.rows = {"read": row}

    @op(
        "read",
        "take the counter back to 0",
        "eventfd_read",
        EVENTFD,
        text="read() gives the eventfd's counter and takes it back to 0: however many signals there were, one read.",
        to=RETURN,
        cause="return from the system call",
        cost="eventfd",
    )
    def read(self, me: Context) -> None:
        self.eventfd.counter = 0


class WriteEventfd(Routine):
    """write() to the main loop's own eventfd: its sleeper is woken. Row 4 of KICK with ioeventfd=off.

    Args:
        wakeup: the callback of who waits.
    """

    def __init__(self, name: str, place: Place, eventfd: EventfdCells, wakeup: Routine) -> None:
        super().__init__(name, place)
        self.eventfd = eventfd
        self.wakeup = wakeup

    @op(
        "KICK.4",
        "add 1 to the eventfd",
        "eventfd_write",
        EVENTFD,
        text="write() adds 1 to the counter of an eventfd that QEMU keeps for itself.",
        to={SIGNALLED: call("wakeup", "finish")},
        cost="eventfd",
    )
    def write(self, me: Context) -> str:
        self.eventfd.counter += 1
        return SIGNALLED

    @op(
        "KICK.4",
        "return from write()",
        "eventfd_write",
        EVENTFD,
        text="write() returns; who was woken runs when the lock is free.",
        to=RETURN,
        cause="return from the system call",
        private=True,
    )
    def finish(self, me: Context) -> None: ...
