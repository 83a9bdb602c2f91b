"""Repetition within a caption, a sign that a generator has collapsed."""

import re
from collections.abc import Sequence

from caption_gan.metrics.metric import Metric, ratio_of
from caption_gan.text.scripts import has_unspaced, split_unspaced

# Words, an ellipsis, or a single other character: `, , ,` and `,,,` are three tokens.
_TOKEN = re.compile(r"\.{3}|[^\W_]+(?:['\u2019-][^\W_]+)*|\S")
# The same letters four times in a row within a word: a wordpiece that the generator repeats.
_STUTTER = re.compile(r"([^\W\d_]{1,8}?)\1{3,}")


def repeated_token_rate(captions: Sequence[Sequence[str]]) -> Metric:
    """The share of tokens that repeat what stands just before them, in [0, 1].

    A token counts if it equals the token before it, or belongs to an n-gram of any length that
    repeats the n-gram before it: `a dog a dog`. Punctuation counts, as captions may collapse onto
    it (`a dog , , , ,`), but it may also stand between: `a dog, a dog`.

    Over all captions: such tokens divided by the tokens that have a token before them. So `a a a a`
    gives 1, and captions of one token give 0. This metric is the project's own.

    Args:
        captions: Raw text of the captions of each image.
    """
    tokens = [[_tokens(caption) for caption in of_image] for of_image in captions]
    repeated = [sum(map(_count_repeated, of_image)) for of_image in tokens]
    followers = [sum(max(len(text) - 1, 0) for text in of_image) for of_image in tokens]
    return ratio_of(repeated, followers)


def _tokens(caption: str) -> list[str]:
    text = _STUTTER.sub(lambda found: f" {found[1]}" * (len(found[0]) // len(found[1])), caption)
    return [
        token
        for part in split_unspaced(text.lower())
        for token in ([part] if has_unspaced(part) else _TOKEN.findall(part))
    ]


def _count_repeated(tokens: Sequence[str]) -> int:
    """Returns the number of tokens that repeat what stands before them."""
    words = [position for position, token in enumerate(tokens) if token[0].isalnum()]
    among_words = _repeated([tokens[position] for position in words])
    return len(_repeated(tokens) | {words[position] for position in among_words})


def _repeated(tokens: Sequence[str]) -> set[int]:
    """Returns the positions of the tokens that repeat what stands just before them."""
    repeated: set[int] = set()
    for distance in range(1, len(tokens) // 2 + 1):
        start = distance
        for position in range(distance, len(tokens) + 1):
            if position == len(tokens) or tokens[position] != tokens[position - distance]:
                run = position - start
                # Chinese and Japanese words may double a character, as in that for mother.
                is_word = run == distance == 1 and has_unspaced(tokens[start])
                if run >= distance and not is_word:
                    repeated.update(range(start, position))
                start = position + 1
    return repeated
