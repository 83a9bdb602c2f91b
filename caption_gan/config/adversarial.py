"""Settings of the objectives with a critic or other rewards."""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from caption_gan.config.objective_config import Rate, SamplingConfig
from caption_gan.config.paths import UserPath
from caption_gan.errors import CaptionGANError

CriticLoss = Literal["wasserstein", "relativistic"]
Constraint = Literal[
    "gradient_penalty", "one_sided_gradient_penalty", "weight_clipping", "spectral_norm", "none"
]


@dataclass(frozen=True)
class CriticConfig:
    """The network that scores captions. It has the kind and the sizes of the generator.

    Attributes:
        kind: `next_token`: predicts each token and compares the prediction with the caption.
        start: `generator`: copies the generator's weights, so that the critic can read captions
            and images from the first step. `random`: for a generator that is itself untrained.
        dropout: Dropout rate, as in the generator. Generated captions are endless, so the critic
            hardly overfits; images may be few.
        word_vectors_policy: `frozen` or `trainable`. The gradient penalty bounds the critic's
            slope in units of its word embeddings; trainable ones can grow and so escape it.
        references: Whether the critic compares a caption with the image's other real captions.
            They say more about a training image than the generator sees of it. But captions of new
            images have none, and the critic may learn to look less at the image. Off, because it
            was not shown yet that they pay.
        reference_dropout: Share of the images of a critic update whose references are hidden, so
            that the critic still learns to judge without them.
    """

    kind: Literal["next_token"] = "next_token"
    start: Literal["generator", "random"] = "generator"
    dropout: Rate = 0.0
    word_vectors_policy: Literal["frozen", "trainable"] = "frozen"
    references: bool = False
    reference_dropout: Rate = 0.25


@dataclass(frozen=True)
class AdversarialConfig(SamplingConfig):
    """Settings that all objectives with a critic share.

    Attributes:
        epochs: Passes over the training images. On the built-in data more epochs gain nothing:
            samples become likelier and less varied, not truer.
        batch_size: Images per critic update. A step takes `critic_updates` times as many; its one
            generator update sees all of them.
        critic: The critic network.
        critic_updates: Critic updates per step (n_critic). With too few, the generator outruns the
            critic.
        critic_warmup_steps: Steps in which the critic alone is trained.
        critic_loss: `wasserstein`: difference of scores. `relativistic`: whether real captions
            score higher than other captions of the same image.
        constraint: How the critic's slope is bounded: `gradient_penalty` (two-sided),
            `one_sided_gradient_penalty`, `weight_clipping`, `spectral_norm` (at most one), or
            `none`.
        penalty_weight: Weight of a gradient penalty in the critic's loss.
        clip_value: Largest weight, with `weight_clipping`.
        mismatched_negatives: Share of the critic's negatives that people wrote but that are false
            of the image: captions of other images, and near misses. They make the critic look at
            the image. The other negatives are generated.
        hard_negatives: Whether captions of other images come from the image of the step whose
            captions are most similar, instead of any other image.
        near_misses: Share of the false captions that are near misses: the image's own captions in
            which one word says what the generator expects of another image and not of this one.
            0, because it was not shown yet that they pay, leaves them out.
        verdict_weight: Weight of the loss that asks the critic which word of a near miss it is.
        unconditional_share: Sentences of `data.corpora` per real caption in a critic update. The
            critic compares them with generated captions without seeing the image, and this
            unconditional score becomes part of the generator's reward.
        critic_learning_rate: Learning rate of the critic's Adam, constant.
    """

    compares_captions: ClassVar[bool] = False  # Of the same image, so it needs two of them.

    critic: CriticConfig = field(default_factory=CriticConfig)
    critic_updates: PositiveInt = 5
    critic_warmup_steps: NonNegativeInt = 20
    critic_loss: CriticLoss = "wasserstein"
    constraint: Constraint = "gradient_penalty"
    penalty_weight: NonNegativeFloat = 10.0
    clip_value: PositiveFloat = 0.01
    mismatched_negatives: ClosedUnitInterval = 0.33
    hard_negatives: bool = False
    near_misses: ClosedUnitInterval = 0.0
    verdict_weight: NonNegativeFloat = 0.1
    unconditional_share: ClosedUnitInterval = 0.25
    critic_learning_rate: PositiveFloat = 5e-4

    @property
    def has_critic(self) -> bool:
        """Whether the objective trains a critic."""
        return True

    @property
    def images_per_step(self) -> int:
        """Images that a training step takes."""
        return self.batch_size * (self.critic_updates if self.has_critic else 1)

    @property
    def generator_warmup_steps(self) -> int:
        """Steps before the generator is trained."""
        return self.critic_warmup_steps if self.has_critic else 0

    @property
    def sentences_per_caption(self) -> float:
        """Sentences of `data.corpora` that the objective reads per real caption."""
        return self.unconditional_share if self.has_critic else 0.0

    def check(self, name: str) -> None:
        """Refuses settings that cannot work together; see `ObjectiveConfig.check`."""
        if self.compares_captions and self.captions < 2:
            raise CaptionGANError(
                f"{name}.captions is {self.captions}; it must be at least 2, because each caption "
                "is compared with the other captions of its image."
            )
        if not self.has_critic:
            return
        if self.critic.references and self.captions < 2:
            raise CaptionGANError(
                f"{name}.captions is {self.captions}; with {name}.critic.references it must be at "
                "least 2, because the references of a caption are the image's other captions."
            )
        if self.images_per_step < 2 and self.mismatched_negatives:
            raise CaptionGANError(
                f"{name}.batch_size is 1, but {name}.mismatched_negatives needs captions of other "
                "images; raise the former or set the latter to 0."
            )
        if self.critic_loss == "wasserstein" and self.constraint == "none":
            raise CaptionGANError(
                f"{name}.constraint is none, but without one {name}.critic_loss wasserstein has no "
                "lower bound; choose a constraint, or critic_loss relativistic."
            )


@dataclass(frozen=True)
class WGANGPConfig(AdversarialConfig):
    """The objective `wgan_gp`: the critic's gradient reaches the generator through relaxed words.

    Attributes:
        temperature: Temperature of the Gumbel-softmax at the start.
        temperature_end: The same at the end; in between it falls exponentially.
    """

    trainer: ClassVar[str] = "caption_gan.training.objectives.wgan_gp:WGANGP"

    temperature: PositiveFloat = 1.0
    temperature_end: PositiveFloat = 0.5


@dataclass(frozen=True)
class RewardWeights:
    """Weights of the rewards of a sampled caption; each reward is normalised before it is mixed.

    Attributes:
        critic: Weight of the critic's score. At 0 there is no critic.
        cider: Weight of CIDEr-D against the real captions of the batch.
        dual_encoder: Weight of the log-probability that a caption is that of its image among the
            images of the step, by the setting `dual_encoder` of the objective.
    """

    critic: NonNegativeFloat = 0.0
    cider: NonNegativeFloat = 0.0
    dual_encoder: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class PolicyGradientConfig(AdversarialConfig):
    """The objective `policy_gradient`: REINFORCE on the critic's score of sampled captions.

    Only the order of an image's captions matters to the generator, and no gradient comes from the
    critic: it needs no bound on its slope, and the relativistic loss is bounded by itself.

    Attributes:
        rewards: Weights of the rewards. Default: the critic's score alone.
        discount: If set, the critic rewards each word by its score of that word and of those after
            it, which count less by this factor per word. Otherwise all words of a caption share
            one reward.
        dual_encoder: Directory that `caption_gan.train_dual_encoder` wrote, with the same encoder
            settings if the run's regions are cached; for `rewards.dual_encoder`.
    """

    trainer: ClassVar[str] = "caption_gan.training.objectives.policy_gradient:PolicyGradient"
    compares_captions: ClassVar[bool] = True

    critic_loss: CriticLoss = "relativistic"
    constraint: Constraint = "none"
    rewards: RewardWeights = field(default_factory=lambda: RewardWeights(critic=1.0))
    discount: ClosedUnitInterval | None = None
    dual_encoder: UserPath | None = None

    @property
    def has_critic(self) -> bool:
        """Whether the critic's score is one of the rewards."""
        return self.rewards.critic > 0

    @property
    def has_rewards(self) -> bool:
        """Whether the objective rewards whole captions, and so may need document frequencies."""
        return True

    @property
    def dual_encoder_path(self) -> str | None:
        """Directory of the dual encoder that rewards captions; None if none does."""
        return self.dual_encoder

    def check(self, name: str) -> None:
        """Refuses settings that cannot work together; see `ObjectiveConfig.check`."""
        super().check(name)
        if not any(dataclasses.astuple(self.rewards)):
            raise CaptionGANError(
                f"{name}.rewards are all 0, so nothing would be rewarded; give at least one of "
                f"{', '.join(vars(self.rewards))} a positive weight."
            )
        if bool(self.rewards.dual_encoder) != (self.dual_encoder is not None):
            raise CaptionGANError(
                f"{name}.rewards.dual_encoder is {self.rewards.dual_encoder} and "
                f"{name}.dual_encoder is {self.dual_encoder}; give a positive weight and the "
                "directory that `python -m caption_gan.train_dual_encoder` wrote, or neither."
            )
        if self.rewards.dual_encoder and self.images_per_step < 2:
            raise CaptionGANError(
                f"{name}.batch_size is 1, but {name}.rewards.dual_encoder compares the images of a "
                "step; raise it."
            )


@dataclass(frozen=True)
class SelfCriticalConfig(PolicyGradientConfig):
    """The objective `self_critical`: policy gradient on CIDEr-D, alone or mixed with the critic.

    The defaults suit CIDEr-D alone, which raises the score of greedy captions: real captions count
    little, and the learning rate is high. With a critic, the opposite works
    (`configs/flickr8k_adversarial.yaml`).

    Attributes:
        rewards: Weights of the rewards. Default: CIDEr-D alone, without a critic.
    """

    epochs: PositiveInt = 2
    batch_size: PositiveInt = 16
    captions: PositiveInt = 5
    rewards: RewardWeights = field(default_factory=lambda: RewardWeights(cider=1.0))
    mle_weight: NonNegativeFloat = 0.2
    mle_weight_end: NonNegativeFloat = 0.05
    learning_rate: PositiveFloat = 4e-4
