"""The program that trains dual encoders: what it writes embeds alike by every way in."""

import json

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.data.images import decode_and_resize
from caption_gan.models.dual_encoders.saved_model import DualEncoder
from tests.models.hugging_face.test_sentence_encoder import GOLDEN
from tests.programs import call
from tests.runs import IMAGES

SMALL = [
    "--data.source=scenes",
    "--data.train_images=24",
    "--data.val_images=12",
    "--data.test_images=1",
    "--text.minimum_count=1",
    "--dual_encoder.batch_size=8",
    "--dual_encoder.epochs=2",
    "--dual_encoder.hidden_size=16",
    "--dual_encoder.size=8",
]
# Networks that are trained on pixels, and frozen ones whose output is cached.
NETWORKS = {
    "scratch": ["--encoder.width=4", "--generator.embedding_size=8"],
    "frozen": [
        "--encoder.name=keras_applications",
        "--encoder.weights=none",
        "--encoder.image_height=32",
        "--encoder.image_width=32",
        "--encoder.frozen_up_to=block_1_expand_relu",
        "--encoder.trainable=true",
        "--encoder.flip=true",
        "--dual_encoder.pooling=attention",
        f"--dual_encoder.sentence_encoder={GOLDEN / 'bert'}",
        "--dual_encoder.images=16",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("networks", NETWORKS)
def test_what_is_written(tmp_path, networks):
    run = tmp_path / "dual"
    arguments = [*SMALL, *NETWORKS[networks], f"--data.cache={tmp_path}", f"--run_dir={run}"]
    done = call("train_dual_encoder", *arguments)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["training_images"] == (16 if networks == "frozen" else 24)
    assert len(metrics["history"]) == 2
    assert f"text_to_image/recall@1     {metrics['text_to_image/recall@1']:.3f}" in done.stdout
    kinds = {name.partition("/")[2] for name in metrics if name.startswith("one_wrong")}
    assert {"colour", "swapped colour"} <= kinds
    page = (run / "report.html").read_text()
    assert "swapped colour" in page

    encoder = DualEncoder(run)
    of_files = encoder.embed_images(IMAGES)
    assert of_files.shape == (5, 8)
    assert 5 < encoder.scale < 30
    side = 32 if networks == "frozen" else 64
    pixels = tf.stack([decode_and_resize(image, side, side) for image in IMAGES])
    np.testing.assert_allclose(encoder.images({"image": pixels}), of_files, atol=1e-5)
    embed = tf.function(encoder.texts)
    together = embed(tf.constant(["a red ball", "a tiny blue house"]))
    np.testing.assert_allclose(embed(tf.constant(["a red ball"]))[0], together[0], atol=1e-5)
    assert not np.allclose(*together)
    again = call("train_dual_encoder", *arguments)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "is not empty" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--dual_encoder.sentence_encoder=none"], 1, "none/config.json cannot be read"),
        (["--dual_encoder.batch_size=25"], 1, "batch_size is 25, but there are only 24"),
        (["--dual_encoder.pooling=max"], 2, "expected one of 'mean', 'attention'; got max"),
    ],
)
def test_errors_before_work(tmp_path, arguments, status, words):
    run = tmp_path / "dual"
    done = call(
        "train_dual_encoder", *SMALL, f"--data.cache={tmp_path}", f"--run_dir={run}", *arguments
    )
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not any(tmp_path.glob("*/Split-*"))
