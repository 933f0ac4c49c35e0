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
    "compare vhost-net virtio-qemu --format csv": "csv is for --all-paths and --sweep",
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


# In simulated time, over settings, and what that assumes


def test_time_gives_rates_delays_and_assumptions(call):
    told = call("compare", "vhost-net", "virtio-qemu", "--time", "--packets", "64")
    assert told.code == 0
    assert told.out.count("packets a second") == 2
    assert "All times are assumptions: cost profile estimates" in told.out
    document = json.loads(call("compare", "vhost-net", "--time", "--packets", "64", "--format", "json").out)
    jsonschema.validate(document, json.loads(call("schema", "compare").out))


def test_a_lesson_can_be_run_by_simulated_time(call):
    lines = call("run", "3", "--set", "schedule=time").out.splitlines()
    times = [json.loads(line)["t_ns"] for line in lines[1:-1]]
    assert times == sorted(times)
    counted = call("run", "3", "--set", "schedule=time", "--counters")
    assert counted.out.splitlines() == lines[-1:]


def test_a_sweep_is_a_table_with_a_plot_or_csv_or_json(call):
    axes = ["--sweep", "burst=1,4", "--packets", "8", "--jobs", "1"]
    table = call("compare", "vhost-net", *axes)
    assert "exits_per_packet over burst, vhost-net" in table.out
    assert max(map(len, table.out.splitlines())) <= 80
    assert call("compare", "vhost-net", *axes, "--ascii").out.isascii()
    rows = call("compare", *axes, "--format", "csv").out.splitlines()
    assert [row.split(",")[:3] for row in rows] == [
        ["burst", "exits_per_packet", "packets_per_kick"],
        ["1", "1", "1"],
        ["4", "0.25", "4"],
    ]
    assert json.loads(call("compare", *axes, "--format", "json").out)["axes"] == ["burst"]


def test_a_sweep_says_how_far_it_is_where_it_is_asked_to(call):
    told = call("compare", "--sweep", "burst=1,2", "--packets", "2", "--jobs", "1", "--progress", "--format", "csv")
    assert told.err.splitlines()[-1].endswith("100%  2 of 2 runs")
    quiet = call("compare", "--sweep", "burst=1,2", "--packets", "2", "--jobs", "1", "--format", "csv")
    assert (quiet.err, quiet.out) == ("", told.out)


def test_a_sweep_is_the_same_bytes_under_another_hash_seed_and_on_another_number_of_cores(start):
    call = [
        "compare",
        "vhost-net",
        "--sweep",
        "burst=1,3",
        "--sweep",
        "queue.size=64,128",
        "--packets",
        "6",
        "--format=csv",
    ]
    first = start(*call, "--jobs", "1", env={"PYTHONHASHSEED": "0"})
    again = start(*call, "--jobs", "2", env={"PYTHONHASHSEED": "4711"})
    assert (first.returncode, again.returncode, again.stderr) == (0, 0, "")
    assert first.stdout == again.stdout
    assert first.stdout.count("\n") == 5


def test_costs_are_shown_by_name_by_setting_and_from_a_file(call, tmp_path):
    assert call("costs").out.startswith("estimates: ")
    assert call("costs", "splitx-2011").out == call("costs", "--set", "costs=splitx-2011").out
    path = tmp_path / "my.toml"
    path.write_text('title = "Mine"\n[cost]\nvm-exit = 1\n', encoding="utf-8")
    assert json.loads(call("costs", path, "--format", "json").out)["costs"]["vm-exit"]["ns"] == 1
    path.write_text('title = "Mine"\n[cost]\nvm-exit = -1\n', encoding="utf-8")
    wrong = call("costs", path)
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err.startswith(f"virtviz: {path}:3: vm-exit: ns is a whole number")
    assert "costs is one of estimates, " in call("costs", "fast").err


def test_a_lesson_cannot_have_a_file_read(call, lesson, tmp_path):
    (tmp_path / "my.toml").write_text("", encoding="utf-8")
    lesson.write_text(
        lesson.read_text().replace("{flows: known}", "{flows: known, costs: ./my.toml}"), encoding="utf-8"
    )
    refused = call("run", lesson)
    assert (refused.code, refused.out) == (3, "")
    assert ":7:30: world.costs: a lesson names one of estimates, " in refused.err


MORE_WRONG = {
    "compare --time": "compare takes one to 4 worlds",
    "compare vhost-net virtio-qemu --show pps": "--show is for --sweep",
    "compare vhost-net virtio-qemu --jobs 2": "--jobs is for --sweep",
    "compare vhost-net virtio-qemu --cluster tcp://x": "--cluster is for --sweep",
    "compare --sweep burst=1,2 --jobs 2 --cluster tcp://x": "leave one of them out",
    "compare --sweep burst=1,2 --show pbs": "there is no figure 'pbs'; did you mean pps?",
    "compare --sweep burst=1,2 --lesson 3": "a burst would take their place; leave one out",
    "compare vhost-net virtio-qemu --lesson 3 --burst 4": "a burst would take their place; leave one out",
    "compare --sweep queue.size": "write --sweep knob=v1,v2,...",
    "compare --sweep queue.size=8,64": "queue.size=8: a transmit queue of 8 descriptors would be stopped for good",
    "compare vhost-net --time --format csv": "csv is for --all-paths and --sweep",
    "compare --all-paths --time": "--all-paths has worlds and packets of its own",
}


@pytest.mark.parametrize("line", MORE_WRONG)
def test_what_does_not_go_together_is_said_and_exits_2(call, line):
    called = call(*line.split())
    assert (called.code, called.out) == (2, "")
    assert MORE_WRONG[line] in called.err
