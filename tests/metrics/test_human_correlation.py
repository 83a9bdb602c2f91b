"""Rank correlation with human ratings: definition, conventions of the literature, pycocoevalcap."""

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.human_correlation import caption_scores, correlation, correlations

RATED = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.5, 2.0]) | st.floats(0, 1),
        st.lists(st.integers(1, 4), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=12,
)


def by_definition(scores, ratings, variant):
    """Kendall's tau from all pairs of observations, in quadratic time."""
    observations = [(s, r) for s, of_pair in zip(scores, ratings, strict=True) for r in of_pair]
    difference, tied_scores, tied_ratings, pairs = 0, 0, 0, 0
    for (s, r), (other_s, other_r) in itertools.combinations(observations, 2):
        difference += ((s > other_s) - (s < other_s)) * ((r > other_r) - (r < other_r))
        tied_scores += s == other_s
        tied_ratings += r == other_r
        pairs += 1
    fewest = min(len({s for s, _ in observations}), len({r for _, r in observations}))
    if fewest < 2:
        return None
    if variant == "b":
        return difference / math.sqrt((pairs - tied_scores) * (pairs - tied_ratings))
    return 2 * difference * fewest / (len(observations) ** 2 * (fewest - 1))


@pytest.mark.parametrize("variant", ["b", "c"])
@given(rated=RATED)
def test_correlation_matches_the_definition(variant, rated):
    scores, ratings = zip(*rated, strict=True)
    expected = by_definition(scores, ratings, variant)
    found = correlation(scores, ratings, variant)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-12))
    if found is not None:
        assert correlation([-score for score in scores], ratings, variant) == pytest.approx(-found)


@pytest.mark.parametrize(
    ("scores", "ratings", "tau_b", "tau_c"),
    [
        ([1, 2, 3], [[1], [2], [3]], 1, 1),
        ([3, 2, 1], [[1], [2], [3]], -1, -1),
        ([0.1, 0.2, 0.3, 0.4], [[1], [1], [2], [2]], 4 / math.sqrt(6 * 4), 2 * 4 * 2 / 16),
        # Four observations: of six pairs two tie in the score, one in the rating; C = 3, D = 0.
        ([5, 7], [[1, 2], [2, 3]], 3 / math.sqrt(4 * 5), 2 * 3 * 2 / 16),
        ([1, 2, 3], [[2], [1], [3]], 1 / 3, 1 / 3),
    ],
)
def test_correlation_by_hand(scores, ratings, tau_b, tau_c):
    assert correlation(scores, ratings, "b") == pytest.approx(tau_b)
    assert correlation(scores, ratings) == pytest.approx(tau_c)


def test_each_rating_is_one_observation():
    scores, ratings = [1, 2, 3], [[1, 4], [2], [4]]
    assert (
        correlation(scores, ratings) == 0.375
    )  # C = 3, D = 1, one tie; averaged ratings give 1/3.
    assert correlation([1, 1, 2, 3], [[1], [4], [2], [4]]) == 0.375


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("scores", "ratings"), [([1, 1, 1], [[1], [2], [3]]), ([1, 2], [[3], [3, 3]]), ([1], [[2]])]
)
def test_correlation_is_none_if_all_values_are_equal(scores, ratings):
    assert correlation(scores, ratings) is None
    assert correlations({"METEOR": scores}, ratings, "b") == {"METEOR": None}


@pytest.mark.parametrize(
    ("scores", "ratings", "expected"),
    [
        ([], [], "at least one; received 0 scores and 0 lists"),
        ([1], [[1], [2]], "received 1 scores and 2 lists of ratings"),
        ([1, math.nan], [[1], [2]], "received NaN"),
        ([1, 2], [[1], [math.nan]], "received NaN"),
    ],
)
def test_values_without_a_rank_are_refused(scores, ratings, expected):
    with pytest.raises(CaptionGANError, match=expected):
        correlation(scores, ratings)


DOG = ["a brown dog runs across the grass", "the dog is running on grass"]
CAT = ["a cat sleeps on a sofa"]
CAPTIONS = ["a brown dog runs on grass", "a cat", "", "a cat sleeps on a sofa"]
REFERENCES = [DOG, DOG, CAT, CAT]


def test_scores_equal_pycocoevalcap():
    scores = caption_scores([f"{caption.title()}." for caption in CAPTIONS], REFERENCES)
    assert list(scores) == ["BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr"]
    candidates = {pair: [caption] for pair, caption in enumerate(CAPTIONS)}
    targets = dict(enumerate(REFERENCES))
    assert scores["CIDEr"] == pytest.approx(Cider().compute_score(targets, candidates)[1])
    for pair, candidate in candidates.items():
        alone = {pair: targets[pair]}, {pair: candidate}
        bleu, _ = Bleu(4).compute_score(*alone, verbose=0)
        assert scores["BLEU-1"][pair] == pytest.approx(bleu[0])
        assert scores["BLEU-4"][pair] == pytest.approx(bleu[3])
        assert scores["ROUGE-L"][pair] == pytest.approx(Rouge().compute_score(*alone)[0])
    assert all(values[2] < 1e-6 for values in scores.values())


def test_golden_captions_score_as_in_pycocoevalcap(real_data):
    folder = real_data / "metric_golden"
    expected = json.loads((folder / "fakecap_subset_scores_pycocoevalcap.json").read_text())
    results = json.loads((folder / "fakecap_subset_results.json").read_text())
    annotations = json.loads((folder / "fakecap_subset_annotations.json").read_text())
    captions = {entry["image_id"]: entry["caption"] for entry in results}
    references: dict[int, list[str]] = {image_id: [] for image_id in captions}
    for entry in annotations["annotations"]:
        references[entry["image_id"]].append(entry["caption"])
    ids = expected["image_ids"]
    scores = caption_scores([captions[key] for key in ids], [references[key] for key in ids])
    for name, values in scores.items():
        key = name.replace("BLEU-", "Bleu_").replace("-", "_")
        assert values == pytest.approx(expected["per_image"][key], abs=1e-4)


@pytest.mark.parametrize(
    ("captions", "references", "expected"),
    [
        ([], [], "received 0 captions and 0 lists of references"),
        (["a"], [], "received 1 captions and 0 lists of references"),
        (["a", "b"], [["a"], []], r"references of pair 1: .* received \[\]"),
        (
            ["a"],
            [["", "."]],
            r"references of pair 0: expected at least one text that contains a word",
        ),
    ],
)
def test_unusable_pairs_are_refused(captions, references, expected):
    with pytest.raises(CaptionGANError, match=expected):
        caption_scores(captions, references)
