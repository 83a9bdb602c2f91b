"""SciCap and FigCaps-HF as released, with synthetic figures; valid, invalid and real data."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from PIL import Image

from caption_gan.config.data import DataConfig, SciCapConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.scicap import open_scicap
from caption_gan.data.synthetic.dataset import SyntheticSource
from caption_gan.data.synthetic.figures import FiguresDataset
from caption_gan.errors import CaptionGANError

SYNTHETIC = SyntheticSource(
    FiguresDataset(), {"train": 3, "val": 1, "test": 1}, captions_per_image=1
)
LISTS = "List-of-Files-for-Each-Experiments"
SCICAP = ("SciCap-Caption-All", "SciCap-No-Subfig-Img", str.lower)
AS_IN_THE_README = ("SciCap-Caption-All", "SciCap-No-Subfig-Img", str.capitalize)
FIGCAPS_HF = ("Caption-All", "No-Subfig-Img", str.lower)


def record(name: str, sentences: list[str], image_text: list[str]) -> dict[str, Any]:
    """A record whose second sentence has the replacements of each form of the caption."""

    def form(second: str, tokens: str = "token") -> dict[str, Any]:
        all_sentences = [*(sentence.lower() for sentence in sentences), second]
        caption = " ".join(all_sentences)
        return {"caption": caption, "sentence": all_sentences, tokens: caption.split()}

    return {
        "contains-subfigure": False,
        "Img-text": image_text,
        "paper-ID": name.split("-")[0],
        "figure-ID": name,
        "figure-type": "Graph Plot",
        "0-originally-extracted": f"Figure 2. {' '.join(sentences)} It is 3% (or x = 1).",
        "1-lowercase-and-token-and-remove-figure-index": form("it is 3 % ( or x = 1 ) ."),
        "2-normalized": {
            "2-1-basic-num": form("it is NUM-TK ( or x = NUM-TK ) ."),
            "2-2-advanced-euqation-bracket": form("it is NUM-TK BRACKET-TK .", "tokens"),
        },
    }


def make_tree(root: Path, captions: str, figures: str, spell) -> None:
    for split, count in SYNTHETIC.images_of_split.items():
        names = []
        for index in range(count):
            example = SYNTHETIC.example(split, index)
            names.append(f"2101.0000{index}v1-{split.capitalize()}{index}-1.png")
            one = record(names[-1], list(example.captions), ["speed", "[m", f"{index}]"])
            write(root / captions / spell(split) / names[-1].replace(".png", ".json"), one)
            path = root / figures / spell(split) / names[-1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(example.image)
        lists = root / LISTS / "First-Sentence" / "No-Subfig"
        write(lists / spell(split) / "file_idx.json", names)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path) -> Path:
    make_tree(tmp_path, *SCICAP)
    return tmp_path


def open_tree(root: object, skips: Skips | None = None, **settings: Any):
    config = DataConfig(source="scicap", root=str(root), scicap=SciCapConfig(**settings))
    return open_scicap(config, Skips() if skips is None else skips)


def first(root: Path, **settings: Any):
    return next(open_tree(root, **settings).examples("train", range(1)))


@pytest.mark.parametrize("spelling", [SCICAP, AS_IN_THE_README, FIGCAPS_HF])
def test_figures_in_the_order_of_the_list_in_both_releases(tmp_path, spelling):
    make_tree(tmp_path, *spelling)
    source = open_tree(tmp_path)
    assert source.images_of_split == {"train": 3, "val": 1, "test": 1}
    for split, count in source.images_of_split.items():
        examples = list(source.examples(split, range(count)))
        assert [example.image_id for example in examples] == [
            f"2101.0000{index}v1-{split.capitalize()}{index}-1.png" for index in range(count)
        ]
        for index, example in enumerate(examples):
            drawn = SYNTHETIC.example(split, index)
            assert example.image == drawn.image
            assert example.captions == (drawn.captions[0].lower(),)
            assert example.image_text == f"speed [m {index}]"


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("lower_case", "it is 3 % ( or x = 1 ) ."),
        ("num_tk", "it is NUM-TK ( or x = NUM-TK ) ."),
        ("bracket_tk", "it is NUM-TK BRACKET-TK ."),
    ],
)
def test_all_forms_of_a_caption_or_its_first_sentence(root, text, second):
    sentence = SYNTHETIC.example("train", 0).captions[0].lower()
    assert first(root, text=text).captions == (sentence,)
    assert first(root, text=text, caption="whole").captions == (f"{sentence} {second}",)


def test_the_original_caption_is_not_divided_into_sentences(root):
    sentence = SYNTHETIC.example("train", 0).captions[0]
    example = first(root, text="original", caption="whole")
    assert example.captions == (f"Figure 2. {sentence} It is 3% (or x = 1).",)
    with pytest.raises(CaptionGANError, match=r"set data\.scicap\.caption to whole or"):
        open_tree(root, text="original")


def test_the_misspelt_key_may_be_spelt_correctly(root):
    path = next((root / SCICAP[0] / "train").glob("*Train0-1.json"))
    path.write_text(path.read_text().replace("euqation", "equation"))
    assert first(root, text="bracket_tk", caption="whole").captions[0].endswith("BRACKET-TK .")


@pytest.mark.parametrize(
    ("collection", "folder"),
    [
        ("single_sentence", "Single-Sentence-Caption"),
        ("at_most_100_tokens", "Caption-No-More-Than-100-Tokens"),
    ],
)
def test_the_collection_decides_which_figures_are_used(root, collection, folder):
    shutil.copytree(root / LISTS / "First-Sentence", root / LISTS / folder)
    write(
        root / LISTS / folder / "No-Subfig" / "train" / "file_idx.json",
        ["2101.00002v1-Train2-1.png"],
    )
    source = open_tree(root, collection=collection)
    assert source.images_of_split == {"train": 1, "val": 1, "test": 1}
    examples = source.examples("train", range(1))
    assert [example.image_id for example in examples] == ["2101.00002v1-Train2-1.png"]


def test_figures_with_subfigures_are_in_separate_folders(root):
    with pytest.raises(CaptionGANError, match=r"Yes-Subfig is missing, .* holds No-Subfig;"):
        open_tree(root, subfigures=True)
    (root / "SciCap-No-Subfig-Img").rename(root / "SciCap-Yes-Subfig-Img")
    lists = root / LISTS / "First-Sentence"
    (lists / "No-Subfig").rename(lists / "Yes-Subfig")
    assert first(root, subfigures=True).image == SYNTHETIC.example("train", 0).image


def test_unusable_figures_are_counted_by_reason(root):
    records, figures = root / SCICAP[0] / "train", root / SCICAP[1] / "train"
    (template,) = records.glob("*Train0-1.json")
    whole = json.loads(template.read_text())
    text = "1-lowercase-and-token-and-remove-figure-index"
    planted = {
        "fine": json.dumps({key: value for key, value in whole.items() if key != "Img-text"}),
        "no-record": None,
        "cut": template.read_text()[:100],
        "list": "[]",
        "cp1252": b'{"caf\xe9": 1}',
        "no-form": json.dumps({**whole, text: None}),
        "no-sentence": json.dumps({**whole, text: {"caption": "a chart .", "sentence": []}}),
        "blank": json.dumps({**whole, text: {"sentence": [" "]}}),
        "no-figure": template.read_text(),
    }
    for name, content in planted.items():
        if content is not None:
            content = content if isinstance(content, bytes) else content.encode()
            (records / f"{name}.json").write_bytes(content)
        if name != "no-figure":
            (figures / f"{name}.png").write_bytes(b"sources do not decode")
    names = [f"{name}.png" for name in planted]
    more = [None, 5, "", "fine.png"]
    write(root / LISTS / "First-Sentence/No-Subfig/train/file_idx.json", [*names, *more])
    skips = Skips()
    source = open_tree(root, skips)
    (example,) = source.examples("train", range(9))
    assert (example.image_id, example.image_text) == ("fine.png", "")
    assert skips.lines() == [
        "3 entries of file_idx.json are no file names: "
        "number 10 (null), number 11 (5), number 12 ('')",
        "1 figures have a record that is not JSON: cut.png",
        "1 figures have a record that is not UTF-8 (see data.encoding): cp1252.png",
        "4 figures have no caption of the form lower_case: "
        "list.png, no-form.png, no-sentence.png, blank.png",
        "1 figures have no record: no-record.png",
        "1 images are listed again; their captions are joined: fine.png",
        "1 images are listed but not there: no-figure.png",
    ]


def test_opening_reads_only_the_lists(root):
    for path in (*(root / SCICAP[0]).rglob("*.json"), *(root / SCICAP[1]).rglob("*.png")):
        path.unlink()
    assert open_tree(root).images_of_split == {"train": 3, "val": 1, "test": 1}


def test_the_test_split_may_be_absent_completely_but_not_partly(root):
    parts = [root / SCICAP[0], root / SCICAP[1], root / LISTS / "First-Sentence" / "No-Subfig"]
    shutil.rmtree(parts[2] / "test")
    with pytest.raises(CaptionGANError, match=r"No-Subfig/test is missing, .* holds train, val;"):
        open_tree(root)
    for part in parts[:2]:
        shutil.rmtree(part / "test")
    assert open_tree(root).images_of_split == {"train": 3, "val": 1}


def drop_lists(root: Path) -> str:
    (root / LISTS).rename(root / "lists")
    return f"{LISTS} is missing, .* holds SciCap-Caption-All, SciCap-No-Subfig-Img, lists; expected"


def drop_collection(root: Path) -> str:
    (root / LISTS / "First-Sentence").rename(root / LISTS / "first")
    return "First-Sentence is missing, .* holds first;"


def drop_list(root: Path) -> str:
    (root / LISTS / "First-Sentence/No-Subfig/val/file_idx.json").unlink()
    return "val/file_idx.json is missing; expected a JSON list"


def drop_split(root: Path) -> str:
    shutil.rmtree(root / LISTS / "First-Sentence/No-Subfig/val")
    return "No-Subfig/val is missing, .* holds test, train; expected SciCap as released"


def drop_figures(root: Path) -> str:
    shutil.rmtree(root / SCICAP[1] / "train")
    return "SciCap-No-Subfig-Img/train is missing"


def drop_records(root: Path) -> str:
    shutil.rmtree(root / SCICAP[0])
    return "SciCap-Caption-All is missing"


def cut_list(root: Path) -> str:
    (root / LISTS / "First-Sentence/No-Subfig/train/file_idx.json").write_text('["a.png"')
    return "train/file_idx.json is not a JSON list of one or more file names"


def other_list(root: Path) -> str:
    write(root / LISTS / "First-Sentence/No-Subfig/train/file_idx.json", [{"name": "a.png"}])
    return "train/file_idx.json is not a JSON list"


def paths_in_list(root: Path) -> str:
    write(root / LISTS / "First-Sentence/No-Subfig/train/file_idx.json", ["train/a.png"])
    return "train/file_idx.json is not a JSON list"


def empty_list(root: Path) -> str:
    write(root / LISTS / "First-Sentence/No-Subfig/val/file_idx.json", [])
    return "val/file_idx.json is not a JSON list of one or more file names"


@pytest.mark.parametrize(
    "damage",
    [
        *(drop_lists, drop_collection, drop_list, drop_split, drop_figures, drop_records),
        *(cut_list, other_list, paths_in_list, empty_list),
    ],
)
def test_an_invalid_layout_is_a_one_line_error(root, damage):
    expected = damage(root)
    with pytest.raises(CaptionGANError, match="^[^\n]*" + expected + "[^\n]*$"):
        open_tree(root)


def test_an_error_lists_only_a_few_of_many_files(root):
    for index in range(200):
        (root / SCICAP[1] / "train" / f"{index}.png").touch()
    with pytest.raises(CaptionGANError, match=r"holds 0\.png, 1\.png, .* \.\.\.;") as caught:
        open_tree(root / SCICAP[1] / "train")
    assert len(str(caught.value)) < 600 + 2 * len(str(root))


def test_the_fingerprint_changes_with_settings_lists_and_files(root):
    before = open_tree(root).fingerprint
    assert json.loads(json.dumps(before)) == before == open_tree(root).fingerprint
    assert before != open_tree(root, text="num_tk").fingerprint
    for changed in (
        *(root / SCICAP[0] / "val", root / SCICAP[1] / "val"),
        root / LISTS / "First-Sentence/No-Subfig/val/file_idx.json",
    ):
        os.utime(changed, (1e9, 1e9))
        after = open_tree(root).fingerprint
        assert after != before
        before = after


def test_remote_file_system(root):
    for path in root.rglob("*"):
        if path.is_file():
            there = f"ram://scicap/{path.relative_to(root)}"
            tf.io.gfile.makedirs(there.rsplit("/", 1)[0])
            tf.io.gfile.copy(str(path), there, overwrite=True)
    examples = list(open_tree("ram://scicap").examples("train", range(3)))
    assert examples == list(open_tree(root).examples("train", range(3)))
    assert len(examples) == 3


def test_real_data(real_data, root):
    samples = real_data / "scicap_samples"
    name = "1001.0025v1-Figure2-1"
    shutil.copy(samples / f"{name}.json", root / SCICAP[0] / "train")
    shutil.copy(samples / "images" / f"{name}.png", root / SCICAP[1] / "train")
    write(root / LISTS / "First-Sentence/No-Subfig/train/file_idx.json", [f"{name}.png"])
    example = first(root)
    sentence = "impact of the replay attack , as a function of the spoofing attack duration ."
    assert (example.image_id, example.captions) == (f"{name}.png", (sentence,))
    assert example.image_text.startswith("(b) s] [m fs et e of T im Attack duration [s] 350 300")
    assert Image.open(io.BytesIO(example.image)).format == "PNG"
    normalised = first(root, text="bracket_tk", caption="whole").captions[0]
    assert normalised.startswith(f"{sentence} BRACKET-TK location offset or error :")
    assert normalised.count("BRACKET-TK") == 2
    assert first(root, text="num_tk").captions == (sentence,)
    original = first(root, text="original", caption="whole").captions[0]
    assert original.startswith("Figure 2: Impact of the replay attack, as a function")
