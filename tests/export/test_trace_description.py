"""What docs/trace-format.md says is so: its commands run, its example is a real step, its reader rebuilds all."""

import json
import re
from pathlib import Path

from virtviz.cli import main
from virtviz.engine.counters import COUNTERS
from virtviz.engine.effects import EffectKind
from virtviz.engine.places import CrossingKind, Domain
from virtviz.export.lines import HeaderLine, QueueLine, StepLine
from virtviz.export.replay import Replay

TEXT = (Path(__file__).parents[2] / "docs" / "trace-format.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def keys_in_tables():
    rows = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`([a-z_.]+)`", " ".join(rows)))


def test_every_command_of_the_description_runs(capsys, tmp_path):
    commands = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()]
    assert len(commands) == 3
    for command in commands:
        words, _, file = command.partition(" > ")
        assert main(words.split()[1:]) == 0
        (tmp_path / file).write_text(capsys.readouterr().out, encoding="utf-8")
    assert Replay.open(tmp_path / "3-vhost.jsonl").length > 100
    document, schema = (json.loads((tmp_path / name).read_text()) for name in ("3-vhost.json", "trace.schema.json"))
    assert list(document) == ["header", "steps", "footer"]
    assert schema["$schema"].endswith("2020-12/schema")


def lasting(step):
    """Leave out of a step what changes with every cell that is added to the model, and with every cost."""
    step = {key: value for key, value in step.items() if key not in ("n", "t_ns", "end_ns", "text")}
    step["writes"] = [dict(write, addr=0) if write["space"] == "cell" else write for write in step["writes"]]
    return step


def test_the_example_is_a_step_of_the_lesson(capsys):
    main(["run", "3-vhost"])
    steps = map(json.loads, capsys.readouterr().out.splitlines()[1:-1])
    (example,) = map(json.loads, blocks("json"))
    step = next(step for step in steps if (step["op"], step["packet"]) == (example["op"], example["packet"]))
    assert lasting(step) == lasting(example)
    assert list(step) == list(example)


def test_the_readers_code_rebuilds_every_cell_and_byte(recorded):
    scope = {}
    (code,) = blocks("python")
    exec(compile(code, "docs/trace-format.md", "exec"), scope)
    lines = recorded.text.splitlines()
    replay = Replay(recorded.text.encode())
    position = 0
    for position, (_, cells, memory) in enumerate(scope["rebuild"](iter(lines))):
        if position % 50 == 0 or position == replay.length:
            told = replay.state(position)
            assert cells == told.cells
            assert memory == told.memory
    assert position == replay.length


def test_every_key_kind_and_counter_is_described():
    keys = keys_in_tables()
    assert set(HeaderLine.__struct_fields__) <= keys
    assert set(StepLine.__struct_fields__) <= keys
    assert set(COUNTERS) <= keys
    for word in [*CrossingKind, *EffectKind, *Domain, *QueueLine.__struct_fields__]:
        assert f"`{word}`" in TEXT, word
