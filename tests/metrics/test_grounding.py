"""Grounding metrics: counts computed by hand, and captions that ignore the image score low."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caption_gan.errors import CaptionGANError
from caption_gan.metrics import grounding
from caption_gan.metrics.grounding import (
    _singular,
    cider_drop,
    mentions,
    objects_and_attributes,
    retrieval,
)
from caption_gan.metrics.metric import Metric
from caption_gan.metrics.tokenization import tokenize

Texts = dict[str, str]
References = dict[str, list[str]]

CAPTIONS: Texts = {
    "dog": "a brown dog on grass",
    "cat": "a black cat with a red ball",
    "men": "two men play tennis",
}
REFERENCES: References = {
    "dog": ["a brown dog runs on the green grass", "the brown dog and a ball", "a puppy on grass"],
    "cat": ["a black cat sleeps on a sofa"],
    "men": ["men in white shirts play tennis", "two men on a court", "."],
}


def values(metrics: dict[str, Metric]) -> dict[str, float]:
    return {name: metric.value for name, metric in metrics.items()}


def test_mentions_by_hand() -> None:
    # Agreed by the references: dog, grass, brown; cat, sofa, black; man.
    # In the captions: dog, grass, brown; cat, ball, black, red; man, tennis.
    assert values(mentions(CAPTIONS, REFERENCES)) == pytest.approx(
        {
            "object_recall": 4 / 5,
            "object_precision": 5 / 6,
            "attribute_recall": 2 / 2,
            "attribute_precision": 2 / 3,
        }
    )


def test_mentions_of_resampled_images() -> None:
    metric = mentions(CAPTIONS, REFERENCES)["object_recall"]
    assert metric.resampled(np.array([[1, 0, 0], [0, 2, 0], [0, 1, 3]])) == pytest.approx(
        [1, 1 / 2, 4 / 5]
    )


def test_no_mentions_give_zero() -> None:
    assert set(values(mentions({"1": "."}, {"1": ["they run"]})).values()) == {0.0}


@pytest.mark.parametrize(
    ("caption", "objects", "attributes"),
    [
        ("a man riding a horse in front of a group of people", "man horse person", ""),
        ("an orange on top of two white plates", "orange plate", "white"),
        ("an orange cat", "cat", "orange"),
        ("a young boy jumps his bike", "boy bike", "young"),
        ("the brown dog jumps as it approaches a bathroom sink", "dog bathroom sink", "brown"),
        ("a boy and a dog play with three tennis balls", "boy dog tennis ball", ""),
        ("a german woman in a red t-shirt and a tank top", "woman t-shirt tank", "german red"),
        ("a bathing woman next to a large brick building", "woman brick building", "large"),
        ("something in the background of a picture of the sky", "sky", ""),
        ("a red zorp beside two blickets (small)", "zorp blicket", "red small"),
        ("", "", ""),
    ],
)
def test_objects_and_attributes_of_captions(caption: str, objects: str, attributes: str) -> None:
    assert objects_and_attributes(tokenize(caption)) == (
        set(objects.split()),
        set(attributes.split()),
    )


def test_singular_forms() -> None:
    unchanged = (
        "glass bus dress grass princess series axis tennis lens gas trellis octopus news dog"
    )
    assert [_singular(word) for word in unchanged.split()] == unchanged.split()
    plurals = "people men skis glasses buses shelves leaves knives pies ties canoes oranges zorps"
    singulars = "person man ski glass bus shelf leaf knife pie tie canoe orange zorp"
    assert [_singular(word) for word in plurals.split()] == singulars.split()


def assert_hallucinations_cost_precision(metrics_of: Callable[[Texts, References], dict]) -> None:
    hallucinated = {**CAPTIONS, "dog": "a brown dog and a cat with a hat on grass"}
    before = values(metrics_of(CAPTIONS, REFERENCES))
    after = values(metrics_of(hallucinated, REFERENCES))
    assert after["object_precision"] < before["object_precision"]
    assert after["object_recall"] == before["object_recall"]


def test_hallucinations_cost_precision() -> None:
    assert_hallucinations_cost_precision(mentions)


def test_hallucination_test_fails_for_pooled_references() -> None:
    def pooled(captions: Texts, references: References) -> dict:
        """A wrong variant: words from the references of any image count as confirmed."""
        everything = [text for texts in references.values() for text in texts]
        return mentions(captions, {image_id: [*everything, "a hat"] for image_id in captions})

    with pytest.raises(AssertionError):
        assert_hallucinations_cost_precision(pooled)


TEXTS = ["a red dog runs", "two cats sleep on a sofa", "a man plays tennis", "a bus on a street"]


IMAGES = st.lists(st.tuples(*[st.sampled_from(TEXTS)] * 3), min_size=2, max_size=7)


@given(IMAGES, st.integers(0, 9))
def test_bounds_and_order(images: list[tuple[str, str, str]], seed: int) -> None:
    captions = {str(number): caption for number, (caption, *_) in enumerate(images)}
    references = {str(number): texts for number, (_, *texts) in enumerate(images)}
    metrics = mentions(captions, references)
    assert all(0 <= metric.value <= 1 for metric in metrics.values())
    reordered = dict(reversed(captions.items()))
    assert values(mentions(reordered, references)) == pytest.approx(values(metrics))
    assert -10 <= cider_drop(captions, references, seed).value <= 10
    same = {image_id: [text] * 2 for image_id, text in captions.items()}
    against_itself = mentions(captions, same)
    assert against_itself["object_recall"].value == against_itself["object_precision"].value == 1


@given(st.integers(2, 7), st.integers(0, 99))
def test_swap_moves_each_caption_to_another_image(number: int, seed: int) -> None:
    captions = {str(image): f"zorp{image} blick{image} runs fast" for image in range(number)}
    references = {image_id: [text] for image_id, text in captions.items()}
    metric = cider_drop(captions, references, seed)
    assert metric.value == cider_drop(captions, references, seed).value
    # Each image loses its whole score, so no caption stayed with its image.
    assert metric.per_image[:, 0] == pytest.approx(
        list(grounding.per_image_cider(captions, references).values())
    )


def test_cider_drop_of_two_images_by_hand() -> None:
    captions = {"1": "a red dog runs", "2": "two cats sleep here"}
    references = {image_id: [text] for image_id, text in captions.items()}
    assert cider_drop(captions, references, 0).value == pytest.approx(10.0)
    swapped = {"1": captions["2"], "2": captions["1"]}
    assert cider_drop(swapped, references, 0).value == pytest.approx(-10.0)


def test_cider_drop_of_identical_captions_is_zero() -> None:
    same = dict.fromkeys(CAPTIONS, "a brown dog on grass")
    for seed in range(5):
        assert cider_drop(same, REFERENCES, seed).value == 0.0


def test_cider_drop_of_a_single_image_is_refused() -> None:
    with pytest.raises(CaptionGANError, match="at least two images"):
        cider_drop({"1": "a dog"}, {"1": ["a dog"]}, 0)


def test_different_image_ids_are_refused() -> None:
    with pytest.raises(CaptionGANError, match="no reference for image '2'"):
        mentions({"1": "a", "2": "b"}, {"1": ["a"]})
    with pytest.raises(CaptionGANError, match="no reference for image '2'"):
        cider_drop({"1": "a", "2": "b"}, {"1": ["a"]}, 0)


def test_retrieval_by_hand() -> None:
    images = np.array([[1, 0], [0, 2], [3, 4]])
    texts = np.array([[5, 0], [4, 3], [0, -1]])  # The second text is closer to the third image.
    metrics = values(retrieval(images, texts))
    assert metrics == pytest.approx(
        {
            "retrieval_recall@1": 1 / 3,
            "retrieval_recall@5": 1.0,
            "retrieval_similarity": (1 + 0.6 - 0.8) / 3,
        }
    )


def recall(images: np.ndarray, texts: np.ndarray, k: int) -> float:
    return retrieval(images, texts)[f"retrieval_recall@{k}"].value


def test_recall_of_the_same_text_for_all_images_is_at_chance() -> None:
    images = np.random.default_rng(0).normal(size=(40, 6))
    same = np.tile(np.random.default_rng(1).normal(size=6), (40, 1))
    assert recall(images, same, 1) == pytest.approx(1 / 40)
    assert recall(images, same, 5) == pytest.approx(5 / 40)


def assert_ties_retrieve_nothing(recall_at: Callable[[np.ndarray, np.ndarray, int], float]):
    alike = np.tile([0.3, 0.1, 0.7], (40, 1)).astype(np.float32)
    # Encoders reproduce an embedding except for its last digits.
    noisy = alike + np.random.default_rng(0).uniform(-1e-8, 1e-8, alike.shape)
    assert recall_at(noisy, alike, 5) == 0.0


def test_identical_embeddings_retrieve_nothing() -> None:
    assert_ties_retrieve_nothing(recall)


def test_tie_test_fails_if_ties_rank_after_the_own_image() -> None:
    def optimistic(images: np.ndarray, texts: np.ndarray, k: int) -> float:
        """A wrong variant: only images that are strictly more similar rank before."""
        similarities = texts @ images.T
        return float(((similarities > similarities.diagonal()[:, None]).sum(axis=1) < k).mean())

    with pytest.raises(AssertionError):
        assert_ties_retrieve_nothing(optimistic)


@given(st.integers(1, 30), st.integers(0, 99), st.integers(1, 31))
def test_retrieval_equals_ranking_the_full_similarity_matrix(
    number: int, seed: int, block: int
) -> None:
    images, texts = np.random.default_rng(seed).normal(size=(2, number, 4))
    cosines = (texts / np.linalg.norm(texts, axis=1)[:, None]) @ (
        images / np.linalg.norm(images, axis=1)[:, None]
    ).T
    ranks = [sorted(row, reverse=True).index(row[i]) + 1 for i, row in enumerate(cosines)]
    lengths = np.random.default_rng(seed).uniform(0.1, 9, (number, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grounding, "_BLOCK", block)
        metrics = values(retrieval(images * lengths, texts / lengths))
    assert metrics["retrieval_recall@1"] == pytest.approx(np.mean(np.array(ranks) <= 1))
    assert metrics["retrieval_recall@5"] == pytest.approx(np.mean(np.array(ranks) <= 5))
    assert metrics["retrieval_similarity"] == pytest.approx(cosines.diagonal().mean())


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
def test_embeddings_without_a_direction_are_refused(wrong: float) -> None:
    good, bad = np.ones((3, 2)), np.ones((3, 2))
    bad[1] = wrong
    with pytest.raises(CaptionGANError, match="image 1"):
        retrieval(bad, good)
    with pytest.raises(CaptionGANError, match="text 1"):
        retrieval(good, bad)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(CaptionGANError, match=r"images \[3, 2\] and texts \[3, 4\]"):
        retrieval(np.ones((3, 2)), np.ones((3, 4)))


def test_import_loads_no_tensorflow() -> None:
    program = "import sys, caption_gan.metrics.grounding; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_human_captions_agree_with_the_other_human_captions(real_data: Path) -> None:
    texts: References = {}
    with open(real_data / "flickr8k" / "captions.txt", newline="") as file:
        for row in csv.DictReader(file):
            texts.setdefault(row["image"], []).append(row["caption"])
    ids = (real_data / "flickr8k" / "Flickr_8k.devImages.txt").read_text().split()
    references = {image_id: texts[image_id][1:] for image_id in ids}
    first = {image_id: texts[image_id][0] for image_id in ids}
    swapped = dict(zip(ids, [*list(first.values())[1:], first[ids[0]]], strict=True))
    expected = {"object_recall": 0.54, "object_precision": 0.66, "attribute_recall": 0.41}
    metrics = values(mentions(first, references))
    swapped_metrics = values(mentions(swapped, references))
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=0.02)
        assert swapped_metrics[name] < 0.2 * value
    assert cider_drop(first, references, 0).value == pytest.approx(0.77, abs=0.03)
    assert cider_drop(swapped, references, 0).value == pytest.approx(0.0, abs=0.01)
