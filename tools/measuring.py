"""Time and memory measurements that the benchmarks share."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

MEBIBYTE = 2**20


def alternate(
    calls: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2, pause: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each call in each round; the calls of a round run one after another.

    Alternating exposes all calls to the same disturbances by other processes.

    Args:
        calls: What to measure, by name.
        rounds: Measurements of each call.
        warm_up: Calls before the first measurement, which compile and fill caches.
        pause: Seconds before each call, for libraries whose threads spin after their work.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(pause)
            started = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def median_seconds(
    calls: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2
) -> dict[str, float]:
    """Median time of each call; see `alternate`."""
    seconds = alternate(calls, rounds, warm_up)
    return {name: statistics.median(times) for name, times in seconds.items()}


def resident_mib(process: int | str = "self") -> float:
    """Resident memory of a process on Linux, in MiB.

    Args:
        process: Its number; this process by default.
    """
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MEBIBYTE


def peak_resident_mib() -> float:
    """Highest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBIBYTE
