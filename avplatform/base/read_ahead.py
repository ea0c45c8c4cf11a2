"""Work that is done on threads ahead of its reader, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


def read_ahead(
    jobs: Iterable[Callable[[], _T]], workers: int, *, ahead: int | None = None
) -> Iterator[_T]:
    """Run jobs on threads, a few ahead of the reader, and yield their results in order.

    A job's error is raised in place of its result; leaving the loop early stops the threads.

    Args:
        jobs: what to run.
        workers: number of threads.
        ahead: most jobs that are in progress or finished but not yet read; default: two per thread.
    """
    waiting: deque[Future[_T]] = deque()
    # Leaving the block waits for the threads: one that still reads when the interpreter exits
    # would abort the process.
    with ThreadPoolExecutor(workers) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) >= (ahead or 2 * workers):
                    # A variable would keep the result in memory while the reader works with it.
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
