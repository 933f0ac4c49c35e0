"""An eventfd as an object: three programs on the host share one. Rows EFD.

It is a counter of 64 bits in the kernel, with a queue of those who wait. write() adds to it, read() takes all of it, or
with EFD_SEMAPHORE one at a time, and sleeps while it is 0; poll() says whether it is more than 0, and takes nothing. A
kick and a call are nothing else, only that the kernel itself adds and waits there.

Source: Linux 6.12 fs/eventfd.c (do_eventfd, eventfd_write, eventfd_read, eventfd_ctx_do_read, eventfd_poll).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.engine.effects import ALREADY_AWAKE, SIGNALLED, WOKE
from virtviz.engine.ops import RETURN, Routine, block, call, goto, op
from virtviz.spec.citation import EVENTFD, SCENARIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.engine.threads import Thread
    from virtviz.paths.context import Context

WRITES = (1, 2, 1)
"""What the writer adds; it waits for the reader before the last one."""


@cells
class ObjectCells(Cells):
    """An eventfd, and how far its programs are.

    Attributes:
        exists: 1 once it has been made.
        counter: its counter.
        value: what the last read() gave, or what the next write() adds.
        written, taken: how often it was written to, and the sum of all that was read.
        polled: 1 once poll() has answered.
    """

    exists: int = 0
    counter: int = 0
    value: int = 0
    written: int = 0
    taken: int = 0
    polled: int = 0


class _Part(Routine):
    """A routine about the eventfd."""

    def __init__(self, name: str, place: Place, mine: ObjectCells) -> None:
        super().__init__(name, place)
        self.mine = mine

    def words(self, me: Context) -> Mapping[str, object]:
        """Give its counter and the value in hand."""
        return {"counter": self.mine.counter, "value": self.mine.value}


class EventfdWrite(_Part):
    """write() of an eventfd, in the kernel.

    Args:
        reader, poller: who may wait for it.
    """

    def __init__(self, name: str, place: Place, mine: ObjectCells, reader: Thread, poller: Thread) -> None:
        super().__init__(name, place, mine)
        self.reader = reader
        self.poller = poller

    @op(
        "EFD.2",
        "add to the counter",
        "eventfd_write",
        EVENTFD,
        text="The counter goes up by {value}, to {counter}. Nothing else is kept: not who wrote, not how often.",
        to={SIGNALLED: goto("wake_reader")},
        cost="eventfd",
    )
    def add(self, me: Context) -> str:
        self.mine.counter += self.mine.value
        return SIGNALLED

    @op(
        "EFD.3",
        "wake who sleeps in read()",
        "wake_up_locked_poll",
        EVENTFD,
        text={
            WOKE: "The reader sleeps in read(): it is made runnable.",
            ALREADY_AWAKE: "The reader is awake already; it will find the sum of both writes.",
        },
        to={WOKE: goto("wake_poller"), ALREADY_AWAKE: goto("wake_poller")},
        target="reader",
    )
    def wake_reader(self, me: Context) -> str:
        return self.reader.me.wake()

    @op(
        "EFD.3",
        "wake who sleeps in poll()",
        "wake_up_locked_poll",
        EVENTFD,
        text={
            WOKE: "Everybody in the queue is woken, so who sleeps in poll() as well.",
            ALREADY_AWAKE: "Nobody sleeps in poll().",
        },
        to={WOKE: RETURN, ALREADY_AWAKE: RETURN},
        target="poller",
        cause="return from write()",
    )
    def wake_poller(self, me: Context) -> str:
        return self.poller.me.wake() if not self.mine.polled else ALREADY_AWAKE


class EventfdRead(_Part):
    """read() of an eventfd, in the kernel.

    Args:
        is_semaphore: it was made with EFD_SEMAPHORE.
    """

    def __init__(self, name: str, place: Place, mine: ObjectCells, *, is_semaphore: bool) -> None:
        super().__init__(name, place, mine)
        self.is_semaphore = is_semaphore

    @op(
        "EFD.4",
        {"sleep": "sleep until the counter is not 0", "": "take from the counter"},
        "eventfd_read",
        EVENTFD,
        text={
            "sleep": "The counter is 0: read() sleeps in the queue of those who wait.",
            "all": "read() gives {value} and takes the counter back to 0: one read for all writes before it.",
            "one": "A semaphore: read() gives 1 and takes 1 away, so {counter} is left for the next read.",
        },
        to={"sleep": block("take"), "all": RETURN, "one": RETURN},
        cause="return from read()",
        cost="eventfd",
    )
    def take(self, me: Context) -> str:
        mine = self.mine
        if not mine.counter:
            return "sleep"
        mine.value = 1 if self.is_semaphore else mine.counter
        mine.counter -= mine.value
        return "one" if self.is_semaphore else "all"


class EventfdPoll(_Part):
    """poll() of an eventfd, in the kernel."""

    @op(
        "EFD.5",
        {"sleep": "sleep until it can be read", "": "see that it can be read"},
        "eventfd_poll",
        EVENTFD,
        text={
            "sleep": (
                "The counter is 0, so there is nothing to read: the thread sleeps in the same queue as the reader."
            ),
            "readable": "The counter is {counter}: it can be read. poll() only says so, and takes nothing.",
            "too late": "poll() looks again, and the counter is 0: somebody was faster. It sleeps once more.",
        },
        to={"sleep": block("look"), "readable": RETURN, "too late": block("look")},
        cause="return from poll()",
    )
    def look(self, me: Context) -> str:
        mine = self.mine
        if mine.counter:
            mine.polled = 1
            return "readable"
        return "too late" if mine.written else "sleep"


class Reader(_Part):
    """The program that makes the eventfd and reads it.

    Args:
        read: read(), in the kernel.
        total: the sum of all that will be written.
    """

    def __init__(self, name: str, place: Place, mine: ObjectCells, read: Routine, total: int) -> None:
        super().__init__(name, place, mine)
        self.read = read
        self.total = total

    def never(self) -> bool:
        """Say that nothing is waited for."""
        return False

    def always(self) -> bool:
        """Say that it begins after a while."""
        return True

    @op(
        "EFD.1",
        "make an eventfd",
        "do_eventfd",
        EVENTFD,
        text=(
            "eventfd(0): a counter that begins at 0, behind a descriptor. The other programs have the same descriptor."
        ),
        guard="never",
        patience="always",
        private=True,
    )
    def make(self, me: Context) -> None:
        self.mine.exists = 1

    @op(
        "EFD.4",
        "read it",
        "main",
        SCENARIO,
        text="The reader calls read(), to wait until somebody has written.",
        to=call("read", "note"),
        cause="read()",
    )
    def call_read(self, me: Context) -> None: ...

    @op(
        "EFD.4",
        "use what was read",
        "main",
        SCENARIO,
        text={
            "more": "It got {value}. It reads again.",
            "all": "It got {value}: that was all that will ever be written.",
        },
        to={"more": goto("call_read"), "all": goto("end")},
    )
    def note(self, me: Context) -> str:
        self.mine.taken += self.mine.value
        return "all" if self.mine.taken >= self.total else "more"

    @op(
        "EFD.1",
        "end",
        "main",
        SCENARIO,
        text={"sleep": "The reader has no more to do."},
        to={"sleep": block("end")},
    )
    def end(self, me: Context) -> str:
        return "sleep"


class Poller(_Part):
    """The program that only asks whether the eventfd can be read.

    Args:
        poll: poll(), in the kernel.
    """

    def __init__(self, name: str, place: Place, mine: ObjectCells, poll: Routine) -> None:
        super().__init__(name, place, mine)
        self.poll = poll

    def is_made(self) -> bool:
        """Say whether the eventfd exists."""
        return bool(self.mine.exists)

    @op(
        "EFD.5",
        "ask whether it can be read",
        "main",
        SCENARIO,
        text=(
            "Another program calls poll(): it wants to know when there is something to read. QEMU's main loop "
            "does that."
        ),
        to=call("poll", "end"),
        guard="is_made",
        cause="poll()",
    )
    def call_poll(self, me: Context) -> None: ...

    @op(
        "EFD.5",
        "end",
        "main",
        SCENARIO,
        text={"sleep": "It knows, and has no more to do."},
        to={"sleep": block("end")},
    )
    def end(self, me: Context) -> str:
        return "sleep"


class Writer(_Part):
    """The program that writes to the eventfd.

    Args:
        write: write(), in the kernel.
    """

    def __init__(self, name: str, place: Place, mine: ObjectCells, write: Routine) -> None:
        super().__init__(name, place, mine)
        self.write = write

    def may_write(self) -> bool:
        """Say whether it has something to write; before the last time it waits for the reader."""
        mine = self.mine
        if mine.written == len(WRITES) - 1:
            return mine.taken >= sum(WRITES[:-1])
        return bool(mine.exists)

    @op(
        "EFD.2",
        {"end": "end", "": "write to it"},
        "main",
        SCENARIO,
        text={"write": "The writer calls write() with the number {value}.", "end": "The writer has no more to do."},
        to={"write": call("write", "call_write"), "end": block("call_write")},
        guard="may_write",
        cause="write()",
    )
    def call_write(self, me: Context) -> str:
        mine = self.mine
        if mine.written == len(WRITES):
            return "end"
        mine.value = WRITES[mine.written]
        mine.written += 1
        return "write"
