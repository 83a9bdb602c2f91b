"""How long each phase of a step took: `python tools/read_trace.py RUN_OR_LOGS [--kinds [PHASE]]`.

Reads the newest trace below a folder, as `fit --profile_steps 10,20` or TensorBoard's capture left
it. Of a trace without training steps, a server's say, all of it counts as one. `--kinds` prints
which kinds of operations took the time of a step, or of a phase in it.
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

STEP = "train"
INPUT = "input"
# TensorFlow's own name of the wait for the next batch.
NEXT_BATCH = "IteratorGetNextOp::DoCompute"
# TensorFlow numbers a scope that is opened again.
SCOPE = re.compile(rf"({'|'.join(SCOPES)})(?:_\d+)?")
UPDATE = re.compile(rf"(?:^|/){CRITIC_UPDATE}(?:_(\d+))?(?=[/:]|$)")
# What is no operation has two colons, a blank or none.
OPERATION = re.compile(r"[^:\s]+:([^:\s]+)")
ALL = "all"
SHOWN = 12  # Kinds of operations.


class Event(NamedTuple):
    """Something that ran, in nanoseconds."""

    name: str
    start: float
    end: float


def read_trace(folder: Path) -> list[Event]:
    """Events of the newest trace below the folder, in the order of their beginning.

    Raises:
        CaptionGANError: There is none.
    """
    # Here, as this is TensorFlow's.
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
    """Phases in which an operation ran, the outermost first."""
    if name == NEXT_BATCH:
        return (INPUT,)
    scopes = (SCOPE.fullmatch(part) for part in name.split(":")[0].split("/"))
    # A gradient has the names of what it is of a second time.
    return tuple(dict.fromkeys(match[1] for match in scopes if match))


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Time that intervals take together; what several threads do at once counts once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total


def steps_of(events: list[Event]) -> list[Event]:
    """The steps of a training; all of a trace that has none."""
    steps = [event for event in events if event.name == STEP]
    return steps or [Event(STEP, events[0].start, max(event.end for event in events))]


def within(step: Event, events: list[Event]) -> list[Event]:
    """Events of a step."""
    return [event for event in events if step.start <= event.start and event.end <= step.end]


def scopes_of_update(name: str) -> list[int]:
    """Number of the critic's update's scope in which an operation is, as TensorFlow gave it."""
    return [int(number or 0) for number in UPDATE.findall(name)[:1]]


def phase_times(events: list[Event]) -> tuple[int, float, dict[tuple[str, ...], float]]:
    """Number of steps; nanoseconds of one, and of each phase in it, on average.

    A phase within others is named with them, the outermost first, and follows them.
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
                # With one replica they are in a loop: each operation of its body runs once an
                # update, in their order. With several, each update has operations of its own.
                seen[event.name] += 1
                number = unrolled.index(*scopes_of_update(event.name)) + seen[event.name]
                path = (f"{CRITIC_UPDATE} {number}", *path[1:])
            for depth in range(len(path)):
                intervals[path[: depth + 1]].append((event.start, event.end))
        times.update({path: covered(some) for path, some in intervals.items()})
    length = sum(step.end - step.start for step in steps) / len(steps)
    began = {path: number for number, path in enumerate(times)}

    def place(path: tuple[str, ...]) -> list[int]:
        return [began[path[: depth + 1]] for depth in range(len(path))]

    return len(steps), length, {path: times[path] / len(steps) for path in sorted(times, key=place)}


def table(events: list[Event]) -> str:
    """Phases, what a step spends in each, in milliseconds and as a share of the step."""
    count, length, times = phase_times(events)
    lines = [f"{'mean of ' + str(count) + ' steps':32}{length / 1e6:10.1f} ms"]
    for path, time in times.items():
        name = "  " * len(path) + path[-1]
        lines.append(f"{name:32}{time / 1e6:10.1f} ms{time / length:8.1%}")
    return "\n".join(lines)


def kinds(events: list[Event], phase: str) -> str:
    """Kinds of operations, how many of them a step has in a phase, and their milliseconds."""
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
    for kind, time in sorted(times.items(), key=lambda item: -item[1])[:SHOWN]:
        line = f"  {kind:30}{counts[kind] / len(steps):8.0f}{_milliseconds(time, steps)}"
        lines.append(f"{line}{time / total:8.1%}")
    return "\n".join(lines)


def _milliseconds(time: float, steps: list[Event]) -> str:
    return f"{time / len(steps) / 1e6:10.1f} ms"


def main() -> None:
    """The program."""
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a run, or its logs")
    parser.add_argument(
        "--kinds", nargs="?", const=ALL, choices=(ALL, *SCOPES), help="of a phase, or all"
    )
    arguments = parser.parse_args(sys.argv[1:])
    events = read_trace(arguments.folder)
    print(kinds(events, arguments.kinds) if arguments.kinds else table(events))


if __name__ == "__main__":
    run_program(main)
