"""Scripts that put no spaces between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese.

Each character of them is a word of its own, for the tokenizer and for the metrics, as the
literature does for Chinese. Korean puts spaces between words.
"""

import re
import unicodedata
from collections.abc import Iterable

# Character ranges, for classes of Python's `re` and of TensorFlow's RE2 alike. Both include the
# marks of iteration and of long vowels.
CHINESE_AND_JAPANESE = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)
UNSPACED = CHINESE_AND_JAPANESE + (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"
)
# Brackets, commas and full stops of Chinese and Japanese, but not the ideographic space.
PUNCTUATION = "\u3001-\u3003\u3008-\u3011\u3014-\u301f\u30fb"

_UNSPACED = re.compile(f"[{UNSPACED}]")


def has_unspaced(text: str) -> bool:
    """Whether a text contains a character of a script without spaces."""
    return _UNSPACED.search(text) is not None


def are_unspaced(captions: Iterable[str]) -> bool:
    """Whether more than half of captions contain characters of a script without spaces."""
    found = [has_unspaced(caption) for caption in captions]
    return 2 * sum(found) > len(found)


def split_unspaced(caption: str) -> list[str]:
    """Splits a caption into characters of scripts without spaces and the text between them.

    A character keeps its combining marks. Such a caption is normalised (NFKC), as the tokenizer
    does; a caption without such characters is returned as it is.
    """
    if not has_unspaced(caption):
        return [caption]
    parts: list[str] = []
    is_apart = True  # Whether the last part is a character, which stays separate.
    for character in unicodedata.normalize("NFKC", caption):
        is_mark = unicodedata.category(character).startswith("M")
        # A mark of these scripts that follows no character of them is a character of its own.
        if parts and is_mark and (is_apart or not has_unspaced(character)):
            parts[-1] += character
        elif has_unspaced(character):
            parts.append(character)
            is_apart = True
        elif parts and not is_apart:
            parts[-1] += character
        else:
            parts.append(character)
            is_apart = False
    return parts
