"""What of a data set cannot be used: counted and named, so that nothing is lost in silence."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

NAMES_SHOWN = 5


@dataclass(frozen=True)
class Skip:
    """Something that was skipped.

    Attributes:
        reason: Reads well after a number, e.g. `images do not decode`.
        name: Of the image, or where it stands, e.g. `line 12`.
        count: How many things.
    """

    reason: str
    name: str
    count: int = 1


class SkipError(Exception):
    """Raised where an example is read that cannot be used.

    Args:
        reason: Reads well after a number, e.g. `images do not decode`.
    """


class Skips:
    """Collects what was skipped.

    Attributes:
        all: In the order in which it was met.
    """

    def __init__(self, skips: Iterable[Skip] = ()):
        self.all = list(skips)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Adds something that was skipped."""
        self.all.append(Skip(reason, name, count))

    def lines(self) -> list[str]:
        """One line for each reason, e.g. `2 images do not decode: a.jpg, b.jpg`."""
        counts: dict[str, int] = defaultdict(int)
        names: dict[str, dict[str, None]] = defaultdict(dict)  # Ordered, each once.
        for skip in self.all:
            counts[skip.reason] += skip.count
            if len(names[skip.reason]) < NAMES_SHOWN:
                names[skip.reason][skip.name] = None
        return [
            f"{count} {reason}: {', '.join(names[reason])}"
            + (", ..." if count > len(names[reason]) else "")
            for reason, count in sorted(counts.items())
        ]
