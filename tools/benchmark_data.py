"""Measures preparation and input: `python tools/benchmark_data.py PART [--root FLICKR8K] ...`.

Parts:

- `encoding`: writes a backbone's regions of photographs into shards, alternating with a bare loop
  of decoding and the backbone on the same photographs: images per second (`--root`, `--weights`).
- `reading`: generates `--gib` of shards with cached regions, more than memory may hold, and reads
  them as training does: captions per second and peak memory of the process.
- `service`: makes training batches of JPEG files (320 x 240) in this process, then with one and
  with two workers of a tf.data service on this machine: seconds to the first batch of an epoch,
  images per second after it, and CPU time per image in this process.
- `figures`: draws `--images` charts into shards: images per second, and memory of the process after
  each tenth, which should not grow.

Files are written below `--to` and removed.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf
from measuring import median_seconds, peak_resident_mib, resident_mib

from caption_gan.config.data import DataConfig
from caption_gan.config.models import EncoderConfig
from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.data.images import decode_and_resize
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.service.dispatcher import Dispatcher
from caption_gan.data.shards import files
from caption_gan.data.shards.encode import RecordMaker
from caption_gan.data.shards.files import IndexedImage, PreparedSplit
from caption_gan.data.shards.prepare import Preparation
from caption_gan.data.shards.records import serialize
from caption_gan.data.skips import Skips
from caption_gan.data.sources.registry import open_source
from caption_gan.input_server import DISPATCHER_PORT
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.storage.paths import local_path, resolve
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import SPECIAL_TOKENS, write_vocabulary

REGIONS, DEPTH = 49, 1280  # MobileNetV2 at 224 x 224.
BATCH, CAPTIONS = 32, 5


def encoding(root: str, weights: str, images: int, rounds: int, folder: Path) -> None:
    """Writes shards and runs bare loops alternately; prints median rates and their ratio."""
    settings = EncoderConfig(
        name="keras_applications", image_height=224, image_width=224, weights=weights
    )
    encoder = build_encoder(settings)
    source = open_source(DataConfig(source="flickr", root=root), Skips())
    examples = list(islice(source.examples("train", range(images)), images))
    maker = RecordMaker(encoder, settings)
    bare = tf.function(encoder.before_cache)

    def write_shard() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        (shard,) = files.plan_shards(str(folder), "train", min(images, 1000), gzip=False)
        shard.write(maker.records(examples, Skips()), Skips())

    def loop() -> None:
        dataset = tf.data.Dataset.from_tensor_slices([example.image for example in examples])
        dataset = dataset.map(
            lambda encoded: decode_and_resize(encoded, 224, 224),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        for batch in dataset.batch(BATCH).prefetch(2):
            bare(batch)

    seconds = median_seconds({"shards": write_shard, "bare loop": loop}, rounds, warm_up=1)
    for name, time_taken in seconds.items():
        print(f"{name + ', images/s':36}{len(examples) / time_taken:10.1f}")
    print(f"{'shards / bare loop':36}{seconds['bare loop'] / seconds['shards']:10.2f}")


def write_shards(
    folder: Path, images: int, record: Callable[[int], tuple[bytes, IndexedImage]]
) -> PreparedSplit:
    """Writes shards with the records of so many positions."""
    planned = files.plan_shards(str(folder), "train", images, gzip=False)
    indexes = [shard.write(map(record, shard.positions), Skips()) for shard in planned]
    index = [image for index in indexes for image in index.images]
    return PreparedSplit(str(folder), "train", index, sum(one.size for one in indexes), [])


def reading(gib: float, batches: int, folder: Path) -> None:
    """Writes random regions, then reads batches of them in the order of training."""
    count = int(gib * 2**30 / (2 * REGIONS * DEPTH))
    words = [f"word{number}" for number in range(1000)]
    write_vocabulary(folder / "vocabulary.txt", [*SPECIAL_TOKENS, *words])
    random = np.random.default_rng(0)

    def record(position: int) -> tuple[bytes, IndexedImage]:
        captions = tuple(" ".join(random.choice(words, 10)) for _ in range(CAPTIONS))
        regions = random.integers(0, 2**14, (REGIONS, DEPTH), np.int16).view(np.float16)
        example = Example(f"{position}", b"", captions)
        name = hashlib.sha256(example.image_id.encode()).hexdigest()
        return serialize(example, [regions]), IndexedImage(example.image_id, name, captions)

    prepared = write_shards(folder, count, record)
    data = DataConfig(memory_limit_gib=1.0)
    tokenizer = Tokenizer(folder / "vocabulary.txt", "word", 22)
    settings = EncoderConfig(name="precomputed")
    pipeline = Pipeline(data, settings, (REGIONS, DEPTH), tokenizer)
    read = iter(pipeline.training(prepared, BATCH, CAPTIONS, seed=0))
    next(read)
    started = time.perf_counter()
    done = sum(1 for _ in islice(read, batches))
    seconds = time.perf_counter() - started
    print(f"{'shards, GiB':36}{prepared.size / 2**30:10.1f}")
    print(f"{'read, GiB':36}{prepared.size / 2**30 * done * BATCH / count:10.1f}")
    print(f"{'captions/s':36}{done * BATCH * CAPTIONS / seconds:10.0f}")
    print(f"{'peak memory, MiB':36}{peak_resident_mib():10.0f}")


def from_service(images: int, folder: Path) -> None:
    """Reads an epoch of batches made by this process, then by workers that it starts."""
    words = [f"word{number}" for number in range(1000)]
    write_vocabulary(folder / "vocabulary.txt", [*SPECIAL_TOKENS, *words])
    random = np.random.default_rng(0)

    def record(position: int) -> tuple[bytes, IndexedImage]:
        coarse = random.integers(0, 256, (30, 40, 3), np.uint8)
        encoded = tf.io.encode_jpeg(coarse.repeat(8, axis=0).repeat(8, axis=1)).numpy()
        captions = tuple(" ".join(random.choice(words, 10)) for _ in range(CAPTIONS))
        example = Example(f"{position}", encoded, captions)
        return serialize(example), IndexedImage(example.image_id, example.image_id, captions)

    prepared = write_shards(folder, images, record)
    tokenizer = Tokenizer(folder / "vocabulary.txt", "word", 22, in_graph=True)
    settings = EncoderConfig(image_height=224, image_width=224)
    tf.random.set_seed(1)

    def measure(name: str, address: str | None) -> None:
        data = DataConfig(memory_limit_gib=0.0, service=address)
        batches = Pipeline(data, settings, None, tokenizer).training(prepared, BATCH, CAPTIONS, 0)
        for _ in range(2):  # The first epoch warms up; the second is printed.
            started = time.perf_counter()
            read = iter(batches)
            next(read)
            first, busy = time.perf_counter(), time.process_time()
            done = sum(1 for _ in read)
        print(f"{f'{name}, seconds to the first batch':36}{first - started:10.1f}")
        print(f"{f'{name}, images/s':36}{done * BATCH / (time.perf_counter() - first):10.0f}")
        busy = 1000 * (time.process_time() - busy) / (done * BATCH)
        print(f"{f'{name}, CPU ms per image here':36}{busy:10.2f}")

    measure("this process", None)
    command = [sys.executable, "-m", "caption_gan.input_server", "--worker_host", "localhost"]
    address = f"localhost:{DISPATCHER_PORT}"
    with contextlib.ExitStack() as stack:
        for workers in (1, 2):
            role = ["--dispatcher", "--worker"]
            if workers == 2:
                role = [f"--port={DISPATCHER_PORT + 2}", "--worker"]
                role += [f"--dispatcher_address={address}"]
            server = subprocess.Popen([*command, *role], stderr=subprocess.DEVNULL)
            stack.callback(server.wait)
            stack.callback(server.terminate)
            while len(Dispatcher(address).workers() or []) < workers:
                time.sleep(0.5)
            measure(f"{workers} worker{'s' * (workers - 1)}", address)


def figures(images: int, folder: Path) -> None:
    """Draws charts and prints the memory after each tenth of them."""
    data = DataConfig(train_images=images, val_images=1, test_images=1)
    config = dataclasses.replace(Config(), data=data)
    preparation = Preparation(config, build_encoder(config.encoder), str(folder))
    count = len(preparation.shards("train"))
    started = time.perf_counter()
    for tenth in range(10):
        numbers = range(tenth * count // 10, (tenth + 1) * count // 10)

        def is_wanted(shard: files.Shard, numbers: range = numbers) -> bool:
            return shard.number in numbers

        preparation.write("train", is_wanted)
        print(f"{f'memory after {tenth + 1} tenths, MiB':36}{resident_mib():10.0f}")
    print(f"{'images/s':36}{images / (time.perf_counter() - started):10.0f}")


def main() -> None:
    """Reads the command line, measures one part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=["encoding", "reading", "service", "figures"])
    parser.add_argument("--root", type=resolve, help="folder of Flickr8k, for `encoding`")
    parser.add_argument("--weights", default="none", help="weights of MobileNetV2, for `encoding`")
    parser.add_argument("--rounds", type=int, default=3, help="measurements, for `encoding`")
    parser.add_argument("--images", type=int, default=1000, help="for all parts but `reading`")
    parser.add_argument("--gib", type=float, default=20.0, help="size of the shards, for `reading`")
    parser.add_argument("--batches", type=int, default=10**9, help="for `reading`; default: all")
    parser.add_argument(
        "--to", type=local_path, help="folder for the files; default: the system's temporary folder"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.to) as name:
        folder = Path(name)
        if arguments.part == "encoding":
            if arguments.root is None:
                parser.error("encoding needs --root, the folder of Flickr8k")
            encoding(arguments.root, arguments.weights, arguments.images, arguments.rounds, folder)
        elif arguments.part == "reading":
            reading(arguments.gib, arguments.batches, folder)
        elif arguments.part == "service":
            from_service(arguments.images, folder)
        else:
            figures(arguments.images, folder)


if __name__ == "__main__":
    main()
