"""Captions of drawn images in which one fact is wrong."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

from caption_gan.data.synthetic.dataset import SyntheticDataset


def one_fact_wrong(
    dataset: SyntheticDataset, caption: str, facts: Any, rng: random.Random
) -> Iterator[tuple[str, str]]:
    """Yields false captions that differ from a true one in one fact.

    Kinds of facts take turns: there are many other colours, but only one swap of the colours.

    Args:
        dataset: What the image is drawn by.
        caption: A caption of it.
        facts: What is true of it.
        rng: Chooses wordings and the order.

    Yields:
        What is wrong, such as `colour` or `swapped colour`, and the caption.
    """
    by_kind: dict[str, list[str]] = {}
    for kind, varied in dataset.grammar.variations(caption, rng):
        by_kind.setdefault(kind, []).append(varied)
    for same_turn in itertools.zip_longest(*by_kind.values()):
        for kind, candidate in zip(by_kind, same_turn, strict=True):
            # Other words can be true, too, such as another size where the image has both.
            if candidate is not None and not dataset.is_true(candidate, facts):
                yield kind, candidate
