"""Synthetic data sets: facts are sampled, drawn as an image and worded as captions.

An example depends only on the seed, the split and the position, so each machine generates the same
data.
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
    """A kind of synthetic images; implemented by `FiguresDataset` and `ScenesDataset`."""

    name: str
    grammar: Grammar

    def sample_facts(self, rng: random.Random) -> Any:
        """Returns the facts of a new image, a JSON-serializable dictionary."""

    def draw(self, facts: Any, rng: random.Random) -> Image.Image:
        """Returns an RGB image that shows the facts; `rng` varies everything else."""

    def caption(self, facts: Any, rng: random.Random) -> str:
        """Returns a caption that states some of the facts."""

    def is_true(self, caption: str, facts: Any) -> bool:
        """Whether the caption can be parsed and all its statements are true."""


@dataclass(frozen=True)
class SyntheticSource:
    """A `Source` of synthetic examples.

    Args:
        dataset: The kind of images.
        images_of_split: Number of images of each split.
        captions_per_image: Number of captions per image, all different. An image may have fewer if
            four times as many attempts do not give enough.
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

    def image_ids(self) -> Iterator[str]:
        """Yields the id of each image."""
        for split, images in self.images_of_split.items():
            yield from (_image_id(split, index) for index in range(images))

    def examples(self, split: str, positions: range) -> Iterator[Example]:
        """Yields the split's examples at these positions, in order."""
        # "fork" starts at once; "spawn" would import the whole program first, with TensorFlow. The
        # children only draw, so they do not need TensorFlow's threads, which a fork does not copy.
        with ProcessPoolExecutor(
            self.processes,
            mp_context=get_context("fork"),
            # The parent handles Ctrl-C and ends the pool.
            initializer=signal.signal,
            initargs=(signal.SIGINT, signal.SIG_IGN),
        ) as pool:
            yield from pool.map(self.example, [split] * len(positions), positions, chunksize=64)

    def example(self, split: str, index: int) -> Example:
        """Returns the example at one position of a split."""
        rng = random.Random(f"{self.dataset.name}/{self.seed}/{split}/{index}")
        facts = self.dataset.sample_facts(rng)
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
            image_id=_image_id(split, index),
            image=stream.getvalue(),
            captions=tuple(captions),
            facts=json.dumps(facts),
        )


def _image_id(split: str, index: int) -> str:
    return f"{split}-{index:06d}"
