"""Settings of the captioner: how captions become tokens, images regions, and both new captions."""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from caption_gan.config.objectives import Rate


@dataclass(frozen=True)
class TextConfig:
    """How captions become tokens.

    Attributes:
        tokenizer: `word`: one token a word, rare words become unknown. `wordpiece`: rare words are
            spelled from pieces.
        minimum_count: Words seen fewer times in the training captions are unknown.
        maximum_vocabulary: Upper bound of the vocabulary's size.
        sequence_length: Tokens of a caption, start and end token included; longer ones are cut.
        word_vectors: File of pretrained word vectors in GloVe's text format.
        word_vectors_policy: `frozen`: never trained. `trainable`: trained from the first step.
            `unfrozen`: trained after `unfreeze_after` epochs.
        unfreeze_after: Epochs for which `unfrozen` word vectors stay fixed.
    """

    tokenizer: Literal["word", "wordpiece"] = "word"
    minimum_count: PositiveInt = 5
    maximum_vocabulary: PositiveInt = 20000
    sequence_length: PositiveInt = 24
    word_vectors: str | None = None
    word_vectors_policy: Literal["frozen", "trainable", "unfrozen"] = "trainable"
    unfreeze_after: NonNegativeInt = 2


@dataclass(frozen=True)
class EncoderConfig:
    """How an image becomes regions.

    Attributes:
        name: `convolutional`: a small residual network trained with the captioner.
            `keras_applications`: a backbone of `keras.applications`. `precomputed`: regions from
            files, such as detections of objects.
        image_height: Height in pixels to which images are resized.
        image_width: Width in pixels to which images are resized.
        width: Channels of the convolutional encoder's first stage; its regions have twice as many.
        backbone: Class name in `keras.applications`.
        weights: Of the backbone: `imagenet`, a weights file, or `none`.
        trainable: Whether the backbone is fine-tuned. A frozen one sees each image once, before
            training, and its regions are kept in the shards.
        frozen_up_to: With `trainable`, the last layer that stays frozen nevertheless, e.g.
            `block_12_add` of MobileNetV2. What comes out of it is kept in the shards, so that
            fine-tuning the rest costs little.
        flip: Whether training also shows each image's mirror image. Leave it off where left and
            right matter, as in charts.
        regions: Folder of `precomputed` regions: for each image a file of NumPy's, named after it
            with `.npy` for its ending, with numbers [regions, depth], alike for all images.
    """

    name: Literal["convolutional", "keras_applications", "precomputed"] = "convolutional"
    image_height: PositiveInt = 64
    image_width: PositiveInt = 64
    width: PositiveInt = 40
    backbone: str = "MobileNetV2"
    weights: str = "imagenet"
    trainable: bool = False
    frozen_up_to: str | None = None
    flip: bool = False
    regions: str | None = None

    @property
    def cached(self) -> bool:
        """Whether regions, or what they are made of, are had once and kept in the shards."""
        if self.name == "keras_applications":
            return not self.trainable or self.frozen_up_to is not None
        return self.name == "precomputed"


@dataclass(frozen=True)
class GeneratorConfig:
    """The network that writes captions.

    Attributes:
        embedding_size: Of a word embedding.
        hidden_size: Of the GRU and the attention.
        attention_heads: Number of heads; must divide `hidden_size`. Where words name single
            things, one head learns where to look several times sooner than four.
        noise_size: Of the noise z that varies captions of one image.
        dropout: Of word embeddings, regions and output features. Drawn data are many enough to
            need none; a few thousand photographs need about a half.
    """

    embedding_size: PositiveInt = 128
    hidden_size: PositiveInt = 160
    attention_heads: PositiveInt = 1
    noise_size: PositiveInt = 16
    dropout: Rate = 0.0


@dataclass(frozen=True)
class DecodingConfig:
    """How captions are drawn from the trained generator.

    Attributes:
        batch_size: Images at a time.
        samples: Sampled captions an image; diversity is measured among them.
        temperature: Below 1 makes likely words likelier.
        top_k: Only the k likeliest words are drawn; 0 means all.
        top_p: Only the likeliest words that together reach this probability are drawn.
        beam: Width of the beam search that is scored beside greedy decoding; 1 leaves it out.
        length_penalty: Exponent of the length by which a beam's log-probability is divided.
        beam_groups: Groups of the beam; must divide it. In more than one, the search is diverse:
            a group avoids the words that the groups before it choose at the same time.
        diversity: Log-probability that a word loses for each beam of a group before that has
            just chosen it; 0.5 is in the middle of what the method's authors found to work.
        minimum_length: Words before a caption may end.
        no_repeated_ngram: No n words in a row are said twice in a caption; 0 lets them.
    """

    batch_size: PositiveInt = 100
    samples: PositiveInt = 5
    temperature: PositiveFloat = 1.0
    top_k: NonNegativeInt = 0
    top_p: ClosedUnitInterval = 1.0
    beam: PositiveInt = 1
    length_penalty: NonNegativeFloat = 1.0
    beam_groups: PositiveInt = 1
    diversity: NonNegativeFloat = 0.5
    minimum_length: NonNegativeInt = 0
    no_repeated_ngram: NonNegativeInt = 0
