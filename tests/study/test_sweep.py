"""Sweeps: the grid, its figures, and that it does not matter where its runs are made."""

from __future__ import annotations

import csv
import io
import json
import signal

import jsonschema
import pytest
from clusters import cluster

from virtviz.errors import KnobError, LearnerError
from virtviz.export.compared import comparison_schema
from virtviz.export.plot import Bar, bars
from virtviz.export.swept import sweep_json, write_sweep_csv, write_sweep_table
from virtviz.lesson.loader import load
from virtviz.lesson.shelf import find
from virtviz.study.jobs import run_all
from virtviz.study.metrics import METRICS, find_metric, spelled
from virtviz.study.subjects import Frames, read_subject
from virtviz.study.sweep import Point, grid, read_axis, run_point


def points_of(*axes, worlds=(), frames=None, common=(), timed=False):
    return grid(
        [read_subject(world) for world in worlds],
        [read_axis(axis) for axis in axes],
        frames or Frames(packets=16, burst=4),
        list(common),
        timed=timed,
    )


def csv_of(points, results):
    out = io.StringIO()
    write_sweep_csv(out, points, results)
    return out.getvalue()


def figures(points, name):
    return [result.found[name] for result in run_all(points, 1)]


# The grid


def test_every_combination_is_a_point_and_the_last_axis_is_the_fastest():
    points = points_of("queue.size=64,128", "burst=1,2", worlds=["vhost-net", "virtio-qemu"])
    assert [point.named() for point in points[:4]] == [
        "vhost-net, queue.size=64, burst=1",
        "vhost-net, queue.size=64, burst=2",
        "vhost-net, queue.size=128, burst=1",
        "vhost-net, queue.size=128, burst=2",
    ]
    assert len(points) == 8


def test_a_value_of_several_words_is_joined_with_plus():
    points = points_of("features=event_idx+indirect,none")
    assert [point.at for point in points] == [(("features", "event_idx,indirect"),), (("features", "none"),)]
    assert figures(points, "kicks") == [4, 16]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (["queue.size"], "write --sweep knob=v1,v2,..., such as --sweep queue.size=64,128,256, not 'queue.size'"),
        (["queue.size="], "write --sweep knob=v1,v2,..."),
        (["que.size=1"], "did you mean queue.size?"),
        (["burst=0"], "burst is a whole number from 1 to 10000, not '0'"),
        (["burst=many"], "burst is a whole number from 1 to 10000, not 'many'"),
        (["queue.size=64,64"], "has a value twice"),
        (["queue.size=64", "queue.size=128"], "--sweep queue.size is there twice"),
        (["queue.size=64,100"], "queue.size=100: a split ring has a power of two"),
        (["queue.size=16,64", "vcpu=halted"], "queue.size=16, vcpu=halted: a transmit queue of 16 descriptors"),
        (
            [f"queue.start={','.join(map(str, range(400)))}", f"burst={','.join(map(str, range(1, 400)))}"],
            "159600 runs",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_sweep_is_refused_before_anything_runs(axes, said):
    with pytest.raises((KnobError, LearnerError)) as caught:
        points_of(*axes)
    assert said in str(caught.value)


def test_a_contradiction_names_world_and_settings():
    with pytest.raises(KnobError, match=r"^vhost-net, ioeventfd=off: vhost-net is told of a kick by an eventfd"):
        points_of("ioeventfd=on,off", worlds=["virtio-qemu", "vhost-net"])


# Figures


def test_packets_a_kick_grow_with_the_burst():
    assert figures(points_of("burst=1,2,4,8,16"), "packets_per_kick") == [1, 2, 4, 8, 16]


def test_exits_a_packet_depend_on_the_size_of_the_ring():
    frames = Frames(packets=1, burst=200)
    found = figures(
        points_of("queue.size=32,64,128,256", frames=frames, common=[{"socket_sndbuf": "16777216"}]), "kicks"
    )
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1] == 1


def test_packets_a_second_need_time_and_have_it():
    points = points_of("burst=1,32", frames=Frames(packets=64), timed=True)
    slow, fast = figures(points, "pps")
    assert fast > 2 * slow
    assert "pps" not in run_point(points_of("burst=1")[0]).found


def test_a_figure_that_does_not_exist_is_left_empty():
    halted = points_of("vcpu=running", frames=Frames(lesson=load(find("1-first-packet"))))
    (found,) = run_all(halted, 1)
    assert spelled(None) == ""
    assert spelled(found.found["kicks"]) == str(found.found["kicks"])
    assert find_metric("kicks") == "kicks"
    with pytest.raises(LearnerError, match="there is no figure 'pbs'; did you mean pps"):
        find_metric("pbs")


def test_a_lessons_world_and_packets_can_be_swept():
    points = points_of("vcpu=running,halted", frames=Frames(lesson=load(find("3-vhost"))))
    assert figures(points, "packets") == [5, 5]
    assert figures(points, "vcpu_wakeups")[0] == 0 < figures(points, "vcpu_wakeups")[1]


# How it is written


def test_csv_has_every_figure_and_json_fits_the_schema():
    points = points_of("burst=1,2", worlds=["vhost-net"])
    results = run_all(points, 1)
    rows = list(csv.DictReader(io.StringIO(csv_of(points, results))))
    assert list(rows[0]) == ["world", "burst", *(name for name, metric in METRICS.items() if not metric.timed)]
    document = json.loads(sweep_json(points, results))
    jsonschema.validate(document, comparison_schema())
    assert [run["at"] for run in document["runs"]] == [{"burst": "1"}, {"burst": "2"}]
    assert [row["kicks"] for row in rows] == [str(run["figures"]["kicks"]) for run in document["runs"]]


@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_table_has_a_plot_that_fits_the_page(ascii_only):
    points = points_of("burst=1,2,8", worlds=["vhost-net", "virtio-qemu"])
    out = io.StringIO()
    write_sweep_table(out, points, run_all(points, 1), ["exits_per_packet", "kicks"], 80, ascii_only=ascii_only)
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("exits_per_packet over burst") == 2
    assert text.isascii() == ascii_only


def test_bars_are_as_long_as_their_values_in_eighths_or_whole_characters():
    found = [Bar("a", 8, "8"), Bar("bb", 1, "1"), Bar("c", 0, "0"), Bar("d", None, "-"), Bar("e", 0.001, "0")]
    assert list(bars(found, 8, 22, ascii_only=True)) == [" a " + "#" * 16 + " 8", "bb ## 1", " c 0", " d -", " e # 0"]
    assert list(bars(found, 8, 22)) == [" a " + "█" * 16 + " 8", "bb ██ 1", " c 0", " d -", " e ▏ 0"]
    assert list(bars([], 0, 80)) == []


# Where it is run


TWO_HUNDRED = (
    "queue.size=64,128,256,512",
    "burst=1,2,3,4,5",
    "queue.start=0,1,2,3,4,65531,65532,65533,65534,65535",
)


def test_a_failing_run_names_its_settings_wherever_it_runs():
    good = points_of("burst=1,2,3")
    bad = Point("vhost-net", (("queue.size", "100"),), ({"queue.size": "100"},), Frames(), timed=False)
    for jobs in (1, 2):
        with pytest.raises(
            LearnerError, match=r"the run with vhost-net, queue.size=100 failed: KnobError: a split ring"
        ):
            run_all([*good, bad], jobs)


def test_reports_count_every_run_once():
    seen = []
    run_all(points_of("burst=1,2,3"), 1, report=seen.append)
    assert seen == [1, 2, 3]


def test_200_runs_are_the_same_bytes_on_one_core_on_all_and_on_a_cluster_that_loses_a_worker(tmp_path):
    points = points_of(*TWO_HUNDRED, frames=Frames(packets=8))
    assert len(points) == 200
    alone = csv_of(points, run_all(points, 1))
    assert alone.count("\n") == 201
    assert csv_of(points, run_all(points, 2)) == alone

    with cluster(tmp_path, 2) as dask:
        lost = []

        def lose_one(done):
            if done == 100:
                dask.workers[0].send_signal(signal.SIGKILL)
                lost.append(dask.workers[0].wait())

        results = run_all(points, 1, dask.address, lose_one)
        assert lost == [-signal.SIGKILL]
        assert dask.workers[1].poll() is None
        bad = Point("", (("queue.size", "100"),), ({"queue.size": "100"},), Frames(), timed=False)
        with pytest.raises(LearnerError, match=r"the run with queue.size=100 failed: KnobError"):
            run_all([bad], 1, dask.address)
    assert csv_of(points, results) == alone


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(LearnerError, match=r"--cluster needs an extra: pip install 'virtviz\[cluster\]'"):
        run_all(points_of("burst=1,2"), 1, "tcp://127.0.0.1:1")


def test_a_cluster_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("virtviz.study.jobs.CONNECT_S", 0.2)
    with pytest.raises(LearnerError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1: "):
        run_all(points_of("burst=1,2"), 1, "tcp://127.0.0.1:1")
    with pytest.raises(LearnerError, match="no Dask scheduler answers at nonsense://x: "):
        run_all(points_of("burst=1,2"), 1, "nonsense://x")
