"""Ratings in Flickr8k's formats and in JSON lines: what is read, left out and refused."""

import json
from pathlib import Path

import pytest

from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.human_ratings import RatedCaption, read_ratings

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
    """Writes files of ratings and captions, and reads them."""

    def __init__(self, folder: Path):
        self.ratings = folder / "ratings.txt"
        self.captions = folder / "Flickr8k.token.txt"
        self.captions.write_text(TOKENS)

    def read(self, text: str | bytes):
        self.ratings.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_ratings(str(self.ratings), str(self.captions))

    def error_of(self, text: str | bytes) -> str:
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
def json_lines(files) -> Files:
    """Files with references in COCO's format."""
    files.write_coco()
    return files


@pytest.mark.parametrize("ends", ["\n", "\r\n", " \n\n"])
def test_ratings_of_experts(files, ends):
    ratings = files.read(EXPERTS.replace("\n", ends))
    assert ratings.pairs == [
        RatedCaption("a.jpg", "A cat .", (1, 1, 2)),
        RatedCaption("a.jpg", "A fish .", (4, 3, 4)),
        RatedCaption("b.jpg", "A dog , running .", (2, 2, 2)),
    ]
    assert ratings.references == REFERENCES
    assert (ratings.left_out, ratings.references_left_out, ratings.tau) == (0, 0, "c")


def test_captions_may_be_a_csv_table(files):
    expected = files.read(EXPERTS)
    files.captions = files.captions.with_name("captions.txt")
    files.captions.write_text(TABLE)
    assert files.read(EXPERTS) == expected


def test_rated_references_are_left_out_from_the_pairs_of_experts(files):
    reference = "a.jpg\ta.jpg#0\t4\t4\t4\n"
    same_text = "a.jpg\tb.jpg#1\t4\t4\t4\n"
    ratings = files.read(reference + same_text + EXPERTS)
    assert ratings.pairs == files.read(EXPERTS).pairs
    assert (ratings.left_out, ratings.references) == (2, REFERENCES)
    assert "all captions are references of their image" in files.error_of(reference)


def test_rated_references_are_left_out_from_the_references_of_the_crowd(files):
    ratings = files.read(CROWD)
    assert ratings.pairs == [
        RatedCaption("a.jpg", "A cat .", (0,)),
        RatedCaption("a.jpg", "A dog , running .", (1,)),
        RatedCaption("b.jpg", "A dog , running .", (1 / 3,)),
        RatedCaption("b.jpg", "A fish .", (2 / 3,)),
    ]
    assert ratings.references == {"a.jpg": ["A dog ."], "b.jpg": ["A cat .", "A dog ."]}
    assert (ratings.left_out, ratings.references_left_out, ratings.tau) == (0, 1, "b")
    message = files.error_of(CROWD + "c.jpg\tc.jpg#0\t1\t3\t0\n")
    assert "all references of image 'c.jpg' are rated captions; remove a line" in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.jpg\tb.jpg#0\t1\t1", "expected image, caption#number and, as in the first line, three"),
        ("a.jpg\tb.jpg#0\t1\t1\t5", r"found 'a.jpg\tb.jpg#0\t1\t1\t5'"),
        ("a.jpg\tb.jpg#0\t1\t1\tnan", "three ratings from 1 to 4"),
        ("a.jpg\tb.jpg#0\t1\t3\t0", "three ratings from 1 to 4"),
        ("a.jpg b.jpg#0 1 1 1", "separated by tabs"),
        ("a.jpg\tb.jpg#9\t1\t1\t1", "'b.jpg#9' is not among the captions"),
        ("a.jpg\tb.jpg#-1\t1\t1\t1", "'b.jpg#-1' is not among the captions"),
        (
            "a.jpg\tb.jpg\t1\t1\t1",
            "'b.jpg' is not among the captions; expected the name of an image, #",
        ),
        ("a.jpg\tx.jpg#0\t1\t1\t1", "and the captions of the rated data set"),
        ("x.jpg\tb.jpg#0\t1\t1\t1", "image 'x.jpg' has no reference; add one, or remove the line"),
        ("d.jpg\tb.jpg#0\t1\t1\t1", "image 'd.jpg' has no reference"),
    ],
)
def test_unusable_line_of_experts_is_named(files, line, expected):
    message = files.error_of(EXPERTS + "\n" + line + "\n")
    assert f"{files.ratings}, line 5: " in message and expected in message


@pytest.mark.parametrize("columns", ["0.9\t1\t2", "0\t0\t0", "nan\t1\tnan", "2\t-2\t1", "1\t2\t3"])
def test_share_of_the_crowd_must_match_its_counts(files, columns):
    message = files.error_of(f"{CROWD}a.jpg\tb.jpg#0\t{columns}\n")
    assert "line 5: " in message and "the share, the number of yes and the number of no" in message


@pytest.mark.parametrize("text", ["image,caption,rating\n", "a.jpg\tb.jpg#0\t1\t2\t5\n", "[]", "5"])
def test_other_formats_are_refused(files, text):
    message = files.error_of(text)
    assert (
        "line 1: expected one pair per line: " in message and "from 1 to 4 or the share" in message
    )


def test_missing_empty_and_damaged_files_are_refused(files):
    assert "ratings.txt is empty; expected" in files.error_of("\n \n")
    assert "ratings.txt, line 1: 'a.jpg\\xff' is not text in utf-8" in files.error_of(b"a.jpg\xff")
    files.captions.write_text("a.jpg#0\tA dog .\nno tab\nb.jpg#0\tA cat .\n")
    assert "token.txt: 1 lines of Flickr8k.token.txt are malformed: line 2" in files.error_of(
        EXPERTS
    )
    files.captions.unlink()
    assert "Flickr8k.token.txt is missing" in files.error_of(EXPERTS)
    with pytest.raises(CaptionGANError, match=r"none.txt is missing; expected one pair per line"):
        read_ratings(str(files.ratings.with_name("none.txt")), str(files.captions))


def line_of(**changes: object) -> str:
    return json.dumps({"image_id": "1", "caption": "A cat.", "ratings": [1, 2.5]} | changes) + "\n"


NO_RATINGS: list = [None, 3, [], {}, ["3"], [None], [True], [float("nan")], [10**400]]


def test_ratings_in_json_lines(json_lines):
    ratings = json_lines.read(
        line_of() + "\n" + line_of(image_id=1, caption="Ä\u2028", ratings=[-3])
    )
    assert ratings.pairs == [
        RatedCaption("1", "A cat.", (1, 2.5)),
        RatedCaption("1", "Ä\u2028", (-3,)),
    ]
    assert ratings.references == {"1": ["A dog.", "A pup."]}
    assert (ratings.left_out, ratings.tau) == (0, "c")
    assert json_lines.read(line_of() + line_of(caption=" A dog.")).left_out == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"image_id": 1,', "is not valid or not complete JSON"),
        ("1\t2\t3", "is not valid or not complete JSON"),
        ("[]", "expected an object with image_id and caption"),
        (line_of(image_id=1.5), "the image id is 1.5"),
        (line_of(caption=None), "the caption of image '1' is null"),
        (line_of(caption="\ud800"), "lone surrogate"),
        (line_of(image_id=2), "image '2' has no reference; add one, or remove the line"),
        (line_of(image_id=3), "image '3' has no reference"),
        *(
            (line_of(ratings=ratings), "the ratings of image '1' are missing or not numbers")
            for ratings in NO_RATINGS
        ),
    ],
)
def test_unusable_json_line_is_named(json_lines, line, expected):
    message = json_lines.error_of(line_of() + line)
    assert f"{json_lines.ratings}, line 2" in message and expected in message
