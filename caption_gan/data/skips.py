"""Counts what a data set brings that cannot be used, so that nothing is lost in silence."""

from collections import defaultdict

NAMES_KEPT = 5


class Skips:
    """Counts of skipped things by reason, with the names of the first few.

    Attributes:
        counts: Number of things skipped for each reason.
        names: The first names for each reason.
    """

    def __init__(self):
        self.counts: dict[str, int] = defaultdict(int)
        self.names: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Counts something that was skipped."""
        self.counts[reason] += count
        if len(self.names[reason]) < NAMES_KEPT and name not in self.names[reason]:
            self.names[reason].append(name)

    def lines(self) -> list[str]:
        """One line for each reason, e.g. `2 images do not decode: a.jpg, b.jpg`."""
        return [
            f"{count} {reason}: {', '.join(self.names[reason])}"
            + (", ..." if count > len(self.names[reason]) else "")
            for reason, count in sorted(self.counts.items())
        ]
