"""Operations and bytes of a training step's matrix products, as formulas (docs/scaling.md).

B images, K captions per image, L input tokens (one less than the sequence length), V vocabulary, E
embedding, H hidden, N heads, Z noise, R regions, D region depth, U critic updates.

Only matrix products are counted; all other work is proportional to what they read and write. The
encoder is not included: regions are given.

For a product y = x W, training computes one to six products of the same size: y; the gradients of x
and of W; and with a gradient penalty, which differentiates the gradient of x again, two more for
each of y and the gradient of x. All six read or write the same three matrices, so each costs the
same operations and bytes; a `Pass` says how many of them are computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

FREQUENT_WORDS = 1000  # As in `caption_gan.models.critics.next_token`.
FLOAT = 4  # Bytes.


@dataclass(frozen=True)
class Sizes:
    """Sizes of a step."""

    images: int  # B, per critic update, or per step without a critic
    captions: int  # K
    words: int  # L
    vocabulary: int  # V
    embedding: int  # E
    hidden: int  # H
    heads: int  # N
    noise: int  # Z
    regions: int  # R
    depth: int  # D
    critic_updates: int = 1  # U


class Cost(NamedTuple):
    """Cost of matrix products."""

    operations: float = 0.0  # A multiplication and an addition are two.
    bytes: float = 0.0  # Both factors read and the product written, from and to main memory.

    def __mul__(self, times: float) -> "Cost":  # type: ignore[override]
        return Cost(self.operations * times, self.bytes * times)


def product(rows: int, inner: int, columns: int, batch: int = 1) -> Cost:
    """Cost of [rows, inner] by [inner, columns], for a batch of such products."""
    return Cost(
        2.0 * batch * rows * inner * columns,
        FLOAT * batch * (rows * inner + inner * columns + rows * columns),
    )


def total(costs: Iterator[Cost]) -> Cost:
    """Sum of the costs."""
    listed = list(costs)
    return Cost(sum(cost.operations for cost in listed), sum(cost.bytes for cost in listed))


class Pass(NamedTuple):
    """Number of equal products computed for each product of a pass over captions."""

    projection: int  # Projection of the regions, which need no gradient
    memory: int  # Keys and values
    start: int  # Initial states, and the recurrences' products with them
    words: int  # Word embeddings with the gates of the first GRU
    chain: int  # All other products that depend on the words
    logits: int  # Logits of the whole vocabulary
    frequent: int  # Logits of the frequent words, in the critic
    score_head: int  # The critic's last layer, which is linear


INFERENCE = Pass(1, 1, 1, 1, 1, logits=1, frequent=1, score_head=1)
TRAINING = Pass(2, 3, 3, 3, 3, logits=3, frequent=0, score_head=0)
# The critic's word embeddings are frozen.
CRITIC_TRAINING = Pass(2, 3, 3, 2, 3, logits=0, frequent=2, score_head=3)
PENALTY = Pass(0, 0, 3, 5, 6, logits=0, frequent=4, score_head=5)
# In the generator's loss the critic's weights are constants.
THROUGH_CRITIC = Pass(1, 1, 1, 2, 2, logits=0, frequent=2, score_head=2)


def encode_regions(sizes: Sizes, times: Pass) -> Iterator[Cost]:
    """Regions to keys and values; a single region to its value and that value's products."""
    rows, hidden = sizes.images * sizes.regions, sizes.hidden
    yield product(rows, sizes.depth, hidden) * times.projection
    # Keys and values, or the only value and its product with the output's hidden layer.
    yield product(rows, hidden, hidden) * (2 * times.memory)
    if sizes.regions == 1:
        yield product(rows, hidden, 3 * hidden) * times.memory  # Gates of the second GRU


def recurrences_and_attention(
    sizes: Sizes, times: Pass, captions: int, word_by_word: bool = False
) -> Iterator[Cost]:
    """Captions through the two recurrences and the attention between them.

    Args:
        sizes: Sizes of the step.
        times: Number of equal products.
        captions: Captions per image.
        word_by_word: Whether all products run once per word instead of once per caption; those
            with the states of the recurrences always do.
    """
    hidden, embedding = sizes.hidden, sizes.embedding
    rows = sizes.images * captions
    at_once, turns = (1, sizes.words) if word_by_word else (sizes.words, 1)
    yield product(rows, hidden + sizes.noise, 2 * hidden) * times.start
    # With a single region, the context's half of two products is computed once per image.
    inputs = 2 * hidden if sizes.regions > 1 else hidden
    yield product(rows * at_once, embedding, 3 * hidden) * (times.words * turns)
    yield product(rows * at_once, inputs, 3 * hidden) * (times.chain * turns)
    recurrent = product(rows, hidden, 3 * hidden) * 2
    yield recurrent * times.start
    yield recurrent * (times.chain * (sizes.words - 1))
    attention = [
        product(rows * at_once, hidden, hidden),  # Queries
        product(
            captions * at_once, hidden // sizes.heads, sizes.regions, sizes.images * sizes.heads
        )
        * 2,  # Scores and context
    ]
    output = [
        product(rows * at_once, inputs, hidden),
        product(rows * at_once, hidden, embedding),
    ]
    for cost in [*(attention if sizes.regions > 1 else []), *output]:
        yield cost * (times.chain * turns)


def predict_words(sizes: Sizes, times: Pass, word_by_word: bool = False) -> Iterator[Cost]:
    """Logits of all words, in the generator."""
    rows = sizes.images * sizes.captions
    at_once, turns = (1, sizes.words) if word_by_word else (sizes.words, 1)
    logits = product(rows * at_once, sizes.embedding, sizes.vocabulary)
    yield logits * (times.logits * turns)


def score_words(sizes: Sizes, times: Pass, captions: int) -> Iterator[Cost]:
    """Comparison of predicted and actual words, and scores, in the critic."""
    rows = sizes.images * captions * sizes.words
    frequent = min(sizes.vocabulary, FREQUENT_WORDS)
    yield product(rows, sizes.embedding, frequent) * times.frequent
    yield product(rows, 3 * sizes.embedding + 2, sizes.hidden) * times.chain
    yield product(rows, sizes.hidden, 1) * times.score_head


def teacher_forcing(sizes: Sizes, times: Pass = TRAINING) -> Cost:
    """Teacher forcing on given captions; the forward pass alone with `INFERENCE`."""
    return total(
        cost
        for part in (
            encode_regions(sizes, times),
            recurrences_and_attention(sizes, times, sizes.captions),
            predict_words(sizes, times),
        )
        for cost in part
    )


def decode(sizes: Sizes, times: Pass = INFERENCE) -> Cost:
    """Captions sampled word by word, none of which ends early; with gradients with `TRAINING`."""
    return total(
        cost
        for part in (
            encode_regions(sizes, times),
            recurrences_and_attention(sizes, times, sizes.captions, word_by_word=True),
            predict_words(sizes, times, word_by_word=True),
        )
        for cost in part
    )


def relaxed_words(sizes: Sizes) -> Cost:
    """Gradients of mixtures: for the generator, except the last word, and for the critic.

    The mixtures themselves are not computed, and the critic's word embeddings are constants.
    """
    rows = sizes.images * sizes.captions
    generator = product(rows, sizes.vocabulary, sizes.embedding) * (2 * (sizes.words - 1))
    critic = product(rows * sizes.words, sizes.vocabulary, sizes.embedding)
    return total(iter((generator, critic)))


def critic_scores(sizes: Sizes, times: Pass = INFERENCE) -> Cost:
    """The critic's scores of K captions an image."""
    return total(
        cost
        for part in (
            encode_regions(sizes, times),
            recurrences_and_attention(sizes, times, sizes.captions),
            score_words(sizes, times, sizes.captions),
        )
        for cost in part
    )


def critic_update(sizes: Sizes, penalty: bool) -> Cost:
    """Real, generated and mismatched captions; the penalty is on as many as there are real ones."""
    costs = [critic_scores(replace(sizes, captions=3 * sizes.captions), CRITIC_TRAINING)]
    if penalty:
        costs.append(critic_scores(sizes, PENALTY))
    return total(iter(costs))


def weight_matrices(sizes: Sizes) -> list[tuple[int, int]]:
    """Shapes of the generator's weights with two dimensions, without the word embeddings."""
    hidden, embedding = sizes.hidden, sizes.embedding
    return [
        *[(2, 3 * hidden)] * 2,  # Biases of the recurrences: Keras has two for each gate.
        (sizes.depth, hidden),
        (hidden + sizes.noise, 2 * hidden),
        (embedding, 3 * hidden),  # First GRU
        (hidden, 3 * hidden),
        (2 * hidden, 3 * hidden),  # Second GRU
        (hidden, 3 * hidden),
        *[(hidden, hidden)] * 3,  # Queries, keys, values
        (2 * hidden, hidden),  # Output
        (hidden, embedding),
    ]


def muon_orthogonalization(sizes: Sizes, iterations: int = 5) -> Cost:
    """Muon's Newton-Schulz iterations of each weight matrix."""
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
    """Cost of a step of an objective with its default losses, after the critic's warm-up.

    Args:
        objective: Name of the objective.
        sizes: Sizes of the step.
        has_critic: Whether `self_critical` has a critic; other adversarial objectives always do.
        muon: Whether Muon trains the matrices in `maximum_likelihood`.
    """
    if objective == "maximum_likelihood":
        extra = muon_orthogonalization(sizes) if muon else Cost()
        return total(iter((teacher_forcing(sizes), extra)))
    if objective == "self_play":
        # Real and generated captions, by the opponent and by the generator.
        both = replace(sizes, captions=2 * sizes.captions)
        passes = [teacher_forcing(both, INFERENCE), teacher_forcing(both)]
        return total(iter([decode(sizes), *passes, teacher_forcing(sizes)]))
    updates = sizes.critic_updates if has_critic else 0
    everything = replace(sizes, images=sizes.images * max(updates, 1))
    costs = [
        decode(everything),
        critic_update(sizes, penalty=objective == "wgan_gp") * updates,
        teacher_forcing(everything),  # Cross-entropy of real captions
    ]
    if objective == "wgan_gp":
        costs += [
            decode(everything, TRAINING),
            relaxed_words(everything),
            critic_scores(everything, THROUGH_CRITIC),
        ]
    else:
        costs += [teacher_forcing(everything), critic_scores(everything) * has_critic]
    return total(iter(costs))


def generator_weights(sizes: Sizes) -> int:
    """Number of parameters of the generator."""
    hidden, embedding = sizes.hidden, sizes.embedding
    matrices = sum(rows * columns for rows, columns in weight_matrices(sizes))
    # Projection and its normalisation, initial states, attention, output.
    biases = 3 * hidden + 2 * hidden + 3 * hidden + hidden + embedding
    return sizes.vocabulary * embedding + matrices + biases


def critic_weights(sizes: Sizes) -> int:
    """Number of trained parameters of the critic."""
    fusion = (3 * sizes.embedding + 2) * sizes.hidden + sizes.hidden
    frozen = sizes.vocabulary * sizes.embedding
    return generator_weights(sizes) - frozen + fusion + sizes.hidden + 1


def training_state_bytes(sizes: Sizes, has_critic: bool) -> int:
    """Bytes of weights, gradients, Adam's two slots and the moving average of the generator.

    Args:
        sizes: Sizes of the networks.
        has_critic: Whether there is a critic.
    """
    parameters = generator_weights(sizes) * 5
    if has_critic:
        parameters += critic_weights(sizes) * 4 + sizes.vocabulary * sizes.embedding
    return FLOAT * parameters
