"""The verb `compare`, and how far a long run says it is."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from virtviz.cli import main

ROOT = Path(__file__).parents[2]


def test_two_paths_are_laid_beside_each_other(call):
    found = call("compare", "vhost-net", "virtio-qemu")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("packet 1, echo\n")
    assert max(map(len, found.out.splitlines())) <= 80


def test_a_lesson_gives_the_packets_and_the_world(call):
    found = json.loads(call("compare", "vhost-net", "virtio-qemu", "--lesson", "3", "--format", "json").out)
    assert [packet["name"] for packet in found["packets"]] == ["echo", "reply", "burst.1", "burst.2", "burst.3"]
    assert all(world["world"]["flows"] == "known" for world in found["worlds"])


def test_settings_are_those_of_every_world(call):
    found = call(
        "compare", "vhost-net", "virtio-qemu", "--set", "vcpu=halted", "--profile", "recorded", "--format=json"
    )
    worlds = [world["world"] for world in json.loads(found.out)["worlds"]]
    assert {(world["vcpu"], world["profile"]) for world in worlds} == {("halted", "recorded")}


def test_all_paths_are_one_table_in_each_form(call):
    table = call("compare", "--all-paths").out
    assert "profile default" in table
    rows = call("compare", "--all-paths", "--format", "csv", "--set", "profile=recorded").out.splitlines()
    assert rows[0].startswith("path,way,heavy_exits,light_exits,")
    document = json.loads(call("compare", "--all-paths", "--format", "json").out)
    jsonschema.validate(document, json.loads(call("schema", "compare").out))
    assert len(rows) == len(document["rows"]) + 1


def test_a_comparison_fits_the_printed_schema(call):
    schema = json.loads(call("schema", "compare").out)
    jsonschema.validate(json.loads(call("compare", "vhost-net", "virtio-qemu", "--format", "json").out), schema)


WRONG = {
    "compare": "compare takes two to 4 worlds, such as: virtviz compare vhost-net virtio-qemu",
    "compare vhost-net": "compare takes two to 4 worlds",
    "compare a b c d e": "compare takes two to 4 worlds",
    "compare vhost virtio-qemu": "'vhost' in 'vhost' is neither a data path (vhost-net,",
    "compare vhost-net ioeventfd=off": "vhost-net is told of a kick by an eventfd and by nothing else",
    "compare vhost-net queue.siz=4": "did you mean queue.size?",
    "compare vhost-net virtio-qemu --format csv": "csv is for --all-paths",
    "compare --all-paths vhost-net": "--all-paths has worlds and packets of its own",
    "compare --all-paths --lesson 3": "--all-paths has worlds and packets of its own",
    "compare --all-paths --set vms=3": "a whole number from 1 to 2",
    "compare vhost-net virtio-qemu --lesson 99-none": "there is no lesson `99-none`",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_said_and_exits_2(call, line):
    called = call(*line.split())
    assert (called.code, called.out) == (2, "")
    assert WRONG[line] in called.err


@pytest.mark.parametrize("arguments", [["compare", "--all-paths"], ["compare", "vhost-net", "virtio-qemu"]])
def test_comparing_loads_no_screen_and_no_cluster(arguments):
    watched = ("textual", "networkx", "rich", "yaml", "dask", "distributed", "concurrent.futures.process")
    script = (
        "import sys, io; sys.stdout = io.StringIO()\n"
        "from virtviz.cli import main\n"
        f"code = main({arguments!r}); sys.stdout = sys.__stdout__\n"
        f"print(code, [name for name in {watched!r} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert found.stdout.split() == ["0", "[]"]


# How far a run is


def test_without_a_terminal_nothing_is_said_of_how_far_a_run_is(call):
    counted = call("run", "3", "--counters")
    assert counted.err.count("\n") == 1
    assert "%" not in counted.err


def test_where_it_is_asked_for_it_is_said_in_lines(call):
    counted = call("run", "3", "--counters", "--packets", "50", "--progress")
    assert counted.err.splitlines()[-2].startswith("[##############################] 100%  50 of 50 packets  ")
    assert "\r" not in counted.err
    assert counted.err.splitlines()[-1].endswith(" steps a second")


def test_on_a_terminal_a_bar_is_drawn_over_and_data_stays_apart():
    controller, terminal = pty.openpty()
    try:
        # Long enough for a report.
        ran = subprocess.run(
            [sys.executable, "-m", "virtviz", "run", "3", "--counters", "--packets", "5000"],
            stdout=subprocess.PIPE,
            stderr=terminal,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )
        said = os.read(controller, 1 << 16).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert json.loads(ran.stdout)["packets"] == 5000
    assert "\r[" in said
    assert said.rstrip().endswith(" steps a second")


def test_a_run_can_be_told_to_say_nothing(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["run", "3", "--counters", "--no-progress"]) == 0
    assert "\r" not in capsys.readouterr().err
