"""One packet on every path: what the machine counts is what the sources and the recordings say."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from virtviz.errors import KnobError
from virtviz.export.all_paths import all_paths_json, write_all_paths_csv, write_all_paths_table
from virtviz.export.compared import comparison_schema
from virtviz.paths.knobs import KNOBS, make_world
from virtviz.study.all_paths import COLUMNS, ROWS, all_paths

DATA = tomllib.loads((Path(__file__).parent / "data" / "one_packet.toml").read_text(encoding="utf-8"))
EXPECTED = {(path["name"], path["way"]): path for path in DATA["path"]}


@pytest.fixture(scope="module", params=["default", "recorded"])
def table(request):
    return request.param, list(all_paths([{"profile": request.param}]))


def test_every_cell_is_what_the_sources_and_the_recordings_say(table):
    profile, costs = table
    found = {(cost.row.name, cost.row.way): list(cost.cells.values()) for cost in costs}
    assert found == {key: path[profile] for key, path in EXPECTED.items()}


def test_the_columns_are_those_of_the_data_and_each_figure_has_a_source():
    assert list(COLUMNS) == DATA["columns"]
    assert all(path["from"].strip() for path in DATA["path"])
    assert len(EXPECTED) == len(DATA["path"])


def test_every_data_path_that_can_be_set_has_rows():
    shown = {make_world(row.settings).word("path") for row in ROWS}
    assert shown == set(KNOBS["path"].choices)


def test_every_switch_that_can_be_set_has_rows():
    shown = {make_world(row.settings).word("switch") for row in ROWS}
    assert shown == set(KNOBS["switch"].choices)


def test_further_settings_go_over_every_row():
    # A guest whose program polls never halts, and where there is no guest none does.
    sleepers = [row for row in ROWS if row.settings.get("guest") != "dpdk" and row.settings.get("path") != "program"]
    rows = [row for row in sleepers if row.way == "in" and not row.new_flow]
    halted = list(all_paths([{"vcpu": "halted"}], rows))
    assert {cost.cells["vcpu_wakeups"] for cost in halted} == {1}


def test_a_setting_that_does_not_go_with_a_row_names_the_row():
    with pytest.raises(KnobError, match=r"row 'vhost-net' \(out\): vhost-net is told of a kick by an eventfd"):
        list(all_paths([{"ioeventfd": "off"}]))


# How it is written


def test_the_table_fits_into_80_columns_and_has_a_line_for_each_row(table):
    out = io.StringIO()
    write_all_paths_table(out, table[1], table[0])
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(line.startswith(f"{row.name} ") and f" {row.way} " in line for line in lines) for row in ROWS)


def test_csv_and_json_say_the_same(table):
    out = io.StringIO()
    write_all_paths_csv(out, table[1])
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    document = json.loads(all_paths_json(table[1], table[0]))
    jsonschema.validate(document, comparison_schema())
    assert document["profile"] == table[0]
    assert [
        {"path": row["path"], "way": row["way"], **{name: str(value) for name, value in row["counters"].items()}}
        for row in document["rows"]
    ] == rows
