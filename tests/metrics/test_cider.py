"""CIDEr of many captions of an image equals pycocoevalcap's of one caption per image."""

import numpy as np
import pytest

from caption_gan.metrics.cider import CiderScorer
from caption_gan.metrics.quality import per_image_cider

WORDS = ["a", "dog", "cat", "runs", "on", "the", "red", "sofa"]


def texts(seed: int, count: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(count)]


def test_it_equals_pycocoevalcap():
    references = {f"image {number}": texts(number, 1 + number % 4) for number in range(20)}
    scorer = CiderScorer(references)
    for seed in (100, 200):
        captions = dict(zip(references, texts(seed, 20), strict=True))
        scores = {image_id: scorer.score(image_id, text) for image_id, text in captions.items()}
        assert scores == pytest.approx(per_image_cider(captions, references), abs=1e-9)
        assert max(scores.values()) > 0.1


def test_empty_captions_and_a_single_image():
    scorer = CiderScorer({"a": ["a dog runs"], "b": ["the red cat"]})
    assert scorer.score("a", "") == 0
    assert scorer.score("a", "A dog runs.") == pytest.approx(7.5)  # No 4-grams: 3 orders of 4.
    assert CiderScorer({"a": ["a dog runs"]}).score("a", "a dog runs") == 0
