"""How varied captions are, and whether a generator has collapsed onto a few words.

Every function takes the raw captions of each image, one or several of them, and splits them as the
quality scores do. Metrics of distinct things are of the captions given: twice as many captions have
fewer new n-grams, so compare lists of one size only.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.bleu import COUNTS, bleu, count_matches
from caption_gan.metrics.metric import DistinctCount, Metric, ratio_of
from caption_gan.metrics.tokenization import tokenize

Captions = Sequence[Sequence[str]]


def repeated_token_rate(captions: Captions) -> Metric:
    """The share of tokens that equal the token just before them, in [0, 1].

    Over all captions: pairs of equal neighbours divided by pairs of neighbours, pairs never
    crossing from one caption to the next. A first token has none before it and is not counted, so
    `a a a a` gives 1 and `a dog and a dog` gives 0; 0 where there is no pair. A generator
    that has collapsed onto one word approaches 1. A metric of this project's own.
    """
    pairs = [[pair for words in some for pair in pairwise(words)] for some in _words(captions)]
    repeated = [sum(first == second for first, second in some) for some in pairs]
    return ratio_of(repeated, [len(some) for some in pairs])


def distinct_captions(captions: Captions) -> DistinctCount:
    """The number of distinct captions divided by the number of captions, in [0, 1].

    Captions are equal when their words are: case and punctuation do not count. 0 for none.
    """
    return DistinctCount([[tokenize(caption) for caption in some] for some in captions], True)


def distinct_n(captions: Captions, n: int) -> DistinctCount:
    """The number of distinct n-grams divided by the number of n-grams, in [0, 1].

    Over all captions, n-grams never crossing from one to the next; 0 where there is none (Li et
    al., "A Diversity-Promoting Objective Function for Neural Conversation Models", 2016, there per
    number of words; Shetty et al., "Speaking the Same Language: Matching Machine to Human Captions
    by Adversarial Training", 2017, as Div-n over an image's captions).

    Raises:
        CaptionGANError: If `n` is less than 1.
    """
    if n < 1:
        raise CaptionGANError(f"n: expected a length of n-grams of at least 1, received {n}")
    return DistinctCount(list(_ngrams(captions, n)), True)


def vocabulary_size(captions: Captions) -> DistinctCount:
    """The number of distinct words in all captions together (Shetty et al., 2017)."""
    return DistinctCount(list(_ngrams(captions, 1)), False)


def mbleu(captions: Captions) -> dict[str, Metric]:
    """How alike the captions sampled for one image are: 1 identical, 0 nothing shared.

    Each caption is scored with BLEU-n against the other captions of its image; a metric is the mean
    over the position within the K samples of the corpus-level BLEU-n over images, as in Shetty et
    al. (2017), there mBleu; pycocoevalcap's BLEU. (Zhu et al., "Texygen", 2018, call the like over
    a whole list of texts Self-BLEU.)

    Args:
        captions: For each image K captions, K being the same for all images.

    Returns:
        `mBLEU-1` to `mBLEU-4`.

    Raises:
        CaptionGANError: If there is no image, or K is less than 2 or differs.
    """
    sizes = {len(some) for some in captions}
    if len(sizes) != 1 or min(sizes) < 2:
        raise CaptionGANError(
            "captions: expected for every image the same number of captions, at least two; "
            f"received the numbers {sorted(sizes)}"
        )
    size = sizes.pop()
    texts = [[tokenize(caption) for caption in some] for some in captions]
    counts = [
        count_matches(
            [some[position] for some in texts],
            [some[:position] + some[position + 1 :] for some in texts],
        )
        for position in range(size)
    ]
    per_image = np.concatenate(counts, axis=-1)  # [N, 10 K]

    def of_order(n: int) -> Metric:
        def mean(sums: np.ndarray) -> np.ndarray:
            sums = sums.reshape(*sums.shape[:-1], size, COUNTS)
            return bleu(sums)[..., n - 1].mean(axis=-1)

        return Metric(per_image, mean)

    return {f"mBLEU-{n}": of_order(n) for n in range(1, 5)}


def novel_captions(captions: Captions, training: Iterable[str]) -> Metric:
    """The share of captions that no training caption equals word for word, in [0, 1].

    Case and punctuation do not count; 0 for no captions (Shetty et al., 2017, "% novel").
    """
    known = {tokenize(caption) for caption in training}
    novel = [sum(tokenize(caption) not in known for caption in some) for some in captions]
    return ratio_of(novel, [len(some) for some in captions])


def novel_ngrams(captions: Captions, training: Iterable[str], n: int) -> Metric:
    """The share of n-grams that stand in no training caption, in [0, 1]; 0 for none.

    Each n-gram counts as often as it is written.
    """
    written = list(_ngrams(captions, n))
    of_interest = {ngram for some in written for ngram in some}
    # Those of the training captions are too many to hold.
    known = {
        ngram
        for ngrams in _ngrams([[caption] for caption in training], n)
        for ngram in ngrams
        if ngram in of_interest
    }
    novel = [sum(ngram not in known for ngram in some) for some in written]
    return ratio_of(novel, [len(some) for some in written])


def mean_length(captions: Captions) -> Metric:
    """The mean number of words of a caption, punctuation not counted; 0 for none."""
    lengths = [sum(map(len, some)) for some in _words(captions)]
    return ratio_of(lengths, [len(some) for some in captions])


def _words(captions: Captions) -> Iterator[list[list[str]]]:
    """The words of each caption of each image."""
    return ([tokenize(caption).split() for caption in some] for some in captions)


def _ngrams(captions: Captions, n: int) -> Iterator[list[tuple[str, ...]]]:
    """The n-grams of each image."""
    for some in _words(captions):
        yield [
            tuple(words[start : start + n]) for words in some for start in range(len(words) - n + 1)
        ]
