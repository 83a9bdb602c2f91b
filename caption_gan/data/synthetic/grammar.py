"""A small grammar that writes captions from statements and reads the statements back.

The built-in data sets know what is true of each image. To check a generated caption for truth,
its words must be understood again, so one table of phrases serves both directions: `write` picks
wordings at random, `read` recognises every combination of them, also those that no training
caption happened to use. A caption that does not parse states nothing and so cannot be true.

    caption = opening link clause (join clause)*
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence

Statement = tuple[str, ...]
"""The phrase's name followed by the values of its slots, e.g. `("trend", "red", "rise")`."""

_SLOT = re.compile(r"\{(\w+?)(\d*)\}")


class Grammar:
    """Writes and reads captions made of an opening and one or more clauses.

    Args:
        words: For each class of words, the wordings of each value:
            `{"direction": {"rise": ("rises", "goes up")}}`.
        openings: For each opening's name, its templates: `{"chart": ("a {kind} chart",)}`. A slot
            names a class of words; digits tell two slots of one class apart: `{colour2}`.
        clauses: The same for clauses: `{"trend": ("the {colour} series {direction}",)}`. The
            templates of one name must have the same slots in any order; a statement lists their
            values in the order of the first template.
        links: What may stand between the opening and the first clause, e.g. `" in which "`.
        joins: What may stand between two clauses, e.g. `" and "`.
    """

    def __init__(
        self,
        words: Mapping[str, Mapping[str, Sequence[str]]],
        openings: Mapping[str, Sequence[str]],
        clauses: Mapping[str, Sequence[str]],
        links: Sequence[str],
        joins: Sequence[str],
    ):
        self.words = words
        self.openings = openings
        self.clauses = clauses
        self.links = links
        self.joins = joins
        self._value_of = {
            name: {wording: value for value, wordings in values.items() for wording in wordings}
            for name, values in words.items()
        }
        for name, values in words.items():
            if len(self._value_of[name]) < sum(map(len, values.values())):
                raise ValueError(f"Each wording of {name!r} must stand once; received {values!r}.")
        self._opening_readers = self._readers(openings)
        self._clause_readers = self._readers(clauses)

    def write(self, opening: Statement, clauses: Sequence[Statement], rng: random.Random) -> str:
        """Words the statements, choosing among the wordings at random."""
        phrases = [self._word(clause, self.clauses, rng) for clause in clauses]
        text = self._word(opening, self.openings, rng)
        for position, phrase in enumerate(phrases):
            text += rng.choice(self.joins if position else self.links) + phrase
        return text + "."

    def read(self, caption: str) -> list[Statement] | None:
        """Returns the opening and the clauses of a caption, or None if it does not parse."""
        text = " ".join(caption.lower().split()).replace(" ,", ",").replace(" .", ".")
        text = text.removesuffix(".")
        for opening, position in self._match(self._opening_readers, text, 0):
            clauses = self._read_clauses(text, position, self.links)
            if clauses is not None:
                return [opening, *clauses]
        return None

    def _read_clauses(
        self, text: str, position: int, connectives: Sequence[str]
    ) -> list[Statement] | None:
        for connective in connectives:
            if not text.startswith(connective, position):
                continue
            start = position + len(connective)
            for clause, end in self._match(self._clause_readers, text, start):
                if end == len(text):
                    return [clause]
                rest = self._read_clauses(text, end, self.joins)
                if rest is not None:
                    return [clause, *rest]
        return None

    def _match(
        self, readers: list[tuple[str, list[str], re.Pattern[str]]], text: str, position: int
    ) -> Iterator[tuple[Statement, int]]:
        """Yields every phrase that the text has at a position, with where the phrase ends."""
        for name, slots, pattern in readers:
            match = pattern.match(text, position)
            if match:
                values = (self._value_of[_class_of(slot)][match[slot]] for slot in slots)
                yield (name, *values), match.end()

    def _word(
        self, statement: Statement, table: Mapping[str, Sequence[str]], rng: random.Random
    ) -> str:
        name, *values = statement
        slots = _slots(table[name][0])
        value_of = dict(zip(slots, values, strict=True))

        def wording(match: re.Match[str]) -> str:
            return rng.choice(self.words[match[1]][value_of[match[1] + match[2]]])

        return _SLOT.sub(wording, rng.choice(table[name]))

    def _readers(
        self, table: Mapping[str, Sequence[str]]
    ) -> list[tuple[str, list[str], re.Pattern[str]]]:
        def group(match: re.Match[str]) -> str:
            # Longest first: an alternation stops at its first hit, and "goes up" would hide
            # "goes up steeply".
            wordings = sorted(self._value_of[match[1]], key=len, reverse=True)
            return f"(?P<{match[1]}{match[2]}>{'|'.join(map(re.escape, wordings))})"

        readers = []
        for name, templates in table.items():
            slots = _slots(templates[0])
            for template in templates:
                if sorted(_slots(template)) != sorted(slots):
                    raise ValueError(
                        f"The templates of {name!r} must share their slots {slots}; "
                        f"received {template!r}."
                    )
                # No template has characters that are special in a pattern, slots apart.
                readers.append((name, slots, re.compile(_SLOT.sub(group, template) + r"(?!\w)")))
        return readers


def _slots(template: str) -> list[str]:
    return [name + digits for name, digits in _SLOT.findall(template)]


def _class_of(slot: str) -> str:
    return slot.rstrip("0123456789")
