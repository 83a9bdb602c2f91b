"""Captions with one fact or word wrong: false, different in one place, and plausible."""

import json
import random

import pytest

from caption_gan.data.example import Example
from caption_gan.data.sources.registry import SYNTHETIC
from caption_gan.data.synthetic.wrong_facts import one_fact_wrong
from caption_gan.training.contrastive.wrong_captions import WrongCaptions
from caption_gan.training.contrastive.wrong_words import MINIMUM_COUNT, WordReplacer


@pytest.mark.parametrize("name", SYNTHETIC)
def test_one_fact_is_wrong(name):
    dataset, rng = SYNTHETIC[name](), random.Random(0)
    for _ in range(20):
        facts = dataset.sample_facts(rng)
        caption = dataset.caption(facts, rng)
        versions = list(one_fact_wrong(dataset, caption, facts, rng))
        assert versions
        true = dataset.grammar.parse(caption)
        for kind, version in versions:
            assert not dataset.is_true(version, facts)
            phrases = dataset.grammar.parse(version)
            pairs = [
                pair
                for one, other in zip(true, phrases, strict=True)
                for pair in zip(one, other, strict=True)
                if pair[0] != pair[1]
            ]
            # A swap changes two values, or none where both stand for a relation's two sides.
            assert len(pairs) == (2 if kind.startswith("swapped") else 1)


def test_kinds_of_facts_take_turns():
    dataset = SYNTHETIC["scenes"]()
    thing = {"kind": "ball", "colour": "red", "size": "large"}
    other = {"kind": "tree", "colour": "blue", "size": "small"}
    facts = {"background": "grass", "relation": "left", "things": [thing, other]}
    caption = "there is a large red ball left of a small blue tree on the grass."
    kinds = [kind for kind, _ in one_fact_wrong(dataset, caption, facts, random.Random(0))]
    swaps = {"swapped kind", "swapped colour", "swapped size"}
    assert set(kinds[:8]) == {"kind", "colour", "size", "relation", "background", *swaps}


def photographs() -> list[Example]:
    dogs = ("a brown dog runs on grass .", "a puppy runs on grass .")
    men = ("a tall man runs on sand .", "a person runs on sand .")
    cats = ("a black cat sleeps .", "a kitten sleeps .")
    count = MINIMUM_COUNT
    return [Example(str(n), b"", captions) for n in range(count) for captions in (dogs, men, cats)]


def test_a_word_is_replaced_by_one_that_fits_its_place_but_not_the_image():
    examples = photographs()
    replacer = WordReplacer(examples)
    found = set(replacer.replacements(examples[0], examples[0].captions[1], random.Random(0)))
    # `dog` is said of the same images as `puppy`; no `cat` runs; nothing runs on a `brown`.
    assert found == {"a person runs on grass .", "a puppy runs on sand ."}
    assert not set(replacer.replacements(examples[0], "zebras !", random.Random(0)))


def test_a_word_is_not_replaced_by_one_that_is_often_said_of_the_same_images():
    alone, both = ("a man runs .",), ("a man runs .", "a boy runs .")
    examples = [
        Example(str(number), b"", captions)
        for number in range(MINIMUM_COUNT)
        for captions in (alone, both, ("a dog runs .",))
    ]
    found = WordReplacer(examples).replacements(examples[0], alone[0], random.Random(0))
    assert set(found) == {"a dog runs ."}


def test_wrong_captions_by_source():
    examples = photographs()
    ((first, second), *_) = WrongCaptions("flickr", examples).of(examples[:1], 1, seed=0)
    assert [version.kind for version in second] == ["word"]
    assert len(first) == 1
    dataset, rng = SYNTHETIC["figures"](), random.Random(0)
    facts = dataset.sample_facts(rng)
    drawn = Example("0", b"", (dataset.caption(facts, rng),), json.dumps(facts))
    (((one, two),),) = WrongCaptions("figures", [drawn]).of([drawn], 2, seed=0)
    assert one.kind != two.kind
    assert not dataset.is_true(one.text, facts)
