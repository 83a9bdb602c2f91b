"""Measures adversarial training: `python tools/benchmark_adversarial.py [--config X.yaml]`.

Prints:

- milliseconds per critic update of `wgan_gp` (real, generated and mismatched captions, penalty,
  optimizer), also relative to the critic's forward and backward pass on the same captions;
- the same update with a vocabulary of 20,000 words, relative to 1,000 words;
- captions per second of the critic updates, the generator update, the whole step and the input, for
  each objective.

With `--peer`, prints instead the real captions per second that pass through the critic in whole
steps of `wgan_gp` with 5 critic updates and with 1, at the sizes of another implementation
(docs/benchmarks.md): 64 images with one region of 2,048 and one caption of 20 tokens, 4,000 words.

Regions are random and there is no encoder. Times are medians; times that are compared are measured
alternately.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from measuring import median_seconds
from random_trainer import random_examples, random_trainer

from caption_gan.config.objectives import OBJECTIVES
from caption_gan.config.run import Config
from caption_gan.models.critics.references import References
from caption_gan.models.encoders.encoder import Regions
from caption_gan.settings import read_config
from caption_gan.text.vocabulary import PAD_ID
from caption_gan.training.objectives.adversarial import CriticBatch

SMALL, LARGE = 1_000, 20_000
PEER_VOCABULARY, PEER_REGIONS, PEER_DEPTH = 4_000, 1, 2_048
PEER_SETTINGS = (
    "--text.sequence_length=20",
    "--generator.hidden_size=256",
    "--generator.embedding_size=128",
    "--wgan_gp.batch_size=64",
    "--wgan_gp.captions=1",
    "--wgan_gp.critic_warmup_steps=0",  # The first step trains the generator too.
)


class Bench:
    """Steps and updates of one objective on random data.

    Args:
        config: Settings of the run.
        objective: Name of the objective.
        vocabulary_size: Vocabulary of generator and critic.
        regions: Regions per image.
        depth: Depth of a region.
    """

    def __init__(
        self, config: Config, objective: str, vocabulary_size: int, regions: int, depth: int
    ):
        settings = config.objective(objective)
        self.examples = random_examples(config, objective, vocabulary_size, regions, depth)
        self.model: Any = random_trainer(config, objective, vocabulary_size, self.examples)
        self.batch = {name: tf.constant(value) for name, value in self.examples.items()}
        self.images, self.part = settings.images_per_step, settings.batch_size
        self.captions = settings.captions
        real = self.batch["token_ids"][: self.part]
        regions_part = Regions(self.batch["regions"][: self.part])
        others = tf.roll(real, 1, axis=0)

        @tf.function
        def critic_update() -> tf.Tensor:
            replaced = tf.zeros_like(real, tf.bool)
            self.model.critic_step(
                CriticBatch(regions_part, real, others, others, replaced, References.others(real))
            )
            return self.model.critic_optimizer.iterations

        @tf.function
        def critic_pass() -> list[tf.Tensor]:
            critic = self.model.critic
            token_ids = tf.concat([real, others, others], axis=1)
            with tf.GradientTape() as tape:
                words = critic.embedding(token_ids)
                memory = critic.encode(regions_part, training=True)
                score = tf.reduce_mean(critic(words, token_ids != PAD_ID, memory, training=True))
            return [tf.reduce_sum(g) for g in tape.gradient(score, critic.trainable_variables)]

        self.critic_update = lambda: critic_update().numpy()
        self.critic_pass = lambda: critic_pass()[0].numpy()
        step = tf.function(self.model.train_step)
        self.step = lambda: step(self.batch)["loss"].numpy()

    def input(self) -> Callable[[], object]:
        """A call that takes a batch from a pipeline."""
        dataset = tf.data.Dataset.from_tensor_slices(self.examples).repeat()
        batches = iter(dataset.shuffle(self.images).batch(self.images).prefetch(2))
        return lambda: next(batches)


def benchmark(config: Config, regions: int, depth: int, steps: int) -> None:
    """Prints the measurements that the module's docstring lists."""
    small, large = (Bench(config, "wgan_gp", size, regions, depth) for size in (SMALL, LARGE))
    calls = {
        "update": small.critic_update,
        "pass": small.critic_pass,
        "large": large.critic_update,
    }
    times = median_seconds(calls, 3 * steps)
    rows = {
        "critic update, ms": 1e3 * times["update"],
        "... relative to its forward and backward pass": times["update"] / times["pass"],
        f"... with {LARGE:,} words, relative to {SMALL:,}": times["large"] / times["update"],
    }
    for objective in (name for name in OBJECTIVES if config.objective(name).watches_for_collapse):
        bench = Bench(config, objective, SMALL, regions, depth)
        calls = {"step": bench.step, "input": bench.input()}
        if bench.model.critic:
            calls["critic"] = bench.critic_update
        times = median_seconds(calls, steps)
        captions = bench.images * bench.captions
        critic = times.get("critic", 0.0) * bench.images / bench.part
        rows[f"{objective}: generator, captions/s"] = captions / max(times["step"] - critic, 1e-9)
        if bench.model.critic:
            rows[f"{objective}: critic, captions/s"] = captions / critic
        rows[f"{objective}: whole step, captions/s"] = captions / times["step"]
        rows[f"{objective}: input, captions/s"] = captions / times["input"]
    print_rows(rows)


def benchmark_peer_sizes(steps: int) -> None:
    """Prints captions through the critic per second at the sizes of another implementation."""
    benches = {}
    for updates in (5, 1):
        arguments = [*PEER_SETTINGS, f"--wgan_gp.critic_updates={updates}"]
        config = read_config(arguments, "benchmark_adversarial")
        sizes = PEER_VOCABULARY, PEER_REGIONS, PEER_DEPTH
        benches[f"n_critic {updates}: real captions/s"] = Bench(config, "wgan_gp", *sizes)
    times = median_seconds({name: bench.step for name, bench in benches.items()}, steps)
    print_rows({name: bench.images / times[name] for name, bench in benches.items()})


def print_rows(rows: Mapping[str, float]) -> None:
    """Prints a name and a number in each line."""
    for name, value in rows.items():
        print(f"{name:46}{value:12.2f}" if value < 100 else f"{name:46}{value:12.0f}")


def main() -> None:
    """Reads the command line, prints the measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", help="YAML file with settings, as for training")
    parser.add_argument("--regions", type=int, default=64, help="regions per image")
    parser.add_argument("--depth", type=int, default=80, help="channels per region")
    parser.add_argument("--steps", type=int, default=5, help="repetitions of each measurement")
    parser.add_argument(
        "--peer",
        action="store_true",
        help="whole steps of wgan_gp at the sizes of another implementation; "
        "reads no other option than --steps",
    )
    arguments = parser.parse_args()
    if arguments.peer:
        benchmark_peer_sizes(arguments.steps)
        return
    config = read_config([f"--config={arguments.config}"] if arguments.config else [], parser.prog)
    benchmark(config, arguments.regions, arguments.depth, arguments.steps)


if __name__ == "__main__":
    main()
