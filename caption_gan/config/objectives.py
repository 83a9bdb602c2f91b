"""Settings of the training objectives, and the one place where objectives are registered.

To add an objective, write its settings here, add a field to `ObjectiveSettings`, and write the
trainer that `trainer` names. Command line, checks, stages and tools take it from there.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from caption_gan.config.adversarial import (
    PolicyGradientConfig,
    SelfCriticalConfig,
    WGANGPConfig,
)
from caption_gan.config.objective_config import ObjectiveConfig, Rate
from caption_gan.config.self_play import SelfPlayConfig
from caption_gan.errors import CaptionGANError


@dataclass(frozen=True)
class MaximumLikelihoodConfig(ObjectiveConfig):
    """The objective `maximum_likelihood`: cross-entropy with teacher forcing.

    Attributes:
        epochs: Passes over the training images. Four are enough for the built-in charts, so that
            the default run takes minutes; photographs take ten (`configs/flickr8k.yaml`).
        batch_size: Images per step.
        captions: Captions per image in each step, different ones where there are as many. The
            image is encoded once for all of them.
        ema_momentum: Momentum of an exponential moving average of the weights, such as 0.999. The
            average then writes the captions that are scored, and is what the run keeps. 0 keeps
            the weights themselves.
        learning_rate: Peak learning rate of AdamW, after the warm-up; it falls to zero along a
            half cosine.
        matrix_learning_rate: The same for Muon, which trains weight matrices. 0 leaves them to
            AdamW, which costs less per step and learns less from it.
        pretrained_learning_rate: The same for the fine-tuned layers of a backbone; a high rate
            would undo their pretraining.
        encoder_frozen_epochs: Epochs at the start in which the layers of a pretrained encoder that
            `encoder.trainable` trains stay frozen, so that the gradients of an untrained generator
            do not reach them. Steps of these epochs cost less. 0, because a low
            `pretrained_learning_rate` alone gave the results in `configs/flickr8k.yaml`.
        warmup_fraction: Share of the steps in which the learning rates rise from zero.
        weight_decay: Not applied to biases, scales and word embeddings.
        gradient_clip: Largest global norm of the gradient.
        label_smoothing: Share of the target's probability that is spread evenly over the
            vocabulary.
        scheduled_sampling: Share of input words that are replaced by the model's own predictions
            in the last epoch. It grows linearly from zero; 0 is plain teacher forcing.
        length_buckets: Number of lengths, from half of `text.sequence_length` to all of it, to
            which batches are cut. Above 1, a batch holds images with captions of similar length.
            It saves about a sixth of a step where captions differ much in length (photographs,
            charts captioned by people). Each length costs some seconds of compiling at the start,
            which short trainings do not win back (`tools/benchmark_lengths.py`).
    """

    trainer: ClassVar[str] = "caption_gan.training.objectives.maximum_likelihood:MaximumLikelihood"

    epochs: PositiveInt = 4
    learning_rate: PositiveFloat = 2e-3
    matrix_learning_rate: NonNegativeFloat = 6e-3
    pretrained_learning_rate: NonNegativeFloat = 2e-4
    encoder_frozen_epochs: NonNegativeInt = 0
    warmup_fraction: Rate = 0.05
    weight_decay: NonNegativeFloat = 0.01
    gradient_clip: PositiveFloat = 1.0
    label_smoothing: Rate = 0.0
    scheduled_sampling: Rate = 0.0
    length_buckets: PositiveInt = 1

    @property
    def sorts_by_length(self) -> bool:
        """Whether a batch should hold images with captions of similar length."""
        return self.length_buckets > 1

    @property
    def epochs_with_frozen_encoder(self) -> int:
        """Epochs at the start in which a pretrained encoder is not trained yet."""
        return self.encoder_frozen_epochs

    def check(self, name: str) -> None:
        """Refuses settings that cannot work together; see `ObjectiveConfig.check`."""
        if self.encoder_frozen_epochs >= self.epochs:
            raise CaptionGANError(
                f"{name}.encoder_frozen_epochs is {self.encoder_frozen_epochs}, but there are only "
                f"{self.epochs} epochs, so the encoder would never be trained; lower it, or set "
                "encoder.trainable to false."
            )


@dataclass(frozen=True)
class ObjectiveSettings:
    """One field per objective; this is where an objective is registered.

    Attributes:
        maximum_likelihood: Settings of the objective `maximum_likelihood`.
        wgan_gp: Settings of the objective `wgan_gp`.
        policy_gradient: Settings of the objective `policy_gradient`.
        self_critical: Settings of the objective `self_critical`.
        self_play: Settings of the objective `self_play`.
    """

    maximum_likelihood: MaximumLikelihoodConfig = field(default_factory=MaximumLikelihoodConfig)
    wgan_gp: WGANGPConfig = field(default_factory=WGANGPConfig)
    policy_gradient: PolicyGradientConfig = field(default_factory=PolicyGradientConfig)
    self_critical: SelfCriticalConfig = field(default_factory=SelfCriticalConfig)
    self_play: SelfPlayConfig = field(default_factory=SelfPlayConfig)

    def objective(self, name: str) -> Any:
        """The settings of the objective of that name, a subclass of `ObjectiveConfig`."""
        return vars(self)[name]


OBJECTIVES: dict[str, type[ObjectiveConfig]] = {
    objective.name: objective.type  # type: ignore[misc]
    for objective in dataclasses.fields(ObjectiveSettings)
}
