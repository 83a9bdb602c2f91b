"""The Python API: what `import caption_gan` offers, on runs made in seconds."""

import contextlib
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import caption_gan
import caption_gan.evaluate
import caption_gan.fit
from caption_gan.evaluation.stage_comparison import load_critic
from caption_gan.fit import main
from caption_gan.models.critics.critic import build_critic
from caption_gan.run import RunDirectory, load_run, save_weights
from tests.runs import IMAGES, untrained_run

SIZE = (4, 5)  # Rows and columns of the regions of an image.
MISTAKES_OF_IMAGES = [
    (b"no pixels", "not an image that can be decoded: it is of an unknown format; give PNG"),
    ("nowhere.png", r"\(nowhere.png\) cannot be read: No such file"),
    (5, "is of type int; give a path, bytes, a PIL image or an array"),
    (np.zeros([2, 8, 8, 3], np.uint8), r"uint8 of shape \[2, 8, 8, 3\]; give .* as a list"),
    (np.zeros([8, 8, 2], np.uint8), r"shape \[8, 8, 2\]"),
    (np.zeros([0, 8], np.uint8), r"shape \[0, 8\]"),
    (np.zeros([8, 8], np.int64), "int64"),
    (np.full([8, 8], 255.0), "values from 255 to 255; divide"),
    (np.full([8, 8], np.nan), "values from nan to nan"),
]


@pytest.fixture(scope="module")
def captioner(run):
    with contextlib.chdir(run.path.parent):  # The tests use it from another folder.
        return caption_gan.load(run.path.name)


@pytest.fixture(scope="module")
def exported_captioner(exported):
    with contextlib.chdir(exported.parent):
        return caption_gan.load(exported.name)


def pixels() -> np.ndarray:
    """The first test image, uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(IMAGES[0])))


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def in_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_heavy():
    modules = json.loads(
        in_process(
            "import sys, json; before = set(sys.modules); import caption_gan;"
            "print(json.dumps([*set(sys.modules) - before]))"
        )
    )
    assert "caption_gan" in modules
    assert not {"tensorflow", "keras", "numpy", "PIL", "jsonargparse"} & set(modules)
    assert len(modules) < 50


def test_every_public_name_exists():
    for name in caption_gan.__all__:
        assert getattr(caption_gan, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'captoin'"):
        caption_gan.captoin  # noqa: B018


@pytest.mark.parametrize("name", ["fit", "evaluate"])
def test_importing_a_program_does_not_replace_the_function_of_its_name(name):
    code = f"""
import caption_gan
function = caption_gan.{name}
import caption_gan.{name}
from caption_gan.{name} import main
assert caption_gan.{name} is function
from caption_gan import {name}
assert {name} is function
assert main.__module__ == "caption_gan.{name}"
"""
    in_process(code)


def test_a_program_is_importable_under_its_name():
    assert main.__module__ == "caption_gan.fit"
    assert caption_gan.fit.__module__ == "caption_gan"
    assert caption_gan.evaluate.__module__ == "caption_gan"


def test_type_checkers_see_the_signatures(tmp_path):
    code = tmp_path / "user.py"
    code.write_text(
        "import caption_gan\n"
        "import caption_gan.fit\n"
        "captioner = caption_gan.load('run')\n"
        "reveal_type(captioner.caption('a.png'))\n"
        "reveal_type(captioner.caption(['a.png', b'']))\n"
        "reveal_type(captioner.score('a.png', 'a cat'))\n"
        "reveal_type(caption_gan.fit(seed=1).metrics)\n"
        "reveal_type(caption_gan.evaluate('run'))\n"
        "caption_gan.load(5)\n"
    )
    assert (Path(caption_gan.__file__).parent / "py.typed").is_file()
    root = Path(caption_gan.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=setup.cfg", code],
        capture_output=True,
        text=True,
        cwd=root,
    )
    revealed = [line.split('"')[1] for line in done.stdout.splitlines() if "Revealed" in line]
    kind = "caption_gan.evaluation.trained_captioner"
    assert [text.replace("builtins.", "") for text in revealed] == [
        f"list[{kind}.Caption]",
        f"list[list[{kind}.Caption]]",
        f"{kind}.CaptionScore",
        "dict[str, float]",
        "dict[str, float]",
    ], done.stdout
    assert done.stdout.count(" error: ") == 1, done.stdout  # The path that is a number.


def test_the_likeliest_caption_comes_first_and_then_samples_by_score(captioner):
    captions = captioner.caption(IMAGES[0], n=4)
    assert len(captions) == 4
    scores = [caption.score for caption in captions[1:]]
    assert scores == sorted(scores, reverse=True)
    assert all(caption.attention is None and caption.tokens is None for caption in captions)
    (likeliest,) = captioner.caption(IMAGES[0], n=1)
    assert likeliest == captions[0]


def test_seed_temperature_and_top_p_change_samples_alone(captioner):
    first = captioner.caption(IMAGES[0])
    assert captioner.caption(IMAGES[0]) == first
    for other in ({"seed": 1}, {"temperature": 0.1}, {"top_p": 0.1}):
        changed = captioner.caption(IMAGES[0], **other)
        assert changed[0] == first[0]
        assert changed[1:] != first[1:], other


def test_images_of_a_list_do_not_depend_on_each_other(captioner):
    together = captioner.caption(IMAGES[:3])
    assert together == [captioner.caption(image) for image in IMAGES[:3]]
    assert captioner.caption(tuple(IMAGES[:3])) == together
    assert captioner.caption([]) == []


def test_all_kinds_of_images_give_the_captions_of_the_file(captioner, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(IMAGES[0])
    expected = captioner.caption(IMAGES[0], attention=True)
    kinds = [path, str(path), Image.open(path), pixels(), pixels() / 255]
    for captions in captioner.caption(kinds, attention=True):
        assert captions == expected
        for caption, reference in zip(captions, expected, strict=True):
            np.testing.assert_array_equal(caption.attention, reference.attention)


def test_grey_transparent_and_turned_images_give_the_captions_of_their_files(captioner, tmp_path):
    image = Image.fromarray(pixels())
    transparent = np.dstack([pixels(), pixels()[..., :1]])
    grey = np.asarray(image.convert("L"))
    for array in (grey, transparent):
        file = png(Image.fromarray(array))
        assert captioner.caption(array, n=1) == captioner.caption(file, n=1)
    for mode in ("1", "P", "LA", "CMYK", "F"):
        converted = image.convert(mode)
        file = png(converted if mode in ("1", "P", "LA") else converted.convert("RGB"))
        assert captioner.caption(converted, n=1) == captioner.caption(file, n=1), mode
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned by 90 degrees.
    image.save(turned, exif=exif)
    upright = png(image.transpose(Image.Transpose.ROTATE_270))
    assert captioner.caption(Image.open(turned), n=1) == captioner.caption(upright, n=1)


def test_beam_search(captioner):
    captions = captioner.caption(IMAGES[0], n=2, beam=3, attention=True)
    assert len(captions) == 2
    assert captions[0].score >= captions[1].score
    assert captions[0].attention.shape == (len(captions[0].tokens), *SIZE)
    assert len(captioner.caption(IMAGES[0], n=5, beam=3)) == 3


def test_attention_has_a_map_for_each_token(captioner):
    for caption in captioner.caption(IMAGES[0], n=3, attention=True):
        assert caption.attention.shape == (len(caption.tokens), *SIZE)
        np.testing.assert_allclose(caption.attention.sum(axis=(1, 2)), 1, rtol=1e-5)
        assert " ".join(caption.tokens) == caption.text


def test_the_log_likelihood_of_the_greedy_caption_is_its_score(captioner):
    greedy = [caption for (caption,) in captioner.caption(IMAGES, n=1)]
    scores = captioner.score(IMAGES, [caption.text for caption in greedy])
    np.testing.assert_allclose(
        [score.log_likelihood for score in scores], [caption.score for caption in greedy], rtol=1e-5
    )
    assert scores[0].critic is None
    single = captioner.score(IMAGES[0], greedy[0].text)
    assert single.log_likelihood == pytest.approx(scores[0].log_likelihood, rel=1e-5)
    assert captioner.score(IMAGES[0], "two red dots cross").log_likelihood < single.log_likelihood
    assert captioner.score([], []) == []


def test_the_critic_scores_too_where_the_run_has_one(tmp_path):
    run = untrained_run(tmp_path / "run")
    config, _, network = load_run(run.path)
    config = dataclasses.replace(config, stages=["wgan_gp"])
    run.write_config(config)
    keras.utils.set_random_seed(1)
    critic = build_critic(config.wgan_gp.critic, network.generator)
    for weight in critic.trainable_weights:
        weight.assign(keras.random.normal(weight.shape, stddev=0.3, seed=2))
    save_weights(critic, run.critic_weights)
    captioner = caption_gan.load(run.path)
    texts = ["a red line rises", "two dots cross"]
    scores = captioner.score([IMAGES[0]] * 2, texts)
    assert scores[0].critic != scores[1].critic
    loaded = load_critic(run, config, network.generator)
    token_ids = captioner.tokenizer.tokenize(texts)[:, None]
    image = tf.stack([captioner.pixels(IMAGES[0])] * 2)

    @tf.function
    def critic_scores() -> tf.Tensor:
        regions = network.regions({"image": image})
        return loaded.score_tokens(token_ids, loaded.encode(regions))[:, 0]

    expected = critic_scores().numpy()
    np.testing.assert_allclose([score.critic for score in scores], expected, rtol=1e-5)


@pytest.mark.parametrize(("image", "words"), MISTAKES_OF_IMAGES)
def test_an_image_that_cannot_be_read_is_named(image, words, captioner):
    with pytest.raises(caption_gan.CaptionGANError, match=words) as single:
        captioner.caption(image)
    assert str(single.value).startswith("the image ")
    with pytest.raises(caption_gan.CaptionGANError, match=words) as of_several:
        captioner.score([IMAGES[0], image], ["a", "b"])
    assert str(of_several.value).startswith("images[1] ")
    assert "\n" not in str(of_several.value)


@pytest.mark.parametrize(
    "option", [{"n": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"beam": 0}]
)
def test_options_out_of_range_are_refused(option, captioner):
    (name,) = option
    with pytest.raises(caption_gan.CaptionGANError, match=f"^{name} is .*; give "):
        captioner.caption(IMAGES[0], **option)


@pytest.mark.parametrize(
    ("images", "captions"), [(IMAGES[:2], ["a"]), (IMAGES[:1], "a"), (IMAGES[0], ["a"])]
)
def test_images_and_captions_must_match(images, captions, captioner):
    with pytest.raises(caption_gan.CaptionGANError, match="equally long list"):
        captioner.score(images, captions)


def test_a_path_that_is_neither_run_nor_saved_model_is_refused(tmp_path):
    with pytest.raises(caption_gan.CaptionGANError, match="is not a run directory"):
        caption_gan.load(tmp_path)


def test_a_run_without_weights_is_refused(tmp_path):
    run = untrained_run(tmp_path / "run")
    run.best_weights.unlink()
    with pytest.raises(caption_gan.CaptionGANError, match="has no trained weights yet"):
        caption_gan.load(run.path)


def test_a_run_on_precomputed_regions_is_refused(tmp_path):
    regions = tmp_path / "regions"
    regions.mkdir()
    np.save(regions / "0.npy", np.zeros([4, 6]))
    run = untrained_run(
        tmp_path / "run", settings=["--encoder.name=precomputed", f"--encoder.regions={regions}"]
    )
    with pytest.raises(caption_gan.CaptionGANError, match="precomputed regions and cannot"):
        caption_gan.load(run.path)


def test_a_saved_model_captions_as_its_run(exported_captioner, captioner):
    for image in (*IMAGES[:2], pixels()):
        (of_run,) = captioner.caption(image, n=1, attention=True)
        (of_model,) = exported_captioner.caption(image, n=1, attention=True)
        assert of_model.text == of_run.text
        assert of_model.score == pytest.approx(of_run.score, rel=1e-5)
        assert of_model.tokens == of_run.tokens
        np.testing.assert_allclose(of_model.attention, of_run.attention, rtol=1e-4, atol=1e-6)
    of_run, of_model = (some.caption(IMAGES[0], beam=5) for some in (captioner, exported_captioner))
    assert [caption.text for caption in of_model] == [caption.text for caption in of_run]
    assert exported_captioner.caption([]) == []


def test_a_saved_model_draws_samples(exported_captioner):
    captions = exported_captioner.caption(IMAGES[0], n=4)
    assert len(captions) == 4
    assert exported_captioner.caption(IMAGES[:2], n=4)[0] == captions
    assert exported_captioner.caption(IMAGES[0], n=4, seed=1)[1:] != captions[1:]
    scores = [caption.score for caption in captions[1:]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 7}, "give n up to 6"),
        ({"beam": 3}, "give beam=5"),
        ({"n": 2, "attention": True}, "give n=1 and beam=1"),
    ],
)
def test_what_a_saved_model_cannot_do_is_refused(options, words, exported_captioner):
    with pytest.raises(caption_gan.CaptionGANError, match=words):
        exported_captioner.caption(IMAGES[0], **options)


def test_a_saved_model_cannot_score(exported_captioner):
    with pytest.raises(caption_gan.CaptionGANError, match="cannot score; load the run"):
        exported_captioner.score(IMAGES[0], "a red line")


def test_fit_returns_the_run_with_its_metrics(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # Without Java.
    settings = tmp_path / "settings.yaml"
    settings.write_text("seed: 3\ndata: {train_images: 40, val_images: 12, test_images: 4}\n")
    trained = caption_gan.fit(
        settings,
        run_dir=tmp_path / "run",
        data={"cache": str(tmp_path / "cache")},
        encoder={"image_height": 32, "image_width": 40, "width": 8},
        generator={"embedding_size": 16, "hidden_size": 16},
        text={"minimum_count": 1, "word_vectors": None},
        maximum_likelihood={"batch_size": 8, "epochs": 1},
        logging={"images": 0, "histograms": False},
        stages=["maximum_likelihood"],
    )
    assert trained.path == tmp_path / "run"
    config = RunDirectory(trained.path).read_config()
    assert (config.seed, config.data.train_images, config.encoder.width) == (3, 40, 8)
    written = json.loads((trained.path / "metrics.json").read_text())
    assert trained.metrics["val/greedy/CIDEr"] == written["val/greedy/CIDEr"]
    assert all(isinstance(value, float) for value in trained.metrics.values())
    assert "val/greedy" not in trained.summary
    assert "CIDEr" in trained.summary
    assert len(trained.captioner().caption(IMAGES[0], n=2)) == 2

    metrics = caption_gan.evaluate(trained, split="test")
    assert 0 <= metrics["test/greedy/fact_accuracy"] <= 1
    assert metrics.keys() <= trained.metrics.keys()
    # A complete configuration is that of the run, unless a setting is added.
    with pytest.raises(caption_gan.CaptionGANError, match="seed was 3, is 4"):
        caption_gan.fit(config, seed=4)


def test_mistakes_in_settings_are_answered_in_one_line(tmp_path):
    for settings, words in (
        ({"data": {"sorce": "scenes"}}, "Did you mean data.source?"),
        ({"seed": "many"}, "seed"),
        ({"stages": ["wgan"]}, "stages"),
    ):
        with pytest.raises(caption_gan.CaptionGANError) as refused:
            caption_gan.fit(run_dir=tmp_path / "run", **settings)
        assert words in str(refused.value)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()
