"""How varied captions are, and whether a generator has collapsed onto a few words.

Every function takes raw captions and splits them as the quality scores do. Figures are of the
captions given: a list twice as long has fewer new n-grams, so compare lists of one size only.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from pycocoevalcap.bleu.bleu import Bleu

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.tokenization import tokenize


def repeated_token_rate(captions: Sequence[str]) -> float:
    """Returns the share of tokens that equal the token just before them, in [0, 1].

    Over all captions: pairs of equal neighbours divided by pairs of neighbours, pairs never
    crossing from one caption to the next. A first token has none before it and is not counted, so
    `a a a a` gives 1 and `a dog and a dog` gives 0; 0 where there is no pair. A generator
    that has collapsed onto one word approaches 1. A figure of this project's own.
    """
    repeated, pairs = 0, 0
    for tokens in _tokens(captions):
        pairs += max(len(tokens) - 1, 0)
        repeated += sum(a == b for a, b in pairwise(tokens))
    return _share(repeated, pairs)


def distinct_share(captions: Sequence[str]) -> float:
    """Returns the number of distinct captions divided by the number of captions, in [0, 1].

    Captions are equal when their words are: case and punctuation do not count. 0 for none.
    """
    return _share(len({tokenize(caption) for caption in captions}), len(captions))


def distinct_n(captions: Sequence[str], n: int) -> float:
    """Returns the number of distinct n-grams divided by the number of n-grams, in [0, 1].

    Over the whole list, n-grams never crossing from one caption to the next; 0 where there is
    none (Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models",
    2016, there per number of words; Shetty et al., "Speaking the Same Language: Matching Machine
    to Human Captions by Adversarial Training", 2017, as Div-n over an image's captions).

    Raises:
        CaptionGANError: If `n` is less than 1.
    """
    if n < 1:
        raise CaptionGANError(f"n: expected a length of n-grams of at least 1, received {n}")
    ngrams = [
        tuple(tokens[start : start + n])
        for tokens in _tokens(captions)
        for start in range(len(tokens) - n + 1)
    ]
    return _share(len(set(ngrams)), len(ngrams))


def vocabulary_size(captions: Sequence[str]) -> int:
    """Returns the number of distinct words in all captions together (Shetty et al., 2017)."""
    return len({token for tokens in _tokens(captions) for token in tokens})


def mbleu(samples: Sequence[Sequence[str]], n: int = 4) -> float:
    """Returns how alike the captions sampled for one image are: 1 identical, 0 nothing shared.

    Each caption is scored with BLEU-n against the other captions of its image; what is returned
    is the mean over the position within the K samples of the corpus-level BLEU-n over images, as
    in Shetty et al. (2017), there mBleu; pycocoevalcap's BLEU. (Zhu et al., "Texygen", 2018,
    call the like over a whole list of texts Self-BLEU.)

    Args:
        samples: For each image the K captions sampled for it, K being the same for all images.
        n: Longest n-gram, 1 to 4.

    Raises:
        CaptionGANError: If there is no image, K is less than 2 or differs, or `n` is out of range.
    """
    if not 1 <= n <= 4:
        raise CaptionGANError(f"n: expected a length of n-grams from 1 to 4, received {n}")
    sizes = {len(captions) for captions in samples}
    if len(sizes) != 1 or min(sizes) < 2:
        raise CaptionGANError(
            "samples: expected for every image the same number of captions, at least two; "
            f"received the numbers {sorted(sizes)}"
        )
    tokenized = [[tokenize(caption) for caption in captions] for captions in samples]
    scores = []
    for position in range(sizes.pop()):
        candidates = {image: [texts[position]] for image, texts in enumerate(tokenized)}
        others = {
            image: texts[:position] + texts[position + 1 :] for image, texts in enumerate(tokenized)
        }
        bleu, _ = Bleu(n).compute_score(others, candidates, verbose=0)
        scores.append(bleu[n - 1])
    return float(sum(scores) / len(scores))


def novel_share(captions: Sequence[str], training_captions: Collection[str]) -> float:
    """Returns the share of captions that no training caption equals word for word, in [0, 1].

    Case and punctuation do not count; 0 for no captions (Shetty et al., 2017, "% novel").
    """
    known = {tokenize(caption) for caption in training_captions}
    return _share(sum(tokenize(caption) not in known for caption in captions), len(captions))


def mean_length(captions: Sequence[str]) -> float:
    """Returns the mean number of words of a caption, punctuation not counted; 0 for none."""
    return _share(sum(len(tokens) for tokens in _tokens(captions)), len(captions))


def _tokens(captions: Sequence[str]) -> Iterator[list[str]]:
    return (tokenize(caption).split() for caption in captions)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
