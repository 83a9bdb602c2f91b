"""Data sets that are drawn rather than downloaded.

A world invents facts, draws an image of them and words them. Images and captions follow from the
seed, the split and the position alone, so any machine makes the same data.
"""

import io
import json
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Protocol

from PIL import Image

from caption_gan.data.example import Example
from caption_gan.data.synthetic.grammar import Grammar


class SyntheticDataset(Protocol):
    """What a generated data set is made of; `figures.py` and `scenes.py` each have one."""

    name: str
    grammar: Grammar

    def invent(self, rng: random.Random) -> Any:
        """Returns facts: a (nested) dictionary of what JSON can hold."""

    def draw(self, facts: Any, rng: random.Random) -> Image.Image:
        """Returns an RGB picture in which the facts can be seen; `rng` varies the looks."""

    def caption(self, facts: Any, rng: random.Random) -> str:
        """Words some of the facts."""

    def is_true(self, caption: str, facts: Any) -> bool:
        """Whether the caption parses and each of its statements holds."""


@dataclass(frozen=True)
class SyntheticSource:
    """A `SyntheticDataset` as a source of examples.

    Args:
        world: What to draw.
        images_of_split: Number of images of each split.
        captions_per_image: Number of captions an image; they are distinct in wording as far as
            the world allows.
        seed: Another seed gives another data set of the same kind.
        processes: Number of processes that draw.
    """

    dataset: SyntheticDataset
    images_of_split: dict[str, int]
    captions_per_image: int = 5
    seed: int = 0
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)

    @property
    def fingerprint(self) -> Any:
        return [self.dataset.name, self.images_of_split, self.captions_per_image, self.seed]

    def examples(self, split: str, positions: range) -> Iterator[Example]:
        """Yields the split's examples at these positions, in order."""
        # "fork" starts at once, where "spawn" first imports the whole program, TensorFlow included.
        # The children draw and nothing else, so that they never miss TensorFlow's threads.
        with ProcessPoolExecutor(
            self.processes,
            mp_context=get_context("fork"),
            # Ctrl-C is the parent's to answer; it ends the pool.
            initializer=signal.signal,
            initargs=(signal.SIGINT, signal.SIG_IGN),
        ) as pool:
            yield from pool.map(self.example, [split] * len(positions), positions, chunksize=64)

    def example(self, split: str, index: int) -> Example:
        """Returns one example."""
        rng = random.Random(f"{self.dataset.name}/{self.seed}/{split}/{index}")
        facts = self.dataset.invent(rng)
        stream = io.BytesIO()
        self.dataset.draw(facts, rng).save(stream, format="PNG")
        captions: list[str] = []
        for _ in range(4 * self.captions_per_image):
            caption = self.dataset.caption(facts, rng)
            if caption not in captions:
                captions.append(caption)
            if len(captions) == self.captions_per_image:
                break
        return Example(
            image_id=f"{split}-{index:06d}",
            image=stream.getvalue(),
            captions=tuple(captions),
            facts=json.dumps(facts),
        )
