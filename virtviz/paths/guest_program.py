"""The program in the guest. It follows its part of the scenario: send, wait for what comes back, pause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from virtviz.engine.cells import Cells, cells
from virtviz.engine.ops import Routine, call, goto, op
from virtviz.paths.traffic import END, PAUSE, POKE, RECEIVE, RESET, SEND, Act
from virtviz.spec.citation import SCENARIO, X86_ENTRY
from virtviz.spec.frames import summary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from virtviz.engine.memory import Region
    from virtviz.engine.places import Place
    from virtviz.engine.state import State
    from virtviz.paths.context import Context
    from virtviz.paths.traffic import Traffic


class Content(Protocol):
    """What a program hands over, for a sequence number; and how many bytes there are of it and of what is in front.

    Attributes:
        length: all of them.
        part: how many of them the kernel puts in front.
    """

    length: int
    part: int

    def handed_over(self, sequence: int) -> bytes:
        """Give what the program hands over."""

    def headers(self, sequence: int) -> bytes:
        """Give what the kernel puts in front."""


@cells
class AppCells(Cells):
    """Where the program is in its scenario.

    Attributes:
        done: acts done, over all rounds.
        item: index of the item it sends.
        sequence: the sequence number that goes into it.
        received: packets received.
        copied: bytes of the last one.
        missed: by item, 1 while the last wait for it has ended without it.
        given_up: waits that ended without a packet; what comes late is still read at the end.
        outside: 1 while it stands where a ring is to be changed from outside.
    """

    done: int = 0
    item: int = 0
    sequence: int = 0
    received: int = 0
    copied: int = 0
    outside: int = 0
    given_up: int = 0
    missed: list[int]


class Program(Routine):
    """The program in the guest: sends, waits for answers, pauses, as the scenario says.

    Args:
        vm, vcpu: the machine it runs in, and the vCPU on which.
        memory: guest memory, in which it has one page to send from and one to receive into.
        send_page, receive_page: addresses of these pages.

    Attributes:
        something_waits: says whether a packet is there to be read; set by the wiring.
    """

    first = "next_act"
    something_waits: Callable[[], bool]

    def __init__(
        self,
        state: State,
        name: str,
        place: Place,
        traffic: Traffic,
        vm: int,
        vcpu: int,
        memory: Region,
        send_page: int,
        receive_page: int,
    ) -> None:
        super().__init__(name, place)
        self.traffic = traffic
        self.vcpu = vcpu
        self.items = len(traffic.items)
        self.contents: Sequence[Content] = traffic.contents
        acts = traffic.acts_on(vm, vcpu)
        self.acts = acts or ((END, 0),)
        self.acts_a_round = len(self.acts)
        self.acts_in_all = len(acts) * traffic.rounds
        self.pauses_before = [sum(act is PAUSE for act, _ in self.acts[:i]) for i in range(len(self.acts) + 1)]
        self.memory = memory
        self.send_page = send_page
        self.receive_page = receive_page
        self.cells = state.add(AppCells, name, missed=[0] * len(traffic.items))
        self.answers = [traffic.items[index].answers if act is SEND else -1 for act, index in acts]
        self.programs: Mapping[tuple[int, int], Program] = {(vm, vcpu): self}
        self.restless: Sequence[Callable[[], bool]] = ()
        self.sendmsg: Routine
        self.recvmsg: Routine

    def words(self, me: Context) -> Mapping[str, object]:
        """Say what the packet is."""
        return {"what": summary(self.traffic.frame(me.packet)) if me.packet else "", "received": self.cells.received}

    @property
    def act(self) -> Act:
        """What it does next."""
        done = self.cells.done
        return self.acts[done % len(self.acts)][0] if done < self.acts_in_all else END

    def phase(self) -> tuple[int, int]:
        """Give the round it is in, and how many pauses of that round it has passed."""
        round_, act = divmod(self.cells.done, len(self.acts))
        return round_, self.pauses_before[act]

    def can_go_on(self) -> bool:
        """Say whether a program that does its own work has something to do for the network at once.

        A pause is over for every virtual machine when it is over for one.
        """
        act = self.act
        if act is PAUSE:
            phase = self.phase()
            return any(other.phase() > phase for other in self.programs.values())
        return act in (SEND, RECEIVE, RESET) or self._has_late()

    def _has_late(self) -> bool:
        """Say whether a packet is there, at the end of the scenario, for which the program has waited in vain."""
        mine = self.cells
        return bool(mine.given_up) and mine.done >= self.acts_in_all and self.something_waits()

    def pause_ends(self) -> bool:
        """Say whether it has something to do after a while, and nobody stops polling before that."""
        return self.act is PAUSE and not any(polls() for polls in self.restless)

    def pass_change(self) -> int:
        """Go past a change from outside; answers its number in the traffic."""
        mine = self.cells
        number = self.acts[mine.done % self.acts_a_round][1]
        mine.outside = 0
        mine.done += 1
        # Several changes in a row come without a step of the program between them.
        if self.act is POKE:
            mine.outside = 1
        return number

    def gives_up(self) -> bool:
        """Say whether waiting for a packet may time out: there is more to do after it, and it has been sent."""
        return self.act is RECEIVE and self.cells.done + 1 < self.acts_in_all and self._all_have_set_out()

    def _all_have_set_out(self) -> bool:
        """Say whether all packets that it has waited for so far, this one too, are on their way, there, or lost.

        Any packet ends a wait, so one that is waited for now can have come already, and an earlier one not.
        """
        round_, at = divmod(self.cells.done, self.acts_a_round)
        waits = [(round_, act) for act in self.acts[: at + 1]]
        if round_:
            waits += [(round_ - 1, act) for act in self.acts[at + 1 :]]
        return all(self._has_set_out(number, index) for number, (act, index) in waits if act is RECEIVE)

    def _has_set_out(self, round_: int, index: int) -> bool:
        """Say whether a packet is on its way, there, or lost, by its round and item: what comes from the wire is."""
        item = self.traffic.items[index]
        if item.to_vm < 0:
            return True
        sender = self.programs[item.vm, item.vcpu]
        return sender.cells.done > round_ * sender.acts_a_round + sender.acts.index((SEND, index))

    def give_up(self) -> None:
        """End a wait for a packet that has not come."""
        mine = self.cells
        mine.missed[self.acts[mine.done % self.acts_a_round][1]] = 1
        mine.given_up += 1
        mine.done += 1

    def received(self, length: int) -> None:
        """Note that a packet has come, and how many bytes were copied of it."""
        mine = self.cells
        mine.copied = length
        mine.received += 1
        if mine.done >= self.acts_in_all:
            mine.given_up -= 1
            return
        awaited = self.acts[mine.done % self.acts_a_round][1]
        if mine.missed[awaited]:
            mine.missed[awaited] = 0
        mine.done += 1

    @op(
        "G-TX.1",
        {"send": "call sendmsg()", "receive": "call recvmsg()", "work": "go on with other work"},
        "entry_SYSCALL_64",
        X86_ENTRY,
        text={
            "send": (
                "The program has a packet ready and calls sendmsg(): {what}. A system call, and no exit from the guest."
            ),
            "receive": "The program calls recvmsg(), to wait for what comes back.",
            "work": "The program has nothing to send and does work of its own.",
        },
        to={"send": call("sendmsg", "next_act"), "receive": call("recvmsg", "next_act"), "work": goto("own_work")},
        milestone={"send": "sent"},
        cause="system call",
    )
    def next_act(self, me: Context) -> str:
        mine = self.cells
        while mine.done < self.acts_in_all and (asked := self.answers[mine.done % self.acts_a_round]) >= 0:
            if not mine.missed[asked]:
                break
            # What it never got it does not answer.
            mine.done += 1
        if mine.done < self.acts_in_all:
            round_, at = divmod(mine.done, self.acts_a_round)
            act, index = self.acts[at]
            if act is SEND:
                me.packet = packet = round_ * self.items + index + 1
                mine.item = index
                mine.sequence = sequence = packet - self.traffic.answers_back[index]
                self.memory.write(self.send_page, self.contents[index].handed_over(sequence))
                return "send"
            if act is RECEIVE:
                me.packet = 0
                return "receive"
            if act is POKE:
                mine.outside = 1
        me.packet = 0
        return "receive" if self._has_late() else "work"

    @op(
        "G-TX.1",
        "do other work",
        "main",
        SCENARIO,
        text="After a while without network traffic the program goes on with its scenario.",
        to=goto("next_act"),
        guard="can_go_on",
        patience="pause_ends",
        private=True,
    )
    def own_work(self, me: Context) -> None:
        if self.act is PAUSE:
            self.cells.done += 1
