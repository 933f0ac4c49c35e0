"""The state chart: a linked program as a graph of ops and arcs.

Its edges are the declared outcomes, not what a run happened to do, so it shows what rarely or never happens too. The
graph library is loaded when a chart is first made, and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.engine.program import BLOCK, CALL, GOTO, KIND_MASK, RETURN

if TYPE_CHECKING:
    import networkx as nx

    from virtviz.engine.program import Program

KINDS: Final = {GOTO: "goto", CALL: "call", RETURN: "return", BLOCK: "block"}


def make_chart(program: Program) -> nx.MultiDiGraph[str]:
    """Give a program as a graph.

    A node is an op, by its path, with `title`, `routine`, `place` and `domain`. An edge is an arc, by its outcome, with
    `kind` (`goto`, `call`, `return` or `block`), `crossing` and `effect`, each empty if there is none. A call has a
    second edge, of kind `then`, to where the caller goes on. A return leaves the routine for whoever called it: its
    edge leads back to its own op, because the target is not the op's to say.
    """
    import networkx as nx  # noqa: PLC0415 - never before the first frame

    chart: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    for op in program.ops:
        title = op.spec.title if isinstance(op.spec.title, str) else op.name
        chart.add_node(op.path, title=title, routine=op.routine.name, place=op.place.name, domain=str(op.place.domain))
    for arc in program.arcs:
        source = arc.op.path
        target = program.ops[arc.next].path if arc.next >= 0 else source
        chart.add_edge(
            source,
            target,
            key=arc.outcome,
            kind=KINDS[arc.kind & KIND_MASK],
            crossing=str(arc.crossing or ""),
            effect=str(arc.effect or ""),
        )
        if arc.then >= 0:
            chart.add_edge(
                source, program.ops[arc.then].path, key=f"{arc.outcome}, then", kind="then", crossing="", effect=""
            )
    return chart
