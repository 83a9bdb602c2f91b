"""Quality metrics equal pycocoevalcap and do not reward collapsed captions."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from caption_gan.errors import CaptionGANError
from caption_gan.metrics import quality as scores_of
from caption_gan.metrics.bleu import bleu, count_matches
from caption_gan.metrics.quality import per_image_cider
from caption_gan.metrics.tokenization import tokenize

GOLDEN = Path(__file__).parents[2].parent / "shared" / "data" / "metric_golden"
NAMES = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]

Texts = dict[str, str]
References = dict[str, list[str]]


def quality(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    metrics = scores_of.quality(captions, references)
    return {name: metric.value for name, metric in metrics.items()}


CAPTIONS: Texts = {
    "dog": "a brown dog runs on grass",
    "cat": "a cat sleeps on the red sofa",
    "man": "two men play tennis",
    "chart": "",
}
REFERENCES: References = {
    "man": ["a man plays tennis on a court", "two men play a game of tennis", "tennis players"],
    "dog": ["a brown dog runs across the grass", "the dog is running on grass"],
    "chart": ["the red line rises", "a line chart that rises"],
    "cat": ["a cat sleeps on a sofa"],
}


@pytest.fixture(scope="module")
def golden() -> tuple[Texts, References, dict[str, dict[str, float]]]:
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden captions: {GOLDEN} is missing")
    annotations = json.loads((GOLDEN / "fakecap_subset_annotations.json").read_text())
    results = json.loads((GOLDEN / "fakecap_subset_results.json").read_text())
    scores = json.loads((GOLDEN / "fakecap_subset_scores_pycocoevalcap.json").read_text())
    references: References = {}
    for row in annotations["annotations"]:
        references.setdefault(str(row["image_id"]), []).append(row["caption"])
    captions = {str(row["image_id"]): row["caption"] for row in results}
    per_image = {
        metric: dict(zip(map(str, scores["image_ids"]), values, strict=True))
        for metric, values in scores["per_image"].items()
    }
    return captions, references, per_image


def test_golden_corpus_scores(golden: tuple[Texts, References, object]) -> None:
    captions, references, _ = golden
    expected = dict(zip(NAMES, [0.56946, 0.39030, 0.26555, 0.18226, 0.38975, 0.57550], strict=True))
    assert quality(captions, references) == pytest.approx(expected, abs=1e-4)


def test_golden_cider_of_each_image(
    golden: tuple[Texts, References, dict[str, dict[str, float]]],
) -> None:
    captions, references, expected = golden
    assert per_image_cider(captions, references) == pytest.approx(expected["CIDEr"], abs=1e-4)


def test_golden_bleu_and_rouge_of_each_image(
    golden: tuple[Texts, References, dict[str, dict[str, float]]],
) -> None:
    captions, references, expected = golden
    targets = [[tokenize(text) for text in references[image]] for image in captions]
    each = bleu(count_matches([tokenize(caption) for caption in captions.values()], targets))
    for order in range(4):
        found = dict(zip(captions, each[:, order], strict=True))
        assert found == pytest.approx(expected[f"Bleu_{order + 1}"], abs=1e-4)
    rouge = scores_of.quality(captions, references)["ROUGE-L"].per_image[:, 0]
    assert dict(zip(captions, rouge, strict=True)) == pytest.approx(expected["ROUGE_L"], abs=1e-4)


def test_scores_equal_pycocoevalcap() -> None:
    ids = list(CAPTIONS)
    targets = {image_id: REFERENCES[image_id] for image_id in ids}
    candidates = {image_id: [CAPTIONS[image_id]] for image_id in ids}
    bleu, _ = Bleu(4).compute_score(targets, candidates, verbose=0)
    rouge, _ = Rouge().compute_score(targets, candidates)
    cider, each = Cider().compute_score(targets, candidates)
    expected = dict(zip(NAMES, [*bleu, rouge, cider], strict=True))
    assert quality(CAPTIONS, REFERENCES) == pytest.approx(expected, abs=1e-12)
    assert per_image_cider(CAPTIONS, REFERENCES) == pytest.approx(
        dict(zip(ids, each, strict=True)), abs=1e-12
    )


def test_perfect_captions_reach_the_maximum() -> None:
    references = {"1": ["a red dog runs fast"], "2": ["two blue cats sleep here"]}
    captions = {image_id: texts[0] for image_id, texts in references.items()}
    scores = quality(captions, references)
    assert [scores[name] for name in NAMES[:5]] == pytest.approx([1.0] * 5)
    assert scores["CIDEr"] == pytest.approx(10.0)


COLLAPSED: Texts = {"1": "a a a a a a a", "2": "a a a a a a a"}
OF_COLLAPSED: References = {
    "1": ["a man rides a horse on a beach", "a rider and a horse"],
    "2": ["a dog on a sofa near a window", "a brown dog sits on a sofa"],
}


def bleu4_that_skips_orders_without_a_match(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> float:
    """A wrong variant, as in some simple BLEUs: the mean leaves out orders without a match."""
    precisions = []
    for n in range(1, 5):
        matches = total = 0
        for image_id, caption in captions.items():
            words = caption.split()
            counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
            clipped: Counter[tuple[str, ...]] = Counter()
            for text in references[image_id]:
                others = text.split()
                clipped |= Counter(tuple(others[i : i + n]) for i in range(len(others) - n + 1))
            matches += (counts & clipped).total()
            total += counts.total()
        if matches:
            precisions.append(matches / total)
    return math.exp(sum(map(math.log, precisions)) / len(precisions)) if precisions else 0.0


def assert_collapse_scores_nothing(
    bleu4: Callable[[Mapping[str, str], Mapping[str, Sequence[str]]], float],
) -> None:
    assert bleu4(COLLAPSED, OF_COLLAPSED) < 1e-3


def test_collapsed_captions_score_nothing() -> None:
    assert_collapse_scores_nothing(lambda *texts: quality(*texts)["BLEU-4"])
    assert (
        quality(COLLAPSED, OF_COLLAPSED)["BLEU-1"] > 0.3
    )  # BLEU-1 matches; BLEU-4 must not profit from it.


def test_collapse_test_fails_for_the_wrong_bleu() -> None:
    with pytest.raises(AssertionError):
        assert_collapse_scores_nothing(bleu4_that_skips_orders_without_a_match)


def test_cider_of_a_single_image_is_zero() -> None:
    scores = quality({"1": "a red dog runs"}, {"1": ["a red dog runs"]})
    assert scores["CIDEr"] == 0.0
    assert scores["BLEU-4"] == pytest.approx(1.0)


def test_empty_captions_score_zero() -> None:
    scores = quality({"1": "", "2": "."}, {"1": ["a dog"], "2": ["two cats", "."]})
    assert [scores[name] for name in NAMES if name != "ROUGE-L"] == pytest.approx([0.0] * 5)
    assert scores["ROUGE-L"] == pytest.approx(
        0.5
    )  # As in pycocoevalcap: the empty caption equals the empty reference.


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    quality(CAPTIONS, REFERENCES)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("captions", "references", "words"),
    [
        ({}, {}, "at least one image"),
        ({"1": "a", "2": "b"}, {"1": ["a"]}, "no reference for image '2'"),
        ({"1": "a"}, {"1": ["a"], "2": ["a"], "3": ["b"]}, "no caption for image '2' and 1 others"),
        ({"1": "a"}, {"1": []}, "image '1'"),
        ({"1": "a"}, {"1": ["."]}, "contains a word"),
        ({"1": "a"}, {"1": "a dog"}, "list of texts"),
    ],
)
def test_wrong_input_is_refused(captions: Texts, references: References, words: str) -> None:
    for score in (quality, per_image_cider):
        with pytest.raises(CaptionGANError, match=words):
            score(captions, references)


WORDS = ["a", "dog", "cat", "runs", "red", "on", "."]
caption_texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
image_texts = st.tuples(caption_texts, st.lists(caption_texts.map("dog {}".format), min_size=1))


@given(st.lists(image_texts, min_size=1, max_size=5))
def test_bounds_and_order(images: list[tuple[str, list[str]]]) -> None:
    captions = {str(number): caption for number, (caption, _) in enumerate(images)}
    references = {str(number): texts for number, (_, texts) in enumerate(images)}
    scores = quality(captions, references)
    for name in NAMES:
        assert 0.0 <= scores[name] <= (10.0 if name == "CIDEr" else 1.0) + 1e-9
    reordered = dict(reversed(captions.items()))
    assert quality(reordered, references) == pytest.approx(scores, abs=1e-9)
    each = per_image_cider(captions, references)
    assert per_image_cider(reordered, references) == pytest.approx(each, abs=1e-9)
    assert sum(each.values()) / len(each) == pytest.approx(scores["CIDEr"], abs=1e-9)


@given(
    st.lists(
        st.lists(
            st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(" ".join),
            min_size=1,
            max_size=2,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_cider_is_known_to_be_zero_by_definition(texts: list[list[str]]) -> None:
    references = {str(image): of_image for image, of_image in enumerate(texts)}
    best = max(
        max(per_image_cider(dict.fromkeys(references, caption), references).values())
        for of_image in texts
        for caption in of_image
    )
    assert (scores_of.why_cider_is_zero(references) is not None) == (best == 0)
