"""Records of what in a data set cannot be used, so that nothing is dropped silently."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

NAMES_SHOWN = 5
VALUE_SHOWN = 40  # Characters.


@dataclass(frozen=True)
class Skip:
    """Something that was skipped.

    Attributes:
        reason: Continues a number, e.g. `images do not decode`.
        name: The image, or a place in a file such as `line 12`.
        count: How many things were skipped there.
    """

    reason: str
    name: str
    count: int = 1


def shown(value: Any) -> str:
    """A value as it stands in a file, shortened to a few words."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text if len(text) <= VALUE_SHOWN else f"{text[:VALUE_SHOWN]}..."
    return repr(text) if isinstance(value, str) else text


class SkipError(Exception):
    """Raised while an example is read that must be skipped.

    Args:
        reason: Continues a number, e.g. `images do not decode`.
    """


class Skips:
    """Collects what was skipped.

    Attributes:
        all: The skips, oldest first.
        notes: Lines that say how the data set was read where its files leave a choice.
    """

    def __init__(self, skips: Iterable[Skip] = ()):
        self.all = list(skips)
        self.notes: list[str] = []

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Adds a `Skip`."""
        self.all.append(Skip(reason, name, count))

    def lines(self) -> list[str]:
        """One line per reason, e.g. `2 images do not decode: a.jpg, b.jpg`."""
        counts: dict[str, int] = defaultdict(int)
        names: dict[str, dict[str, None]] = defaultdict(dict)  # Dictionaries as ordered sets.
        for skip in self.all:
            counts[skip.reason] += skip.count
            if len(names[skip.reason]) < NAMES_SHOWN:
                names[skip.reason][skip.name] = None
        return [
            f"{count} {reason}: {', '.join(names[reason])}"
            + (", ..." if count > len(names[reason]) else "")
            for reason, count in sorted(counts.items())
        ]
