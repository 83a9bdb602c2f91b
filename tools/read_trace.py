"""Prints the time per phase of a step: `python tools/read_trace.py RUN_OR_LOGS [--kinds [PHASE]]`.

Reads the newest trace below a folder, written by `fit --profile_steps 10,20` or captured by
TensorBoard. A trace without training steps, such as a server's, counts as one step. `--kinds`
prints the time per kind of operation, in the whole step or in one phase.
"""

import re
import sys
from argparse import ArgumentParser
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from caption_gan.command_line import run_program
from caption_gan.errors import CaptionGANError
from caption_gan.models.trace_scopes import CRITIC_UPDATE, SCOPES
from caption_gan.storage.paths import local_path

STEP = "train"
INPUT = "input"
# TensorFlow's name for the wait for the next batch.
NEXT_BATCH = "IteratorGetNextOp::DoCompute"
# TensorFlow numbers a scope that is opened more than once.
SCOPE = re.compile(rf"({'|'.join(SCOPES)})(?:_\d+)?")
UPDATE = re.compile(rf"(?:^|/){CRITIC_UPDATE}(?:_(\d+))?(?=[/:]|$)")
# Events that are not operations have two colons, a blank or no colon.
OPERATION = re.compile(r"[^:\s]+:([^:\s]+)")
ALL = "all"
MAX_KINDS = 12  # Rows of the table of --kinds.


class Event(NamedTuple):
    """An event in a trace; times in nanoseconds."""

    name: str
    start: float
    end: float


def read_trace(folder: Path) -> list[Event]:
    """Events of the newest trace below the folder, ordered by start.

    Raises:
        CaptionGANError: The folder holds no trace.
    """
    # Imported here, because it loads TensorFlow.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    files = sorted(folder.rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise CaptionGANError(
            f"{folder} holds no trace (*.xplane.pb); train with --profile_steps 10,20."
        )
    space = xplane_pb2.XSpace.FromString(files[-1].read_bytes())
    return sorted(_events(space), key=lambda event: event.start)


def _events(space: Any) -> Iterator[Event]:
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                start = line.timestamp_ns + event.offset_ps / 1000
                name = plane.event_metadata[event.metadata_id].name
                yield Event(name, start, start + event.duration_ps / 1000)


def phases_of(name: str) -> tuple[str, ...]:
    """Phases in which an operation ran, outermost first."""
    if name == NEXT_BATCH:
        return (INPUT,)
    scopes = (SCOPE.fullmatch(part) for part in name.split(":")[0].split("/"))
    # The name of a gradient repeats the scopes of the forward operation.
    return tuple(dict.fromkeys(match[1] for match in scopes if match))


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of the intervals, in which several threads count once."""
    total, covered_until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(end - max(start, covered_until), 0.0)
        covered_until = max(covered_until, end)
    return total


def steps_of(events: list[Event]) -> list[Event]:
    """The training steps; one step for the whole trace if it has none."""
    steps = [event for event in events if event.name == STEP]
    return steps or [Event(STEP, events[0].start, max(event.end for event in events))]


def within(step: Event, events: list[Event]) -> list[Event]:
    """Events within a step."""
    return [event for event in events if step.start <= event.start and event.end <= step.end]


def scopes_of_update(name: str) -> list[int]:
    """TensorFlow's number of the critic-update scope of an operation; empty outside of any."""
    return [int(number or 0) for number in UPDATE.findall(name)[:1]]


def phase_times(events: list[Event]) -> tuple[int, float, dict[tuple[str, ...], float]]:
    """Number of steps, mean nanoseconds per step, and mean nanoseconds of each phase.

    A phase is named with the phases around it, outermost first, and follows them.
    """
    steps = steps_of(events)
    times: Counter[tuple[str, ...]] = Counter()
    for step in steps:
        intervals, seen = defaultdict(list), Counter[str]()
        inside = within(step, events)
        unrolled = sorted({number for event in inside for number in scopes_of_update(event.name)})
        for event in inside:
            path = phases_of(event.name)
            if path[:1] == (CRITIC_UPDATE,):
                # With one replica the updates are a loop: each operation of its body runs once per
                # update, in order. With several replicas each update has its own operations.
                seen[event.name] += 1
                number = unrolled.index(*scopes_of_update(event.name)) + seen[event.name]
                path = (f"{CRITIC_UPDATE} {number}", *path[1:])
            for depth in range(len(path)):
                intervals[path[: depth + 1]].append((event.start, event.end))
        times.update({path: covered(spans) for path, spans in intervals.items()})
    length = sum(step.end - step.start for step in steps) / len(steps)
    position = {path: number for number, path in enumerate(times)}

    def order(path: tuple[str, ...]) -> list[int]:
        return [position[path[: depth + 1]] for depth in range(len(path))]

    return len(steps), length, {path: times[path] / len(steps) for path in sorted(times, key=order)}


def table(events: list[Event]) -> str:
    """Time of each phase in milliseconds and as a share of the step, as text."""
    count, length, times = phase_times(events)
    lines = [f"{'mean of ' + str(count) + ' steps':32}{length / 1e6:10.1f} ms"]
    for path, time in times.items():
        name = "  " * len(path) + path[-1]
        lines.append(f"{name:32}{time / 1e6:10.1f} ms{time / length:8.1%}")
    return "\n".join(lines)


def kinds(events: list[Event], phase: str) -> str:
    """Number of operations of each kind in a phase, and their milliseconds per step, as text."""
    steps = steps_of(events)
    times, counts = defaultdict[str, float](float), Counter[str]()
    for event in (event for step in steps for event in within(step, events)):
        operation = OPERATION.fullmatch(event.name)
        if operation and (phase == ALL or phase in phases_of(event.name)):
            kind = operation[1]
            times[kind] += event.end - event.start
            counts[kind] += 1
    total = sum(times.values())
    lines = [
        f"{'total of ' + phase:32}{counts.total() / len(steps):8.0f}{_milliseconds(total, steps)}"
    ]
    for kind, time in sorted(times.items(), key=lambda item: -item[1])[:MAX_KINDS]:
        line = f"  {kind:30}{counts[kind] / len(steps):8.0f}{_milliseconds(time, steps)}"
        lines.append(f"{line}{time / total:8.1%}")
    return "\n".join(lines)


def _milliseconds(time: float, steps: list[Event]) -> str:
    return f"{time / len(steps) / 1e6:10.1f} ms"


def main() -> None:
    """Reads the command line, prints the table."""
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=local_path, help="a run directory, or a folder of logs")
    parser.add_argument(
        "--kinds",
        nargs="?",
        const=ALL,
        choices=(ALL, *SCOPES),
        help="of a phase; default: all",
    )
    arguments = parser.parse_args(sys.argv[1:])
    events = read_trace(arguments.folder)
    print(kinds(events, arguments.kinds) if arguments.kinds else table(events))


if __name__ == "__main__":
    run_program(main)
