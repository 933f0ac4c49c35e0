"""A trace file is enough to rebuild everything, and a file that is not one says why."""

import io
import random
import re

import pytest

from virtviz.errors import TraceFileError
from virtviz.export.jsonl import header_json, write_jsonl
from virtviz.export.replay import Replay
from virtviz.paths.describe import initial_state


def live_values(state):
    """Every cell of a machine, in the order of their numbers; quicker than asking for one after the other."""
    values = []
    for owner, key in state._pages:
        if key is None:
            values += owner
        elif isinstance(key, tuple):
            values += [slot.__get__(owner) for slot in key]
    return values


def check_everything(recorded, replay, positions):
    machine = recorded.trace.machine
    names = list(replay.initial.cells)
    assert names == machine.state.names
    for position in positions:
        machine.seek(position)
        replay.cell(position, names[0])
        live, told = live_values(machine.state), replay._values
        if live != told:
            wrong = {name: pair for name, *pair in zip(names, live, told, strict=True) if pair[0] != pair[1]}
            pytest.fail(f"position {position}: live and told differ in {wrong}")
        for region in machine.state.regions:
            assert region.bytes == replay._memory[region.name], f"position {position}, {region.name}"


def test_every_cell_and_every_byte_of_every_step_comes_back_from_the_file(recorded):
    replay = Replay(recorded.text.encode())
    assert replay.length == len(recorded.trace)
    there = range(replay.length + 1)
    check_everything(recorded, replay, there)


def test_going_back_and_jumping_about_gives_the_same_as_going_forward(recorded):
    replay = Replay(recorded.text.encode())
    length = replay.length
    jumps = random.Random(1).choices(range(length + 1), k=12)
    check_everything(recorded, replay, [length, length - 1, length - 2, *jumps, 0])


def test_steps_read_back_equal_the_steps_of_the_live_run(recorded):
    replay = Replay(recorded.text.encode())
    for n in range(1, replay.length + 1):
        assert replay.step(n) == recorded.trace.step(n)


def test_writing_what_was_read_gives_the_same_file(recorded):
    replay = Replay(recorded.text.encode())
    out = io.StringIO()
    footer = recorded.text.splitlines()[-1]
    write_jsonl(out, header_json(replay.header, replay.initial), replay.timed_steps(), lambda: footer)
    assert out.getvalue() == recorded.text


def test_single_cells_and_stretches_of_memory_can_be_asked_for(ping):
    replay = Replay(ping.text.encode())
    queue = replay.header.queues[0]
    assert queue.name == "vm1.transmitq1"
    assert replay.memory(0, "vm1.ram", queue.avail + 2, 2) == b"\0\0"
    assert replay.memory(replay.length, "vm1.ram", queue.avail + 2, 2) == b"\1\0"
    assert replay.cell(0, "vm1.transmitq1.num_free") == 256
    assert replay.cell(replay.length, "vm1.vcpu0.clock") > 0
    with pytest.raises(KeyError):
        replay.cell(0, "vm1.nothing")
    with pytest.raises(KeyError):
        replay.memory(0, "vm9.ram", 0, 2)
    with pytest.raises(IndexError):
        replay.cell(replay.length + 1, "vm1.transmitq1.num_free")


def test_the_header_stays_small_although_it_holds_the_whole_state(recorded):
    header = recorded.text.splitlines()[0]
    machine = recorded.trace.machine
    assert len(initial_state(machine).cells) == len(machine.state.names) > 30_000
    assert len(header) < 50_000


def broken(text, edit):
    lines = text.splitlines(keepends=True)
    edit(lines)
    return "".join(lines).encode()


def put(line, old, new):
    """Replace what fits a pattern in one line."""

    def edit(lines):
        lines[line - 1], count = re.subn(old, new, lines[line - 1], count=1)
        assert count == 1

    return edit


def cut(lines):
    del lines[10:]


def cut_in_a_line(lines):
    del lines[10:]
    lines[9] = lines[9][:100]


def leave_one_out(lines):
    del lines[5]


STATE = "the state before the first step cannot be rebuilt: "
SHAPE = "this line is not as the format says: "
BROKEN = [
    (lambda lines: lines.clear(), 1, "there is nothing here; a trace is what `virtviz run LESSON` writes"),
    (
        put(1, "virtviz-trace", "a-trace"),
        1,
        'this is no trace: the first line of one begins with {"format":"virtviz-trace"',
    ),
    (put(1, '{"format"', '"format"'), 1, "this is no trace"),
    (put(1, 'version":1', 'version":2'), 1, "this is version 2 of the format; what can be read is version 1"),
    (put(1, '"threads":', '"treads":'), 1, SHAPE + "Object missing required field `threads`"),
    (put(1, r'("vm1.ram":{"size":)\d+', r"\g<1>16"), 1, STATE + "vm1.ram has 16 bytes"),
    (put(1, r"\[\[1,256,1\]\]", "[[1,99999999999,1]]"), 1, STATE + "100000"),
    (put(1, r'("vm1.ram":{"size":)\d+', r"\g<1>123456789012"), 1, STATE + "1234"),
    (cut, 11, "the file is cut short: after 9 steps comes no footer"),
    (cut_in_a_line, 10, "the file is cut short: its last line has no end"),
    (put(5, '"packet":1', '"packet":"one"'), 5, SHAPE + "Expected `int | null`, got `str`"),
    (put(7, '"place":', '"place"'), 7, "this line is damaged: JSON is malformed"),
    (leave_one_out, 6, "this is step 6, and should be step 5: lines are missing or out of order"),
    (put(8, "vm1.vcpu0", "vm1.vcpu9"), 8, "the header knows no thread 'vm1.vcpu9'"),
    (put(4, '"region":"vm1.ram"', '"region":"vm2.ram"'), 4, "'slot[1]' of vm2.ram cannot be written so"),
    (put(4, '"size":64', '"size":63'), 4, "'slot[1]' of vm1.ram cannot be written so"),
    (put(4, r'"addr":(\d+)', r'"addr":\g<1>000'), 4, "'slot[1]' of vm1.ram cannot be written so"),
]


@pytest.mark.parametrize(("edit", "line", "what"), BROKEN, ids=[what for _, _, what in BROKEN])
def test_a_file_that_cannot_be_read_back_says_what_is_wrong_and_where(ping, edit, line, what):
    with pytest.raises(TraceFileError) as caught:
        Replay(broken(ping.text, edit), "t.jsonl")
    assert str(caught.value).startswith(f"t.jsonl:{line}: {what}")


def test_a_footer_that_counts_other_steps_is_refused(ping):
    steps = len(ping.trace)
    with pytest.raises(TraceFileError) as caught:
        Replay(broken(ping.text, put(steps + 2, '"steps":', '"steps":1')), "t.jsonl")
    assert str(caught.value) == f"t.jsonl:{steps + 2}: the footer counts 1{steps} steps, and there are {steps}"


def test_a_trace_as_one_document_is_named_as_such():
    with pytest.raises(TraceFileError, match="--format jsonl"):
        Replay(b'{"header":{}}\n')


def test_a_file_that_is_not_there_is_a_trace_file_error(tmp_path):
    with pytest.raises(TraceFileError, match="cannot be read: No such file"):
        Replay.open(tmp_path / "none.jsonl")


def test_a_file_is_read_from_disk(tmp_path, ping):
    path = tmp_path / "ping.jsonl"
    path.write_text(ping.text, encoding="utf-8")
    assert Replay.open(path).length == len(ping.trace)


def test_keys_of_later_versions_are_passed_over(ping):
    edited = broken(ping.text, put(3, '"n":2,', '"n":2,"colour":"blue",'))
    assert Replay(edited).step(2) == ping.trace.step(2)
