"""Grounding: whether captions describe their own images, by words and by dual-encoder embeddings.

A captioner that ignores the image can score well with words that fit any image.

N images, D embedding size, B block of images.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from textblob.en import parser
from textblob.en.inflect import singularize

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.metric import Metric, mean_of, ratio_of
from caption_gan.metrics.quality import per_image_cider, tokenize_all


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Nouns that place, count or introduce an object and are not themselves visible objects.
_NO_OBJECTS = _words(
    "front side top back bottom middle center centre end edge background foreground left right "
    "distance way group bunch couple pair lot number kind type sort piece variety half image "
    "picture photo photograph closeup close-up view scene shot day time air midair whilst other "
    "something someone somebody anything anyone nothing everything everyone thing"
)
# The nouns in -ing that are objects. All others are activities, which only some people mention.
_OBJECTS_IN_ING = _words(
    "building ceiling clothing drawing earring flooring icing king painting piercing pudding "
    "railing ring sling spring string swing wedding wing"
)
# Adjectives that place, count or compare: the image alone does not decide whether they hold.
_NO_ATTRIBUTES = _words(
    "next other past same such own many much more most less several few various different "
    "multiple single first second third last least mid full ready able nearby"
)
# textblob tags origins only if capitalised, and unknown hyphenated words as adjectives.
_TAGS = dict.fromkeys(
    _words("african american asian chinese german gold indian japanese mexican silver"), "JJ"
) | {"closeup": "NN", "net": "NN", "t-shirt": "NN", "t-shirts": "NNS", "top": "NN"}
_SINGULARS = {"christmas": "christmas", "lens": "lens", "shelves": "shelf", "ties": "tie"}

_ONE = _words("a an another each every this")
_SUBJECTS = _words("man woman boy girl child person kid guy lady dog cat player crowd")
_BEFORE_NOUN = _words("CC CD JJ NN NNS RB VB VBG VBN")
_TOLERANCE = 1e-6  # Encoders reproduce an embedding only to about this precision.
_BLOCK = 512  # Texts at a time: 160 MB of similarities for 40,000 images.

MENTIONS = ("object_recall", "object_precision", "attribute_recall", "attribute_precision")


def cider_drop(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], seed: int
) -> Metric:
    """The drop in CIDEr when captions are swapped between images; 0 if all captions are the same.

    The mean over images of `per_image_cider` of the image's own caption minus that of another
    image's caption. `seed` draws the swap uniformly from all derangements, permutations that move
    every caption. This metric is the project's own.

    Raises:
        CaptionGANError: As `per_image_cider`, or if there is a single image.
    """
    original = per_image_cider(captions, references)
    if len(captions) < 2:
        raise CaptionGANError(
            "captions: expected at least two images to swap captions between, received 1"
        )
    texts, identity = list(captions.values()), np.arange(len(captions))
    generator = np.random.default_rng(seed)
    # About one permutation in e is a derangement, whatever the number of images.
    while (permutation := generator.permutation(identity))[permutation == identity].size:
        pass
    swapped = {image_id: texts[i] for image_id, i in zip(captions, permutation, strict=True)}
    other = per_image_cider(swapped, references)
    return mean_of([original[image_id] - other[image_id] for image_id in captions])


def mentions(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, Metric]:
    """Recall and precision of the objects and attributes that captions mention.

    Objects are singular nouns and attributes are adjectives, as tagged by textblob (Brill, "A
    Simple Rule-Based Part of Speech Tagger", 1992) with corrections for captions. Words that only
    place, count or introduce something do not count, nor do activities in -ing. A word counts once
    per text. The tagger takes unknown words for nouns. Synonyms do not match: `man` does not
    mention a `person`.

    * `object_recall`, `attribute_recall`: of the words that at least two references of the image
      mention (or its only non-empty reference), the share that the caption mentions.
    * `object_precision`, `attribute_precision`: of the words that the caption mentions, the share
      that any reference of the image mentions. References are incomplete, so 1 - precision is an
      upper bound of the hallucination rate (Rohrbach et al., "Object Hallucination in Image
      Captioning", 2018, there for COCO's 80 objects and with synonyms).

    Counts are pooled over images; 0 if nothing is mentioned. Arguments and errors are those of
    `per_image_cider`.
    """
    candidates, targets = tokenize_all(captions, references)
    rows = []
    for image_id, (caption,) in candidates.items():
        by_reference = [objects_and_attributes(text) for text in targets[image_id] if text]
        for kind, in_caption in enumerate(objects_and_attributes(caption)):
            times = Counter(word for of_reference in by_reference for word in of_reference[kind])
            agreement = min(2, len(by_reference))
            agreed = {word for word, count in times.items() if count >= agreement}
            recalled, confirmed = in_caption & agreed, in_caption & times.keys()
            rows.append((len(recalled), len(agreed), len(confirmed), len(in_caption)))
    counts = np.array(rows).reshape(len(candidates), 2, 4).T
    metrics = {}
    for kind, name in enumerate(("object", "attribute")):
        recalled, agreed, confirmed, in_caption = counts[:, kind]  # [N] each
        metrics[f"{name}_recall"] = ratio_of(recalled, agreed)
        metrics[f"{name}_precision"] = ratio_of(confirmed, in_caption)
    return metrics


def retrieval(image_embeddings: np.ndarray, text_embeddings: np.ndarray) -> dict[str, Metric]:
    """Recall of retrieving each image by its caption, by the cosine of their embeddings.

    * `retrieval_recall@1`, `retrieval_recall@5`: the share of captions whose own image is among
      the 1 or 5 most similar (Hodosh et al., "Framing Image Description as a Ranking Task", 2013).
      Ties rank before the own image, so that identical embeddings retrieve nothing. The same
      caption for all images is at chance, k / N: compare only sets of the same size. Resamples
      draw captions; each is still ranked among all N images.
    * `retrieval_similarity`: mean cosine of a caption and its image, in [-1, 1] (Hessel et al.,
      "CLIPScore", 2021, there clipped at 0 and multiplied by 2.5).

    Args:
        image_embeddings: [N, D], of any length.
        text_embeddings: [N, D], of any length, in the same order.

    Raises:
        CaptionGANError: If the shapes differ, or an embedding is zero or not finite.
    """
    if image_embeddings.shape != text_embeddings.shape or image_embeddings.ndim != 2:
        raise CaptionGANError(
            "embeddings: expected two arrays of the same shape [images, size]; received images "
            f"{list(image_embeddings.shape)} and texts {list(text_embeddings.shape)}"
        )
    images, texts = _unit(image_embeddings, "image"), _unit(text_embeddings, "text")
    matching = np.sum(images * texts, axis=1)  # [N]
    ranks = np.empty(len(matching))
    for start in range(0, len(matching), _BLOCK):
        block = slice(start, start + _BLOCK)
        ranks_before = texts[block] @ images.T >= matching[block, None] - _TOLERANCE  # [B, N]
        ranks[block] = ranks_before.sum(axis=1)  # Counts the own image too: it ties with itself.
    recalls = {f"retrieval_recall@{k}": mean_of(ranks <= k) for k in (1, 5)}
    return {**recalls, "retrieval_similarity": mean_of(matching)}


@functools.lru_cache(maxsize=2**16)  # References are compared with many captions.
def objects_and_attributes(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the objects and the attributes that a tokenized text mentions."""
    words = [word for word in text.split() if word[0].isalpha()]
    tagged = list(zip(words, _tags(words), strict=True))
    objects = {_singular(word) for word, tag in tagged if tag.startswith("NN")}
    attributes = {word for word, tag in tagged if tag.startswith("JJ")}
    objects = {noun for noun in objects if not noun.endswith("ing") or noun in _OBJECTS_IN_ING}
    return frozenset(objects - _NO_OBJECTS), frozenset(attributes - _NO_ATTRIBUTES)


def _tags(words: Sequence[str]) -> list[str]:
    """Penn Treebank tags, corrected: a phrase after `a` is singular and ends in a noun."""
    tags = ["", *(_TAGS.get(word, tag) for word, tag in parser.find_tags(list(words))), ""]
    last, is_singular, after_and = "", False, False
    for i, word in enumerate(words, start=1):
        before, tag, after = tags[i - 1 : i + 2]
        has_subject = (before == "NN" and is_singular) or before == "PRP" or last in _SUBJECTS
        if word in _ONE:
            is_singular, after_and = True, last == "and"
        elif tag == "NNS" and has_subject:
            tags[i] = "VBZ"  # `a boy jumps`, `as it approaches`
        elif tag == "VB" and before in ("JJ", "NN") and is_singular and not after_and:
            tags[i] = "NN"  # `a bathroom sink`, but `a boy and a dog play`
        elif tag == "JJ" and before in ("DT", "JJ") and is_singular and after not in _BEFORE_NOUN:
            tags[i] = "NN"  # `an orange on a plate`
        is_singular = is_singular and tags[i] in ("CD", "DT", "JJ", "NN", "RB", "VBN")
        last = word
    return tags[1:-1]


@functools.cache
def _singular(word: str) -> str:
    """Returns the singular if it is a word: `canoe`, but not `glas` or `tenni`."""
    lexicon, shorter, singular = parser.lexicon, word.removesuffix("s"), singularize(word)
    if word in _SINGULARS or lexicon.get(shorter) == "NN":
        return _SINGULARS.get(word, shorter)
    if lexicon.get(singular, "NNS") != "NNS":
        return singular
    is_plural = word.endswith(("s", "men")) and not word.endswith(("is", "ss", "us"))
    return singular if is_plural and word not in lexicon else word


def _unit(embeddings: np.ndarray, what: str) -> np.ndarray:
    """Scales embeddings [N, D] to length 1, in double precision."""
    lengths = np.linalg.norm(embeddings.astype(float), axis=1, keepdims=True)  # [N, 1]
    wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if wrong.size:
        raise CaptionGANError(
            f"embeddings: expected finite numbers, not all zero; {what} {wrong[0]} has other values"
        )
    return embeddings / lengths
