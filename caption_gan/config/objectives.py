"""Settings of the objectives, one class each; `caption_gan.config.run` gathers them.

Objectives that have a critic share `AdversarialConfig`, which says how it is trained.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
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

CriticLoss = Literal["wasserstein", "relativistic"]
Mismatches = Literal["any", "alike"]
Constraint = Literal["gradient_penalty", "lipschitz_penalty", "clipping", "spectral", "none"]


@dataclass(frozen=True)
class MaximumLikelihoodConfig:
    """The objective `maximum_likelihood`: cross-entropy with teacher forcing.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images a step.
        captions: Captions of an image in each step, different ones where there are as many. The
            image is encoded once for all of them.
        learning_rate: Highest rate of AdamW, after the warm-up; it falls to zero along a half
            cosine.
        matrix_learning_rate: The same of Muon, which trains weight matrices; 0 leaves them to
            AdamW, which costs less a step and learns less from it.
        pretrained_learning_rate: The same of AdamW for a backbone's layers that are fine-tuned; a
            high one would undo what they know.
        warmup: Share of the steps in which the rates rise from zero.
        weight_decay: Not applied to biases, scales and word embeddings.
        gradient_clip: Highest global norm of the gradient.
        label_smoothing: Share of the target's probability spread evenly over the vocabulary.
        scheduled_sampling: Share of input words replaced by the model's own in the last epoch,
            growing linearly from zero in the first; 0 is plain teacher forcing.
        averaging: Momentum of a running average of the weights, such as 0.999, which then writes
            the captions that are scored and is what the run keeps; 0 keeps the weights themselves.
        lengths: Number of lengths, from half of `text.sequence_length` to all of it, to which
            batches are cut; above 1, images with captions of like length come together. It saves
            about a sixth of a step where captions differ much in length (photographs,
            people's charts), and costs some seconds a length at the start, which short trainings
            do not win back (`tools/benchmark_lengths.py`).
    """

    epochs: PositiveInt = 5
    batch_size: PositiveInt = 32
    captions: PositiveInt = 2
    learning_rate: PositiveFloat = 2e-3
    matrix_learning_rate: NonNegativeFloat = 6e-3
    pretrained_learning_rate: NonNegativeFloat = 2e-4
    warmup: Rate = 0.05
    weight_decay: NonNegativeFloat = 0.01
    gradient_clip: PositiveFloat = 1.0
    label_smoothing: Rate = 0.0
    scheduled_sampling: Rate = 0.0
    averaging: Rate = 0.0
    lengths: PositiveInt = 1

    @property
    def images_a_step(self) -> int:
        """Images that a training step takes."""
        return self.batch_size


@dataclass(frozen=True)
class CriticConfig:
    """The network that scores captions; its sizes are the generator's.

    Attributes:
        start: `generator`: with a copy of the generator's weights, so that it reads captions and
            images from the beginning and learns what is left to tell them apart. `random`: for
            a generator that has not learnt anything itself.
        dropout: As the generator's. Generated captions are endless, so that little is learnt by
            heart; images may be few.
        word_vectors_policy: `frozen` or `trainable`. The bound on the critic's slope is in units
            of its word vectors, and trainable ones can grow out of it.
    """

    start: Literal["generator", "random"] = "generator"
    dropout: Rate = 0.0
    word_vectors_policy: Literal["frozen", "trainable"] = "frozen"


@dataclass(frozen=True)
class AdversarialConfig:
    """What all objectives with a critic share.

    Attributes:
        epochs: Passes over the training images. On the built-in data more of them gain nothing:
            what is drawn becomes likelier and less varied, not truer.
        batch_size: Images an update of the critic. A step takes `critic_updates` times as many;
            its one update of the generator sees all of them.
        captions: Captions of an image, real ones and generated ones each.
        critic: The network.
        critic_updates: Updates of the critic a step (n_critic); with too few the generator
            outruns it.
        critic_warmup: Steps in which the critic learns alone.
        critic_loss: `wasserstein`: the difference of scores. `relativistic`: whether real captions
            score higher than others of the same image.
        constraint: Of the critic's slope: a penalty on the gradient's norm that is two-sided
            (`gradient_penalty`) or one-sided (`lipschitz_penalty`), `clipping` of weights,
            `spectral` norms of at most one, or `none`.
        penalty_weight: Of the penalties.
        clip_value: Largest weight, with `clipping`.
        mismatched: Share of the negatives that are real captions of other images; they make the
            critic look at the image. The others are generated.
        mismatches: Whose captions those are: `any` other image's, or those of the image in the step
            whose captions are most `alike`, which are harder to tell apart.
        unpaired: Sentences of `data.corpora` for each real caption of a critic's update. The
            critic compares them with generated captions while it sees no image, and so counts them
            in the generator's reward.
        anchor: Weight of the cross-entropy of real captions in the generator's loss at the start.
            It keeps the variety, which the other part of the loss does not care for.
        anchor_end: The same at the end; in between it changes linearly.
        learning_rate: Highest of the generator's AdamW; it falls to zero along a half cosine.
        critic_learning_rate: Of the critic's Adam, constant.
        gradient_clip: Highest global norm of a gradient.
        averaging: Momentum of a running average of the generator's weights, which writes the
            captions that are scored and is what the run keeps; 0 keeps the weights themselves.
        train_encoder: Whether the encoder is trained too, by the generator's loss. Without
            maximum likelihood before, nothing else does.
    """

    epochs: PositiveInt = 1
    batch_size: PositiveInt = 32
    captions: PositiveInt = 2
    critic: CriticConfig = field(default_factory=CriticConfig)
    critic_updates: PositiveInt = 5
    critic_warmup: NonNegativeInt = 20
    critic_loss: CriticLoss = "wasserstein"
    constraint: Constraint = "gradient_penalty"
    penalty_weight: NonNegativeFloat = 10.0
    clip_value: PositiveFloat = 0.01
    mismatched: ClosedUnitInterval = 0.33
    mismatches: Mismatches = "any"
    unpaired: ClosedUnitInterval = 0.25
    anchor: NonNegativeFloat = 1.0
    anchor_end: NonNegativeFloat = 1.0
    learning_rate: PositiveFloat = 2e-4
    critic_learning_rate: PositiveFloat = 5e-4
    gradient_clip: PositiveFloat = 1.0
    averaging: Rate = 0.9
    train_encoder: bool = False

    @property
    def images_a_step(self) -> int:
        """Images that a training step takes."""
        return self.batch_size * (self.critic_updates if self.has_critic else 1)

    @property
    def has_critic(self) -> bool:
        """Whether there is a critic at all."""
        return True

    @property
    def critic_steps(self) -> int:
        """Steps that pass before the generator is trained."""
        return self.critic_warmup if self.has_critic else 0


@dataclass(frozen=True)
class WassersteinGANConfig(AdversarialConfig):
    """The objective `wgan_gp`: the critic's gradient passes relaxed captions.

    Attributes:
        temperature: Of the Gumbel-softmax at the start.
        temperature_end: The same at the end; in between it falls exponentially.
    """

    temperature: PositiveFloat = 1.0
    temperature_end: PositiveFloat = 0.5


@dataclass(frozen=True)
class PolicyGradientConfig(AdversarialConfig):
    """The objective `policy_gradient`: the critic's score is the reward of a drawn caption.

    Only the order of an image's captions matters to the generator, and no gradient comes from the
    critic: it needs no bound on its slope, and the relativistic loss has one of its own.
    """

    critic_loss: CriticLoss = "relativistic"
    constraint: Constraint = "none"


@dataclass(frozen=True)
class SelfCriticalConfig(PolicyGradientConfig):
    """The objective `self_critical`: the reward is CIDEr-D, mixed with the critic's score.

    Defaults are for CIDEr-D alone, whose use is the score of greedy captions: real captions count
    little, and the rate is high. With a critic it is the opposite
    (`configs/flickr8k_adversarial.yaml`).

    Attributes:
        critic_weight: Share of the critic's score in the reward; at 0 there is no critic.
    """

    epochs: PositiveInt = 2
    batch_size: PositiveInt = 16
    captions: PositiveInt = 5
    critic_weight: ClosedUnitInterval = 0.0
    anchor: NonNegativeFloat = 0.2
    anchor_end: NonNegativeFloat = 0.05
    learning_rate: PositiveFloat = 4e-4

    @property
    def has_critic(self) -> bool:
        """Whether there is a critic at all."""
        return self.critic_weight > 0


@dataclass(frozen=True)
class MonitorConfig:
    """What a healthy captioner writes; watched in every stage with a critic.

    Bounds are far from what healthy runs show and near to what a collapse looks like: one word
    again and again, or one caption for all images.

    Attributes:
        every_steps: Steps between measurements; each epoch ends with one too.
        images: Validation images that are captioned.
        samples: Captions that are drawn for each.
        repeated_token_rate: Most words that repeat the one before; on photographs 0.001 do.
        mbleu: Highest mBLEU-4 among the samples of an image; on charts it is 0.72.
        distinct_captions: Least share of distinct captions across images, the references' being
            one.
        distinct_2: Least distinct-2, the references' being one.
        vocabulary: Least number of words used, the references' being one.
        image_dependence: Least share of CIDEr that is lost when captions are given to other
            images.
        rollbacks: How often training may go back to the last healthy state before it stops.
        patience: Unhealthy measurements in a row after which training stops that has not been
            healthy yet.
    """

    every_steps: PositiveInt = 50
    images: PositiveInt = 200
    samples: PositiveInt = 5
    repeated_token_rate: ClosedUnitInterval = 0.05
    mbleu: ClosedUnitInterval = 0.95
    distinct_captions: ClosedUnitInterval = 0.5
    distinct_2: ClosedUnitInterval = 0.3
    vocabulary: ClosedUnitInterval = 0.2
    image_dependence: ClosedUnitInterval = 0.3
    rollbacks: NonNegativeInt = 2
    patience: PositiveInt = 5
