"""A live run as a source of frames, without a lesson."""

from virtviz.engine.trace import Trace
from virtviz.paths.describe import describe
from virtviz.paths.knobs import make_world
from virtviz.paths.traffic import Item, make_traffic
from virtviz.paths.wiring import simulate

PING = (Item("echo"), Item("reply", outgoing=False, answers=0))


class Live:
    """A run of some traffic; it counts how many steps were asked for."""

    def __init__(self, items=PING, rounds=1, limit=None, **knobs):
        settings = {name.replace("__", "."): value for name, value in knobs.items()}
        self.simulation = simulate(make_world({"flows": "known", **settings}), make_traffic(list(items), rounds))
        self.machine = self.simulation.machine
        self.machine.run(limit) if limit else self.machine.run()
        self.trace = Trace(self.machine)
        self.header = describe(self.simulation)
        self.length = self.machine.length
        self.steps_asked = 0
        self._numbers = {name: number for number, name in enumerate(self.machine.state.names)}
        self._regions = {region.name: region for region in self.machine.state.regions}

    def step(self, n):
        self.steps_asked += 1
        return self.trace.step(n)

    def cell(self, position, name):
        self._stand(position)
        return int(self.machine.state.value(self._numbers[name]))

    def memory(self, position, region, addr, size):
        self._stand(position)
        return bytes(self._regions[region].bytes[addr : addr + size])

    def _stand(self, position):
        if self.machine.position != position:
            self.machine.seek(position)

    def position_of(self, op, *, packet=None, nth=1, place=None):
        """Give the number of the nth step of that op."""
        for n in range(1, self.length + 1):
            step = self.trace.step(n)
            if step.op == op and packet in (None, step.packet) and place in (None, step.place):
                nth -= 1
                if not nth:
                    return n
        raise LookupError(op)
