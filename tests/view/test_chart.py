import subprocess
import sys

import pytest
from live_source import Live

from virtviz.engine.program import KIND_MASK
from virtviz.view.chart import KINDS, make_chart


@pytest.fixture(scope="module")
def program():
    return Live().machine.program


@pytest.fixture(scope="module")
def chart(program):
    return make_chart(program)


def test_the_chart_has_the_ops_of_the_table_and_no_others(program, chart):
    assert set(chart.nodes) == {op.path for op in program.ops}
    for op in program.ops:
        assert chart.nodes[op.path]["place"] == op.place.name
        assert chart.nodes[op.path]["domain"] == op.place.domain


def test_the_chart_has_the_arcs_of_the_table_and_no_others(program, chart):
    drawn = {
        (source, outcome, target, data["kind"], data["crossing"], data["effect"])
        for source, target, outcome, data in chart.edges(keys=True, data=True)
        if data["kind"] != "then"
    }
    declared = {
        (
            arc.op.path,
            arc.outcome,
            program.ops[arc.next].path if arc.next >= 0 else arc.op.path,
            KINDS[arc.kind & KIND_MASK],
            str(arc.crossing or ""),
            str(arc.effect or ""),
        )
        for arc in program.arcs
    }
    assert drawn == declared
    assert chart.number_of_edges() == len(program.arcs) + sum(arc.then >= 0 for arc in program.arcs)


def test_charts_alone_load_the_graph_library():
    code = "import sys, virtviz.view, virtviz.view.chart; print('networkx' in sys.modules, 'textual' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
