"""Exports: signatures, independent rows, files for a server, the check in a fresh process."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from caption_gan import signature
from caption_gan.command_line import run_program
from caption_gan.errors import CaptionGANError
from caption_gan.export import main
from caption_gan.exporting.served_captioner import ServedCaptioner
from caption_gan.exporting.versions import (
    check_in_fresh_process,
    example_images,
    export_run,
    next_version,
)
from caption_gan.run import load_ensemble, load_run
from serving.client import caption_images
from serving.connections import connect_grpc, connect_rest
from tests.programs import call
from tests.runs import IMAGES, LENGTH, untrained_run
from tests.serving.server_processes import ROOT, serving


@pytest.fixture(scope="module")
def signatures(exported):
    model = tf.saved_model.load(str(exported))
    yield model.signatures


@pytest.fixture(scope="module")
def served(run) -> ServedCaptioner:
    config, tokenizer, captioner = load_run(run.path)
    return ServedCaptioner(captioner, tokenizer, config)


def sample(signatures, images, seeds, temperature=1.0, top_p=1.0):
    rows = len(images)
    return signatures[signature.SAMPLE](
        image_bytes=tf.constant(images, tf.string),
        temperature=tf.fill([rows], temperature),
        top_p=tf.fill([rows], top_p),
        seed=tf.constant(seeds, tf.int64),
    )


def test_outputs_of_every_signature_have_a_batch_dimension_and_errors(signatures):
    assert set(signatures) == set(signature.ALL)
    for name in signature.ALL:
        for tensor in signatures[name].structured_outputs.values():
            assert tensor.shape[0] is None
        assert signature.ERROR in signatures[name].structured_outputs
        assert not any(key.endswith("_bytes") for key in signatures[name].structured_outputs)


def test_signatures_return_what_the_run_generates(signatures, served):
    images = tf.constant(IMAGES)
    for name, function in (
        (signature.DEFAULT, served.default),
        (signature.BEAM, served.beam),
        (signature.ATTENTION, served.attention),
    ):
        for key, expected in function(images).items():
            found = signatures[name](image_bytes=images)[key].numpy()
            if found.dtype == object:
                assert found.tolist() == expected.numpy().tolist(), (name, key)
            else:
                np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)


def test_the_default_caption_is_that_of_the_caption_program(signatures, run, tmp_path):
    (tmp_path / "image.png").write_bytes(IMAGES[0])
    done = call("caption", run.path, tmp_path / "image.png", "--json")
    (row,) = json.loads(done.stdout)["images"]
    found = signatures[signature.DEFAULT](image_bytes=tf.constant(IMAGES[:1]))
    assert found["caption"].numpy()[0].decode() == row["captions"][0]["caption"]
    assert found["score"].numpy()[0] == pytest.approx(row["captions"][0]["score"], abs=1e-4)


def test_a_sample_does_not_depend_on_other_rows(signatures):
    together = sample(signatures, IMAGES, [7, 8, 9, 10, 11])
    for row, seed in enumerate([7, 8, 9, 10, 11]):
        alone = sample(signatures, IMAGES[row : row + 1], [seed])
        assert alone["captions"].numpy()[0].tolist() == together["captions"].numpy()[row].tolist()
        np.testing.assert_allclose(alone["scores"][0], together["scores"][row], atol=1e-5)
    again = sample(signatures, IMAGES[:2], [7, 70])
    assert again["captions"].numpy()[0].tolist() == together["captions"].numpy()[0].tolist()
    assert again["captions"].numpy()[1].tolist() != together["captions"].numpy()[1].tolist()


def test_each_row_has_its_own_sampling_settings(signatures):
    greedy = signatures[signature.DEFAULT](image_bytes=tf.constant(IMAGES[:2]))
    found = signatures[signature.SAMPLE](
        image_bytes=tf.constant([IMAGES[0]] * 2),
        temperature=tf.constant([1.0, 1.0]),
        top_p=tf.constant([1e-9, 1.0]),
        seed=tf.constant([1, 1], tf.int64),
    )["captions"].numpy()
    # More than one caption remains because sampling adds noise to the initial state.
    assert len(set(found[0].tolist())) <= 2
    assert len(set(found[1].tolist())) > 2
    assert greedy["caption"].shape == [2]


@pytest.mark.parametrize("name", signature.ALL)
def test_a_corrupt_image_does_not_affect_other_rows(signatures, name):
    def answer(images: list[bytes]) -> dict[str, np.ndarray]:
        if name == signature.SAMPLE:
            found = sample(signatures, images, list(range(len(images))))
        elif name == signature.EXAMPLES:
            found = signatures[name](examples=tf.constant([example(image) for image in images]))
        else:
            found = signatures[name](image_bytes=tf.constant(images))
        return {key: value.numpy() for key, value in found.items()}

    good = answer(IMAGES[:3])
    bad = answer([IMAGES[0], b"not an image", IMAGES[2]])
    assert [error != b"" for error in bad[signature.ERROR]] == [False, True, False]
    assert not any(good[signature.ERROR])
    for key in set(good) - {signature.ERROR}:
        for row in (0, 2):
            assert np.array_equal(good[key][row], bad[key][row]), key
        assert not np.any(bad[key][1])  # Captions are empty, scores are 0.


def test_empty_batches_give_empty_outputs(signatures):
    empty = tf.constant([], tf.string)
    for name in (signature.DEFAULT, signature.BEAM, signature.ATTENTION):
        assert all(len(v) == 0 for v in signatures[name](image_bytes=empty).values())
    assert all(len(value) == 0 for value in sample(signatures, [], []).values())


def example(image: bytes) -> bytes:
    message = tf.train.Example()
    message.features.feature["image/encoded"].bytes_list.value.append(image)
    return message.SerializeToString()


def test_attention_sums_to_one_for_each_token(signatures, served):
    found = signatures[signature.ATTENTION](image_bytes=tf.constant(IMAGES[:2]))
    tokens, weights = found["tokens"].numpy(), found["attention"].numpy()
    rows, columns = served.captioner.encoder.grid
    assert weights.shape == (2, LENGTH - 1, rows * columns)
    is_token = tokens != b""
    np.testing.assert_allclose(weights.sum(axis=-1), is_token, atol=1e-5)


def test_warm_up_requests_are_answered(exported, signatures):
    path = exported / "assets.extra" / "tf_serving_warmup_requests"
    requests = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        name = request.model_spec.signature_name
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
        found = signatures[name](**inputs)
        assert not any(found[signature.ERROR].numpy())
        requests.append((name, len(found[signature.ERROR])))
    assert sorted(requests) == sorted((name, rows) for name in signature.ALL for rows in (1, 8))


def test_the_export_holds_model_card_settings_and_metrics(run, exported):
    extra = exported / "assets.extra"
    card = (extra / "MODEL_CARD.md").read_text()
    assert "| val, greedy: CIDEr | 0.500 | 0.400 to 0.600 |" in card
    assert "BLEU-1" not in card
    assert "Signs of collapse: greedy: image_dependence is 0.000" in card
    assert "Apache-2.0" in card
    assert (extra / "config.yaml").read_text() == run.config.read_text()
    assert "val/greedy/CIDEr" in json.loads((extra / "metrics.json").read_text())


LOAD_WITH_TENSORFLOW_1 = """
import sys, tensorflow as tf, tensorflow_text
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    graph = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1])
    signature = graph.signature_def["serving_default"]
    image = open(sys.argv[2], "rb").read()
    print(session.run(signature.outputs["caption"].name,
                      {signature.inputs["image_bytes"].name: [image]})[0].decode())
"""


@pytest.mark.slow
def test_tensorflow_1_loads_an_export(exported, signatures, tmp_path):
    (tmp_path / "image.png").write_bytes(IMAGES[0])
    command = [sys.executable, "-c", LOAD_WITH_TENSORFLOW_1, exported, tmp_path / "image.png"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = signatures[signature.DEFAULT](image_bytes=tf.constant(IMAGES[:1]))
    assert done.stdout.strip() == found["caption"].numpy()[0].decode()


def export(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_program(main)
    return ended.value.code


def test_version_numbers_increase_even_if_the_clock_is_behind(exported, tmp_path):
    assert exported.name.isdecimal()
    assert [entry.name for entry in exported.parent.iterdir()] == [exported.name]
    (tmp_path / "7").mkdir()
    (tmp_path / "not a version").mkdir()
    assert abs(next_version(tmp_path) - time.time()) < 5
    (tmp_path / "99999999999").mkdir()
    assert next_version(tmp_path) == 100000000000


def test_a_failed_export_leaves_nothing(run, monkeypatch, tmp_path, capsys):
    def python_beam(self, image_bytes):
        caption = tf.numpy_function(lambda rows: rows, [image_bytes], tf.string)
        return {"caption": caption, "score": tf.zeros_like(caption, tf.float32)}

    monkeypatch.setattr(ServedCaptioner, "beam", python_beam)
    assert export(monkeypatch, run.path, f"--to={tmp_path}") == 1
    assert "PyFunc" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_release_is_an_error(run, monkeypatch, tmp_path, capsys):
    assert export(monkeypatch, run.path, f"--to={tmp_path}", "--engine=2.99") == 1
    assert "2.13 to 2.20" in capsys.readouterr().err


def test_a_folder_that_is_not_a_run_is_an_error(monkeypatch, tmp_path, capsys):
    assert export(monkeypatch, tmp_path) == 1
    assert "not a run directory" in capsys.readouterr().err


def test_the_fresh_process_check_notices_other_captions(run, served, exported, tmp_path):
    """Compares the export, which passed the check, with a captioner of permuted embeddings."""
    shutil.copytree(exported, tmp_path / "model")
    other = ServedCaptioner(served.captioner.copy(), served.tokenizer, served.config)
    keras.utils.set_random_seed(1)
    embedding = other.captioner.generator.embedding
    (weights, *rest) = embedding.get_weights()
    embedding.set_weights([np.random.default_rng(0).permutation(weights), *rest])
    with pytest.raises(CaptionGANError, match="expected the captions of the run"):
        check_in_fresh_process(tmp_path / "model", other, example_images())


def test_images_of_any_size_are_captioned(signatures):
    """Images of one colour are equal after resizing, so they get the same caption."""
    images = []
    for size in ((8000, 8000), (8000, 1), (1, 8000), (1, 1)):
        stream = io.BytesIO()
        Image.new("RGB", size, "green").save(stream, "PNG")
        images.append(stream.getvalue())
    found = signatures[signature.DEFAULT](image_bytes=tf.constant(images))
    assert found[signature.ERROR].numpy().tolist() == [b""] * 4
    (caption,) = set(found[signature.CAPTION].numpy().tolist())
    assert caption


@pytest.mark.slow
def test_an_ensemble_is_exported(run, tmp_path):
    other = untrained_run(tmp_path / "other", seed=1)
    version = export_run(run.path, tmp_path / "to", "2.20", [other.path])
    model = tf.saved_model.load(str(version))
    found = model.signatures[signature.DEFAULT](image_bytes=tf.constant(IMAGES))
    config, tokenizer, both = load_ensemble([run.path, other.path])
    expected = ServedCaptioner(both, tokenizer, config).default(tf.constant(IMAGES))
    np.testing.assert_array_equal(found[signature.CAPTION], expected[signature.CAPTION])
    _, _, one = load_run(run.path)
    single = ServedCaptioner(one, tokenizer, config).default(tf.constant(IMAGES))
    assert not np.allclose(found[signature.SCORE], single[signature.SCORE])


@pytest.mark.slow
def test_a_transformer_is_exported(run, tmp_path):
    """Alone, and with GRUs; its cache is state of the loops of every signature."""
    path = untrained_run(tmp_path / "run", settings=["--generator.kind=transformer"]).path
    version = export_run(path, tmp_path / "to", "2.20")
    signatures = tf.saved_model.load(str(version)).signatures
    config, tokenizer, captioner = load_run(path)
    served = ServedCaptioner(captioner, tokenizer, config)
    for name, function in (
        (signature.DEFAULT, served.default),
        (signature.BEAM, served.beam),
        (signature.ATTENTION, served.attention),
    ):
        for key, expected in function(tf.constant(IMAGES)).items():
            found = signatures[name](image_bytes=tf.constant(IMAGES))[key].numpy()
            if found.dtype == object:
                assert found.tolist() == expected.numpy().tolist(), (name, key)
            else:
                np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
    together = sample(signatures, IMAGES, [7, 8, 9, 10, 11])
    alone = sample(signatures, IMAGES[:1], [7])
    assert alone["captions"].numpy()[0].tolist() == together["captions"].numpy()[0].tolist()
    assert all(len(value) == 0 for value in sample(signatures, [], []).values())

    version = export_run(run.path, tmp_path / "both", "2.20", [path])
    found = tf.saved_model.load(str(version)).signatures[signature.DEFAULT](
        image_bytes=tf.constant(IMAGES)
    )
    config, tokenizer, both = load_ensemble([run.path, path])
    expected = ServedCaptioner(both, tokenizer, config).default(tf.constant(IMAGES))
    np.testing.assert_array_equal(found[signature.CAPTION], expected[signature.CAPTION])


def test_runs_with_different_vocabularies_are_no_ensemble(run, tmp_path):
    other = untrained_run(tmp_path / "other", ["three green birds"])
    with pytest.raises(CaptionGANError, match="cannot form an ensemble"):
        load_ensemble([run.path, other.path])


def test_the_server_returns_the_captions_of_the_run(exported, served, tmp_path):
    """Over gRPC and REST: one by one, in one batch, and batched with others and a corrupt image."""
    images = example_images()
    captions = served.default(tf.constant(images))["caption"].numpy()
    expected = [caption.decode() for caption in captions]
    parameters = tmp_path / "batching.config"
    parameters.write_text("max_batch_size { value: 8 } batch_timeout_micros { value: 100000 }")
    flags = [
        "--enable_batching", f"--batching_parameters_file={parameters}",
        "--model_name=captioner",
        f"--model_base_path={os.path.relpath(exported.parent, ROOT)}",
    ]  # fmt: skip
    with serving(tmp_path / "log.txt", *flags) as server:
        for predict in (connect_grpc(server.grpc_address), connect_rest(server.rest_address)):
            assert [row["caption"] for row in caption_images(predict, images)] == expected
            sent = [[image] for image in (*images, b"not an image", *images)]
            with ThreadPoolExecutor(len(sent)) as pool:
                rows = [rows[0] for rows in pool.map(partial(caption_images, predict), sent)]
            assert [row["caption"] for row in rows] == [*expected, "", *expected]
            assert [bool(row["error"]) for row in rows] == [False] * 4 + [True] + [False] * 4
            # A hundred megabytes that begin like a PNG.
            (row,) = caption_images(predict, [b"\x89PNG" + bytes(100_000_000)], timeout=60)
            assert row["error"]
        path = tmp_path / "image.png"
        path.write_bytes(images[0])
        command = [sys.executable, "-m", "serving.client", path, "--server", server.grpc_address]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stdout == f"{path}: {expected[0]}\n"
