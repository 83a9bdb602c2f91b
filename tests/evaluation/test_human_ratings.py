"""Ratings in Flickr8k's forms and in JSON lines: what is read, left out and refused."""

import json
from pathlib import Path

import pytest

from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.human_ratings import Rated, read_ratings

TOKENS = (
    "a.jpg#0\tA dog .\na.jpg#1\tA dog , running .\nb.jpg#0\tA cat .\nb.jpg#1\tA dog .\n"
    "c.jpg#0\tA fish .\nd.jpg#0\t \n"
)
TABLE = (
    'image,caption\na.jpg,A dog .\na.jpg,"A dog , running ."\nb.jpg,A cat .\nb.jpg,A dog .\n'
    "c.jpg,A fish .\n"
)
REFERENCES = {"a.jpg": ["A dog .", "A dog , running ."], "b.jpg": ["A cat .", "A dog ."]}
EXPERTS = "a.jpg\tb.jpg#0\t1\t1\t2\na.jpg\tc.jpg#0\t4\t3\t4\nb.jpg\ta.jpg#1\t2\t2\t2\n"
CROWD = (
    "a.jpg\tb.jpg#0\t0\t0\t3\na.jpg\ta.jpg#1\t1\t3\t0\nb.jpg\ta.jpg#1\t0.333333333333\t1\t2\n"
    "b.jpg\tc.jpg#0\t0.67\t2\t1\n"
)


class Files:
    """Writes ratings and captions, and reads them."""

    def __init__(self, folder: Path):
        self.ratings = folder / "ratings.txt"
        self.captions = folder / "Flickr8k.token.txt"
        self.captions.write_text(TOKENS)

    def read(self, text: str | bytes):
        self.ratings.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_ratings(str(self.ratings), str(self.captions))

    def refusal(self, text: str | bytes) -> str:
        with pytest.raises(CaptionGANError) as caught:
            self.read(text)
        message = str(caught.value)
        assert "\n" not in message and len(message) < 600
        return message

    def write_coco(self):
        self.captions = self.captions.with_name("captions.json")
        annotations = [{"image_id": 1, "caption": text} for text in ("A dog.", "A pup.")]
        content = {"images": [{"id": 1}, {"id": 2}], "annotations": annotations}
        self.captions.write_text(json.dumps(content))


@pytest.fixture
def files(tmp_path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def plain(files) -> Files:
    """With references in COCO's format."""
    files.write_coco()
    return files


@pytest.mark.parametrize("ends", ["\n", "\r\n", " \n\n"])
def test_ratings_of_experts(files, ends):
    ratings = files.read(EXPERTS.replace("\n", ends))
    assert ratings.pairs == [
        Rated("a.jpg", "A cat .", (1, 1, 2)),
        Rated("a.jpg", "A fish .", (4, 3, 4)),
        Rated("b.jpg", "A dog , running .", (2, 2, 2)),
    ]
    assert ratings.references == REFERENCES
    assert (ratings.left_out, ratings.references_left_out, ratings.tau) == (0, 0, "c")


def test_captions_may_be_a_table_without_numbers(files):
    expected = files.read(EXPERTS)
    files.captions = files.captions.with_name("captions.txt")
    files.captions.write_text(TABLE)
    assert files.read(EXPERTS) == expected


def test_pairs_with_a_reference_are_left_out_for_experts(files):
    own = "a.jpg\ta.jpg#0\t4\t4\t4\n"
    same_text = "a.jpg\tb.jpg#1\t4\t4\t4\n"
    ratings = files.read(own + same_text + EXPERTS)
    assert ratings.pairs == files.read(EXPERTS).pairs
    assert (ratings.left_out, ratings.references) == (2, REFERENCES)
    assert "every caption is a reference of its image" in files.refusal(own)


def test_references_that_are_rated_are_left_out_for_the_crowd(files):
    ratings = files.read(CROWD)
    assert ratings.pairs == [
        Rated("a.jpg", "A cat .", (0,)),
        Rated("a.jpg", "A dog , running .", (1,)),
        Rated("b.jpg", "A dog , running .", (1 / 3,)),
        Rated("b.jpg", "A fish .", (2 / 3,)),
    ]
    assert ratings.references == {"a.jpg": ["A dog ."], "b.jpg": ["A cat .", "A dog ."]}
    assert (ratings.left_out, ratings.references_left_out, ratings.tau) == (0, 1, "b")
    message = files.refusal(CROWD + "c.jpg\tc.jpg#0\t1\t3\t0\n")
    assert "all references of image 'c.jpg' are rated captions; remove a line" in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.jpg\tb.jpg#0\t1\t1", "expected image, caption#number and, as in the first line, three"),
        ("a.jpg\tb.jpg#0\t1\t1\t5", r"found 'a.jpg\tb.jpg#0\t1\t1\t5'"),
        ("a.jpg\tb.jpg#0\t1\t1\tnan", "three ratings from 1 to 4"),
        ("a.jpg\tb.jpg#0\t1\t3\t0", "three ratings from 1 to 4"),
        ("a.jpg b.jpg#0 1 1 1", "parted by tabs"),
        ("a.jpg\tb.jpg#9\t1\t1\t1", "'b.jpg#9' is not among the captions"),
        ("a.jpg\tb.jpg#-1\t1\t1\t1", "'b.jpg#-1' is not among the captions"),
        ("a.jpg\tb.jpg\t1\t1\t1", "'b.jpg' is not among the captions; expected an image's name, #"),
        ("a.jpg\tx.jpg#0\t1\t1\t1", "and the captions of the data set that was rated"),
        ("x.jpg\tb.jpg#0\t1\t1\t1", "image 'x.jpg' has no reference; add one, or remove the line"),
        ("d.jpg\tb.jpg#0\t1\t1\t1", "image 'd.jpg' has no reference"),
    ],
)
def test_a_line_of_experts_that_cannot_be_used_is_named(files, line, expected):
    message = files.refusal(EXPERTS + "\n" + line + "\n")
    assert f"{files.ratings}, line 5: " in message and expected in message


@pytest.mark.parametrize("columns", ["0.9\t1\t2", "0\t0\t0", "nan\t1\tnan", "2\t-2\t1", "1\t2\t3"])
def test_a_share_must_be_that_of_its_numbers(files, columns):
    message = files.refusal(f"{CROWD}a.jpg\tb.jpg#0\t{columns}\n")
    assert "line 5: " in message and "the share, the number of yes and the number of no" in message


@pytest.mark.parametrize("text", ["image,caption,rating\n", "a.jpg\tb.jpg#0\t1\t2\t5\n", "[]", "5"])
def test_another_form_is_refused(files, text):
    message = files.refusal(text)
    assert "line 1: expected a line a pair: " in message and "from 1 to 4 or the share" in message


def test_files_that_are_missing_empty_or_damaged_are_refused(files):
    assert "ratings.txt is empty; expected" in files.refusal("\n \n")
    assert "ratings.txt is not UTF-8" in files.refusal(b"a.jpg\xff")
    files.captions.write_text("a.jpg#0\tA dog .\nno tab\nb.jpg#0\tA cat .\n")
    assert "token.txt: 1 lines of Flickr8k.token.txt are malformed: line 2" in files.refusal(
        EXPERTS
    )
    files.captions.unlink()
    assert "Flickr8k.token.txt is missing" in files.refusal(EXPERTS)
    with pytest.raises(CaptionGANError, match=r"none.txt is missing; expected a line a pair"):
        read_ratings(str(files.ratings.with_name("none.txt")), str(files.captions))


def line_of(**changes: object) -> str:
    return json.dumps({"image_id": "1", "caption": "A cat.", "ratings": [1, 2.5]} | changes) + "\n"


NO_RATINGS: list = [None, 3, [], {}, ["3"], [None], [True], [float("nan")], [10**400]]


def test_ratings_in_json_lines(plain):
    ratings = plain.read(line_of() + "\n" + line_of(image_id=1, caption="Ä\u2028", ratings=[-3]))
    assert ratings.pairs == [Rated("1", "A cat.", (1, 2.5)), Rated("1", "Ä\u2028", (-3,))]
    assert ratings.references == {"1": ["A dog.", "A pup."]}
    assert (ratings.left_out, ratings.tau) == (0, "c")
    assert plain.read(line_of() + line_of(caption=" A dog.")).left_out == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"image_id": 1,', "is no JSON, or only a part of it"),
        ("1\t2\t3", "is no JSON, or only a part of it"),
        ("[]", "expected an object with image_id and caption"),
        (line_of(image_id=1.5), "the image id is 1.5"),
        (line_of(caption=None), "the caption of image '1' is null"),
        (line_of(caption="\ud800"), "half a character"),
        (line_of(image_id=2), "image '2' has no reference; add one, or remove the line"),
        (line_of(image_id=3), "image '3' has no reference"),
        *(
            (line_of(ratings=ratings), "the ratings of image '1' are missing or no numbers")
            for ratings in NO_RATINGS
        ),
    ],
)
def test_a_json_line_that_cannot_be_used_is_named(plain, line, expected):
    message = plain.refusal(line_of() + line)
    assert f"{plain.ratings}, line 2" in message and expected in message
