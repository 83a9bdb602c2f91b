"""Scenes, their captions and their fact checker."""

import json
import random
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_gan.data.synthetic import scene_appearance, scene_drawing
from caption_gan.data.synthetic.scene_drawing import Scene
from caption_gan.data.synthetic.scenes import INVERSE, WORDS, ScenesDataset

DATASET = ScenesDataset()
SEEDS = range(300)

FACTS: Scene = {
    "background": "grass",
    "relation": "left",
    "things": [
        {"kind": "ball", "colour": "red", "size": "small"},
        {"kind": "box", "colour": "blue", "size": "large"},
    ],
}
TRUE = "there is a small red ball to the left of a big blue box on the grass."


def captioned(seed: int) -> tuple[Scene, str]:
    rng = random.Random(seed)
    facts = DATASET.sample_facts(rng)
    return facts, DATASET.caption(facts, rng)


def one_word_off(caption: str) -> Iterator[str]:
    """Yields captions with one word or phrase replaced by one of another meaning."""
    meanings = [
        (wording.strip(), class_of_words, value)
        for class_of_words, values in WORDS.items()
        for value, wordings in values.items()
        for wording in wordings
        if wording
    ]
    # Longest first: "to the left of" is one phrase, not "left of" within something else.
    meanings.sort(key=lambda meaning: -len(meaning[0]))
    pattern = re.compile("|".join(rf"\b{wording}\b" for wording, *_ in meanings))
    meaning_of = {wording: (words, value) for wording, words, value in meanings}
    for match in pattern.finditer(caption):
        class_of_words, value = meaning_of[match[0]]
        for other, wordings in WORDS[class_of_words].items():
            if other not in (value, "any"):
                for wording in wordings:
                    yield caption[: match.start()] + wording.strip() + caption[match.end() :]


@pytest.mark.parametrize(
    "caption",
    [
        TRUE,
        "in this picture a large blue box is right of a tiny red ball",
        "You can see a red ball and a blue crate to the right of it , in a meadow .",
        "in a field to the left of a blue box is a red ball",
        "here a red ball placed left of a blue box",
        # A true combination of wordings and statements that no training caption has.
        "on the grass there is a red ball sits left of a blue box a blue box has a red ball "
        "on the left of it",
    ],
)
def test_true(caption: str) -> None:
    assert DATASET.is_true(caption, FACTS)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        ".",
        "there is",
        "there is a red ball",
        "there is a red ball.",
        "there is on the grass",
        "on the grass on the grass",
        "a small red ball to the left of a big blue box",
        "there is a ball to the left of a box",
        "there is a red to the left of a blue box",
        "there is a red ball to the left of a red ball",
        "there is a red ball to the left of it",
        "there is a blue box and a blue box to the right of it",
        "there is a small red ball to the left of a big blue box on the",
        "there is a small red ball to the left of a big blue [UNK]",
        "there is a small [UNK] ball to the left of a big blue box",
        "[UNK] a small red ball to the left of a big blue box",
        "there is a small red ball to the left of a big blue box [UNK]",
        "there is a small small red ball to the left of a big blue box",
        "there is a small red ball to the left of a big blue boxes",
        "there is a small red ball to the left of a big blue box at night",
        "in the dark there is a small red ball to the left of a big blue box",
        "in the dark there is a small red ball to the left of a big blue box on the grass",
        "there is a big blue box to the left of a small red ball",
        "there is a small blue ball to the left of a big red box",
        "there is a big red ball to the left of a small blue box",
        "there is a red ball left of a blue box, a red ball is above a blue box",
    ],
)
def test_not_true(caption: str) -> None:
    assert not DATASET.is_true(caption, FACTS)


@pytest.mark.parametrize("seed", SEEDS)
def test_generated_captions_are_true_and_changed_ones_are_false(seed: int) -> None:
    facts, caption = captioned(seed)
    assert DATASET.is_true(caption, json.loads(json.dumps(facts)))
    assert 8 <= len(caption.replace(",", "").split()) <= 20

    wrong = list(one_word_off(caption))
    # Both kinds and both colours have seven other values each, the relation has three.
    assert len(wrong) >= 4 * 7 + 3
    for other in wrong:
        assert DATASET.grammar.parse(other) is not None, other
        assert not DATASET.is_true(other, facts), other

    swapped: Scene = {**facts, "relation": INVERSE[facts["relation"]]}
    assert not DATASET.is_true(caption, swapped)
    _, foreign = captioned(seed + 1)
    assert not DATASET.is_true(foreign, facts)


def test_incomplete_captions_are_false() -> None:
    """Of all truncations, only that of the final adverbial leaves the caption true."""
    words = TRUE.removesuffix(".").split()
    truncated = [" ".join(words[:end]) for end in range(len(words))]
    assert [text for text in truncated if DATASET.is_true(text, FACTS)] == [
        TRUE.removesuffix(" on the grass.")
    ]


def test_vocabulary() -> None:
    captions = [captioned(seed)[1] for seed in range(2000)]
    words = {word for caption in captions for word in re.findall(r"\w+", caption)}
    assert 60 <= len(words) <= 100
    assert all(caption == caption.lower() for caption in captions)


def test_words_and_drawings_cover_the_same_values() -> None:
    assert set(WORDS["kind"]) == set(scene_appearance.SHAPES)
    assert set(WORDS["colour"]) == set(scene_appearance.PALETTE)
    assert set(WORDS["background"]) == set(scene_appearance.BACKGROUNDS)
    assert set(WORDS["size"]) == {*scene_appearance.SIZES, "any"}
    assert set(WORDS["relation"]) == set(INVERSE)


@settings(deadline=None)  # The first image of a process is slow.
@given(st.integers(0, 2**32))
def test_same_seed_same_scene(seed: int) -> None:
    def make() -> tuple[Scene, bytes, str]:
        rng = random.Random(seed)
        facts = DATASET.sample_facts(rng)
        return facts, DATASET.draw(facts, rng).tobytes(), DATASET.caption(facts, rng)

    assert make() == make()


def test_images_differ_in_size_and_shape() -> None:
    images = [DATASET.draw(FACTS, random.Random(seed)) for seed in range(100)]
    assert {image.mode for image in images} == {"RGB"}
    assert len({image.size for image in images}) > 50
    for image in images:
        assert min(image.size) >= 80 and max(image.size) <= 140
        assert 0.75 <= image.width / image.height <= 1.5


@settings(deadline=None)
@given(
    st.sampled_from(sorted(INVERSE)),
    st.tuples(*[st.sampled_from(sorted(scene_appearance.SIZES))] * 2),
    st.sampled_from([(80, 80), (140, 94), (120, 80), (80, 106), (105, 140), (140, 140)]),
    st.integers(0, 2**32),
)
def test_exactly_one_relation_is_visible(
    relation: str, sizes: tuple[str, str], shape: tuple[int, int], seed: int
) -> None:
    one, two = FACTS["things"]
    facts: Scene = {
        **FACTS,
        "relation": relation,
        "things": [{**one, "size": sizes[0]}, {**two, "size": sizes[1]}],
    }
    places = scene_drawing.arrange(facts, *shape, random.Random(seed))
    (x1, y1, extent1), (x2, y2, extent2) = places
    for x, y, extent in places:
        assert extent / 2 < x < shape[0] - extent / 2
        assert extent / 2 < y < shape[1] - extent / 2

    right, down = (x2 - x1) / shape[0], (y2 - y1) / shape[1]
    along, across = {
        "left": (right, down),
        "right": (-right, down),
        "above": (down, right),
        "below": (-down, right),
    }[relation]
    assert along > 0.3
    assert abs(across) < along / 3
    assert max(abs(x2 - x1), abs(y2 - y1)) > (extent1 + extent2) / 2

    ratio = {("large", "small"): extent1 / extent2, ("small", "large"): extent2 / extent1}
    assert ratio.get(sizes, 1.7) >= 1.7
