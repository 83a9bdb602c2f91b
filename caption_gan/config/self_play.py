"""Settings of the objective `self_play`."""

from dataclasses import dataclass
from typing import ClassVar

from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt

from caption_gan.config.objective_config import ObjectiveConfig, Rate


@dataclass(frozen=True)
class SelfPlayConfig(ObjectiveConfig):
    """The objective `self_play`: the critic is the generator's log-ratio to its earlier self.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per step.
        captions: Real captions per image in a step, and as many generated ones. Every real caption
            is compared with every generated one of its image.
        ema_momentum: Momentum of an exponential moving average of the weights. The average writes
            the captions that are scored, and is what the run keeps. 0 keeps the weights themselves.
        beta: Factor of the log-ratio, which is a sum over the tokens of a caption (lambda in the
            paper). With 1 the loss is lowest where captions are as likely as people's. With less
            the generator may move further from the opponent before a pair stops counting.
        opponent_steps: Steps after which the opponent becomes a copy of the generator. With 1 the
            log-ratio is always 0, and self-play is maximum likelihood with noise.
        mle_weight: Weight of the cross-entropy of real captions in the loss at the start. Self-play
            only sees differences: without it, real and generated captions may become unlikely
            together.
        mle_weight_end: The same at the end; in between it changes linearly.
        learning_rate: Peak learning rate of AdamW; it falls to zero along a half cosine.
        gradient_clip: Largest global norm of a gradient.
        train_encoder: Whether the loss also trains the encoder. The opponent then has its earlier
            encoder, too. Without maximum likelihood before, nothing else trains it.
    """

    trainer: ClassVar[str] = "caption_gan.training.objectives.self_play:SelfPlay"

    ema_momentum: Rate = 0.9
    beta: PositiveFloat = 0.3
    opponent_steps: PositiveInt = 100
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
