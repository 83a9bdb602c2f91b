"""Settings of the objective `self_play`."""

from dataclasses import dataclass
from typing import ClassVar

from jsonargparse.typing import PositiveFloat, PositiveInt

from caption_gan.config.objective_config import SamplingConfig


@dataclass(frozen=True)
class SelfPlayConfig(SamplingConfig):
    """The objective `self_play`: the critic is the generator's log-ratio to its earlier self.

    Attributes:
        beta: Factor of the log-ratio, which is a sum over the tokens of a caption (lambda in the
            paper). With 1 the loss is lowest where captions are as likely as people's. With less
            the generator may move further from the opponent before a pair stops counting.
        opponent_steps: Steps after which the opponent becomes a copy of the generator. With 1 the
            log-ratio is always 0, and self-play is maximum likelihood with noise.
        mle_weight: Weight of the cross-entropy of real captions in the loss at the start. Self-play
            only sees differences: without it, real and generated captions may become unlikely
            together.
        train_encoder: Whether the loss also trains the encoder. The opponent then has its earlier
            encoder, too.
    """

    trainer: ClassVar[str] = "caption_gan.training.objectives.self_play:SelfPlay"

    beta: PositiveFloat = 0.3
    opponent_steps: PositiveInt = 100
