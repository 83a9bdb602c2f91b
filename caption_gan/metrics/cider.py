"""CIDEr of many captions against the same references, whose vectors are computed once."""

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from caption_gan.metrics.tokenization import tokenize

_ORDERS = 4  # n-grams of 1 to 4 words.
_SIGMA = 6.0  # Of the Gaussian over differences in length.

Ngram = tuple[str, ...]


class _Text(NamedTuple):
    """A text as CIDEr sees it.

    Attributes:
        weights: TF-IDF weight of each n-gram.
        norms: Euclidean norm of the weights of each order.
        length: Number of 2-grams, as coco-caption measures length.
    """

    weights: dict[Ngram, float]
    norms: list[float]
    length: int


class CiderScorer:
    """The CIDEr of `caption_gan.metrics.quality.per_image_cider`, for any number of captions.

    pycocoevalcap's scorer takes one caption per image and computes the references' vectors anew in
    each call, which is nearly all of its time where many samples of an image are scored.

    Args:
        references: Raw text of each image's references, by image id; they give the document
            frequencies.
    """

    def __init__(self, references: Mapping[str, Sequence[str]]):
        self._ngrams = {
            image_id: [_count_ngrams(text) for text in texts]
            for image_id, texts in references.items()
        }
        frequencies = Counter(
            ngram
            for counts in self._ngrams.values()
            for ngram in {ngram for of_text in counts for ngram in of_text}
        )
        # Inverse document frequencies; an n-gram of no reference counts as one of a single image.
        self._unseen = math.log(len(references))
        self._rarity = {
            ngram: self._unseen - math.log(count) for ngram, count in frequencies.items()
        }
        self._references: dict[str, list[_Text]] = {}
        # Samples at a low temperature are often the same.
        self.score = functools.cache(self._score)

    def _score(self, image_id: str, caption: str) -> float:
        """CIDEr of a caption of the image, in [0, 10]."""
        if image_id not in self._references:
            self._references[image_id] = [self._text(each) for each in self._ngrams[image_id]]
        references = self._references[image_id]
        candidate = self._text(_count_ngrams(caption))
        total = sum(_similarity(candidate, reference) for reference in references)
        return 10 * total / _ORDERS / len(references)

    def _text(self, counts: Mapping[Ngram, int]) -> _Text:
        weights, squares, length = {}, [0.0] * _ORDERS, 0
        for ngram, count in counts.items():
            weight = count * self._rarity.get(ngram, self._unseen)
            weights[ngram] = weight
            squares[len(ngram) - 1] += weight**2
            length += count * (len(ngram) == 2)
        return _Text(weights, [math.sqrt(square) for square in squares], length)


def _count_ngrams(text: str) -> Counter[Ngram]:
    words = tokenize(text).split()
    return Counter(
        tuple(words[start : start + n])
        for n in range(1, _ORDERS + 1)
        for start in range(len(words) - n + 1)
    )


def _similarity(candidate: _Text, reference: _Text) -> float:
    """Sum over the orders of the clipped cosine, times the Gaussian of the lengths."""
    products = [0.0] * _ORDERS
    for ngram in candidate.weights.keys() & reference.weights.keys():
        weight = reference.weights[ngram]
        products[len(ngram) - 1] += min(candidate.weights[ngram], weight) * weight
    norms = [a * b for a, b in zip(candidate.norms, reference.norms, strict=True)]
    cosines = sum(product / norm for product, norm in zip(products, norms, strict=True) if norm)
    return cosines * math.exp(-((candidate.length - reference.length) ** 2) / (2 * _SIGMA**2))
