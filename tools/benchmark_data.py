"""Measures preparation and input: `python tools/benchmark_data.py PART [--root FLICKR8K] ...`.

Parts:

- `encoding`: regions of a backbone into shards, against a bare loop of decoding and the backbone,
  alternately on the same photographs, in images a second (`--root`, `--weights`).
- `reading`: shards with cached regions that are larger than memory allows, generated of `--gib`,
  read as training reads them: captions a second and the process's peak memory.
- `figures`: drawing `--images` charts into shards: images a second, and the process's memory after
  each tenth, which stays flat.

Files go below `--to` and are removed. Run it in an environment in which the project is installed.
"""

import argparse
import dataclasses
import hashlib
import resource
import shutil
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from caption_gan.config import Config, EncoderConfig
from caption_gan.data import shards
from caption_gan.data.example import Example
from caption_gan.data.images import decode_and_resize
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.records import serialize
from caption_gan.data.shards import IndexedImage, PreparedSplit
from caption_gan.data.skips import Skips
from caption_gan.data.sources import open_source
from caption_gan.encoding import RecordMaker
from caption_gan.layouts import DataConfig
from caption_gan.models.encoder import build_encoder
from caption_gan.preparation import Preparation
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import SPECIAL_TOKENS, write_vocabulary

REGIONS, DEPTH = 49, 1280  # MobileNetV2 at 224 x 224.
BATCH, CAPTIONS = 32, 5


def resident_mib(peak: bool = False) -> float:
    """Memory of this process, now or at its highest."""
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def encoding(root: str, weights: str, images: int, rounds: int, folder: Path) -> None:
    """Alternates shards and bare loops, and prints the medians and their ratio."""
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
        (shard,) = shards.plan(str(folder), "train", min(images, 1000), gzip=False)
        shard.write(maker.records(examples, Skips()), Skips())

    def loop() -> None:
        dataset = tf.data.Dataset.from_tensor_slices([example.image for example in examples])
        dataset = dataset.map(
            lambda encoded: decode_and_resize(encoded, 224, 224),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        for batch in dataset.batch(BATCH).prefetch(2):
            bare(batch)

    speeds: dict[str, list[float]] = {"shards": [], "bare loop": []}
    for number in range(rounds + 1):
        for name, work in (("shards", write_shard), ("bare loop", loop)):
            started = time.perf_counter()
            work()
            if number:  # The first round compiles.
                speeds[name].append(len(examples) / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, value in medians.items():
        print(f"{name + ', images/s':36}{value:10.1f}")
    print(f"{'shards / bare loop':36}{medians['shards'] / medians['bare loop']:10.2f}")


def reading(gib: float, batches: int, folder: Path) -> None:
    """Writes regions, then reads a part of them in a training's order."""
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

    indexes = []
    for shard in shards.plan(str(folder), "train", count, gzip=False):
        indexes.append(shard.write(map(record, shard.positions), Skips()))
    size = sum(index.size for index in indexes)
    images = [image for index in indexes for image in index.images]
    prepared = PreparedSplit(str(folder), "train", images, size, [])
    data = DataConfig(memory_limit_gib=1.0)
    tokenizer = Tokenizer(folder / "vocabulary.txt", "word", 22)
    settings = EncoderConfig(name="precomputed")
    pipeline = Pipeline(data, settings, (REGIONS, DEPTH), tokenizer)
    read = iter(pipeline.training(prepared, BATCH, CAPTIONS, seed=0))
    next(read)
    started = time.perf_counter()
    done = sum(1 for _ in islice(read, batches))
    seconds = time.perf_counter() - started
    print(f"{'shards, GiB':36}{size / 2**30:10.1f}")
    print(f"{'read, GiB':36}{size / 2**30 * done * BATCH / count:10.1f}")
    print(f"{'captions/s':36}{done * BATCH * CAPTIONS / seconds:10.0f}")
    print(f"{'peak memory, MiB':36}{resident_mib(peak=True):10.0f}")


def figures(images: int, folder: Path) -> None:
    """Draws charts, and looks at the memory every tenth of them."""
    data = DataConfig(train_images=images, val_images=1, test_images=1)
    config = dataclasses.replace(Config(), data=data)
    preparation = Preparation(config, build_encoder(config.encoder), str(folder))
    count = len(preparation.shards("train"))
    started = time.perf_counter()
    for tenth in range(10):
        numbers = range(tenth * count // 10, (tenth + 1) * count // 10)

        def is_wanted(shard: shards.Shard, numbers: range = numbers) -> bool:
            return shard.number in numbers

        preparation.write("train", is_wanted)
        print(f"{f'memory after {tenth + 1} tenths, MiB':36}{resident_mib():10.0f}")
    print(f"{'images/s':36}{images / (time.perf_counter() - started):10.0f}")


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=["encoding", "reading", "figures"])
    parser.add_argument("--root", help="folder of Flickr8k, for `encoding`")
    parser.add_argument("--weights", default="none", help="of MobileNetV2, for `encoding`")
    parser.add_argument("--rounds", type=int, default=3, help="of `encoding`")
    parser.add_argument("--images", type=int, default=1000, help="of `encoding` and `figures`")
    parser.add_argument("--gib", type=float, default=20.0, help="of `reading`")
    parser.add_argument("--batches", type=int, default=10**9, help="of `reading`; all by default")
    parser.add_argument("--to", help="folder with room; default: the system's temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.to) as name:
        folder = Path(name)
        if arguments.part == "encoding":
            if arguments.root is None:
                parser.error("encoding needs --root, the folder of Flickr8k")
            encoding(
                *(arguments.root, arguments.weights, arguments.images, arguments.rounds), folder
            )
        elif arguments.part == "reading":
            reading(arguments.gib, arguments.batches, folder)
        else:
            figures(arguments.images, folder)


if __name__ == "__main__":
    main()
