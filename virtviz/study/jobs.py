"""Where the points of a sweep run: here, on several cores, or on a Dask cluster; the results are the same."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from virtviz.errors import LearnerError
from virtviz.study.sweep import Point, Result, run_point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RETRIES: Final = 3
"""How often a point is run again after the machine of a cluster that ran it was lost."""
CONNECT_S: Final = 10
"""Seconds to wait for a cluster."""


def cores() -> int:
    """Give the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    points: Sequence[Point], jobs: int, cluster: str | None = None, report: Callable[[int], None] = lambda _: None
) -> list[Result]:
    """Run every point; answers their results in the points' order.

    Args:
        points: what is to be run.
        jobs: processes on this machine; 1 for none beside this one.
        cluster: address of a Dask scheduler, such as `tcp://127.0.0.1:8786`, to run them there instead.
        report: told how many are done, after each.

    Raises:
        LearnerError: a point cannot be run (the message names its settings), or the cluster cannot be used.
    """
    results: list[Result | None] = [None] * len(points)
    if cluster is not None:
        found = _on_cluster(points, cluster)
    elif jobs > 1 and len(points) > 1:
        found = _on_cores(points, min(jobs, len(points)))
    else:
        found = ((number, run_point(point)) for number, point in enumerate(points))
    for done, (number, result) in enumerate(found, 1):
        if result.wrong:
            raise LearnerError(f"the run with {points[number].named()} failed: {result.wrong}")
        results[number] = result
        report(done)
    return [result for result in results if result is not None]


def _on_cores(points: Sequence[Point], jobs: int) -> Iterator[tuple[int, Result]]:
    """Run points in processes; what is left undone when somebody stops listening is dropped."""
    from concurrent.futures import ProcessPoolExecutor, as_completed  # noqa: PLC0415 - only where there are many
    from concurrent.futures.process import BrokenProcessPool  # noqa: PLC0415
    from multiprocessing import get_context  # noqa: PLC0415

    # Not by fork: a copy of a process that has threads may wait for ever.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        numbers = {pool.submit(run_point, point): number for number, point in enumerate(points)}
        try:
            for future in as_completed(numbers):
                yield numbers[future], future.result()
        except BrokenProcessPool as error:
            raise LearnerError(
                "a process of the sweep was ended from outside, perhaps because memory ran out; try fewer --jobs"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _on_cluster(points: Sequence[Point], address: str) -> Iterator[tuple[int, Result]]:
    """Run points on a Dask cluster; those of a worker that is lost run again on another."""
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise LearnerError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        numbers = {}
        for number, point in enumerate(points):
            numbers[client.submit(run_point, point, pure=False, retries=RETRIES)] = number
        try:
            for future in distributed.as_completed(numbers, loop=client.loop):
                number = numbers[future]
                yield number, _result_of(future, points[number])
        finally:
            client.cancel(list(numbers))


def _result_of(future: Any, point: Point) -> Result:  # noqa: ANN401 - the library is not there to be imported
    try:
        result = future.result()
    except Exception as error:
        raise LearnerError(f"the run with {point.named()} failed on the cluster: {error!r}") from error
    assert isinstance(result, Result)
    return result


def _distributed() -> Any:  # noqa: ANN401 - as above
    """Import the library.

    Raises:
        LearnerError: it is not installed; the message says how to get it.
    """
    try:
        import distributed  # noqa: PLC0415 - large, and an extra
    except ImportError as error:
        raise LearnerError("--cluster needs an extra: pip install 'virtviz[cluster]'") from error
    return distributed
