"""Batches of a tf.data service in this process: complete and repeatable epochs, lost workers."""

import contextlib
import dataclasses
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.data import DataConfig
from caption_gan.config.models import EncoderConfig
from caption_gan.data.example import Example
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.service import client
from caption_gan.data.service.dispatcher import Dispatcher
from caption_gan.data.shards import files
from caption_gan.data.shards.files import IndexedImage, PreparedSplit
from caption_gan.data.shards.records import serialize
from caption_gan.data.skips import Skips
from caption_gan.errors import CaptionGANError
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import SPECIAL_TOKENS, write_vocabulary
from tests.test_several_workers import free_ports

IMAGES, BATCH = 102, 8
STEPS = 12
servers = tf.data.experimental.service


@contextlib.contextmanager
def running(workers: int):
    """Starts a dispatcher with workers and yields its address and the workers."""
    dispatcher = servers.DispatchServer(servers.DispatcherConfig(protocol="grpc"))
    address = dispatcher.target.removeprefix("grpc://")
    started = [
        servers.WorkerServer(servers.WorkerConfig(address, protocol="grpc")) for _ in range(workers)
    ]
    try:
        yield address, started
    finally:
        for server in (*started, dispatcher):
            server.stop()


@pytest.fixture
def prepared(tmp_path, monkeypatch) -> PreparedSplit:
    """Shards of five images; image 7 is of grey level 7 and has the captions "w7" and "w7 w7"."""
    monkeypatch.setattr(files, "IMAGES_PER_SHARD", 5)

    def record(number: int) -> tuple[bytes, IndexedImage]:
        image = tf.io.encode_png(np.full((8, 8, 3), number, np.uint8)).numpy()
        captions = (f"w{number}", f"w{number} w{number}")
        example = Example(str(number), image, captions)
        return serialize(example), IndexedImage(example.image_id, str(number), captions)

    size = 0
    for shard in files.plan_shards(str(tmp_path), "train", IMAGES, gzip=False):
        size += shard.write(map(record, shard.positions), Skips()).size
    return PreparedSplit(str(tmp_path), "train", range(IMAGES), size, [])


@pytest.fixture
def pipeline(tmp_path) -> Pipeline:
    path = tmp_path / "vocabulary.txt"
    write_vocabulary(path, [*SPECIAL_TOKENS, *(f"w{number}" for number in range(IMAGES))])
    tokenizer = Tokenizer(path, "word", 5, in_graph=True)
    path.unlink()  # Workers on other machines do not have the file.
    settings = EncoderConfig(image_height=8, image_width=8)
    return Pipeline(DataConfig(), settings, None, tokenizer)


def batches_of(pipeline: Pipeline, prepared: PreparedSplit, address: str, by_length: bool = False):
    pipeline.data = dataclasses.replace(pipeline.data, service=address)
    keras.utils.set_random_seed(1)
    return pipeline.training(prepared, BATCH, 1, seed=3, by_length=by_length)


def images_in(batches) -> list[int]:
    """The numbers of the images; checks that the captions belong to them."""
    numbers = []
    for batch in batches.as_numpy_iterator():
        assert batch["image"].shape == (BATCH, 8, 8, 3)
        assert batch["token_ids"].shape == (BATCH, 1, 5)
        found = batch["token_ids"][:, 0, 1] - len(SPECIAL_TOKENS)
        assert np.array_equal(batch["image"][:, 0, 0, 0], found)
        numbers += found.tolist()
    return numbers


def test_an_epoch_of_two_workers_has_no_image_twice(pipeline, prepared):
    with running(workers=2) as (address, _):
        batches = batches_of(pipeline, prepared, address)
        assert batches.cardinality() == STEPS
        # A tuning thread would delay the end of each epoch.
        assert batches.options().autotune.enabled is False
        first, second = images_in(batches), images_in(batches)
        by_length = images_in(batches_of(pipeline, prepared, address, by_length=True))
    for epoch in (first, second, by_length):
        assert len(epoch) == len(set(epoch)) == STEPS * BATCH
    assert first != second
    # Batches mix images of several shards.
    assert len({number // 5 for number in first[:BATCH]}) > 2


def test_epochs_of_one_worker_are_repeatable(pipeline, prepared):
    with running(workers=1) as (address, _):
        batches = batches_of(pipeline, prepared, address)
        whole = [images_in(batches) for _ in range(2)]
        # As the training loop resumes after one epoch and five steps.
        again = batches_of(pipeline, prepared, address)
        iter(again)
        assert images_in(again.skip(5)) == whole[1][5 * BATCH :]


def test_tasks_of_a_lost_worker_can_be_completed():
    with running(workers=2) as (address, workers):
        dispatcher = Dispatcher(address)
        workers[0].stop()
        (lost,) = (worker for worker in dispatcher.workers() if not client.is_listening(worker))
        numbers: list[int] = []
        batches = client.distribute(tf.data.Dataset.range(10), address)
        reading = threading.Thread(target=lambda: numbers.extend(batches.as_numpy_iterator()))
        reading.start()
        reading.join(timeout=5)
        assert reading.is_alive()  # TensorFlow waits for it.
        dispatcher.finish(lost)
        reading.join(timeout=60)
        assert not reading.is_alive()
    assert sorted(numbers) == list(range(10))


def test_a_service_that_does_not_run(monkeypatch):
    monkeypatch.setattr(client, "START_TIMEOUT", 1.0)
    (port,) = free_ports(1)
    with (
        pytest.raises(CaptionGANError, match=f"no .* dispatcher answers at 127.0.0.1:{port}"),
        client.monitored_service(f"127.0.0.1:{port}"),
    ):
        pass
    with running(workers=0) as (address, _):
        client.wait_for_dispatcher(address)
        with pytest.raises(CaptionGANError, match="no worker"), client.monitored_service(address):
            pass


def test_shards_that_workers_cannot_reach(pipeline, prepared):
    with running(workers=1) as (address, _):
        batches = batches_of(pipeline, prepared, address)
        for path in files.shard_files(prepared.directory, "train"):
            tf.io.gfile.remove(path)
        with (
            pytest.raises(CaptionGANError, match=r"failed .*same path"),
            client.monitored_service(address),
        ):
            images_in(batches)


def test_waiting_for_the_service_is_reported(monkeypatch, capsys):
    monkeypatch.setattr(client, "CHECK_INTERVAL", 0.2)
    with running(workers=1) as (address, _), client.monitored_service(address):
        answering = client.Dispatcher.workers
        for workers in (lambda self: None, lambda self: ["127.0.0.1:1"], answering):
            monkeypatch.setattr(client.Dispatcher, "workers", workers)
            threading.Event().wait(1)
    lines = capsys.readouterr().err.split("\n\n")
    assert len(lines) == 3
    assert f"the dispatcher at {address} does not answer; training waits for it" in lines[0]
    assert "none of the workers answers" in lines[1]
    assert "the service works again" in lines[2]
