"""Bad images and captions are skipped and counted, or are one-line errors without a traceback."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caption_gan.run import RunDirectory
from tests.programs import SMALL, call

CAPTIONS = ("A dog runs .", "A dog sits on the grass .", "The dog runs .")


@pytest.fixture
def photographs(tmp_path) -> Path:
    """A data set in Flickr8k's layout with 16 training and 4 validation images."""
    root = tmp_path / "flickr8k"
    (root / "Images").mkdir(parents=True)
    names = [f"{number}.jpg" for number in range(20)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(root / "Images" / name)
    (root / "captions.txt").write_text(
        "image,caption\n" + "".join(f"{name},{caption}\n" for name in names for caption in CAPTIONS)
    )
    (root / "Flickr_8k.trainImages.txt").write_text("\n".join(names[:16]))
    (root / "Flickr_8k.devImages.txt").write_text("\n".join(names[16:]))
    return root


def fit(root: Path, *arguments: str):
    """Trains for one epoch; returns the process and the run directory."""
    run = root.parent / "run"
    settings = ["--data.source=flickr", f"--data.root={root}", f"--run_dir={run}"]
    settings += [
        f"--data.cache={root.parent / 'cache'}",
        "--maximum_likelihood.epochs=1",
        "--logging.images=0",
    ]
    done = call("fit", *SMALL, *settings, *arguments)
    assert "Traceback" not in done.stderr
    return done, RunDirectory(run)


def test_unusable_data_are_counted_and_the_rest_is_trained_on(photographs):
    (photographs / "Images" / "0.jpg").write_bytes(b"these are no pixels")
    (photographs / "Images" / "1.jpg").unlink()
    with (photographs / "captions.txt").open("a", encoding="utf-8") as file:
        file.write("2.jpg,\n3.jpg,собака бежит\n")
        file.write(f"4.jpg,a dog runs {'on the grass ' * 9}\n")
    done, run = fit(photographs, "--text.minimum_count=2")
    assert done.returncode == 0, done.stderr
    for note in (
        "1 images do not decode (of an unknown format; give PNG, JPEG, GIF, BMP or WebP): 0.jpg",
        "1 images are listed but not there: 1.jpg",
        "1 captions are empty, of: 2.jpg",
        "1 captions have no word of the vocabulary and were skipped",
        "1 captions are longer than text.sequence_length 24 and were cut",
    ):
        assert note in done.stdout
        assert note in run.report.read_text()


def only_one_word(root: Path) -> str:
    names = [f"{number}.jpg" for number in range(20)]
    (root / "captions.txt").write_text(
        "image,caption\n" + "".join(f"{name},dog\n" for name in names)
    )
    return "expected at least two words"


def no_image_decodes(root: Path) -> str:
    for number in range(16, 20):
        (root / "Images" / f"{number}.jpg").write_bytes(b"")
    return "The split 'val' of flickr has no image that can be used. 4 images do not decode ("


def no_captions(root: Path) -> str:
    (root / "captions.txt").write_text("image,caption\n")
    return "The split 'train' of flickr has no image that can be used. 16 images have no caption"


@pytest.mark.parametrize("damage", [only_one_word, no_image_decodes, no_captions])
def test_data_without_anything_to_learn_are_a_one_line_error(photographs, damage):
    expected = damage(photographs)
    done, run = fit(photographs)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and expected in last
    assert not run.config.exists()


def test_weights_that_do_not_fit_are_a_one_line_error(photographs):
    path = photographs / "mine.weights.h5"
    path.write_text("no weights")
    done, run = fit(
        photographs,
        *("--encoder.name=keras_applications", f"--encoder.weights={path}"),
        *("--encoder.image_height=32", "--encoder.image_width=32"),
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: encoder.weights: '{path}' cannot be loaded into MobileNetV2")
    assert not run.config.exists()
