"""Store buffers: what a CPU sees of its own stores and what the others see, draining, and fences."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import HOST, RECORD, step

from virtviz.engine import store_buffer
from virtviz.engine.cells import Cells, cells
from virtviz.engine.counting import CountingMachine
from virtviz.engine.explore import explore
from virtviz.engine.ops import Routine, goto
from virtviz.engine.places import Domain, Place
from virtviz.engine.program import link
from virtviz.engine.recording import RecordingMachine
from virtviz.engine.state import PAGE_BYTES, State
from virtviz.engine.store_buffer import DrainStores, StoreBuffer
from virtviz.engine.threads import Registers, Thread
from virtviz.engine.trace import Trace


def make_buffer(*, recording: bool = False) -> tuple[State, StoreBuffer]:
    state = State(recording=recording)
    region = state.region("ram", 64)
    region.name_stretch(0, 8, "q", lambda offset, _: f"word{offset // 2}")
    return state, StoreBuffer(state, "cpu.stores", region, state.add(Registers, "cpu", index=0))


def test_a_cpu_sees_its_own_stores_before_the_others_do():
    _, buffer = make_buffer()
    buffer.u16[3] = 0x1234
    assert (buffer.u16[3], buffer.region.u16[3]) == (0x1234, 0)
    assert buffer.is_filled()
    buffer.drain()
    assert (buffer.u16[3], buffer.region.u16[3]) == (0x1234, 0x1234)
    assert buffer.is_empty()


def test_stores_become_visible_in_the_order_in_which_they_were_made():
    _, buffer = make_buffer()
    buffer.u16[0] = 1
    buffer.writer(RECORD)(16, 2, 3, 4)
    buffer.write(40, b"abc")
    buffer.u16[0] = 5
    seen = []
    while buffer.is_filled():
        buffer.drain()
        seen.append((buffer.region.u16[0], buffer.region.u16[8], bytes(buffer.bytes[40:43])))
    assert seen == [(1, 0, b"\0\0\0"), (1, 2, b"\0\0\0"), (1, 2, b"abc"), (5, 2, b"abc")]


def test_records_and_bytes_are_read_with_what_waits_laid_over():
    _, buffer = make_buffer()
    buffer.region.writer(RECORD)(16, 1, 2, 3)
    read = buffer.reader(RECORD)
    assert read(16) == (1, 2, 3)
    buffer.u16[9] = 7
    assert read(16) == (1, 7, 3)
    assert buffer.region.reader(RECORD)(16) == (1, 2, 3)
    buffer.write(22, b"\1")
    assert read(16) == (1, 7, 3 + (1 << 16))
    assert read(24) == (0, 0, 0)
    assert buffer.read(18, 5) == b"\7\0\3\0\1"
    assert buffer.read(30, 2) == b"\0\0"


@given(st.lists(st.tuples(st.integers(0, 30), st.one_of(st.none(), st.binary(min_size=1, max_size=6))), max_size=30))
def test_a_cpu_alone_cannot_tell_that_it_has_a_store_buffer(accesses: list[tuple[int, bytes | None]]):
    """None drains a store; any other access stores, and everything is read back after each."""
    _, buffer = make_buffer()
    plain = bytearray(64)
    for address, data in accesses:
        if data is not None:
            buffer.write(address, data)
            plain[address : address + len(data)] = data
        elif buffer.is_filled():
            buffer.drain()
        assert buffer.read(0, 64) == plain
        assert [buffer.u16[i] for i in range(32)] == list(struct.unpack("<32H", plain))
    while buffer.is_filled():
        buffer.drain()
    assert buffer.bytes[:64] == plain


def test_the_same_stores_waiting_are_the_same_state_however_they_came_to_wait():
    digests = []
    for drained in (0, 1, 3):
        state, buffer = make_buffer()
        for _ in range(drained):
            buffer.u16[1] = 9
        for _ in range(drained):
            buffer.drain()
        buffer.u16[1] = 9
        buffer.drain()
        buffer.u16[0], buffer.u16[2] = 5, 6
        buffer.cells.packet[0] = 0
        digests.append(state.digest())
    assert len(set(digests)) == 1


def test_a_full_buffer_pushes_its_oldest_store_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_buffer, "ENTRIES", 2)
    _, buffer = make_buffer()
    for value in (1, 2, 3):
        buffer.u16[value] = value
    assert [buffer.region.u16[i] for i in (1, 2, 3)] == [1, 0, 0]
    buffer.write(0, bytes(PAGE_BYTES - 2))
    assert buffer.cells.count == 2, "what waits has to fit into the buffer's bytes, too"
    buffer.write(8, b"xyz")
    assert buffer.cells.count == 1


def test_a_store_that_no_buffer_could_hold_goes_to_memory_behind_the_others():
    state = State(recording=False)
    region = state.region("ram", 3 * PAGE_BYTES)
    buffer = StoreBuffer(state, "cpu.stores", region, state.add(Registers, "cpu", index=0))
    buffer.u16[0] = 7
    buffer.write(2, b"x" * (PAGE_BYTES + 1))
    assert buffer.is_empty()
    assert region.bytes[:4] == b"\7\0xx"
    assert buffer.holds(0, 3 * PAGE_BYTES)
    assert not buffer.holds(1, 3 * PAGE_BYTES)


def test_everything_about_a_buffer_is_journaled():
    state, buffer = make_buffer(recording=True)
    before = state.digest()
    buffer.u16[0] = 1
    buffer.write(9, b"abc")
    buffer.drain()
    buffer.u16[1] = buffer.u16[0] + buffer.u16[20]
    buffer.drain()
    journal = state.journal
    assert journal is not None
    state.undo(journal.tail, journal.blobs, len(journal.blobs))
    assert state.digest() == before


# Machines: two CPUs that each store and then look at the other's word (the store-buffering litmus test).


@cells
class Notes(Cells):
    """What a peer has read, plus one; 0 before it has. How many rounds it has done, and how often it read a 1."""

    read: int = 0
    rounds: int = 0
    ones: int = 0


class Peer(Routine):
    """Stores 1 (later 0 or 1) to its own word, passes a full barrier, and notes what it reads in the other's."""

    def __init__(self, name: str, state: State, port: StoreBuffer, own: int, other: int, rounds: int) -> None:
        super().__init__(name, HOST)
        self.notes = state.add(Notes, name)
        self.port = port
        self.own = own
        self.other = other
        self.rounds = rounds

    @step("store")
    def store(self, me):
        self.port.u16[self.own] = 1 - self.notes.rounds % 3 % 2

    @step("barrier", fence=True)
    def mb(self, me): ...

    @step("load", to={"last": goto("rest"), "again": goto("store")})
    def load(self, me):
        self.notes.read = 1 + self.port.u16[self.other]
        self.notes.rounds += 1
        self.notes.ones += self.notes.read - 1
        return "last" if self.notes.rounds == self.rounds else "again"

    @step("rest", to=goto("rest"), guard="never")
    def rest(self, me): ...

    def never(self):
        return False


def make_peers(kind: type[RecordingMachine | CountingMachine] = RecordingMachine, omit=(), rounds: int = 1):
    state = State(recording=kind is RecordingMachine)
    region = state.region("ram", 64)
    region.name_stretch(0, 8, "q", lambda offset, _: f"word{offset // 2}")
    threads = []
    for i in (0, 1):
        me = state.add(Registers, f"cpu{i}", index=2 * i)
        stores = StoreBuffer(state, f"cpu{i}.store_buffer", region, me)
        cpu = Thread(f"cpu{i}", me, Peer(f"peer{i}", state, stores, i, 1 - i, rounds), stores=stores)
        drain = DrainStores(f"cpu{i}.drain", Place(f"cpu{i}.stores", Domain.HARDWARE, "stores"), stores, cpu.name)
        threads += [cpu, Thread(f"cpu{i}.stores", state.add(Registers, f"cpu{i}.stores", index=2 * i + 1), drain)]
    return kind(link(threads, {}, omit), state, threads)


def seen_by(machine: RecordingMachine | CountingMachine) -> list[int]:
    """Give what each of the two has read in the other's word; -1 before it has."""
    return [machine.threads[i].start.notes.read - 1 for i in (0, 2)]


def both_missed(machine: RecordingMachine) -> str:
    return "both missed the other" if seen_by(machine) == [0, 0] else ""


@pytest.mark.parametrize(
    ("omit", "bad"), [((), ""), (("mb",), "both missed the other"), (("peer0/mb",), "both missed")]
)
def test_two_cpus_miss_each_others_store_only_without_a_barrier(omit: tuple[str, ...], bad: str):
    machine = make_peers(omit=omit)
    assert isinstance(machine, RecordingMachine)
    found = explore(machine, wrong_at_rest=lambda: both_missed(machine))
    assert found.bad.startswith(bad)
    assert bool(found.bad) == bool(bad)


@pytest.mark.parametrize("kind", [RecordingMachine, CountingMachine])
def test_a_thread_waits_at_a_fence_until_its_own_stores_are_visible(kind: type[RecordingMachine | CountingMachine]):
    machine = make_peers(kind)
    assert machine.run(held={1, 2, 3}) == 1, "only the store"
    assert not machine.can_move(0)
    assert machine.can_move(1)
    assert machine.move(1)
    assert machine.can_move(0)
    machine.run(held={2, 3})
    assert seen_by(machine) == [0, -1]
    machine.run()
    assert (seen_by(machine), machine.movable()) == ([0, 1], [])


def test_draining_is_a_step_that_says_which_store_became_visible():
    machine = make_peers()
    assert isinstance(machine, RecordingMachine)
    machine.threads[0].me.packet = 4
    machine.run()
    steps = [Trace(machine).step(n) for n in range(1, machine.length + 1)]
    store, drain = (
        next(s for s in steps if s.op == name and s.thread.startswith("cpu0")) for name in ("store", "drain")
    )
    assert [(a.field, a.new) for a in store.writes if a.space == "mem"] == [("word0 (waiting)", 1)]
    assert (drain.title, drain.packet) == ("let a waiting store become visible", 4)
    assert "in cpu0's store buffer, to q word0, reaches memory" in drain.text
    assert [(a.field, a.old, a.new) for a in drain.writes if a.region == "ram"] == [("word0", 0, 1)]
    assert drain.domain is Domain.HARDWARE
    assert str(drain.source).startswith("intel sdm")


def test_a_field_without_a_name_is_called_by_its_address():
    _, buffer = make_buffer()
    drain = DrainStores("d", HOST, buffer, "cpu0")
    buffer.write(0x21, b"abc")
    buffer.u16[1] = 1
    assert buffer.waiting.field_at(0, 3) == ("cpu.stores", " (waiting)")
    assert buffer.waiting.field_at(3, 2) == ("cpu.stores", "word1 (waiting)")
    assert buffer.waiting.field_at(1, 2) == ("cpu.stores", "")
    buffer.drain()
    assert drain.words(buffer.owner) == {"cpu": "cpu0", "field": "0x21", "left": 1}


def test_an_interrupt_too_waits_for_the_stores():
    machine = make_peers()
    thread = machine.threads[0]
    thread.intercept = lambda _: thread.start if machine.threads[2].me.packet else None
    machine.move(0)
    machine.move(1)
    thread.stores.u16[9] = 1  # type: ignore[union-attr]
    assert not machine.can_move(0), "it stands before its fence"
    thread.pc = machine.program.find("peer0/load").number
    assert machine.can_move(0), "a load need not wait"
    machine.threads[2].me.packet = 1
    assert not machine.can_move(0)
    machine.move(1)
    assert machine.can_move(0)


def test_machines_that_only_count_wait_at_fences_too():
    recording, counting = make_peers(rounds=3000), make_peers(CountingMachine, rounds=3000)
    assert recording.run() == counting.run() > 20_000
    assert recording.hits == counting.hits
    assert [recording.threads[i].start.notes.ones for i in (0, 2)] == [
        counting.threads[i].start.notes.ones for i in (0, 2)
    ]
