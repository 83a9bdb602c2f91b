"""Captions and references in COCO's format: reading, matching, and messages for bad input."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.coco_results import (
    MatchedReferences,
    match_references,
    read_references,
    read_results,
)
from caption_gan.metrics.quality import per_image_cider

IDS = st.integers() | st.text(st.characters(codec="utf-8"))
TEXTS = st.text(st.characters(codec="utf-8"))


def write(folder: Path, content: object) -> str:
    """Writes a file: bytes unchanged, everything else as JSON."""
    path = folder / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def error_of(read, path: str) -> str:
    with pytest.raises(CaptionGANError) as caught:
        read(path)
    message = str(caught.value)
    assert path in message and "\n" not in message and len(message) < 600
    message.encode()
    return message


def references_of(*annotations: dict, images: list | None = None) -> dict:
    return {"images": images or [{"id": 1}, {"id": "two"}], "annotations": list(annotations)}


@given(st.lists(st.tuples(IDS, TEXTS), min_size=1, unique_by=lambda pair: str(pair[0])))
def test_results_round_trip(tmp_path_factory, pairs):
    entries = [{"image_id": key, "caption": text} for key, text in pairs]
    path = write(tmp_path_factory.mktemp("results"), entries)
    assert list(read_results(path).items()) == [(str(key), text) for key, text in pairs]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_ids_become_strings_and_captions_stay_unchanged(tmp_path, encoding):
    entries = [{"image_id": 42, "caption": " Ein Hündchen 🐕\n"}, {"image_id": "7", "caption": ""}]
    path = write(tmp_path, json.dumps(entries, ensure_ascii=False).encode(encoding))
    assert list(read_results(path).items()) == [("42", " Ein Hündchen 🐕\n"), ("7", "")]


def test_references_of_an_image_keep_their_order(tmp_path):
    annotations = [
        {"id": 1, "image_id": "1", "caption": "b"},
        {"id": 2, "image_id": 9, "caption": "c"},
        {"id": 3, "image_id": 1.0, "caption": "a"},
    ]
    path = write(tmp_path, references_of(*annotations))
    assert read_references(path) == {"1": ["b", "a"], "two": [], "9": ["c"]}


BROKEN = {
    b"[{": "is not valid or not complete JSON: .*char 2.*; expected .*image_id",
    b"[" * 200_000: "is not valid or not complete JSON",
    b'["caf\xe9"]': "line 1: .* probably in cp1252, .*: save it as UTF-8",
}


@pytest.mark.parametrize("read", [read_results, read_references])
@pytest.mark.parametrize("content", BROKEN)
def test_invalid_json_is_refused(tmp_path, read, content):
    path = write(tmp_path, content)
    with pytest.raises(CaptionGANError, match=BROKEN[content]):
        read(path)
    error_of(read, path)


@pytest.mark.parametrize("read", [read_results, read_references])
def test_missing_file_and_folder_are_refused(tmp_path, read):
    assert "is missing; expected" in error_of(read, str(tmp_path / "none.json"))
    assert "cannot be read: " in error_of(read, str(tmp_path))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([], "found a list of 0"),
        ("text", 'found "text"'),
        (None, "found null"),
        ({}, "found the keys (none)"),
        (references_of(), "found the keys 'images', 'annotations'."),
        ({str(key): "" for key in range(1000)}, "found the keys '0', '1', '2', '3', '4', ...."),
    ],
)
def test_other_formats_are_no_results(tmp_path, content, found):
    message = error_of(read_results, write(tmp_path, content))
    assert 'expected [{"image_id": 42, "caption": "a dog"}, ...]; ' + found in message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([{"image_id": 1, "caption": "a"}], "found a list of 1"),
        ({"images": [], "categories": []}, "found the keys 'images', 'categories'"),
        ({"images": {}, "annotations": []}, "found the keys 'images', 'annotations'"),
    ],
)
def test_other_formats_are_no_references(tmp_path, content, found):
    message = error_of(read_references, write(tmp_path, content))
    assert 'expected {"images": [{"id": 42}, ...], "annotations": ' in message and found in message


ENTRIES = [
    ("a dog", 'expected an object with image_id and caption; found "a dog"'),
    ([1, "a dog"], "expected an object with image_id and caption; found a list of 2"),
    ({"image_id": 7}, "expected an object with image_id and caption; found the keys 'image_id'"),
    ({"\n": ""}, r"expected an object with image_id and caption; found the keys '\n'"),
    ({"image_id": 7, "caption": None}, "the caption of image '7' is null; expected a string"),
    (
        {"image_id": 7, "caption": float("nan")},
        "the caption of image '7' is NaN; expected a string",
    ),
    ({"image_id": 7, "caption": 3}, "the caption of image '7' is 3; expected a string"),
    (
        {"image_id": 7, "caption": ["a"]},
        "the caption of image '7' is a list of 1; expected a string",
    ),
    (
        {"image_id": 7, "caption": "a \ud800 b"},
        r"the caption of image '7' has the lone surrogate '\ud800'; write",
    ),
    (
        {"image_id": "\udc00", "caption": ""},
        r"the image id '\udc00' has the lone surrogate '\udc00'; write",
    ),
    ({"image_id": 7.5, "caption": ""}, "the image id is 7.5; expected an integer or a string"),
    ({"image_id": float("nan"), "caption": ""}, "the image id is NaN; expected an integer"),
    ({"image_id": True, "caption": ""}, "the image id is true; expected an integer or a string"),
    ({"image_id": None, "caption": ""}, "the image id is null; expected an integer or a string"),
    ({"image_id": {}, "caption": ""}, "the image id is the keys (none); expected"),
]


@pytest.mark.parametrize(("entry", "expected"), ENTRIES)
def test_unusable_entry_is_named(tmp_path, entry, expected):
    good = {"image_id": 1, "caption": "a dog"}
    message = error_of(read_results, write(tmp_path, [good, entry]))
    assert f"file.json, number 2: {expected}" in message
    message = error_of(read_references, write(tmp_path, references_of(good, entry)))
    assert f"file.json, annotations, number 2: {expected}" in message


def test_unusable_image_is_named(tmp_path):
    path = write(tmp_path, references_of(images=[{"id": 1}, {"file_name": "a.jpg"}]))
    message = error_of(read_references, path)
    assert "images, number 2: expected an object with id; found the keys 'file_name'" in message


def test_two_captions_of_one_image_are_refused(tmp_path):
    entries = [{"image_id": key, "caption": ""} for key in (5, 42, 6, "42")]
    message = error_of(read_results, write(tmp_path, entries))
    assert "number 4: image '42' has a caption in number 2; keep one." in message


def test_matched_references_follow_the_order_of_the_captions():
    references = {"1": ["a", "b"], "2": [], "3": ["c", " "], "4": ["d"]}
    found = match_references({"3": "", "1": "x", "extra": " "}, references | {"extra": ["e"]})
    expected = {"3": ["c", " "], "1": ["a", "b"], "extra": ["e"]}
    assert found == MatchedReferences(expected, left_out=2, empty=2)
    assert list(found.references) == list(expected)


def test_captioned_images_without_references_are_counted_and_named():
    captions = {str(key): "a dog" for key in range(10)}
    references = {"1": ["a"], "2": [], "3": ["", " \n"], "x.jpg": ["a"]}
    with pytest.raises(CaptionGANError) as caught:
        match_references(captions, references)
    assert str(caught.value) == (
        "9 of 10 captioned images have no reference, or only empty ones: '0', '2', '3', '4', '5', "
        "...; add references (their image ids look like '1'), or remove these captions."
    )
    with pytest.raises(CaptionGANError, match=r"'0', .*look like '\(none\)'"):
        match_references(captions, {})


def test_golden_captions_score_as_in_pycocoevalcap(real_data):
    folder = real_data / "metric_golden"
    captions = read_results(str(folder / "fakecap_subset_results.json"))
    found = match_references(
        captions, read_references(str(folder / "fakecap_subset_annotations.json"))
    )
    scores = json.loads((folder / "fakecap_subset_scores_pycocoevalcap.json").read_text())
    expected = dict(zip(map(str, scores["image_ids"]), scores["per_image"]["CIDEr"], strict=True))
    assert (found.left_out, found.empty) == (0, 0)
    assert per_image_cider(captions, found.references) == pytest.approx(expected, abs=1e-4)


def test_time_to_read_references_of_the_size_of_coco_2014(tmp_path):
    """40,504 images with 202,654 captions."""
    images = [{"id": key, "file_name": f"COCO_val2014_{key:012}.jpg"} for key in range(40_504)]
    caption = "A very clean and well decorated empty bathroom, seen from its door."
    annotations = [
        {"image_id": number % 40_504, "id": number, "caption": caption} for number in range(202_654)
    ]
    path = write(tmp_path, {"images": images, "annotations": annotations})
    start = time.process_time()
    references = read_references(path)
    assert time.process_time() - start < 5
    assert len(references) == 40_504 and sum(map(len, references.values())) == 202_654
