"""A step's data for the objectives with a critic.

K captions an image, T time.
"""

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID
from tests.captioners import REGIONS, VOCABULARY

LENGTH = 6


@pytest.fixture(scope="session")
def step_batch() -> dict[str, tf.Tensor]:
    """Eight images with two captions each."""
    rng = np.random.default_rng(0)
    token_ids = rng.integers(4, VOCABULARY, size=(8, 2, LENGTH))
    token_ids[..., 0] = START_ID
    for number, row in enumerate(token_ids.reshape(-1, LENGTH)):
        end = 2 + number % (LENGTH - 2)
        row[end:] = PAD_ID
        row[end] = END_ID
    regions = rng.normal(size=(8, *REGIONS)).astype(np.float32)
    return {"regions": tf.constant(regions), "token_ids": tf.constant(token_ids, tf.int32)}
