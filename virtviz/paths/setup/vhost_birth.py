"""vhost's worker before it exists, and while its rings have no back-end. Rows CP.6.2 and CP.6.15."""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, block, goto, op
from virtviz.spec.citation import VHOST, VHOST_NET, VHOST_TASK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.places import Place
    from virtviz.paths.context import Context
    from virtviz.paths.setup.state import SetUp


class WorkerBirth(Routine):
    """The worker's first step, once VHOST_SET_OWNER has made it.

    Args:
        loop: what it does from then on.
        pair: the queue pair whose rings are its work.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, loop: Routine, pair: int) -> None:
        super().__init__(name, place)
        self.vhost = setup.vhosts[pair]
        self.worker_name = setup.worker_names[pair]
        self.loop = loop

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the worker."""
        return {"worker": self.worker_name}

    def exists(self) -> bool:
        """Say whether it has been made."""
        return bool(self.vhost.worker)

    @op(
        "CP.6.2",
        "begin to work",
        "vhost_task_fn",
        VHOST_TASK,
        text="{worker} begins. It will run whenever there is work on its list, with QEMU's memory as its own.",
        to=goto("loop"),
        guard="exists",
    )
    def begin(self, me: Context) -> None: ...


class AskBackend(Routine):
    """Look whether a ring has a back-end before it is served.

    Args:
        queue: the ring's number on the guest's device.
        serve: serves it.
    """

    def __init__(self, name: str, place: Place, setup: SetUp, *, queue: int, serve: Routine) -> None:
        super().__init__(name, place)
        self.setup = setup
        self.number = queue
        self.serve = serve

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the ring."""
        return {"queue": self.setup.queue_name(self.number), "tap": self.setup.port_name}

    @op(
        "CP.6.15",
        "look for the ring's back-end",
        "vhost_vq_get_backend",
        VHOST_NET,
        text={
            "none": "The {queue} ring has no back-end: it is not live yet, or not any more. There is nothing to do.",
            "there": "The {queue} ring's back-end is {tap}: it can be served.",
        },
        to={"none": RETURN, "there": goto("serve")},
    )
    def look(self, me: Context) -> str:
        return "there" if self.setup.vhosts[self.number // 2].backend[self.number % 2] else "none"


class IdleWorker(Routine):
    """A worker that nobody gives work to, because the start came to nothing."""

    def __init__(self, name: str, place: Place, worker: str) -> None:
        super().__init__(name, place)
        self.worker_name = worker

    def words(self, me: Context) -> Mapping[str, object]:
        """Name the worker."""
        return {"worker": self.worker_name}

    @op(
        "CP.6.2",
        "sleep until there is work",
        "vhost_run_work_list",
        VHOST,
        text="{worker} has nothing to do and sleeps.",
        to={"sleep": block("sleep")},
    )
    def sleep(self, me: Context) -> str:
        return "sleep"
