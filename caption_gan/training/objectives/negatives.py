"""False captions as negatives for a critic: real ones of other images, and near misses.

N images, K captions per image, T time, V vocabulary.
"""

import tensorflow as tf

from caption_gan.models.decoding.sampling import draw_noise, gumbel
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Generator
from caption_gan.text.vocabulary import SPECIAL_IDS, SpecialTokens

# How much likelier the word of a near miss must be of the other image; synonyms are below it.
LEAST_LOG_RATIO = 2.0


def most_similar(captions: tf.Tensor) -> tf.Tensor:
    """For each image the index of another image whose captions are most similar, [N].

    Similarity is the cosine of TF-IDF vectors: words count by how few of the images have them.

    Args:
        captions: Token ids [N, K, T].
    """
    count = tf.shape(captions)[0]
    flat = tf.reshape(captions, [count, -1])
    words = tf.math.bincount(flat, axis=-1, binary_output=True, dtype=tf.float32)  # [N, V]
    images = tf.cast(count, tf.float32)
    rarity = tf.math.log(images / tf.maximum(tf.reduce_sum(words, axis=0), 1))  # [V]
    vectors = tf.math.l2_normalize(words * rarity, axis=-1)
    similarity = tf.matmul(vectors, vectors, transpose_b=True)  # [N, N]
    return tf.argmax(similarity - 2 * tf.eye(count), axis=-1)  # Never the image itself.


def near_misses(
    generator: Generator,
    regions: Regions,
    other_regions: Regions,
    real: tf.Tensor,
    seed: tf.Tensor,
    special_tokens: SpecialTokens = SPECIAL_IDS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Real captions in which one word says what would be true of another image.

    As in ELECTRA (Clark et al., 2020) the generator chooses the word: the likeliest at its place of
    the other image that is not likely of this one. That is a colour, an object or a number, but no
    synonym.

    Args:
        generator: Predicts each word from the image and the words before it.
        regions: [N, R, D].
        other_regions: Of other images, [N, R, D].
        real: Token ids [N, K, T].
        seed: Two integers [2].
        special_tokens: Ids of the special tokens.

    Returns:
        Token ids [N, K, T], and whether each token was replaced, boolean [N, K, T]. Where no word
        would do, the caption is as it was.
    """
    images, captions, length = tf.unstack(tf.shape(real))
    noise = draw_noise(generator, images, captions, seed)
    inputs, targets = real[..., :-1], real[..., 1:]

    def log_probabilities(of: Regions) -> tf.Tensor:  # [N, K, T - 1, V]
        return tf.nn.log_softmax(generator(of.features, inputs, noise, of.mask))

    here, there = log_probabilities(regions), log_probabilities(other_regions)
    words = tf.range(tf.shape(here)[-1])
    is_word = (words >= len(special_tokens)) & (words != targets[..., None])
    fits = is_word & (targets >= len(special_tokens))[..., None] & (there - here > LEAST_LOG_RATIO)
    fitting = tf.where(fits, there, -float("inf"))
    word = tf.argmax(fitting, axis=-1, output_type=real.dtype)  # [N, K, T - 1]
    likely = tf.reduce_max(fitting, axis=-1)  # [N, K, T - 1]
    # At one place, drawn in proportion to the probability of its word.
    place = tf.argmax(likely + gumbel(tf.shape(likely), tf.add(seed, [1, 0]), 0), axis=-1)
    place = tf.cast(place, real.dtype)  # [N, K]
    word = tf.gather(word, place, batch_dims=2)
    found = tf.reduce_max(likely, axis=-1) > -float("inf")
    replaced = (tf.range(length) == place[..., None] + 1) & found[..., None]
    return tf.where(replaced, word[..., None], real), replaced
