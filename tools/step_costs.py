"""Operations and bytes of a training step's matrix products, as formulas (docs/scaling.md).

B images, K captions an image, L words that are read (one less than the sequence length), V
vocabulary, E embedding, H hidden, N heads, Z noise, R regions, D region depth, U critic updates.

Only matrix products are counted; all else is proportional to what they read and write. The encoder
is left out: regions are given.

Of a product y = x W training computes one to six of the same size: y; the gradients of x and of W;
and with a gradient penalty, which differentiates the gradient of x again, two more for each
of the two. All six read or write the same three matrices, so that one pair of figures, for one
product, serves all of them; what differs is how many of the six are computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

FREQUENT_WORDS = 1000  # As in `caption_gan.models.critic`.
FLOAT = 4  # Bytes.


@dataclass(frozen=True)
class Sizes:
    """Sizes of a step; the module's docstring has the letters."""

    images: int  # B, of an update of the critic, or of a step without one
    captions: int
    words: int
    vocabulary: int
    embedding: int
    hidden: int
    heads: int
    noise: int
    regions: int
    depth: int
    critic_updates: int = 1


class Cost(NamedTuple):
    """Of matrix products."""

    operations: float = 0.0  # Two for a multiplication and an addition.
    bytes: float = 0.0  # Both factors read and the product written, from and to main memory.

    def __mul__(self, times: float) -> "Cost":  # type: ignore[override]
        return Cost(self.operations * times, self.bytes * times)


def product(rows: int, inner: int, columns: int, batch: int = 1) -> Cost:
    """[rows, inner] by [inner, columns], for each of a batch of both."""
    return Cost(
        2.0 * batch * rows * inner * columns,
        FLOAT * batch * (rows * inner + inner * columns + rows * columns),
    )


def total(costs: Iterator[Cost]) -> Cost:
    """Their sum."""
    listed = list(costs)
    return Cost(sum(cost.operations for cost in listed), sum(cost.bytes for cost in listed))


class Pass(NamedTuple):
    """How many products of its size each product of a pass over captions causes."""

    projection: int  # Of the regions, which nothing is behind
    memory: int  # Keys and values
    start: int  # First states, and the recurrences' products with them
    words: int  # Of word embeddings with the reader's gates
    chain: int  # All others through which a caption's words go
    logits: int  # With all of the vocabulary
    frequent: int  # With the frequent words, in the critic
    verdict: int  # The critic's last, which is linear


READ = Pass(1, 1, 1, 1, 1, logits=1, frequent=1, verdict=1)
LEARN = Pass(2, 3, 3, 3, 3, logits=3, frequent=0, verdict=0)
# The critic's word vectors are frozen.
JUDGE = Pass(2, 3, 3, 2, 3, logits=0, frequent=2, verdict=3)
PENALTY = Pass(0, 0, 3, 5, 6, logits=0, frequent=4, verdict=5)
# The critic's weights are constants to the generator.
PLEASE = Pass(1, 1, 1, 2, 2, logits=0, frequent=2, verdict=2)


def look(sizes: Sizes, times: Pass) -> Iterator[Cost]:
    """Regions to what attention needs of them."""
    seen = sizes.images * sizes.regions
    yield product(seen, sizes.depth, sizes.hidden) * times.projection
    yield product(seen, sizes.hidden, sizes.hidden) * (2 * times.memory)


def read(sizes: Sizes, times: Pass, captions: int, word_by_word: bool = False) -> Iterator[Cost]:
    """Captions through the two recurrences and the attention between them.

    Args:
        sizes: Of the step.
        times: How often each product.
        captions: Of an image.
        word_by_word: Whether attention and output, too, wait for the word before.
    """
    hidden, embedding = sizes.hidden, sizes.embedding
    rows = sizes.images * captions
    at_once, turns = (1, sizes.words) if word_by_word else (sizes.words, 1)
    yield product(rows, hidden + sizes.noise, 2 * hidden) * times.start
    yield product(rows, embedding, 3 * hidden) * (times.words * sizes.words)
    yield product(rows, 2 * hidden, 3 * hidden) * (times.chain * sizes.words)
    recurrent = product(rows, hidden, 3 * hidden) * 2
    yield recurrent * times.start
    yield recurrent * (times.chain * (sizes.words - 1))
    attended = [
        product(rows * at_once, hidden, hidden),  # Queries
        product(
            captions * at_once, hidden // sizes.heads, sizes.regions, sizes.images * sizes.heads
        )
        * 2,  # Scores and context
        product(rows * at_once, 2 * hidden, hidden),
        product(rows * at_once, hidden, embedding),
    ]
    for cost in attended:
        yield cost * (times.chain * turns)


def write_words(sizes: Sizes, times: Pass, word_by_word: bool = False) -> Iterator[Cost]:
    """What a generator adds to reading: logits of all words."""
    rows = sizes.images * sizes.captions
    at_once, turns = (1, sizes.words) if word_by_word else (sizes.words, 1)
    logits = product(rows * at_once, sizes.embedding, sizes.vocabulary)
    yield logits * (times.logits * turns)


def compare_words(sizes: Sizes, times: Pass, captions: int) -> Iterator[Cost]:
    """What a critic adds to reading: comparison of what was foretold with what was written."""
    rows = sizes.images * captions * sizes.words
    frequent = min(sizes.vocabulary, FREQUENT_WORDS)
    yield product(rows, sizes.embedding, frequent) * times.frequent
    yield product(rows, 3 * sizes.embedding + 2, sizes.hidden) * times.chain
    yield product(rows, sizes.hidden, 1) * times.verdict


def teacher_forcing(sizes: Sizes, times: Pass = LEARN) -> Cost:
    """Real or drawn captions given to the generator; forward alone with `READ`."""
    return total(
        cost
        for part in (
            look(sizes, times),
            read(sizes, times, sizes.captions),
            write_words(sizes, times),
        )
        for cost in part
    )


def decode(sizes: Sizes, times: Pass = READ) -> Cost:
    """Captions drawn word by word, none of which ends early; with a gradient with `LEARN`."""
    return total(
        cost
        for part in (
            look(sizes, times),
            read(sizes, times, sizes.captions, word_by_word=True),
            write_words(sizes, times, word_by_word=True),
        )
        for cost in part
    )


def relaxed_words(sizes: Sizes) -> Cost:
    """Mixtures of word vectors: for the generator, but of the last word, and for the critic."""
    rows = sizes.images * sizes.captions
    own = product(rows, sizes.vocabulary, sizes.embedding) * (3 * (sizes.words - 1))
    critics = product(rows * sizes.words, sizes.vocabulary, sizes.embedding) * 2
    return total(iter((own, critics)))


def judge(sizes: Sizes, times: Pass = READ) -> Cost:
    """The critic's scores of K captions an image."""
    return total(
        cost
        for part in (
            look(sizes, times),
            read(sizes, times, sizes.captions),
            compare_words(sizes, times, sizes.captions),
        )
        for cost in part
    )


def critic_update(sizes: Sizes, penalty: bool) -> Cost:
    """Real, written and mismatched captions; the penalty is on as many as are real."""
    costs = [judge(replace(sizes, captions=3 * sizes.captions), JUDGE)]
    if penalty:
        costs.append(judge(sizes, PENALTY))
    return total(iter(costs))


def weight_matrices(sizes: Sizes) -> list[tuple[int, int]]:
    """Shapes of all of the generator's weights with two dimensions but the word embeddings."""
    hidden, embedding = sizes.hidden, sizes.embedding
    return [
        *[(2, 3 * hidden)] * 2,  # Biases of the recurrences: Keras has two for each gate.
        (sizes.depth, hidden),
        (hidden + sizes.noise, 2 * hidden),
        *((embedding, 3 * hidden), (hidden, 3 * hidden)),  # Reader
        *((2 * hidden, 3 * hidden), (hidden, 3 * hidden)),  # Writer
        *[(hidden, hidden)] * 3,  # Queries, keys, values
        *((2 * hidden, hidden), (hidden, embedding)),
    ]


def orthogonalisation(sizes: Sizes, iterations: int = 5) -> Cost:
    """Newton and Schulz's iteration of each weight matrix, if Muon trains them."""
    return total(
        cost * iterations
        for short, long in map(sorted, weight_matrices(sizes))
        for cost in (
            product(short, long, short),
            product(short, short, short),
            product(short, short, long),
        )
    )


def step(objective: str, sizes: Sizes, has_critic: bool = True, muon: bool = False) -> Cost:
    """A step of an objective with its default losses, once the critic is warm.

    Args:
        objective: Its name.
        sizes: Of the step.
        has_critic: Whether there is one; of `self_critical` alone.
        muon: Whether Muon trains the matrices; of `maximum_likelihood` alone.
    """
    if objective == "maximum_likelihood":
        extra = orthogonalisation(sizes) if muon else Cost()
        return total(iter((teacher_forcing(sizes), extra)))
    updates = sizes.critic_updates if has_critic else 0
    everything = replace(sizes, images=sizes.images * max(updates, 1))
    costs = [
        decode(everything),
        critic_update(sizes, penalty=objective == "wgan_gp") * updates,
        teacher_forcing(everything),  # The anchor
    ]
    if objective == "wgan_gp":
        costs += [decode(everything, LEARN), relaxed_words(everything), judge(everything, PLEASE)]
    else:
        costs += [teacher_forcing(everything), judge(everything) * has_critic]
    return total(iter(costs))


def generator_weights(sizes: Sizes) -> int:
    """Numbers in the generator."""
    hidden, embedding = sizes.hidden, sizes.embedding
    matrices = sum(rows * columns for rows, columns in weight_matrices(sizes))
    # Of projection and its normalisation, first states, attention, output.
    biases = 3 * hidden + 2 * hidden + 3 * hidden + hidden + embedding
    return sizes.vocabulary * embedding + matrices + biases


def critic_weights(sizes: Sizes) -> int:
    """Numbers that are trained in the critic."""
    comparison = (3 * sizes.embedding + 2) * sizes.hidden + sizes.hidden
    frozen = sizes.vocabulary * sizes.embedding
    return generator_weights(sizes) - frozen + comparison + sizes.hidden + 1


def resident_bytes(sizes: Sizes, has_critic: bool, averaging: bool) -> int:
    """Weights with Adam's two slots, a gradient each, and the running average.

    Args:
        sizes: Of the networks.
        has_critic: Whether there is one.
        averaging: Whether the generator's weights are averaged.
    """
    numbers = generator_weights(sizes) * (4 + averaging)
    if has_critic:
        numbers += critic_weights(sizes) * 4 + sizes.vocabulary * sizes.embedding
    return FLOAT * numbers
