"""Tokenizes captions as the official COCO evaluation does, without Java.

Published scores of captioners come from coco-caption and pycocoevalcap, which tokenize with
Stanford's `PTBTokenizer` (CoreNLP 3.4.1, `-preserveLines -lowerCase`), a Java program, and then
drop punctuation. BLEU, ROUGE-L and CIDEr change with the tokenizer, so this module yields the same
tokens with one regular expression. Its rules were derived from the output of the Java program. They
do not cover text that captions do not contain, such as telephone numbers, attributes of markup and
most emoticons.

Sources: Marcus et al., "Building a Large Annotated Corpus of English: The Penn Treebank" (1993),
for the conventions; Chen et al., "Microsoft COCO Captions" (2015), for their use on captions.
"""

import functools
import re

from caption_gan.text.scripts import PUNCTUATION, has_unspaced, split_unspaced

# pycocoevalcap's list without its brackets. That list has them in capitals (-LRB-), which never
# match the lower-cased text, so brackets stay and count as words.
_PUNCTUATION = frozenset(["''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", ";"])
# Punctuation of Chinese, Japanese, Burmese and Khmer, dropped beside characters of these scripts.
_UNSPACED_PUNCTUATION = re.compile(f"[{PUNCTUATION}\u104a\u104b\u17d4-\u17d6\u17d8-\u17da]")
_DROPPED = re.compile(r"-{2,4}|\.{3}")

_BRACKETS_AND_COINS = str.maketrans(
    {
        "(": "-lrb-",
        ")": "-rrb-",
        "[": "-lsb-",
        "]": "-rsb-",
        "{": "-lcb-",
        "}": "-rcb-",
        "\u00a3": "#",  # pound
        "\u20ac": "$",  # euro
        "\u00a2": "cents",
    }
)

# Replaces typographic variants by plain characters first, so that there is one form to match.
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u2039\u203a", "'"),  # single quotation marks
        **dict.fromkeys("\u201c\u201d\u00ab\u00bb", '"'),  # double quotation marks
        **dict.fromkeys("\u2013\u2014\u2015", " - "),  # dashes
        **dict.fromkeys("\u00a0\u200b\ufeff", " "),
        "\u00ad": None,
        "\u2026": " ... ",
        # Two spaces, as `1½` is two tokens but `1 1/2` is one.
        "½": "  1/2 ",
        "¼": "  1/4 ",
        "¾": "  3/4 ",
    }
)
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'"}
_ENTITY = re.compile("|".join(_ENTITIES))

_ABBREVIATIONS = (
    "adj|adm|adv|ala|apr|ariz|assn|assoc|aug|ave|bldg|blvd|bros|calif|capt|cf|cmdr|co|col|colo|"
    "comdr|conn|corp|cpl|ct|dak|dec|dept|dr|esq|est|etc|ext|feb|fla|fri|ft|ga|gen|gov|hon|inc|"
    "ind|insp|intl|jan|jr|jul|jun|kans?|ky|lt|ltd|maj|mar|md|messrs|mfg|mich|minn|mlle|mme|mon?|"
    "mont|mrs?|ms|msgr|mt|mtg|natl|neb|nev|nov|oct|okla|penn|pfc|ph|plc|pres|prof|pvt|rd|rep|rev|"
    r"rt|sen|sept?|sgt|sq|sr|ste?|supt|tel|tenn|thurs?|treas|tues?|univ|va|vs|vt|wed|wisc?|wm|wyo|"
    r"ph\.d"
)
# These are ordinary words too: abbreviations only if capitalised.
_CAPITALISED_ABBREVIATIONS = (
    "Ark|ARK|Az|AZ|Del|DEL|Ill|ILL|La|LA|Mass|MASS|Miss|MISS|Ore|ORE|Pa|PA|Tex|TEX|Wash|WASH"
)
_ABBREVIATIONS_BEFORE_NUMBERS = "art|ca|figs?|nos?|op|pp"
# Before these words, a full stop after a single letter ends the sentence: `group a. The`, but
# `plan b. Dog`.
_SENTENCE_STARTS = (
    "About|After|An?|As|At|But|He|Here?|If|In|It|Last|Many|More|Once|One|Other|Our|She|Since|So|"
    "Some|That|The|Their|Then|There|These|They|This|We|What|When|While|Yet|You"
)

_LETTER = r"[^\W\d_]"
_CLITIC = r"'(?i:s|m|d|re|ve|ll)(?!\w)"
_CORE = r"[^\W_]+(?:_[^\W_]+)*"
_DOTTED = rf"{_LETTER}+\d?(?:[.!?]{_LETTER}+)+"
_WITH_APOSTROPHE = (
    rf"(?:[dlonDLON]|[A-Z]|[qQ]u)'(?!(?i:s|m|d|re|ve|ll|t)\b){_LETTER}+|(?i:c'mon|n?e'er)\b"
)
_WORD = rf"(?:{_WITH_APOSTROPHE}|{_DOTTED}|{_CORE})(?:[-/](?:{_DOTTED}|{_CORE}))*"

# The Java program takes the longest match; here the order of the alternatives has that effect.
_TOKEN = re.compile(
    rf"""
    # Nine words in ten; without this line a caption takes four times as long to tokenize.
    (?!(?i:cannot|gonna|wanna|gotta|gimme|lemme)\b)[a-zA-Z]+(?!\S)
  | https?://[^\s<>"()]+ | www(?:\.[\w-]+)+ | [\w.+-]+@\w[\w-]*(?:\.[\w-]+)*
  | </?[a-zA-Z][a-zA-Z\d]*\s*/?>
  | [@\#][a-zA-Z]\w*
  # An apostrophe that belongs to the word after it.
  | '(?:[nN]'|\d0s|\d\d(?!\S)|(?i:em|till?|cause|n)(?!\w)|t(?=(?i:is|was)\b))
  | {_CLITIC}
  # One written word, two tokens in the Penn Treebank.
  | (?i:n't)(?!\w) | {_LETTER}+?(?=(?i:n't)(?!\w))
  | (?i:can(?=not\b)|(?:gon|wan)(?=na\b)|got(?=ta\b)|(?:gim|lem)(?=me\b)|y'(?=all\b))
  | (?i:o'clock|ma'am|s'mores)\b | (?i:ol|somethin)'(?!\w)
  # A full stop that belongs to an abbreviation.
  | (?:{_CAPITALISED_ABBREVIATIONS}|(?i:{_ABBREVIATIONS}))\.(?!{_LETTER})
  | (?i:{_ABBREVIATIONS_BEFORE_NUMBERS})\.(?=\s*\d)
  | (?:{_CORE}-)?(?:{_LETTER}\.){{2,}}(?:-{_WORD}|(?!{_LETTER}))
  | {_LETTER}\.(?!{_LETTER}|\s+(?:{_SENTENCE_STARTS})\b)
  | {_WORD}\.(?=[,;:])
  | [A-Z]+&[A-Z]+
  | \d+\s\d+/\d+(?![\w/-])
  | [+-]?[.,:]?\d+(?:[.,:]\d+)+(?:-{_LETTER}+)* | [.,:]\d+ | [+-]\d+(?!\w)
  | {_WORD}
  | [:;=]'?-?[()]
  | [!?]{{2,}} | -+ | \.{{3}} | \*+ | \#+ | @+ | _+ | << | >> | \S
    """,
    re.VERBOSE,
)


# Each metric tokenizes the same captions, and each decoding has the same references.
@functools.lru_cache(maxsize=2**17)
def tokenize(caption: str) -> str:
    """Returns the caption's tokens in lower case, without punctuation, joined by single spaces.

    As in the Java program, contractions and possessives are split (`isn't` -> `is n't`, `dog's` ->
    `dog 's`), hyphenated words stay whole, brackets become `-lrb-` and so on, and a mixed number is
    one token with a no-break space (`5 1/2`). The Java program looks ahead into the caption on the
    next line, and so tokenizes a final `a.` in one of two ways. This function sees one caption.

    In captions with characters of scripts that put no spaces between words, such as Chinese, each
    of these characters is a token, as is usual for Chinese captions; the text between them is
    tokenized as above.

    Args:
        caption: Raw text; line breaks count as spaces.

    Returns:
        The tokens, or an empty string if there is none.
    """
    if has_unspaced(caption):
        parts = [_UNSPACED_PUNCTUATION.sub(" ", part) for part in split_unspaced(caption)]
        tokens = [part if has_unspaced(part) else tokenize(part) for part in parts]
        return " ".join(filter(None, tokens))
    if "&" in caption:
        caption = _ENTITY.sub(lambda found: _ENTITIES[found[0]], caption)
    words = []
    for token in _TOKEN.findall(caption.translate(_PLAIN)):
        if token in _PUNCTUATION or _DROPPED.fullmatch(token):
            continue
        word = token.lower() if token.isalnum() else token.translate(_BRACKETS_AND_COINS).lower()
        words.append("\u00a0".join(word.split()))
    return " ".join(words)
