"""Measures decoding: `python tools/benchmark_decoding.py [--generator transformer] [--layers 1]`.

Measures alternately, with random weights and random cached regions:

- captions per second of greedy decoding and beam search, against Hugging Face's `generate()` with a
  GPT-2 decoder that attends to the regions and has the same hidden size, heads and vocabulary. All
  captions of both have the full number of tokens;
- milliseconds per step of greedy decoding with GRUs, against its matrix products alone;
- milliseconds per batch by its longest caption, for two sequence lengths.

Times are medians over the rounds, ratios are medians of the rounds' ratios. Both sides use the
same number of threads, and the numbers of weights are printed. `--layers 1` favours the GPT-2
decoder; with `--layers 2` it is as deep as our two recurrences. With `--generator transformer` both
have these layers and differ in the embedding only. Run it on an idle machine: `generate()` suffers
most from other processes.

Needs `pip install -e '.[benchmark]'`.
"""

import argparse
import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import torch
import transformers
from measuring import alternate

from caption_gan.models.decoding.beam_search import beam_search
from caption_gan.models.decoding.decoder import Decoder, DecodingOptions
from caption_gan.models.decoding.sampling import greedy
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Memory, State
from caption_gan.models.generators.gru import GRUGenerator
from caption_gan.models.generators.transformer import TransformerGenerator
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID

Ours = GRUGenerator | TransformerGenerator
PAUSE = 0.02  # Seconds for which the threads of the library measured before may spin.


class FixedLengthGenerator:
    """A generator whose captions have a given number of words.

    Args:
        generator: Predicts the words.
        words: Number of words for each image [B].
    """

    def __init__(self, generator: Ours, words: np.ndarray):
        self.generator = generator
        self.words = words[:, None, None]
        self.vocabulary_size = generator.vocabulary_size
        self.noise_size = generator.noise_size
        self.has_attention = generator.has_attention

    def encode(self, regions: Regions) -> Memory:
        return self.generator.encode(regions)

    def initial_state(self, memory: Memory, noise: tf.Tensor, length: int) -> State:
        return self.generator.initial_state(memory, noise, length), tf.zeros_like(noise[..., :1])

    def decode_step(
        self, token_ids: tf.Tensor, state: State, memory: Memory
    ) -> tuple[tf.Tensor, State, tf.Tensor | None]:
        state, words = state
        logits, state, weights = self.generator.decode_step(token_ids, state, memory)
        pull = tf.where(words == self.words, 1e3, -1e3) * tf.one_hot(END_ID, self.vocabulary_size)
        return logits + pull, (state, words + 1), weights


def unlikely(size: int) -> np.ndarray:
    """An embedding for the end token that makes it unlikely if its negative is added as a bias."""
    vector = np.zeros(size, np.float32)
    vector[0] = -10
    return vector


def never_ending(generator: Ours) -> None:
    """Changes weights so that no caption ends before the sequence length."""
    vector = unlikely(generator.embedding_size)
    generator.output_projection.bias.assign(-vector)
    embeddings = generator.embedding.embeddings.numpy()
    embeddings[END_ID] = vector
    generator.embedding.assign(embeddings)


def compiled_greedy(generator: Decoder, sequence_length: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """A compiled function from regions to token ids by greedy decoding."""
    options = DecodingOptions(sequence_length)
    return tf.function(lambda features: greedy(generator, Regions(features), options).token_ids)


class HuggingFaceDecoder:
    """A GPT-2 decoder of regions, which are projected once per batch as in our generator."""

    def __init__(self, arguments: argparse.Namespace):
        config = transformers.GPT2Config(
            vocab_size=arguments.vocabulary_size,
            n_positions=arguments.sequence_length,
            n_embd=arguments.hidden_size,
            n_layer=arguments.layers,
            n_head=arguments.attention_heads,
            add_cross_attention=True,
            bos_token_id=START_ID,
            eos_token_id=END_ID,
            pad_token_id=PAD_ID,
        )
        self.decoder = transformers.GPT2LMHeadModel(config).eval()
        vector = torch.from_numpy(unlikely(arguments.hidden_size))
        self.decoder.transformer.ln_f.bias.data = -vector
        self.decoder.transformer.wte.weight.data[END_ID] = vector
        self.projection = torch.nn.Linear(arguments.depth, arguments.hidden_size)
        self.words = arguments.sequence_length - 1

    def weights(self) -> int:
        """Number of weights; tied output weights count once, as in our generator."""
        modules = self.decoder, self.projection
        return sum(weight.numel() for module in modules for weight in module.parameters())

    def write(self, regions: torch.Tensor, beams: int) -> torch.Tensor:
        """Captions [B, T] of regions [B, R, D]."""
        with torch.inference_mode():
            start = torch.full((len(regions), 1), START_ID)
            written = self.decoder.generate(
                start,
                attention_mask=torch.ones_like(start),
                encoder_hidden_states=self.projection(regions),
                max_new_tokens=self.words,
                num_beams=beams,
                do_sample=False,
                use_cache=True,
            )
        return written[:, 1:]


def compare(generator: Ours, arguments: argparse.Namespace) -> None:
    """Prints captions per second of both."""
    length, width = arguments.sequence_length, arguments.beam
    theirs = HuggingFaceDecoder(arguments)
    options = DecodingOptions(length, beam=width)
    search = tf.function(
        lambda features: beam_search(generator, Regions(features), options).token_ids
    )
    ways = (("greedy", 1, compiled_greedy(generator, length)), (f"beam of {width}", width, search))
    print(f"weights: ours {generator.count_params():,}, theirs {theirs.weights():,}\n")
    print(f"{'captions/s':26}{'ours':>10}{'generate()':>12}{'ratio':>8}")
    for name, beams, ours in ways:
        for batch in arguments.batch_sizes:
            array = random_regions(batch, arguments)
            regions, tensor = tf.constant(array), torch.from_numpy(array)
            written, other = ours(regions).numpy(), theirs.write(tensor, beams).numpy()
            assert written.shape[::2] == other.shape == (batch, length - 1)
            assert not (written[:, :, :-1] == END_ID).any() and not (other == END_ID).any()
            seconds = alternate(
                {
                    "ours": functools.partial(ours, regions),
                    "theirs": functools.partial(theirs.write, tensor, beams),
                },
                arguments.rounds,
                pause=PAUSE,
            )
            times, their_times = (np.array(times) for times in seconds.values())
            speed, their_speed = (batch / np.median(some) for some in (times, their_times))
            ratio = np.median(their_times / times)
            print(f"{f'{name}, batch {batch}':26}{speed:10.1f}{their_speed:12.1f}{ratio:8.2f}")


def matrix_products(
    generator: GRUGenerator, batch: int, regions: int, steps: tf.Tensor
) -> tf.Tensor:
    """Runs only the matrix products of so many steps, each depending on the one before."""
    hidden, heads = generator.hidden_size, generator.attention.heads
    size = hidden // heads
    reader, writer = generator.reader.cell, generator.writer.cell
    # Constant factors have the layout in which a product is fastest.
    keys = tf.random.normal([batch, heads, size, regions])
    values = tf.random.normal([batch, heads, regions, size])
    output_words = tf.transpose(generator.embedding.embeddings)

    def step(time, features, read, written, both, _):
        gates = tf.matmul(features, reader.kernel) + tf.matmul(read, reader.recurrent_kernel)
        query = tf.matmul(gates[:, :hidden], generator.attention.query_projection.kernel)
        scores = tf.matmul(tf.reshape(query, [batch, heads, 1, size]), keys)
        seen = tf.reshape(tf.matmul(scores, values), [batch, hidden])
        gates = tf.matmul(both, writer.kernel) + tf.matmul(written, writer.recurrent_kernel)
        both = gates[:, : 2 * hidden]
        features = tf.matmul(both, generator.output_hidden.kernel)
        features = tf.matmul(features, generator.output_projection.kernel)
        logits = tf.matmul(features, output_words)
        return time + 1, features, seen, gates[:, :hidden], both, logits[0, 0]

    sizes = generator.embedding_size, hidden, hidden, 2 * hidden
    first = (tf.zeros([batch, size]) for size in sizes)
    return tf.while_loop(lambda time, *_: time < steps, step, (0, *first, 0.0))[-1]


def step_beside_products(generator: GRUGenerator, arguments: argparse.Namespace) -> None:
    """Prints the time per step: the difference between many steps and one cancels the overhead."""
    steps = arguments.sequence_length - 1
    print(f"\n{'ms per step':26}{'greedy':>10}{'products':>12}{'ratio':>8}")
    for batch in arguments.batch_sizes:
        regions = tf.constant(random_regions(batch, arguments))
        calls: dict[str, Callable[[], object]] = {}
        for count in (1, steps):
            write = compiled_greedy(generator, count + 1)
            products = tf.function(
                functools.partial(matrix_products, generator, batch, arguments.regions)
            )
            calls[f"greedy, {count}"] = functools.partial(write, regions)
            calls[f"products, {count}"] = functools.partial(products, tf.constant(count))
        seconds = alternate(calls, 2 * arguments.rounds, pause=PAUSE)
        one, products_of_one, many, products_of_many = map(np.array, seconds.values())
        taken = 1000 * (many - one) / (steps - 1)
        products_taken = 1000 * (products_of_many - products_of_one) / (steps - 1)
        ratio = np.median(taken / products_taken)
        print(
            f"{f'batch {batch}':26}{np.median(taken):10.3f}"
            f"{np.median(products_taken):12.3f}{ratio:8.2f}"
        )


def longest_caption(generator: Ours, arguments: argparse.Namespace) -> None:
    """Prints the time per batch by its longest caption; the other captions have one word."""
    batch = max(arguments.batch_sizes)
    regions = tf.constant(random_regions(batch, arguments))
    calls: dict[str, Callable[[], object]] = {}
    for longest in (5, 20):
        words = np.array([longest] + [1] * (batch - 1))
        for length in (arguments.sequence_length, 2 * arguments.sequence_length):
            write = compiled_greedy(FixedLengthGenerator(generator, words), length)
            assert (np.sum(write(regions)[:, 0] != PAD_ID, axis=-1) == words + 1).all()
            calls[f"{longest} words, sequence_length {length}"] = functools.partial(write, regions)
    print(f"\n{f'longest caption, batch {batch}':40}{'ms':>10}")
    for name, seconds in alternate(calls, arguments.rounds, pause=PAUSE).items():
        print(f"{name:40}{1000 * np.median(seconds):10.1f}")


def random_regions(batch: int, arguments: argparse.Namespace) -> np.ndarray:
    shape = (batch, arguments.regions, arguments.depth)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def build_ours(arguments: argparse.Namespace) -> Ours:
    shared = {
        "vocabulary_size": arguments.vocabulary_size,
        "embedding_size": arguments.embedding_size,
        "hidden_size": arguments.hidden_size,
        "attention_heads": arguments.attention_heads,
        "noise_size": 16,
        "dropout": 0.0,
    }
    generator: Ours
    if arguments.generator == "transformer":
        # GPT-2's feed-forward layers.
        generator = TransformerGenerator(
            block_count=arguments.layers, feed_forward_factor=4, **shared
        )
    else:
        generator = GRUGenerator(**shared)
    generator.build((None, arguments.regions, arguments.depth))
    return generator


def main() -> None:
    """Reads the command line, prints the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generator", choices=("gru", "transformer"), default="gru")
    parser.add_argument("--hidden_size", type=int, default=384)
    parser.add_argument(
        "--embedding_size",
        type=int,
        default=300,
        help="of our generator",
    )
    parser.add_argument("--attention_heads", type=int, default=4)
    parser.add_argument("--vocabulary_size", type=int, default=10_000)
    parser.add_argument("--sequence_length", type=int, default=22)
    parser.add_argument("--regions", type=int, default=49)
    parser.add_argument("--depth", type=int, default=1280, help="channels per region")
    parser.add_argument("--layers", type=int, default=1, help="of the Transformers")
    parser.add_argument("--beam", type=int, default=5, help="beam width")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    keras.utils.set_random_seed(0)
    generator = build_ours(arguments)
    never_ending(generator)
    compare(generator, arguments)
    if isinstance(generator, GRUGenerator):
        step_beside_products(generator, arguments)
    longest_caption(generator, arguments)


if __name__ == "__main__":
    main()
