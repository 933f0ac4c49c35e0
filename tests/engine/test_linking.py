"""Linking: what a table must be, and what each message says when it is not."""

from __future__ import annotations

import pytest
from toy import APP, BOOK, CPU_KERNEL, HOST, KERNEL, KVM, make_toy, step

from virtviz.engine.effects import COPIED, WOKE
from virtviz.engine.ops import RETURN, Block, Call, Goto, Routine, block, call, call_any, goto, op, pick
from virtviz.engine.places import CrossingKind, Domain, Place, Side
from virtviz.engine.program import BLOCK, CALL, CHECK, EFFECT, GOTO, KIND_MASK, Op, link, text_for
from virtviz.engine.state import State
from virtviz.engine.threads import Registers, Thread
from virtviz.errors import LinkError, NoBorderError


def thread(start: Routine, gates: tuple[Routine, ...] = ()) -> Thread:
    return Thread("t", State(recording=False).add(Registers, "t", index=0), start, gates=gates)


def refused(start: Routine, message: str, gates: tuple[Routine, ...] = (), omit: tuple[str, ...] = ()) -> None:
    with pytest.raises(LinkError, match=message):
        link([thread(start, gates)], omit=omit)


class Loop(Routine):
    """Goes round for ever."""

    @step("turn", to=goto("turn"))
    def turn(self, me): ...


class Caller(Routine):
    """Calls what it is given, for ever."""

    def __init__(self, name: str, place: Place, callee: Routine | None) -> None:
        super().__init__(name, place)
        self.callee = callee

    @step("begin", to=call("callee", "begin"))
    def begin(self, me): ...


class Leaf(Routine):
    """Returns at once."""

    @step("leaf", to=RETURN)
    def leaf(self, me): ...


def test_two_routines_may_not_have_one_name():
    refused(Caller("twin", HOST, Leaf("twin", HOST)), "two routines are called 'twin'")


def test_a_target_must_be_held_by_an_attribute():
    class Missing(Routine):
        @step("begin", to=call("nowhere", None))
        def begin(self, me): ...

    class MissingAny(Routine):
        @step("begin", to=call_any("nowhere", None))
        def begin(self, me): ...

    refused(Missing("m", HOST), "m: 'Missing' object has no attribute 'nowhere'")
    refused(MissingAny("m", HOST), "m: 'MissingAny' object has no attribute 'nowhere'")


def test_a_routine_has_ops():
    refused(Caller("c", HOST, Routine("empty", HOST)), "empty has no ops")


@pytest.mark.parametrize(("row", "title", "text"), [("", "t", "x"), ("R.1", "", "x"), ("R.1", "t", "")])
def test_an_op_has_row_title_and_text(row, title, text):
    class Bare(Routine):
        @op(row, title, "f", BOOK, text=text, to=goto("bare"))
        def bare(self, me): ...

    refused(Bare("b", HOST), "b/bare lacks a row, a title or a text")


def test_the_last_op_must_lead_somewhere():
    class End(Routine):
        @step("only")
        def only(self, me): ...

    refused(End("end", HOST), "end/only is the last op of its routine and leads nowhere")


def test_a_name_must_be_an_op():
    class Lost(Routine):
        @step("begin", to=goto("elsewhere"))
        def begin(self, me): ...

    refused(Lost("lost", HOST), "lost has no op 'elsewhere'")


def test_an_op_that_decides_cannot_be_left_out():
    refused(make_toy().machine.threads[0].start, "app/count cannot be left out", omit=("count",), gates=())


def test_an_omitted_op_is_passed_over_and_need_not_be_reached():
    whole, without = make_toy(), make_toy(omit=("kernel/mb",))
    whole.machine.run()
    without.machine.run()
    assert without.machine.position == whole.machine.position - 3
    assert [without.machine.hits[arc.number] for arc in without.machine.program.arcs if arc.op.name == "mb"] == [0]
    assert without.cells.taken == whole.cells.taken


def test_an_op_that_decides_is_left_out_as_one_of_its_outcomes():
    machine = make_toy(2, omit=("work/look=work", "app/count=enough")).machine
    program = machine.program
    starts = {thread.name: program.ops[thread.pc].path for thread in machine.threads}
    assert starts == {"app": "app/rest", "worker": "work/copy"}
    refused(machine.threads[0].start, "app/count cannot be left out", omit=("count=more",))


def test_what_is_left_out_must_be_there():
    refused(make_toy().machine.threads[0].start, "there is no op 'nothing' to leave out", omit=("nothing",))


def test_gates_cannot_be_called():
    gate = Leaf("gate", CPU_KERNEL)
    refused(Caller("c", HOST, gate), "c/begin: 'done' calls nothing that can be called", gates=(gate,))


def test_a_return_needs_a_caller():
    refused(Leaf("orphan", HOST), "orphan/leaf returns, but nothing calls orphan")


def test_a_return_to_several_domains_must_say_which():
    leaf = Leaf("leaf", KVM)

    class Both(Routine):
        first = "one"
        callee = leaf

        def place_of(self, spec):
            return KERNEL if spec.name in ("one", "two") else Place("qemu", Domain.HOST_KERNEL, "q")

        @step("one", to=call("callee", "two"))
        def one(self, me): ...

        @step("two", to=call("callee", "three"))
        def two(self, me): ...

        @step("three", to=goto("three"))
        def three(self, me): ...

    refused(Both("both", KERNEL), "leaf/leaf: 'done' returns to several domains and crosses different borders")


def test_a_wake_up_needs_a_target_and_a_copy_a_size():
    class Wakes(Routine):
        @step("wakes", to={WOKE: goto("wakes")})
        def wakes(self, me): ...

    class Copies(Routine):
        @step("copies", to={COPIED: goto("copies")})
        def copies(self, me): ...

    refused(Wakes("w", HOST), "w/wakes: 'woke' needs a target")
    refused(Copies("c", HOST), "c/copies: 'copied' needs a size")


def test_every_op_can_be_reached():
    class Island(Loop):
        @step("island", to=goto("turn"))
        def island(self, me): ...

    refused(Island("i", HOST), "i/island can never be reached")


def test_places_that_share_no_border_cannot_follow_each_other():
    engine = Place("nic", Domain.HARDWARE, "NIC")
    with pytest.raises(NoBorderError, match=r"no border from host \(host-kernel\) to nic \(hardware\)"):
        link([thread(Caller("c", HOST, Leaf("leaf", engine)))])


def test_ops_are_found_by_path_or_by_a_name_that_only_one_has():
    program = make_toy().machine.program
    assert program.find("kernel/mb") is program.find("mb")
    assert program.find("left/leave").path == "left/leave"
    with pytest.raises(LinkError, match="2 ops are called 'leave'"):
        program.find("leave")
    with pytest.raises(LinkError, match="0 ops are called 'nothing'"):
        program.find("nothing")


def test_arcs_know_what_they_cross_and_what_they_do():
    program = make_toy().machine.program
    arcs = {(arc.op.path, arc.outcome): arc for arc in program.arcs}
    syscall = arcs["app/count", "more"]
    assert (syscall.kind & KIND_MASK, syscall.crossing, syscall.side) == (CALL, CrossingKind.SYSCALL_ENTER, Side.GUEST)
    assert program.ops[syscall.then].path == "app/count"
    ring = arcs["kernel/ring", "left"]
    assert (ring.crossing, program.ops[ring.next].path) == (CrossingKind.VM_EXIT, "left/leave")
    woke, awake = arcs["left/wake", "woke"], arcs["left/wake", "already awake"]
    assert woke.kind == GOTO | EFFECT
    assert awake.kind == GOTO, "nothing is carried to a thread that is awake"
    assert woke.target is awake.target is not None
    assert woke.cost_ns == 17
    sleep = arcs["work/look", "sleep"]
    assert sleep.kind == BLOCK | CHECK
    assert arcs["app/count", "enough"].kind == GOTO | CHECK, "a guard stands there"
    assert arcs["kernel/back", "done"].kind & CHECK, "interrupts may be possible now"
    assert arcs["take.user/iret", "to user"].crossing is CrossingKind.IRQ_RETURN
    assert arcs["take.user/take", "done"].crossing is CrossingKind.IRQ_ENTER
    assert arcs["take.kernel/iret", "to kernel"].crossing is None


def test_an_op_without_a_body_is_idle():
    program = make_toy().machine.program
    idle = {op.path for op in program.ops if op.is_idle}
    assert idle == {"kernel/mb", "kernel/back"}


def test_a_routine_can_go_on_with_another_for_good():
    class Doorman(Routine):
        def __init__(self, onward: Routine) -> None:
            super().__init__("doorman", HOST)
            self.onward = onward

        @step("open", to={"in": goto("onward"), "sleep": block("onward")})
        def open(self, me):
            return "in"

    program = link([thread(Doorman(Loop("loop", HOST)))])
    assert {program.ops[arc.next].path for arc in program.arcs} == {"loop/turn"}


def test_links_fill_in_what_a_base_class_leaves_open():
    class Open(Routine):
        def __init__(self, links, callee):
            super().__init__("open", HOST)
            self.links = links
            self.callee = callee

        @step("one", to={"go": goto("after"), "call": call("callee", "after"), "nap": block("other")})
        def one(self, me):
            return "go"

        @step("two", to=goto("one"))
        def two(self, me): ...

    def arcs(links):
        opened = Open(links, Leaf("leaf", HOST))
        program = link([thread(Caller("outer", HOST, opened))])
        return {arc.outcome: arc for arc in program.arcs if arc.op.path == "open/one"}, program

    found, program = arcs({"after": "two", "other": "one"})
    assert program.ops[found["go"].next].name == program.ops[found["call"].then].name == "two"
    assert program.ops[found["nap"].next].name == "one"

    class Short(Open):
        @step("two", to=goto("one"))
        def two(self, me): ...

    found, program = arcs({"after": "", "other": "two"})
    assert found["go"].next == -1
    assert found["call"].then == -1
    assert program.ops[found["nap"].next].name == "two"


def test_rows_texts_and_titles_may_differ_by_outcome():
    program = make_toy().machine.program
    count: Op = program.find("app/count")
    assert pick(count.spec.row, "more") == "TOY.1"
    assert pick(count.spec.row, "enough") == "TOY.9"
    assert pick({"a": "x"}, "b") == ""
    assert text_for(count, "more") == "{left} left."
    assert Routine("r", HOST).words(None) == {}
    assert (Goto("a"), Call("a", None), Block("a")) == (goto("a"), call("a", None), block("a"))
    assert APP.side is Side.GUEST


class Greets(Routine):
    """Has something to retell."""

    @step("say", text="Hello.", to=goto("leave"))
    def say(self, me): ...

    @step("leave", to=RETURN)
    def leave(self, me): ...


class GreetsLoudly(Greets):
    """Says it otherwise."""

    retold = {"say": {"text": "HELLO.", "title": "shout"}}  # noqa: RUF012


class GreetsAndStays(GreetsLoudly):
    """Says it as its base class does, goes on otherwise, and does something there."""

    retold = {"say": {"to": goto("say")}, "leave": None}  # noqa: RUF012

    def say(self, me):
        """Say it again and again."""


def test_what_is_retold_of_an_op_goes_over_what_base_classes_have_retold():
    (say,) = GreetsAndStays("stays", HOST).specs()
    assert (say.title, say.text, say.to) == ("shout", "HELLO.", {"done": Goto("say")})
    assert [op.spec.title for op in link([thread(GreetsAndStays("stays", HOST))]).ops] == ["shout"]


def test_an_op_may_be_retold_under_another_name():
    class Waves(Greets):
        retold = {"say": {"name": "wave"}}  # noqa: RUF012

    caller = Caller("caller", HOST, Waves("waves", HOST))
    assert [op.name for op in link([thread(caller)]).ops] == ["begin", "wave", "leave"]


def test_what_does_not_exist_cannot_be_retold():
    class Silent(GreetsAndStays):
        retold = {"leave": {"text": "Bye."}}  # noqa: RUF012

    refused(Silent("silent", HOST), "Silent retells 'leave', and has no such op")
