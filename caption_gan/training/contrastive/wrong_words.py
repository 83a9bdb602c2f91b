"""Captions of photographs in which one word is replaced by one that is likely wrong.

Nobody has listed what is true of a photograph. A noun, adjective or number is replaced by another
one that none of the image's captions has, and that is rarely said of images of which the replaced
word is said: `man` and `person` name the same thing in many captions, `man` and `dog` do not.
"""

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from textblob.en import parser

from caption_gan.data.example import Example

NUMBERS = frozenset(("one", "two", "three", "four", "five", "six", "seven", "eight"))
# Penn Treebank tags of words that are replaced, by a word of the same tag.
TAGS = ("NN", "NNS", "JJ")
MINIMUM_COUNT = 20  # Images whose captions have a word; rarer words are tagged wrongly too often.
TAGGED = 10  # Captions in which a word is tagged.
# Largest share of the images with a word of which the other word is also said.
COMPATIBLE = 0.1


class WordReplacer:
    """Replaces one word of captions.

    Args:
        examples: Images with captions, from which the words and what goes together are counted.
    """

    def __init__(self, examples: Sequence[Example]):
        self.images_with: Counter[str] = Counter()
        self.images_with_both: Counter[tuple[str, str]] = Counter()
        tags: defaultdict[str, Counter[str]] = defaultdict(Counter)
        words_of = [_all_words(example) for example in examples]
        for said in words_of:
            self.images_with.update(said)
        for example in examples:
            for caption in example.captions:
                words = caption.lower().split()
                # Tagging takes most of the time: a word's tag is known after some captions.
                if any(tags[word].total() < TAGGED for word in words):
                    for word, tag in parser.find_tags(words):
                        tags[word][tag] += 1
        kinds = {word: counts.most_common(1)[0][0] for word, counts in tags.items()}
        kinds |= dict.fromkeys(NUMBERS, "CD")
        self.kind_of = {
            word: kind
            for word, kind in kinds.items()
            if kind in (*TAGS, "CD") and self.images_with[word] >= MINIMUM_COUNT
        }
        # Known words by the word before and after them: others would be told by grammar alone.
        self.following: defaultdict[str, set[str]] = defaultdict(set)
        self.preceding: defaultdict[str, set[str]] = defaultdict(set)
        for example in examples:
            for caption in example.captions:
                words = ["", *caption.lower().split(), ""]
                for before, word, after in zip(words, words[1:], words[2:], strict=False):
                    if word in self.kind_of:
                        self.following[before].add(word)
                        self.preceding[after].add(word)
        for said in words_of:
            known = said & self.kind_of.keys()
            self.images_with_both.update(itertools.permutations(known, 2))

    def replacements(self, example: Example, caption: str, rng: random.Random) -> Iterator[str]:
        """Yields captions that differ from one of an image in a word, in random order."""
        said = _all_words(example)
        words = caption.split()
        lower = ["", *(word.lower() for word in words), ""]
        choices = [
            (place - 1, other)
            for place in range(1, len(words) + 1)
            if lower[place] in self.kind_of
            for other in self._others(*lower[place - 1 : place + 2])
            if other not in said
        ]
        rng.shuffle(choices)
        for place, other in choices:
            yield " ".join([*words[:place], other, *words[place + 1 :]])

    def _others(self, before: str, word: str, after: str) -> list[str]:
        """Words that fit between the same neighbours but rarely the same image, in fixed order."""
        kind = self.kind_of[word]
        return sorted(
            other
            for other in self.following[before] & self.preceding[after]
            if self.kind_of[other] == kind
            and self.images_with_both[word, other] <= COMPATIBLE * self.images_with[word]
        )


def _all_words(example: Example) -> set[str]:
    return {word for caption in example.captions for word in caption.lower().split()}
