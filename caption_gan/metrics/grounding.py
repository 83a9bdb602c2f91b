"""Whether captions are about their own images: by words, and by embeddings of a dual encoder.

A captioner that ignores the image can score well with words that fit any image.

N images, D embedding, B block.
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


# Nouns that place, count or introduce what is seen, and are not themselves seen.
_NO_OBJECTS = _words(
    "front side top back bottom middle center centre end edge background foreground left right "
    "distance way group bunch couple pair lot number kind type sort piece variety half image "
    "picture photo photograph closeup close-up view scene shot day time air midair whilst other "
    "something someone somebody anything anyone nothing everything everyone thing"
)
# Nouns in -ing are activities, which some people write and others do not, save these.
_THINGS_IN_ING = _words(
    "building ceiling clothing drawing earring flooring icing king painting piercing pudding "
    "railing ring sling spring string swing wedding wing"
)
# Adjectives that place, count or compare, which the image by itself does not make true.
_NO_ATTRIBUTES = _words(
    "next other past same such own many much more most less several few various different "
    "multiple single first second third last least mid full ready able nearby"
)
# The tagger knows origins with capital letters only, and takes unknown hyphens for adjectives.
_TAGS = dict.fromkeys(
    _words("african american asian chinese german gold indian japanese mexican silver"), "JJ"
) | {"closeup": "NN", "net": "NN", "t-shirt": "NN", "t-shirts": "NNS", "top": "NN"}
_SINGULARS = {"christmas": "christmas", "lens": "lens", "shelves": "shelf", "ties": "tie"}

_ONE = _words("a an another each every this")
_DOERS = _words("man woman boy girl child person kid guy lady dog cat player crowd")
_BEFORE_NOUN = _words("CC CD JJ NN NNS RB VB VBG VBN")
_LEAST_DIFFERENCE = 1e-6  # Encoders repeat an embedding to no more digits than this.
_BLOCK = 512  # Texts at a time: 160 MB for 40,000 images.


def cider_drop(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], seed: int
) -> Metric:
    """By how much CIDEr falls when captions are dealt to other images: 0 for the same everywhere.

    The mean over images of `per_image_cider` of the image's own caption less that of another
    image's, dealt by `seed` so that none keeps its own, every such way being as likely. A metric
    of this project's own.

    Raises:
        CaptionGANError: As `per_image_cider`; or if there is a single image.
    """
    own = per_image_cider(captions, references)
    if len(captions) < 2:
        raise CaptionGANError("captions: expected at least two images to deal between, received 1")
    texts, places = list(captions.values()), np.arange(len(captions))
    generator = np.random.default_rng(seed)
    # One permutation in e is a derangement, whatever the number of images.
    while (dealt := generator.permutation(places))[dealt == places].size:
        pass
    others = {image_id: texts[i] for image_id, i in zip(captions, dealt, strict=True)}
    left = per_image_cider(others, references)
    return mean_of([own[image_id] - left[image_id] for image_id in captions])


def named(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, Metric]:
    """What captions name of what people named in the image, and what they make up.

    Objects are nouns in the singular, attributes adjectives, as textblob's tagger has them (Brill,
    "A Simple Rule-Based Part of Speech Tagger", 1992), mended for captions; less those that only
    place, count or introduce, and less activities in -ing. A word counts once a text. Unknown
    words pass for nouns. Synonyms do not match: `man` does not name a `person`.

    * `object_recall`, `attribute_recall`: of those that two references of the image name, or its
      only reference with a word in it, the share that the caption names.
    * `object_precision`, `attribute_precision`: of those that the caption names, the share that
      any reference of the image names. As references leave things out, no more than one less this
      is hallucinated (Rohrbach et al., "Object Hallucination in Image Captioning", 2018, there for
      COCO's 80 objects and with synonyms).

    Pooled over images; 0 where nothing is named. The rest is as in `per_image_cider`.
    """
    candidates, targets = tokenize_all(captions, references)
    rows = []
    for image_id, (caption,) in candidates.items():
        by_reference = [_named_in(text) for text in targets[image_id] if text]
        for kind, said in enumerate(_named_in(caption)):
            times = Counter(thing for things in by_reference for thing in things[kind])
            agreed = min(2, len(by_reference))
            wanted = {thing for thing, count in times.items() if count >= agreed}
            rows.append((len(said & wanted), len(wanted), len(said & times.keys()), len(said)))
    counts = np.array(rows).reshape(len(candidates), 2, 4).T
    metrics = {}
    for kind, name in enumerate(("object", "attribute")):
        found, all_wanted, true, all_said = counts[:, kind]  # [N] each
        metrics[f"{name}_recall"] = ratio_of(found, all_wanted)
        metrics[f"{name}_precision"] = ratio_of(true, all_said)
    return metrics


def retrieval(image_embeddings: np.ndarray, text_embeddings: np.ndarray) -> dict[str, Metric]:
    """Whether a caption finds its own image among all images, by the cosine of embeddings.

    * `retrieval_recall@1`, `retrieval_recall@5`: the share of captions whose own image is among
      the 1 or 5 most similar (Hodosh et al., "Framing Image Description as a Ranking Task", 2013).
      Images as similar count before it, so that embeddings all alike find nothing. The same
      caption everywhere is at chance, k / N: compare sets of one size. Samples are of captions,
      ranked among all N images nonetheless.
    * `retrieval_similarity`: mean cosine of a caption and its image, in [-1, 1] (Hessel et al.,
      "CLIPScore", 2021, there clipped at 0 and times 2.5).

    Embeddings are [N, D], of any length, those of images and of texts in the same order.

    Raises:
        CaptionGANError: If the shapes differ, or an embedding is not finite or is zero.
    """
    if image_embeddings.shape != text_embeddings.shape or image_embeddings.ndim != 2:
        raise CaptionGANError(
            "embeddings: expected two arrays of one shape [images, size]; received images "
            f"{list(image_embeddings.shape)} and texts {list(text_embeddings.shape)}"
        )
    images, texts = _unit(image_embeddings, "image"), _unit(text_embeddings, "text")
    own = np.sum(images * texts, axis=1)  # [N]
    ranks = np.empty(len(own))
    for start in range(0, len(own), _BLOCK):
        block = slice(start, start + _BLOCK)
        is_before = texts[block] @ images.T >= own[block, None] - _LEAST_DIFFERENCE  # [B, N]
        ranks[block] = is_before.sum(axis=1)  # Its own image, which ties with itself, included.
    recalls = {f"retrieval_recall@{k}": mean_of(ranks <= k) for k in (1, 5)}
    return {**recalls, "retrieval_similarity": mean_of(own)}


def _named_in(text: str) -> tuple[set[str], set[str]]:
    """Objects and attributes that a tokenized text names."""
    words = [word for word in text.split() if word[0].isalpha()]
    tagged = list(zip(words, _tags(words), strict=True))
    objects = {_singular(word) for word, tag in tagged if tag.startswith("NN")}
    attributes = {word for word, tag in tagged if tag.startswith("JJ")}
    things = {noun for noun in objects if not noun.endswith("ing") or noun in _THINGS_IN_ING}
    return things - _NO_OBJECTS, attributes - _NO_ATTRIBUTES


def _tags(words: Sequence[str]) -> list[str]:
    """Penn Treebank tags; a phrase that `a` opens is singular, and ends in its noun."""
    tags = ["", *(_TAGS.get(word, tag) for word, tag in parser.find_tags(list(words))), ""]
    last, is_one, of_several = "", False, False
    for i, word in enumerate(words, start=1):
        before, tag, after = tags[i - 1 : i + 2]
        has_subject = (before == "NN" and is_one) or before == "PRP" or last in _DOERS
        if word in _ONE:
            is_one, of_several = True, last == "and"
        elif tag == "NNS" and has_subject:
            tags[i] = "VBZ"  # `a boy jumps`, `as it approaches`
        elif tag == "VB" and before in ("JJ", "NN") and is_one and not of_several:
            tags[i] = "NN"  # `a bathroom sink`, but `a boy and a dog play`
        elif tag == "JJ" and before in ("DT", "JJ") and is_one and after not in _BEFORE_NOUN:
            tags[i] = "NN"  # `an orange on a plate`
        is_one = is_one and tags[i] in ("CD", "DT", "JJ", "NN", "RB", "VBN")
        last = word
    return tags[1:-1]


@functools.cache
def _singular(word: str) -> str:
    """The singular, which must be a word: `glas` and `tenni` are none, `canoe` is."""
    lexicon, shorter, singular = parser.lexicon, word.removesuffix("s"), singularize(word)
    if word in _SINGULARS or lexicon.get(shorter) == "NN":
        return _SINGULARS.get(word, shorter)
    if lexicon.get(singular, "NNS") != "NNS":
        return singular
    is_plural = word.endswith(("s", "men")) and not word.endswith(("is", "ss", "us"))
    return singular if is_plural and word not in lexicon else word


def _unit(embeddings: np.ndarray, what: str) -> np.ndarray:
    """Scales to length 1, in double precision."""
    lengths = np.linalg.norm(embeddings.astype(float), axis=1, keepdims=True)  # [N, 1]
    wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if wrong.size:
        raise CaptionGANError(
            f"embeddings: expected finite numbers, not all zero; {what} {wrong[0]} has others"
        )
    return embeddings / lengths
