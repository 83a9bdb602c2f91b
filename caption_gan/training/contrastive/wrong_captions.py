"""Captions that are false of their image, as negatives and to measure with."""

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from caption_gan.data.example import Example
from caption_gan.data.sources.registry import SYNTHETIC
from caption_gan.data.synthetic.wrong_facts import one_fact_wrong
from caption_gan.training.contrastive.wrong_words import WordReplacer


@dataclass(frozen=True)
class WrongCaption:
    """A caption that is false of its image.

    Attributes:
        text: The caption.
        kind: What is wrong in it, such as `colour`.
    """

    text: str
    kind: str


class WrongCaptions:
    """Changes captions so that one fact is wrong, or one word where facts are not known.

    Args:
        source: The layout, `data.source`.
        training: The training images, from whose captions words are taken.
    """

    def __init__(self, source: str, training: Sequence[Example]):
        self.dataset = SYNTHETIC[source]() if source in SYNTHETIC else None
        self.replacer = None if self.dataset else WordReplacer(training)

    def of(
        self, examples: Sequence[Example], count: int, seed: int
    ) -> list[list[list[WrongCaption]]]:
        """Up to `count` wrong versions of each caption of each image."""
        rng = random.Random(seed)
        return [
            [
                list(itertools.islice(self._versions(example, caption, rng), count))
                for caption in example.captions
            ]
            for example in examples
        ]

    def _versions(
        self, example: Example, caption: str, rng: random.Random
    ) -> Iterator[WrongCaption]:
        if self.dataset is not None:
            facts = json.loads(example.facts)
            for kind, text in one_fact_wrong(self.dataset, caption, facts, rng):
                yield WrongCaption(text, kind)
        elif self.replacer is not None:
            for text in self.replacer.replacements(example, caption, rng):
                yield WrongCaption(text, "word")
