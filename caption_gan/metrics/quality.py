"""Agreement of captions with reference captions: BLEU, ROUGE-L and CIDEr.

The scorers are pycocoevalcap's, which the literature on COCO reports. The tokens come from
`caption_gan.metrics.tokenization`, which gives the same scores without Java.
"""

from collections.abc import Iterator, Mapping, Sequence

from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.bleu import bleu, count_matches
from caption_gan.metrics.metric import Metric, mean_of
from caption_gan.metrics.tokenization import tokenize


def quality(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, Metric]:
    """Scores one caption per image against its references, over the whole corpus.

    * `BLEU-1` .. `BLEU-4`: geometric mean of the clipped precisions of 1- to n-grams pooled over
      all captions, times the brevity penalty against the length of the closest reference
      (Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002).
      An order without a match counts as zero. Leaving it out of the mean would reward captions
      that repeat one word. In [0, 1].
    * `ROUGE-L`: mean over images of the F-measure (beta 1.2) of the longest common subsequence,
      with the best precision and the best recall over all references (Lin, "ROUGE: A Package for
      Automatic Evaluation of Summaries", 2004). In [0, 1].
    * `CIDEr`: see `per_image_cider`; the mean over images. In [0, 10].

    As in pycocoevalcap, an empty caption scores zero, except that an empty reference gives it a
    ROUGE-L of 1.

    Args:
        captions: Raw text of each image's caption, by image id.
        references: Raw text of each image's references, by the same ids.

    Returns:
        The six metrics by name: `BLEU-1`, `BLEU-2`, `BLEU-3`, `BLEU-4`, `ROUGE-L`, `CIDEr`.

    Raises:
        CaptionGANError: If there is no image, the ids differ, or an image has no reference that
            contains a word.
    """
    candidates, targets = tokenize_all(captions, references)
    counts = count_matches([text for (text,) in candidates.values()], list(targets.values()))

    def of_order(n: int) -> Metric:
        return Metric(counts, lambda sums: bleu(sums)[..., n - 1])

    _, rouge = Rouge().compute_score(targets, candidates)
    return {f"BLEU-{n}": of_order(n) for n in range(1, 5)} | {
        "ROUGE-L": mean_of(rouge),
        "CIDEr": mean_of(list(_cider(candidates, targets).values())),
    }


def per_image_cider(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """CIDEr of each image: the consensus of its caption with its references.

    Ten times the mean over 1- to 4-grams and references of the cosine similarity of TF-IDF
    vectors (Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", 2015).
    As in coco-caption and pycocoevalcap, this is the paper's CIDEr-D: n-gram counts are clipped
    to those of the reference, and a Gaussian (sigma 6) penalises a difference in length. Document
    frequencies come from the references given here, so the score of an image depends on the other
    images: compare only scores over the same set. An n-gram that occurs in the references of all
    images weighs log(1) = 0. With a single image all weights are 0, and therefore the score is 0
    by definition, whatever the caption says.

    Args:
        captions: Raw text of each image's caption, by image id.
        references: Raw text of each image's references, by the same ids.

    Returns:
        Scores in [0, 10] by image id, in the order of `captions`.

    Raises:
        CaptionGANError: If there is no image, the ids differ, or an image has no reference that
            contains a word.
    """
    return _cider(*tokenize_all(captions, references))


def why_cider_is_zero(references: Mapping[str, Sequence[str]]) -> str | None:
    """Returns why CIDEr is 0 for all captions of images with these references; None if it is not.

    An n-gram that occurs in the references of all images weighs log(1) = 0.
    """
    if len(references) == 1:
        return "CIDEr is 0 by definition for a single image, whatever its caption"
    ngrams = ({ngram for text in texts for ngram in _ngrams(text)} for texts in references.values())
    first = next(ngrams, set())
    if any(of_image != first for of_image in ngrams):
        return None
    return (
        "CIDEr is 0 by definition, whatever the captions: all images have references of the same "
        "words, so no word tells one image from another"
    )


def _ngrams(text: str) -> Iterator[tuple[str, ...]]:
    """Yields the n-grams that CIDEr counts."""
    words = tokenize(text).split()
    return (
        tuple(words[start : start + n]) for n in range(1, 5) for start in range(len(words) - n + 1)
    )


def _cider(
    candidates: Mapping[str, list[str]], targets: Mapping[str, list[str]]
) -> dict[str, float]:
    _, scores = Cider().compute_score(targets, candidates)
    return {image_id: float(score) for image_id, score in zip(candidates, scores, strict=True)}


def tokenize_all(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Checks and tokenizes captions and references.

    Args:
        captions: Raw text of each image's caption, by image id.
        references: Raw text of each image's references, by the same ids.

    Returns:
        Candidates and targets in pycocoevalcap's form, both in the order of `captions`.

    Raises:
        CaptionGANError: If there is no image, the ids differ, or an image has no reference that
            contains a word.
    """
    if not captions:
        raise CaptionGANError("captions: expected at least one image, received none")
    _expect_ids(captions, references, "no reference for image")
    _expect_ids(references, captions, "no caption for image")
    candidates = {image_id: [tokenize(caption)] for image_id, caption in captions.items()}
    targets = {}
    for image_id in captions:
        texts = references[image_id]
        # A string is a sequence too: each of its letters would pass for a reference.
        targets[image_id] = [] if isinstance(texts, str) else [tokenize(text) for text in texts]
        if not any(targets[image_id]):
            raise CaptionGANError(
                "references: expected a list of texts, at least one of which contains a word, "
                f"for image {image_id!r}; received {texts!r}"
            )
    return candidates, targets


def _expect_ids(wanted: Mapping[str, object], given: Mapping[str, object], problem: str) -> None:
    missing = [image_id for image_id in wanted if image_id not in given]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise CaptionGANError(
            f"captions and references must have the same image ids: {problem} "
            f"{missing[0]!r}{others}"
        )
