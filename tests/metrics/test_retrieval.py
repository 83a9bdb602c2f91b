"""Retrieval both ways, by hand."""

import numpy as np
import pytest

from caption_gan.metrics.retrieval import retrieval_both_ways

IMAGES = np.eye(3)


def test_ranks_by_hand():
    # Two captions of image 0 and one of each other image. The second one is nearer to image 1, the
    # last one nearer to both other images.
    texts = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.0, 1.0, 0.0], [0.5, 0.4, 0.1]])
    scores = retrieval_both_ways(IMAGES, texts, np.array([0, 0, 1, 2]))
    assert scores["text_to_image/recall@1"] == 0.5  # Ranks 1, 2, 1, 3.
    assert scores["text_to_image/recall@5"] == 1
    assert scores["text_to_image/median_rank"] == 1.5
    # Image 0 finds its first caption first; image 2 has no other caption with a larger cosine.
    assert scores["image_to_text/recall@1"] == 1


def test_the_best_of_an_images_captions_counts():
    texts = np.array([[0.1, 0.9, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    scores = retrieval_both_ways(IMAGES, texts, np.array([0, 0, 1, 2]))
    assert scores["image_to_text/recall@1"] == pytest.approx(2 / 3)  # Image 1 prefers the first.
    assert scores["image_to_text/median_rank"] == 1


def test_equal_vectors_retrieve_nothing():
    texts = np.tile(IMAGES[:1], (3, 1))
    scores = retrieval_both_ways(np.tile(IMAGES[:1], (3, 1)), texts, np.arange(3))
    assert scores["text_to_image/recall@1"] == scores["image_to_text/recall@1"] == 0
    assert scores["text_to_image/median_rank"] == 3
