"""The synthetic data set `scenes`: two objects, their colours, sizes and spatial relation."""

import random

from PIL import Image

from caption_gan.data.synthetic import scene_drawing
from caption_gan.data.synthetic.grammar import Grammar, Statement
from caption_gan.data.synthetic.scene_appearance import PALETTE, SIZES
from caption_gan.data.synthetic.scene_drawing import Scene, Thing

INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "kind": {
        "ball": ("ball",),
        "box": ("box", "crate"),
        "star": ("star",),
        "tree": ("tree",),
        "house": ("house", "cottage"),
        "car": ("car",),
        "fish": ("fish",),
        "cup": ("cup", "mug"),
    },
    "colour": {colour: (colour,) for colour in PALETTE},
    # Each wording ends with a space, so that a size may be empty. No word after an article starts
    # with a vowel: the article is always "a".
    "size": {
        "large": ("large ", "big ", "huge "),
        "small": ("small ", "little ", "tiny "),
        "any": ("",),
    },
    "relation": {
        "left": ("to the left of", "left of", "on the left of"),
        "right": ("to the right of", "right of", "on the right of"),
        "above": ("above", "over", "higher than"),
        "below": ("below", "under", "beneath"),
    },
    "background": {
        "grass": ("on the grass", "in a meadow", "in a field"),
        "beach": ("on the beach", "by the sea", "at the seaside"),
        "night": ("at night", "in the dark", "under the stars"),
        "room": ("in a room", "indoors", "inside a house"),
        "street": ("on the street", "in a town", "by the road"),
    },
}

_ONE = "a {size1}{colour1} {kind1}"
_TWO = "a {size2}{colour2} {kind2}"
_THERE = "{relation}"

# Captions are generated with clauses that fit the opening, which needs a noun or a sentence. The
# parser accepts all combinations.
_OPENINGS: dict[str, tuple[str, ...]] = {
    "noun": ("there is", "a picture of", "an image of", "this picture shows", "you can see"),
    "noun at": ("{background} there is", "{background} you can see", "{background} we find"),
    "sentence": ("in this picture", "here", "in this image"),
    "sentence at": ("{background}",),
}
_CLAUSES: dict[str, tuple[str, ...]] = {
    "noun": (
        f"{_ONE} {_THERE} {_TWO}",
        f"{_ONE} placed {_THERE} {_TWO}",
        f"{_ONE} that is {_THERE} {_TWO}",
        f"{_TWO} with {_ONE} {_THERE} it",
        f"{_TWO} and {_ONE} {_THERE} it",
    ),
    "sentence": (
        f"{_ONE} is {_THERE} {_TWO}",
        f"{_ONE} sits {_THERE} {_TWO}",
        f"{_ONE} appears {_THERE} {_TWO}",
        f"{_TWO} has {_ONE} {_THERE} it",
        f"{_THERE} {_TWO} is {_ONE}",
    ),
    "background": ("{background}",),
}


class ScenesDataset:
    """Images of two objects in front of a background; a `SyntheticDataset`."""

    name: str = "scenes"
    grammar: Grammar = Grammar(WORDS, _OPENINGS, _CLAUSES, links=(" ",), joins=(" ", ", "))

    def sample_facts(self, rng: random.Random) -> Scene:
        """Returns the facts of a new scene, whose two objects have different colours."""
        return {
            "background": rng.choice(list(WORDS["background"])),
            "relation": rng.choice(list(INVERSE)),
            "things": [
                {
                    "kind": rng.choice(list(WORDS["kind"])),
                    "colour": colour,
                    "size": rng.choice(list(SIZES)),
                }
                for colour in rng.sample(list(WORDS["colour"]), 2)
            ],
        }

    def draw(self, facts: Scene, rng: random.Random) -> Image.Image:
        """Returns an image of the scene; see `scene_drawing.draw`."""
        return scene_drawing.draw(facts, rng)

    def caption(self, facts: Scene, rng: random.Random) -> str:
        """Returns a caption of the relation, often with sizes, sometimes with the background."""
        (relation, one, two) = rng.choice(_views(facts))
        values = [
            value
            for thing in (one, two)
            for value in (rng.choice((thing["size"], "any")), thing["colour"], thing["kind"])
        ]
        form = rng.choice(("noun", "sentence"))
        clauses: list[Statement] = [(form, *values[:3], relation, *values[3:])]
        opening: Statement = (form,)
        place = rng.choice(("before", "after", "never"))
        if place == "before":
            opening = (f"{form} at", facts["background"])
        if place == "after":
            clauses.append(("background", facts["background"]))
        return self.grammar.generate(opening, clauses, rng)

    def is_true(self, caption: str, facts: Scene) -> bool:
        """Whether the caption can be parsed, names both objects, and is true."""
        statements = self.grammar.parse(caption)
        if statements is None:
            return False
        # Each clause of these names mentions both objects.
        names_both = any(name in ("noun", "sentence") and slots for name, *slots in statements)
        return names_both and all(_is_true(statement, facts) for statement in statements)


def _views(facts: Scene) -> list[tuple[str, Thing, Thing]]:
    """Returns the relation of the first object to the second, and of the second to the first."""
    one, two = facts["things"]
    return [(facts["relation"], one, two), (INVERSE[facts["relation"]], two, one)]


def _is_true(statement: Statement, facts: Scene) -> bool:
    match statement:
        case ("noun" | "sentence",):
            return True
        case (_, background):
            return background == facts["background"]
        case (_, size1, colour1, kind1, stated, size2, colour2, kind2):
            return any(
                stated == relation
                and _describes((size1, colour1, kind1), one)
                and _describes((size2, colour2, kind2), two)
                for relation, one, two in _views(facts)
            )
    raise ValueError(f"Unknown statement: {statement}.")


def _describes(words: tuple[str, str, str], thing: Thing) -> bool:
    size, colour, kind = words
    return size in (thing["size"], "any") and (colour, kind) == (thing["colour"], thing["kind"])
