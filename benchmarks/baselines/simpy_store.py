"""The baseline of the engine: the producer and consumer of SimPy's own documentation, joined by a `Store`.

Nothing is added to it and nothing is taken away: the producer waits one unit of time and puts an item, the consumer
gets it. An event is one `env.step()`; each item takes three (the time-out, the put, the get).
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import simpy

if TYPE_CHECKING:
    from collections.abc import Generator

EVENTS_PER_ITEM = 3


def producer(env: simpy.Environment, store: simpy.Store, items: int) -> Generator[simpy.Event, object, None]:
    """Put an item every unit of time."""
    for item in range(items):
        yield env.timeout(1)
        yield store.put(item)


def consumer(store: simpy.Store) -> Generator[simpy.Event, object, None]:
    """Take whatever comes."""
    while True:
        yield store.get()


def events_per_second(items: int) -> float:
    """Run the whole and give the rate. `env.run()` is SimPy's own loop around `env.step()`, and its quickest."""
    env = simpy.Environment()
    store = simpy.Store(env)
    env.process(producer(env, store, items))
    env.process(consumer(store))
    start = perf_counter()
    env.run()
    return EVENTS_PER_ITEM * items / (perf_counter() - start)


def count_events(items: int) -> int:
    """Count the calls of `env.step()` that it takes, to know what an event is."""
    env = simpy.Environment()
    store = simpy.Store(env)
    env.process(producer(env, store, items))
    env.process(consumer(store))
    events = 0
    while env.peek() < float("inf"):
        env.step()
        events += 1
    return events


if __name__ == "__main__":
    print(f"{events_per_second(100_000):,.0f} events a second")
