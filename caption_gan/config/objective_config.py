"""What every objective has in its settings; see `caption_gan.config.objectives`."""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from jsonargparse.typing import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_number_type,
)

if TYPE_CHECKING:
    Rate = float
else:
    Rate = restricted_number_type("Rate", float, [(">=", 0), ("<", 1)])


@dataclass(frozen=True)
class ObjectiveConfig:
    """What stages and checks ask of any objective.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per update.
        captions: Captions per image in each step.
        accumulation_steps: Parts into which the images of an update are divided. Their gradients
            are computed one after another and summed, so that memory for them grows with a part
            and not with the batch, and the update stays the same. 1, because several parts take
            longer than one.
        ema_momentum: Momentum of an exponential moving average of the weights, such as 0.999. The
            average then writes the captions that are scored, and is what the run keeps. 0 keeps
            the weights themselves.
        lora_rank: Rank of LoRA's matrices (Hu et al., 2022), such as 8: of `gpt2`, or of a
            `transformer` that is trained already, they alone are trained, and its own weights
            stay; what reads the image in `gpt2` is trained too. Gradients and optimizer then take
            little memory. Files of weights, captioning and export have none of them, because their
            product is added to the weights. 0 trains all weights.
    """

    trainer: ClassVar[str]  # `module:class` of the `Trainer`; loaded when a stage begins.

    epochs: PositiveInt = 1
    batch_size: PositiveInt = 32
    captions: PositiveInt = 2
    accumulation_steps: PositiveInt = 1
    ema_momentum: Rate = 0.0
    lora_rank: NonNegativeInt = 0

    @property
    def images_per_step(self) -> int:
        """Images that a training step takes."""
        return self.batch_size

    @property
    def has_critic(self) -> bool:
        """Whether the objective trains a critic."""
        return False

    @property
    def has_rewards(self) -> bool:
        """Whether the objective rewards whole captions, and so may need document frequencies."""
        return False

    @property
    def dual_encoder_path(self) -> str | None:
        """Directory of the dual encoder that rewards captions; None if none does."""
        return None

    @property
    def watches_for_collapse(self) -> bool:
        """Whether samples are watched for signs of collapse (`MonitorConfig`)."""
        return False

    @property
    def trains_encoder(self) -> bool:
        """Whether the objective trains the encoder."""
        return True

    @property
    def epochs_with_frozen_encoder(self) -> int:
        """Epochs at the start in which a pretrained encoder is not trained yet."""
        return 0

    @property
    def generator_warmup_steps(self) -> int:
        """Steps before the generator is trained."""
        return 0

    @property
    def sentences_per_caption(self) -> float:
        """Sentences of `data.corpora` that the objective reads per real caption."""
        return 0.0

    @property
    def sorts_by_length(self) -> bool:
        """Whether a batch should hold images with captions of similar length."""
        return False

    def check(self, name: str) -> None:
        """Refuses settings that cannot work together.

        Args:
            name: Name of the objective, for the message.

        Raises:
            CaptionGANError: Names the settings and the remedy.
        """

    @classmethod
    def load_trainer(cls) -> Any:
        """Imports the class of the `Trainer`; only then is TensorFlow needed."""
        module, _, name = cls.trainer.partition(":")
        return vars(importlib.import_module(module))[name]


@dataclass(frozen=True)
class SamplingConfig(ObjectiveConfig):
    """Settings of all objectives that compare the generator's samples with real captions.

    Attributes:
        captions: Real captions per image in a step, and as many generated ones.
        ema_momentum: Momentum of an exponential moving average of the generator's weights. The
            average writes the captions that are scored, and is what the run keeps. 0 keeps the
            weights themselves.
        mle_weight: Weight of the cross-entropy of real captions in the generator's loss at the
            start. It preserves variety, which a comparison of captions does not reward.
        mle_weight_end: The same at the end; in between it changes linearly.
        learning_rate: Peak learning rate of the generator's AdamW; it falls to zero along a half
            cosine.
        gradient_clip: Largest global norm of a gradient.
        train_encoder: Whether the generator's loss also trains the encoder. Without maximum
            likelihood before, nothing else does.
    """

    ema_momentum: Rate = 0.9
    mle_weight: NonNegativeFloat = 1.0
    mle_weight_end: NonNegativeFloat = 1.0
    learning_rate: PositiveFloat = 2e-4
    gradient_clip: PositiveFloat = 1.0
    train_encoder: bool = False

    @property
    def watches_for_collapse(self) -> bool:
        """Whether samples are watched for signs of collapse (`MonitorConfig`)."""
        return True

    @property
    def trains_encoder(self) -> bool:
        """Whether the objective trains the encoder."""
        return self.train_encoder
