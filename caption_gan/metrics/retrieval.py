"""Retrieval both ways: images by captions and captions by images, by the cosine of their vectors.

N images, M captions, S size of vectors.
"""

import numpy as np

RECALLS = (1, 5, 10)
_BLOCK = 512  # Rows at a time: 160 MB of similarities for 40,000 columns.


def retrieval_both_ways(
    images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray
) -> dict[str, float]:
    """Recalls and median ranks (Hodosh et al., 2013).

    A caption's rank is that of its image among all images; an image's rank is that of the best of
    its captions among all captions. Ties rank before, so that equal vectors retrieve nothing.

    Args:
        images: Vectors [N, S] of length 1.
        texts: Vectors [M, S] of length 1.
        image_of_text: The image of each caption, [M].

    Returns:
        `text_to_image/recall@1` and so on, and `median_rank`; the same for `image_to_text`.
    """
    own = np.einsum("ms,ms->m", texts, images[image_of_text])  # [M]
    text_ranks = _ranks(texts, images, own)
    best = np.full(len(images), -np.inf)
    np.maximum.at(best, image_of_text, own)
    image_ranks = _ranks(images, texts, best)
    metrics = {}
    for name, ranks in (("text_to_image", text_ranks), ("image_to_text", image_ranks)):
        for count in RECALLS:
            metrics[f"{name}/recall@{count}"] = float(np.mean(ranks <= count))
        metrics[f"{name}/median_rank"] = float(np.median(ranks))
    return metrics


def _ranks(queries: np.ndarray, candidates: np.ndarray, own: np.ndarray) -> np.ndarray:
    """How many candidates are at least as similar to each query as its own one."""
    ranks = np.empty(len(queries))
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarity = queries[block] @ candidates.T
        ranks[block] = np.sum(similarity >= own[block, None] - 1e-6, axis=1)
    return ranks
