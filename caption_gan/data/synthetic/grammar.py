"""A small grammar that generates captions from statements and parses captions into statements.

The fact checker of a synthetic data set must understand captions. One table of phrases serves both
directions: `generate` chooses wordings at random, `parse` recognises all combinations of them, also
those that no training caption has. A caption that cannot be parsed counts as false.

    caption = opening link clause (join clause)*
"""

import functools
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

Statement = tuple[str, ...]
"""The phrase's name followed by the values of its slots, e.g. `("trend", "red", "rise")`."""

_SLOT = re.compile(r"\{(\w+?)(\d*)\}")


class _Place(NamedTuple):
    """Where a slot of a phrase stands in a text, its class and its value."""

    start: int
    end: int
    name: str
    value: str


class _Phrase(NamedTuple):
    """An opening or a clause in a text, where it ends, and its slots in their order there."""

    statement: Statement
    end: int
    places: list[_Place]


class Grammar:
    """Generates and parses captions of an opening and one or more clauses.

    Args:
        words: Wordings of each value of each class of words:
            `{"direction": {"rise": ("rises", "goes up")}}`.
        openings: Templates of each opening: `{"chart": ("a {kind} chart",)}`. A slot names a class
            of words; digits distinguish two slots of one class: `{colour2}`.
        clauses: Templates of each clause: `{"trend": ("the {colour} series {direction}",)}`. The
            templates of one name have the same slots in any order; a statement lists their values
            in the order of the first template.
        links: Connectives between the opening and the first clause, e.g. `" in which "`.
        joins: Connectives between two clauses, e.g. `" and "`.

    Raises:
        ValueError: A wording has two meanings, or templates of one name differ in their slots.
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
                raise ValueError(
                    f"Each wording of {name!r} must have one meaning; received {values!r}."
                )
        self._opening_patterns = self._compile(openings)
        self._clause_patterns = self._compile(clauses)

    def generate(self, opening: Statement, clauses: Sequence[Statement], rng: random.Random) -> str:
        """Returns a caption of the statements, with wordings chosen at random."""
        phrases = [self._word(clause, self.clauses, rng) for clause in clauses]
        text = self._word(opening, self.openings, rng)
        for position, phrase in enumerate(phrases):
            text += rng.choice(self.joins if position else self.links) + phrase
        return text + "."

    # A caption is often checked against the facts of many images in turn.
    @functools.lru_cache(maxsize=1000)  # noqa: B019 - a program has a handful of grammars.
    def parse(self, caption: str) -> tuple[Statement, ...] | None:
        """Returns the opening and the clauses of a caption; None if it cannot be parsed."""
        phrases = self._phrases(_normalized(caption))
        return None if phrases is None else tuple(phrase.statement for phrase in phrases)

    def variations(self, caption: str, rng: random.Random) -> list[tuple[str, str]]:
        """Captions that differ in the value of one slot, or by a swap of two slots of one class.

        Args:
            caption: One that `generate` can return.
            rng: Chooses wordings and the order.

        Returns:
            Pairs of what differs (`colour`, `swapped colour`) and the caption, one for each other
            value of each slot, in random order.
        """
        text = _normalized(caption)
        places = [place for phrase in self._phrases(text) or () for place in phrase.places]
        variations = []
        for place in places:
            for value, wordings in self.words[place.name].items():
                if value != place.value:
                    wording = rng.choice(wordings)
                    varied = text[: place.start] + wording + text[place.end :]
                    variations.append((place.name, varied + "."))
        for one, two in itertools.combinations(places, 2):
            if one.name == two.name and one.value != two.value:
                first, second = text[one.start : one.end], text[two.start : two.end]
                between = text[one.end : two.start]
                swapped = text[: one.start] + second + between + first + text[two.end :]
                variations.append((f"swapped {one.name}", swapped + "."))
        rng.shuffle(variations)
        return variations

    def _phrases(self, text: str) -> "list[_Phrase] | None":
        """The opening and the clauses of a normalised caption; None if it cannot be parsed."""
        for opening in self._match(self._opening_patterns, text, 0):
            clauses = self._parse_clauses(text, opening.end, self.links)
            if clauses is not None:
                return [opening, *clauses]
        return None

    def _parse_clauses(
        self, text: str, position: int, connectives: Sequence[str]
    ) -> "list[_Phrase] | None":
        for connective in connectives:
            if not text.startswith(connective, position):
                continue
            start = position + len(connective)
            for clause in self._match(self._clause_patterns, text, start):
                if clause.end == len(text):
                    return [clause]
                rest = self._parse_clauses(text, clause.end, self.joins)
                if rest is not None:
                    return [clause, *rest]
        return None

    def _match(
        self, patterns: list[tuple[str, list[str], re.Pattern[str]]], text: str, position: int
    ) -> "Iterator[_Phrase]":
        """Yields each phrase that matches the text at a position."""
        for name, slots, pattern in patterns:
            match = pattern.match(text, position)
            if match:
                places = [
                    _Place(*match.span(slot), of, self._value_of[of][match[slot]])
                    for slot, of in ((slot, _class_of(slot)) for slot in slots)
                ]
                statement = (name, *(place.value for place in places))
                yield _Phrase(statement, match.end(), sorted(places))

    def _word(
        self, statement: Statement, table: Mapping[str, Sequence[str]], rng: random.Random
    ) -> str:
        name, *values = statement
        slots = _slots(table[name][0])
        value_of = dict(zip(slots, values, strict=True))

        def wording(match: re.Match[str]) -> str:
            return rng.choice(self.words[match[1]][value_of[match[1] + match[2]]])

        return _SLOT.sub(wording, rng.choice(table[name]))

    def _compile(
        self, table: Mapping[str, Sequence[str]]
    ) -> list[tuple[str, list[str], re.Pattern[str]]]:
        def group(match: re.Match[str]) -> str:
            # Longest first, because an alternation takes the first match: "goes up" would hide
            # "goes up steeply".
            wordings = sorted(self._value_of[match[1]], key=len, reverse=True)
            return f"(?P<{match[1]}{match[2]}>{'|'.join(map(re.escape, wordings))})"

        patterns = []
        for name, templates in table.items():
            slots = _slots(templates[0])
            for template in templates:
                if sorted(_slots(template)) != sorted(slots):
                    raise ValueError(
                        f"The templates of {name!r} must have the slots {slots}; "
                        f"received {template!r}."
                    )
                # Only the slots of a template have characters that are special in a pattern.
                patterns.append((name, slots, re.compile(_SLOT.sub(group, template) + r"(?!\w)")))
        return patterns


def _normalized(caption: str) -> str:
    """A caption in lower case with single spaces and without its full stop."""
    text = " ".join(caption.lower().split()).replace(" ,", ",").replace(" .", ".")
    return text.removesuffix(".")


def _slots(template: str) -> list[str]:
    return [name + digits for name, digits in _SLOT.findall(template)]


def _class_of(slot: str) -> str:
    return slot.rstrip("0123456789")
