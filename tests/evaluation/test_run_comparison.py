"""Comparison of several captioners on the same images, and the signs of collapse."""

import json

import numpy as np
import pytest

from caption_gan.config.run import Config
from caption_gan.data.example import CaptionedImage, Example
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.result import Evaluation, summary
from caption_gan.evaluation.run_comparison import compare, comparison_lines, write_comparison
from caption_gan.evaluation.split_metrics import score_images

WORDS = ["dog", "cat", "horse", "sheep", "bird", "cow", "bear", "goat"]
COLOURS = ["red", "blue", "green", "black", "white", "brown", "grey"]
EXAMPLES = [
    Example(
        f"image-{number}",
        b"",
        (
            f"a {COLOURS[number % 7]} {WORDS[number % 8]} runs on grass",
            f"the {WORDS[number % 8]} is {COLOURS[number % 7]} and runs",
        ),
    )
    for number in range(56)
]
RIGHT = [example.captions[0] for example in EXAMPLES]
HALF_RIGHT = [
    caption.replace("runs", "sleeps") if number % 3 else caption
    for number, caption in enumerate(RIGHT)
]
COLLAPSED = ["a a a a a a"] * len(EXAMPLES)


def evaluation(
    captions: list[str], frontier=None, examples=EXAMPLES, decoding="greedy", copies=1
) -> Evaluation:
    images = [
        CaptionedImage(
            example,
            {"greedy": [(caption, -1.0)], decoding: [(caption, -1.0)] * copies},
            [],
            np.zeros([0, 1, 1]),
        )
        for example, caption in zip(examples, captions, strict=True)
    ]
    scores = score_images(images, Config(), None, training=None)
    return Evaluation.of_scores("val", images, scores, Config(), frontier or {})


@pytest.fixture(scope="module", autouse=True)
def without_java(module_patch):
    """METEOR would take seconds per captioner."""
    module_patch.setenv("PATH", "")


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_better_run_is_significantly_better():
    found = compare({"half": evaluation(HALF_RIGHT), "right": evaluation(RIGHT)})
    difference = found.differences["right"]["val/greedy/CIDEr"]
    assert 0 < difference.low < difference.value < difference.high
    assert difference.p <= 0.002
    assert "half" not in found.differences
    # Both captioners mention the same animals.
    same = found.differences["right"]["val/greedy/object_recall"]
    assert (same.value, same.p) == (0, 1)
    text = "\n".join(comparison_lines(found))
    assert f"{difference.value:+.4f}" in text
    json.dumps(found.to_json())


def test_mean_and_deviation_over_runs():
    runs = {str(seed): evaluation(texts) for seed, texts in enumerate([RIGHT, HALF_RIGHT, RIGHT])}
    found = compare(runs)
    values = [run.scores.values["val/greedy/BLEU-4"] for run in runs.values()]
    assert found.mean["val/greedy/BLEU-4"] == pytest.approx(np.mean(values))
    assert found.deviation["val/greedy/BLEU-4"] == pytest.approx(np.std(values, ddof=1))


def test_runs_on_different_images_are_refused():
    other = evaluation(RIGHT[:-1], examples=EXAMPLES[:-1])
    with pytest.raises(CaptionGANError, match="b and a were evaluated on different images"):
        compare({"a": evaluation(RIGHT), "b": other})


def test_page_has_all_runs_and_curves(tmp_path):
    def points(key: str) -> list[dict[str, float]]:
        return [{key: 0.5, "CIDEr": 1.0, "mBLEU-4": 0.3}, {key: 1.0, "CIDEr": 0.9, "mBLEU-4": 0.2}]

    runs = {
        name: evaluation(
            captions,
            {
                "1-policy_gradient": points("temperature"),
                "0-maximum_likelihood": points("temperature"),
                "1-policy_gradient, top-p": points("top_p"),
            },
        )
        for name, captions in {"runs/<a>": RIGHT, "runs/b": HALF_RIGHT}.items()
    }
    found = compare(runs)
    assert list(found.frontier) == ["runs/<a>", "runs/<a>, top-p", "runs/b", "runs/b, top-p"]
    write_comparison(tmp_path / "page.html", found, "the command")
    page = (tmp_path / "page.html").read_text()
    assert "runs/&lt;a&gt;" in page
    assert "<a>" not in page
    assert page.count("<svg") == 1
    assert "the command" in page
    assert "http" not in page


def test_repeating_one_word_scores_zero_and_counts_as_collapse():
    collapsed = evaluation(COLLAPSED)
    values = collapsed.scores.values
    for metric in ("CIDEr", "BLEU-4", "CIDEr_drop", "object_recall"):
        assert values[f"val/greedy/{metric}"] < 0.01, metric
    assert any("repeated_token_rate is 1.000" in sign for sign in collapsed.collapsed)
    assert any("image_dependence is 0.000" in sign for sign in collapsed.collapsed)
    assert evaluation(RIGHT).collapsed == []


def test_same_caption_for_all_images_counts_as_collapse():
    (sign,) = evaluation(["a red dog runs on grass"] * len(EXAMPLES)).collapsed
    assert sign.startswith("greedy: image_dependence")


def test_samples_must_differ_but_captions_of_a_beam_need_not():
    (sign,) = evaluation(RIGHT, decoding="sample", copies=3).collapsed
    assert sign.startswith("sample: mbleu is 1.000")
    assert evaluation(RIGHT, decoding="beam", copies=3).collapsed == []


def test_page_that_cannot_be_written_is_an_error(tmp_path):
    found = compare({"a": evaluation(RIGHT), "b": evaluation(HALF_RIGHT)})
    with pytest.raises(CaptionGANError, match="choose another --to"):
        write_comparison(tmp_path / "nowhere" / "page.html", found, "the command")


class PerfectDualEncoder:
    """A dual encoder in which each image is similar only to its first reference."""

    def embed_images(self, images):
        return np.eye(len(images))

    def embed_texts(self, texts):
        return np.array([[text == other for other in RIGHT] for text in texts], float) + 1e-3


def test_retrieval_recall_of_right_and_of_swapped_captions():
    def recall(captions: list[str]) -> float:
        images = [
            CaptionedImage(example, {"greedy": [(caption, -1.0)]}, [], np.zeros([0, 1, 1]))
            for example, caption in zip(EXAMPLES, captions, strict=True)
        ]
        scores = score_images(images, Config(), None, None, PerfectDualEncoder())
        return scores.values["greedy/retrieval_recall@1"]

    assert recall(RIGHT) == 1
    assert recall(RIGHT[1:] + RIGHT[:1]) == 0


def test_a_single_image_is_compared_without_cider(tmp_path):
    runs = {name: evaluation(RIGHT[:1], examples=EXAMPLES[:1]) for name in "ab"}
    assert runs["a"].scores.notes == runs["a"].to_json()["notes"] != []
    assert "CIDEr is 0 by definition" in summary(runs["a"])
    write_comparison(tmp_path / "page.html", compare(runs), "the command")
    assert "CIDEr is 0 by definition" in (tmp_path / "page.html").read_text()
