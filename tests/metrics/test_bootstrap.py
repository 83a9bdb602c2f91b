"""Bootstrap intervals, compared with formulas and with repeated draws from a distribution."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.bleu import bleu, count_matches
from caption_gan.metrics.bootstrap import Bootstrap
from caption_gan.metrics.metric import DistinctCount, Metric, mean_of, ratio_of

IMAGES = 400


@pytest.fixture(scope="module")
def bootstrap() -> Bootstrap:
    return Bootstrap(IMAGES)


def words(seed: int, images: int = IMAGES) -> list[list[int]]:
    """Five words per image with Zipf frequencies, as in real text: few frequent, many rare."""
    return np.random.default_rng(seed).zipf(1.5, (images, 5)).tolist()


def test_each_resample_has_as_many_images_as_the_split(bootstrap):
    assert bootstrap.counts.shape == (1000, IMAGES)
    assert (bootstrap.counts.sum(axis=1) == IMAGES).all()
    assert len({counts.tobytes() for counts in bootstrap.counts}) == 1000


def test_interval_of_a_mean_matches_the_normal_approximation(bootstrap):
    values = np.random.default_rng(1).exponential(size=IMAGES)
    low, high = bootstrap.interval(mean_of(values))
    half = 1.96 * values.std() / IMAGES**0.5
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_resampled_metric_equals_the_metric_of_the_drawn_images(bootstrap):
    captions = ["a red dog runs fast", "a cat", "two men play"] * 134
    references = [["a red dog runs"], ["the cat sleeps", "a cat"], ["two men play ball"]] * 134
    counts = count_matches(captions[:IMAGES], references[:IMAGES])
    metric = Metric(counts, lambda sums: bleu(sums)[..., 1])
    drawn = np.repeat(np.arange(IMAGES), bootstrap.counts[7])
    recomputed = count_matches([captions[i] for i in drawn], [references[i] for i in drawn])
    expected = bleu(recomputed.sum(axis=0))[1]
    assert metric.resampled(bootstrap.counts[7:8].astype(float)) == pytest.approx([expected])


def error_of(bootstrap: Bootstrap, metric: DistinctCount) -> float:
    low, high = bootstrap.interval(metric)
    assert (low + high) / 2 == pytest.approx(metric.value)
    return (high - low) / 2 / 1.96


@pytest.mark.parametrize("is_share", [True, False])
def test_jackknife_error_matches_the_spread_over_new_images(bootstrap, is_share):
    metrics = [DistinctCount(words(seed), is_share) for seed in range(60)]
    spread = np.std([metric.value for metric in metrics])
    errors = [error_of(bootstrap, metric) for metric in metrics[:10]]
    # 60 draws give the spread to 10%. A bootstrap interval would not even contain the value.
    assert np.mean(errors) == pytest.approx(spread, rel=0.3)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=2, max_size=8))
def test_leave_one_out_equals_recounting(items):
    for is_share in (True, False):
        expected = [
            DistinctCount(items[:image] + items[image + 1 :], is_share).value
            for image in range(len(items))
        ]
        assert DistinctCount(items, is_share).leave_one_out().tolist() == pytest.approx(expected)


def test_paired_test_finds_a_small_real_difference(bootstrap):
    generator = np.random.default_rng(2)
    easy = generator.normal(size=IMAGES)
    ours, theirs = mean_of(easy + 0.05 + generator.normal(0, 0.2, IMAGES)), mean_of(easy)
    found = bootstrap.difference(ours, theirs)
    assert found.low < found.value < found.high
    assert found.low > 0
    assert found.p <= 0.01
    # The spread between images is far larger than the difference and cancels only in pairs.
    low, high = bootstrap.interval(theirs)
    assert low < ours.value < high


def test_false_positive_rate_is_about_five_percent(bootstrap):
    generator = np.random.default_rng(3)
    metrics = generator.normal(size=(200, 2, IMAGES))
    found = [bootstrap.difference(*map(mean_of, pair)) for pair in metrics]
    share = np.mean([difference.p < 0.05 for difference in found])
    assert 0.02 <= share <= 0.09
    assert share == pytest.approx(np.mean([not d.low < 0 < d.high for d in found]), abs=0.01)


def test_metric_does_not_differ_from_itself(bootstrap):
    for metric in (mean_of(np.arange(IMAGES)), DistinctCount(words(0), True)):
        found = bootstrap.difference(metric, metric)
        assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_differences_of_distinct_counts(bootstrap):
    rich = [[*of_image, 1000 + image] for image, of_image in enumerate(words(1))]
    found = bootstrap.difference(DistinctCount(rich, False), DistinctCount(words(2), False))
    assert found.low > 0
    assert found.p < 0.001
    alike = bootstrap.difference(DistinctCount(words(3), False), DistinctCount(words(4), False))
    assert alike.low < 0 < alike.high or alike.p > 0.001


def test_metrics_over_different_numbers_of_images_are_refused(bootstrap):
    with pytest.raises(CaptionGANError, match="the same 400 images"):
        bootstrap.difference(mean_of(np.zeros(IMAGES)), mean_of(np.zeros(3)))


def test_ratio_divides_the_sums():
    assert ratio_of([1, 3], [2, 6]).value == 0.5
    assert ratio_of([0], [0]).value == 0.0
    assert mean_of([True, False]).value == 0.5
