"""Diversity of captions.

All functions take the raw captions of each image, one or several, and tokenize them as the quality
metrics do. Counts of distinct n-grams depend on the number of captions: twice as many captions have
fewer new n-grams, so compare only lists of the same size.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.bleu import COUNTS, bleu, count_matches_among
from caption_gan.metrics.metric import DistinctCount, Metric, ratio_of
from caption_gan.metrics.tokenization import tokenize

Captions = Sequence[Sequence[str]]


def distinct_captions(captions: Captions) -> DistinctCount:
    """The number of distinct captions divided by the number of captions, in [0, 1].

    Captions are equal if their tokens are; case and punctuation do not count. No captions give 0.
    """
    return DistinctCount(
        [[tokenize(caption) for caption in of_image] for of_image in captions], True
    )


def distinct_n(captions: Captions, n: int) -> DistinctCount:
    """The number of distinct n-grams divided by the number of n-grams, in [0, 1].

    Over all captions; an n-gram never spans two captions; 0 if there is none (Li et al., "A
    Diversity-Promoting Objective Function for Neural Conversation Models", 2016, there per number
    of words; Shetty et al., "Speaking the Same Language: Matching Machine to Human Captions by
    Adversarial Training", 2017, as Div-n over the captions of one image).

    Raises:
        CaptionGANError: If `n` is less than 1.
    """
    if n < 1:
        raise CaptionGANError(f"n: expected an n-gram length of at least 1, received {n}")
    return DistinctCount(list(_ngrams(captions, n)), True)


def vocabulary_size(captions: Captions) -> DistinctCount:
    """The number of distinct words in all captions together (Shetty et al., 2017)."""
    return DistinctCount(list(_ngrams(captions, 1)), False)


def mbleu(captions: Captions) -> dict[str, Metric]:
    """Similarity among the captions sampled for one image: 1 identical, 0 nothing shared.

    Scores each caption with BLEU-n against the other captions of its image. The metric is the mean
    over the K sample positions of the corpus-level BLEU-n over images, as in Shetty et al. (2017),
    there mBleu, with pycocoevalcap's BLEU. (Zhu et al., "Texygen", 2018, call the analogue over a
    whole list of texts Self-BLEU.)

    Args:
        captions: K captions for each image; K is the same for all images.

    Returns:
        `mBLEU-1` to `mBLEU-4`.

    Raises:
        CaptionGANError: If there is no image, or K is less than 2 or differs between images.
    """
    sizes = {len(of_image) for of_image in captions}
    if len(sizes) != 1 or min(sizes) < 2:
        raise CaptionGANError(
            "captions: expected the same number of captions for each image, at least two; "
            f"received the numbers {sorted(sizes)}"
        )
    size = sizes.pop()
    texts = [[tokenize(caption) for caption in of_image] for of_image in captions]
    per_image = np.stack([count_matches_among(of_image) for of_image in texts])  # [N, 10 K]

    def of_order(n: int) -> Metric:
        def mean(sums: np.ndarray) -> np.ndarray:
            sums = sums.reshape(*sums.shape[:-1], size, COUNTS)
            return bleu(sums)[..., n - 1].mean(axis=-1)

        return Metric(per_image, mean)

    return {f"mBLEU-{n}": of_order(n) for n in range(1, 5)}


def novel_captions(captions: Captions, training: Iterable[str]) -> Metric:
    """The share of captions that equal no training caption, in [0, 1].

    Case and punctuation do not count; no captions give 0 (Shetty et al., 2017, "% novel").
    """
    seen = {tokenize(caption) for caption in training}
    novel = [sum(tokenize(caption) not in seen for caption in of_image) for of_image in captions]
    return ratio_of(novel, [len(of_image) for of_image in captions])


def novel_ngrams(captions: Captions, training: Iterable[str], n: int) -> Metric:
    """The share of n-grams that occur in no training caption, in [0, 1]; 0 if there is none.

    An n-gram counts as often as it occurs in the captions.
    """
    generated = list(_ngrams(captions, n))
    candidates = {ngram for of_image in generated for ngram in of_image}
    # Keeps only the training n-grams that occur in the captions: all of them take too much memory.
    seen = {
        ngram
        for ngrams in _ngrams([[caption] for caption in training], n)
        for ngram in ngrams
        if ngram in candidates
    }
    novel = [sum(ngram not in seen for ngram in of_image) for of_image in generated]
    return ratio_of(novel, [len(of_image) for of_image in generated])


def mean_length(captions: Captions) -> Metric:
    """The mean number of words per caption, punctuation not counted; 0 for no captions."""
    lengths = [sum(map(len, of_image)) for of_image in _words(captions)]
    return ratio_of(lengths, [len(of_image) for of_image in captions])


def _words(captions: Captions) -> Iterator[list[list[str]]]:
    """Yields the words of each caption, image by image."""
    return ([tokenize(caption).split() for caption in of_image] for of_image in captions)


def _ngrams(captions: Captions, n: int) -> Iterator[list[tuple[str, ...]]]:
    """Yields the n-grams of all captions of an image, image by image."""
    for of_image in _words(captions):
        yield [
            tuple(words[start : start + n])
            for words in of_image
            for start in range(len(words) - n + 1)
        ]
