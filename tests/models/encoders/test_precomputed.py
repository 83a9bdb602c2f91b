"""Regions from files: what is read, what is refused."""

import pickle
import tracemalloc

import keras
import numpy as np
import pytest

from caption_gan.config.checks import check
from caption_gan.config.models import EncoderConfig
from caption_gan.config.run import Config
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.models.encoders.precomputed import PrecomputedEncoder


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("a", "b", "c.d")):
        np.save(tmp_path / f"{name}.npy", np.full((4, 3), number, np.float32))
    return tmp_path


def test_settings_choose_it_and_regions_are_read_by_image(folder):
    encoder = build_encoder(EncoderConfig(name="precomputed", regions=str(folder)))
    assert isinstance(encoder, PrecomputedEncoder)
    assert (encoder.regions_shape, encoder.grid) == ((4, 3), (2, 2))
    assert encoder.trainable_variables == []
    np.testing.assert_array_equal(encoder.read("b.jpg"), np.ones((4, 3)))
    np.testing.assert_array_equal(encoder.read("c.d.jpg"), np.full((4, 3), 2))
    assert encoder.read("z.jpg") is None


def test_files_are_found_by_the_path_of_the_image(tmp_path):
    for number, name in enumerate(("monday/1", "tuesday/1.png", "tuesday/2", "3", "4.jpg")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", np.full(3, number))
    encoder = PrecomputedEncoder(str(tmp_path))
    ids = [
        "monday/1.png",
        "images/tuesday/1.png",
        "2.png",
        "sunday/3.png",
        "sunday/4.jpg",
        "0/1.png",
    ]
    encoder.check_names(ids)
    found = [regions if regions is None else regions[0, 0] for regions in map(encoder.read, ids)]
    assert found == [0, 1, 2, 3, 4, None]
    assert encoder.read("1.png") is None  # It may be either.


@pytest.mark.parametrize("ids", [("monday/b.png", "tuesday/b.png"), ("b.jpg", "b.png")])
def test_a_file_that_fits_two_images_is_refused(folder, ids):
    encoder = PrecomputedEncoder(str(folder))
    with pytest.raises(
        CaptionGANError, match=rf"^[^\n]*b\.npy fits the images {ids[0]} and {ids[1]}; name[^\n]*$"
    ):
        encoder.check_names(ids)


def test_one_vector_an_image_is_one_region(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5))
    encoder = PrecomputedEncoder(str(tmp_path))
    assert (encoder.regions_shape, encoder.grid) == ((1, 5), (1, 1))
    np.testing.assert_array_equal(encoder.read("a.png"), [[0, 1, 2, 3, 4]])


def test_config_round_trip(folder):
    encoder = PrecomputedEncoder(str(folder))
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(encoder))
    assert (twin.folder, twin.regions_shape) == (encoder.folder, encoder.regions_shape)


def test_the_fingerprint_follows_the_files(folder):
    before = PrecomputedEncoder(str(folder)).cache_key
    assert PrecomputedEncoder(str(folder)).cache_key == before
    np.save(folder / "e.npy", np.zeros((4, 3)))
    assert PrecomputedEncoder(str(folder)).cache_key != before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((5, 3)), r"\(5, 3\), other files"),
        (np.zeros((4, 3, 2)), "must hold finite numbers"),
        (np.full((4, 3), np.nan), "must hold finite numbers"),
        (np.full((4, 3), 1e6), "within float16"),  # Would be infinite.
        (np.array([["red"] * 3] * 4), "cannot be read"),
    ],
)
def test_other_content_is_refused(folder, content, words):
    encoder = PrecomputedEncoder(str(folder))
    with np.errstate(over="ignore"):
        np.save(folder / "b.npy", content)
        with pytest.raises(CaptionGANError, match=rf"^[^\n]*b\.npy[^\n]*{words}[^\n]*$"):
            encoder.read("b.jpg")


def test_a_file_that_is_no_array_is_refused(folder):
    (folder / "a.npy").write_text("these are no numbers")
    with pytest.raises(CaptionGANError, match=r"^[^\n]*a\.npy cannot be read[^\n]*$"):
        PrecomputedEncoder(str(folder))


def save_rows(path, rows, regions=4):
    """Row n holds n everywhere."""
    path.mkdir(exist_ok=True)
    values = np.arange(rows, dtype=np.float32)[:, None, None]
    np.save(path / "features.npy", np.broadcast_to(values, (rows, regions, 3)))


def test_rows_are_read_by_folder_and_number(tmp_path):
    save_rows(tmp_path / "train", 3)
    save_rows(tmp_path / "val", 2)
    encoder = build_encoder(EncoderConfig(name="precomputed", regions=str(tmp_path)))
    assert (encoder.regions_shape, encoder.grid) == ((4, 3), (2, 2))
    regions = encoder.read("train-000002")
    assert regions.dtype == np.float16
    np.testing.assert_array_equal(regions, np.full((4, 3), 2))
    np.testing.assert_array_equal(encoder.read("val-000001"), np.full((4, 3), 1))
    for name in ("val-000002", "test-000000", "000001", "train-", "train-x", "a.jpg"):
        assert encoder.read(name) is None


def test_rows_of_one_file_are_read_by_number(tmp_path):
    np.save(tmp_path / "features.npy", np.arange(6).reshape(3, 2))
    encoder = PrecomputedEncoder(str(tmp_path))
    assert encoder.regions_shape == (1, 2)
    np.testing.assert_array_equal(encoder.read("000001"), [[2, 3]])


def test_rows_are_read_when_they_are_asked_for(tmp_path):
    rows = 10**6  # 2 GB, of which the disk holds the pages that are written.
    features = np.lib.format.open_memmap(
        tmp_path / "features.npy", mode="w+", dtype=np.float32, shape=(rows, 512)
    )
    features[rows - 1] = 7
    del features
    tracemalloc.start()
    encoder = PrecomputedEncoder(str(tmp_path))
    np.testing.assert_array_equal(encoder.read("999999"), np.full((1, 512), 7))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6


def test_rows_survive_config_and_pickle(tmp_path):
    save_rows(tmp_path / "train", 3)
    encoder = PrecomputedEncoder(str(tmp_path))
    config = keras.saving.serialize_keras_object(encoder)
    for twin in (
        keras.saving.deserialize_keras_object(config),
        pickle.loads(pickle.dumps(encoder)),
    ):
        np.testing.assert_array_equal(twin.read("train-000002"), np.full((4, 3), 2))


def test_the_fingerprint_follows_features(tmp_path):
    save_rows(tmp_path / "train", 3)
    before = PrecomputedEncoder(str(tmp_path)).cache_key
    assert PrecomputedEncoder(str(tmp_path)).cache_key == before
    save_rows(tmp_path / "val", 3)
    assert PrecomputedEncoder(str(tmp_path)).cache_key != before


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "must hold finite numbers"), (1e6, "within float16")],
)
def test_rows_of_other_numbers_are_refused(tmp_path, value, words):
    features = np.zeros((3, 4, 5))
    features[1, 2, 3] = value
    np.save(tmp_path / "features.npy", features)
    encoder = PrecomputedEncoder(str(tmp_path))
    assert encoder.read("000002") is not None
    with (
        np.errstate(over="ignore"),
        pytest.raises(CaptionGANError, match=rf"^[^\n]*row 1 of [^\n]*{words}[^\n]*$"),
    ):
        encoder.read("000001")


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (np.zeros(3), r"found shape \(3,\)"),
        (np.zeros((0, 3)), r"found shape \(0, 3\)"),
        (np.zeros((3, 2, 2, 2)), r"found shape \(3, 2, 2, 2\)"),
        (np.array([["red"]]), "cannot be read"),
        (np.array([{}]), "cannot be read"),
    ],
)
def test_features_of_another_kind_are_refused(tmp_path, features, words):
    np.save(tmp_path / "features.npy", features)
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*features\.npy[^\n]*{words}[^\n]*$"):
        PrecomputedEncoder(str(tmp_path))


def test_splits_with_other_numbers_of_regions_are_refused(tmp_path):
    save_rows(tmp_path / "train", 3)
    save_rows(tmp_path / "val", 3, regions=5)
    with pytest.raises(CaptionGANError, match=r"val/features\.npy holds \(5, 3\), other files"):
        PrecomputedEncoder(str(tmp_path)).read("val-000000")


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_regions_is_refused(tmp_path, name):
    with pytest.raises(CaptionGANError, match="holds no regions; expected a local folder"):
        PrecomputedEncoder(str(tmp_path / name))


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, "encoder.regions is not set"), ({"regions": "r", "flip": True}, "cannot be mirrored")],
)
def test_settings_that_do_not_fit(settings, words):
    encoder = EncoderConfig(name="precomputed", **settings)
    with pytest.raises(CaptionGANError, match=words):
        check(Config(encoder=encoder))
