"""The critic as a judge of captions: how well it ranks them, and what its choice is worth.

B batch, M drawn captions per image, K captions per image, N images, T time.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from caption_gan.data.example import Example
from caption_gan.evaluation.frontier import ROWS, Captions, Frontier, Points
from caption_gan.evaluation.text_metrics import Scores
from caption_gan.metrics.diversity import mean_length
from caption_gan.metrics.ranking import pairwise_auc
from caption_gan.models.critics.critic import Critic
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.decoder import DecodingOptions
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.text.vocabulary import SPECIAL_IDS
from caption_gan.training.objectives.negatives import most_similar

CRITICS_CHOICE = "critic's choice"  # Name of its curve in the frontier.
# The critic keeps K of 1, 2 and 3 times K samples.
CANDIDATES = (1, 2, 3)
# Images among which the most similar one is searched: their similarities are a matrix.
MAX_IMAGES = 2000


class Candidates(NamedTuple):
    """Samples at temperature 1 among which the critic chooses.

    Attributes:
        captions: M captions of each image.
        ranks: What the critic ranks them by, [N, M].
        log_probabilities: The generator's, mean per token, [N, M].
    """

    captions: Captions
    ranks: np.ndarray
    log_probabilities: np.ndarray


def judge(decoder: TextDecoder, critic: Critic, frontier: Frontier) -> tuple[Scores, Points]:
    """Measures the critic on samples of the captioner and on references.

    Args:
        decoder: Decoder of the captioner that the critic was trained against.
        critic: The critic.
        frontier: Images of the split; scores the captions that are chosen.

    Returns:
        Metrics by `<decoding>/<metric>`, and a point for each number `drawn` of samples, of which
        the critic keeps the best K.
    """
    candidates = draw_candidates(decoder, critic, frontier)
    scores = Scores()
    if frontier.is_correct:
        scores.add(judge_samples(candidates, frontier.is_correct), "sample/")
    scores.add(
        judge_references(decoder, critic, frontier.batches, frontier.examples, frontier.is_correct),
        "reference/",
    )
    return scores, choices(candidates, frontier)


def draw_candidates(decoder: TextDecoder, critic: Critic, frontier: Frontier) -> Candidates:
    """Draws the largest number of candidates of each image at temperature 1, and ranks them."""
    count = max(CANDIDATES) * frontier.samples
    options = DecodingOptions(decoder.tokenizer.sequence_length, count)
    batches = frontier.batches.unbatch().batch(max(1, ROWS // count))

    @tf.function(input_signature=[batches.element_spec, tf.TensorSpec([], tf.int32)])
    def draw(batch, number):
        regions = decoder.captioner.regions(batch)
        seed = tf.stack([frontier.seed, 1000 * number])
        drawn = sampling.sample(decoder.captioner.generator, regions, options, seed)
        start = [[0, 0], [0, 0], [1, 0]]
        token_ids = tf.pad(drawn.token_ids, start, constant_values=SPECIAL_IDS.start)
        return drawn, critic.rank(token_ids, critic.encode(regions))  # [B, M]

    captions: Captions = []
    ranks, log_probabilities = [], []
    with tqdm(total=len(frontier.examples), desc=CRITICS_CHOICE, unit=" images") as progress:
        for number, batch in enumerate(batches):
            drawn, ranked = draw(batch, tf.constant(number))
            captions += [[text for text, _ in of_image] for of_image in decoder.detokenize(drawn)]
            ranks.append(ranked.numpy())
            log_probabilities.append(drawn.scores.numpy())
            progress.update(len(ranks[-1]))
    return Candidates(captions, np.concatenate(ranks), np.concatenate(log_probabilities))


def choices(candidates: Candidates, frontier: Frontier) -> Points:
    """Scores the best K of the first `drawn` candidates of each image.

    A point also has the mean length of the captions that were not chosen: a critic that prefers
    long or short captions chooses worse than chance.
    """
    points: Points = []
    for drawn in (times * frontier.samples for times in CANDIDATES):
        order = np.argsort(-candidates.ranks[:, :drawn], axis=1, kind="stable")  # [N, drawn]
        chosen, others = (
            [
                [of_image[place] for place in places]
                for of_image, places in zip(candidates.captions, part, strict=True)
            ]
            for part in (order[:, : frontier.samples], order[:, frontier.samples :])
        )
        point = {"drawn": drawn, **frontier.score(chosen)}
        if others[0]:
            point["unchosen_mean_length"] = mean_length(others).value
        points.append(point)
    return points


def judge_samples(candidates: Candidates, is_correct: Callable[[int, str], bool]) -> Scores:
    """`critic_auc` of true against false samples of an image; `likelihood_auc` by the generator.

    Args:
        candidates: Samples of each image.
        is_correct: Whether a caption of the image at a position is correct.
    """
    correct = [
        np.array([is_correct(image, caption) for caption in captions])
        for image, captions in enumerate(candidates.captions)
    ]
    return Scores(
        {
            "critic_auc": pairwise_auc(list(candidates.ranks), correct),
            "likelihood_auc": pairwise_auc(list(candidates.log_probabilities), correct),
        }
    )


def judge_references(
    decoder: TextDecoder,
    critic: Critic,
    batches: tf.data.Dataset,
    examples: Sequence[Example],
    is_correct: Callable[[int, str], bool] | None = None,
) -> Scores:
    """`critic_auc` of an image's references against those of the most similar other image.

    Similarity is that of the references (`most_similar`), among the first `MAX_IMAGES` images.

    Args:
        decoder: Decoder of the captioner whose regions the critic reads.
        critic: The critic.
        batches: Batches of the split.
        examples: Examples of the split, in the same order.
        is_correct: Leaves out references of the other image that are true of this one too.
    """
    texts = [example.captions for example in examples[:MAX_IMAGES]]
    if len(texts) < 2:
        return Scores()
    most = max(map(len, texts))
    token_ids = decoder.tokenizer.tokenize(
        tf.constant([[*captions, *[""] * (most - len(captions))] for captions in texts])
    )  # [N, K, T]
    is_text = tf.sequence_mask([len(captions) for captions in texts], most)  # [N, K]
    # The frequency of words must not depend on how many references an image has.
    present = tf.where(is_text[..., tf.newaxis], token_ids, SPECIAL_IDS.pad)
    others = most_similar(present).numpy()  # [N]

    pairs = tf.concat([token_ids, tf.gather(token_ids, others)], axis=1)  # [N, 2 K, T]
    rows = tf.data.Dataset.zip(batches.unbatch(), tf.data.Dataset.from_tensor_slices(pairs))
    rows = rows.batch(max(1, ROWS // pairs.shape[1]))

    @tf.function(input_signature=rows.element_spec)
    def rank(batch, token_ids):
        return critic.rank(token_ids, critic.encode(decoder.captioner.regions(batch)))

    ranks = np.concatenate([rank(*batch) for batch in rows])  # [N, 2 K]
    scores, is_right = [], []
    for image, (captions, other) in enumerate(zip(texts, others, strict=True)):
        wrong = [not (is_correct and is_correct(image, text)) for text in texts[other]]
        of_other = ranks[image, most : most + len(wrong)][wrong]
        scores.append(np.concatenate([ranks[image, : len(captions)], of_other]))
        is_right.append(np.arange(len(scores[-1])) < len(captions))
    # The other images have no pairs.
    left_out = len(examples) - len(texts)
    scores += [np.zeros(0)] * left_out
    is_right += [np.zeros(0, bool)] * left_out
    return Scores({"critic_auc": pairwise_auc(scores, is_right)})
