"""Tokens equal those of the Java program, on real captions and on edge cases."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from caption_gan.metrics.tokenization import tokenize

GOLDEN = Path(__file__).parents[2].parent / "shared" / "data" / "metric_golden"

# Output of the Java program, after removing pycocoevalcap's list of punctuation.
EXPECTED = {
    "A man's dog isn't here.": "a man 's dog is n't here",
    "Two dogs' toys, a black-and-white t-shirt; that's all!": (
        "two dogs toys a black-and-white t-shirt that 's all"
    ),
    "it\u2019s \u201cquoted\u201d \u2018text\u2019 \u2014 don\u2019t": "it 's quoted text do n't",
    "wow!! what?! really?": "wow !! what ?! really",
    "wait... then go..": "wait then go",
    "a clock reads 5:55, 12:30pm": "a clock reads 5:55 12:30 pm",
    "5 1/2 of 1,000 and 3.5": "5\u00a01/2 of 1,000 and 3.5",
    "(two) [men] {play}": "-lrb- two -rrb- -lsb- men -rsb- -lcb- play -rcb-",
    "at 11th St. and Mr. Smith": "at 11th st. and mr. smith",
    "the U.S. flag at 5 p.m. on 2nd ave.": "the u.s. flag at 5 p.m. on 2nd ave.",
    "near the U.S.-born Inc., dog., cat.": "near the u.s.-born inc. dog. cat",
    "you cannot, gonna, wanna": "you can not gon na wan na",
    "rock 'n' roll '80s o'clock O'Hare c'mon": "rock 'n' roll '80s o'clock o'hare c'mon",
    "AT&T and b&w and salt & pepper": "at&t and b & w and salt & pepper",
    "TV/VCR and/or $5 50% #1": "tv/vcr and/or $ 5 50 % # 1",
    "no. 5, no. The end": "no. 5 no the end",
    "in group a. The men": "in group a the men",
    "caf\u00e9 na\u00efve \u043f\u0451\u0441": "caf\u00e9 na\u00efve \u043f\u0451\u0441",
    "<unk> a<b :)": "<unk> a < b :-rrb-",
    "dogs,cats;birds": "dogs cats birds",
    "": "",
    " \n.": "",
}


@pytest.mark.parametrize("caption", EXPECTED)
def test_tokens_equal_the_java_program(caption: str) -> None:
    assert tokenize(caption) == EXPECTED[caption]


def test_golden_captions_and_references() -> None:
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden captions: {GOLDEN} is missing")
    annotations = json.loads((GOLDEN / "fakecap_subset_annotations.json").read_text())
    results = json.loads((GOLDEN / "fakecap_subset_results.json").read_text())
    expected = json.loads((GOLDEN / "fakecap_subset_ptb_tokenized.json").read_text())
    references: dict[str, list[str]] = {}
    for row in annotations["annotations"]:
        references.setdefault(str(row["image_id"]), []).append(tokenize(row["caption"]))
    captions = {str(row["image_id"]): [tokenize(row["caption"])] for row in results}
    assert len(captions) == 417
    assert captions == expected["res"]
    assert references == expected["gts"]


@given(st.text())
@example(" \u0e31")  # A Thai vowel sign without a consonant.
@example("\u0e01 \u0e31")
@example("a  b\u0e31")
def test_tokens_are_joined_by_single_spaces(text: str) -> None:
    words = tokenize(text)
    assert words == " ".join(words.split(" "))
    assert words == words.strip()
    assert "  " not in words


@given(st.lists(st.sampled_from(["man", "dog", "t-shirt", "red", "is", "frisbee"]), min_size=1))
def test_plain_words_only_become_lower_case(words: list[str]) -> None:
    caption = " ".join(words)
    assert tokenize(caption.upper() + ".") == caption
