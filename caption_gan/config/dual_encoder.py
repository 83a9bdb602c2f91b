"""Settings of `caption_gan.train_dual_encoder`."""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from caption_gan.config.objective_config import Rate
from caption_gan.config.paths import UserPath


@dataclass(frozen=True)
class DualEncoderConfig:
    """A dual encoder that the package trains itself, and its training.

    Attributes:
        sentence_encoder: Hugging Face folder of a sentence encoder of BERT's kind, such as
            all-MiniLM-L6-v2, which stays frozen under a trained head. Default: none; a
            bidirectional GRU learns the words of the training captions, which suits drawn sets and
            is not enough for a few thousand photographs.
        size: Numbers per vector.
        hidden_size: Width of the heads and of each direction of the GRU.
        pooling: How an image's regions become one vector. `mean`: their mean, computed once for a
            pretrained encoder. `attention`: weighted means with learnt weights beside it, for which
            a pretrained encoder's regions are kept in memory.
        dropout: Dropout rate before the heads and within them. Photographs are few; drawn images
            need none.
        images: Train on the first so many images of the training split only. The others are left
            for a captioner that must not know their captions.
        epochs: Passes over the training images.
        batch_size: Images per step; each is compared with the captions of all others, so that more
            of them teach more.
        captions: Captions per image in each step.
        wrong_captions: Negatives per caption in which one fact, or one word of a photograph's
            caption, is wrong.
        learning_rate: Peak learning rate of AdamW, after a warm-up; it falls to zero along a half
            cosine.
        matrix_learning_rate: The same for Muon, which trains weight matrices. 0 leaves them to
            AdamW.
        weight_decay: Not applied to biases, scales and word embeddings.
    """

    sentence_encoder: UserPath | None = None
    size: PositiveInt = 256
    hidden_size: PositiveInt = 512
    pooling: Literal["mean", "attention"] = "mean"
    dropout: Rate = 0.3
    images: PositiveInt | None = None
    epochs: PositiveInt = 30
    batch_size: PositiveInt = 500
    captions: PositiveInt = 2
    wrong_captions: NonNegativeInt = 1
    learning_rate: PositiveFloat = 1e-3
    matrix_learning_rate: NonNegativeFloat = 0.0
    weight_decay: NonNegativeFloat = 0.05
