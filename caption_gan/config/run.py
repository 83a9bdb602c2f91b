"""Settings of a run: typed, validated, and documented where they stand.

The command line, YAML files and `config.yaml` of a run directory all hold these fields. The
defaults train on the built-in `figures` on two CPU cores in about six minutes.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_string_type,
)

from caption_gan.config.data import DataConfig
from caption_gan.config.objectives import (
    MaximumLikelihoodConfig,
    MonitorConfig,
    PolicyGradientConfig,
    Rate,
    SelfCriticalConfig,
    WassersteinGANConfig,
)

if TYPE_CHECKING:
    StepRange = str
else:
    StepRange = restricted_string_type("StepRange", r"^\d+,\d+$", "two steps, e.g. 10,20")


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


@dataclass(frozen=True)
class EvaluationConfig:
    """How captions are scored.

    Attributes:
        bootstrap: Samples of the images from which confidence intervals are had. From 1,000 on
            their ends hardly move.
        dual_encoder: SavedModel that knows images and texts apart from any captioner, as CLIP
            does, to tell whether captions find their images (see `models/dual_encoder.py`).
    """

    bootstrap: PositiveInt = 1000
    dual_encoder: str | None = None


@dataclass(frozen=True)
class LoggingConfig:
    """What TensorBoard gets besides scalars.

    Attributes:
        images: Validation images shown with captions and attention after each epoch.
        histograms: Whether weights are logged as histograms after each epoch.
    """

    images: NonNegativeInt = 6
    histograms: bool = False


@dataclass(frozen=True)
class Config:
    """A run.

    Attributes:
        run_dir: Folder of the run; given again, the run is continued. Default: a new folder
            below `runs/` named after the data set and the time.
        seed: Of weights, order of the data, dropout and sampling.
        data: Images and captions.
        text: Tokens.
        encoder: Regions.
        generator: The network that writes captions.
        stages: Objectives that train the generator, one after another.
        maximum_likelihood: Settings of the objective `maximum_likelihood`.
        wgan_gp: Settings of the objective `wgan_gp`.
        policy_gradient: Settings of the objective `policy_gradient`.
        self_critical: Settings of the objective `self_critical`.
        monitor: What counts as a collapse, and what is done about it.
        decoding: How captions are drawn.
        evaluation: How they are scored.
        logging: What TensorBoard gets.
        checkpoint_minutes: Training between checkpoints within an epoch; each epoch ends with one
            too. A run that is killed continues from the last one. A write took 0.1 seconds for 9 MB
            and 3 seconds for 290 MB, at most one per cent of five minutes.
        strategy: `one_device`. `mirrored`: all GPUs of this machine, each with its share of a batch
            (`tf.distribute.MirroredStrategy`). `multi_worker`: those of several machines, which the
            environment variable TF_CONFIG names (`MultiWorkerMirroredStrategy`). Batches are as
            large as on one device, and steps the same but for what is drawn at random.
        precision: In which the networks compute while they are trained. `mixed_bfloat16` has
            float32's range, and faster units in GPUs and some CPUs; `mixed_float16`, for older
            GPUs, scales losses so that small gradients do not vanish
            (`tools/benchmark_compilation.py`). Variables are float32, and so is all that is
            evaluated at the end, exported and served.
        jit_compile: Whether XLA compiles training steps, on one device. It merges operations, of
            which a step of words has tens of thousands, and takes its time before the first step of
            a stage. On a CPU it pays for small networks, a step of `wgan_gp` took 0.38 times as
            long; with the default sizes it took 1.5 times as long
            (`tools/benchmark_compilation.py`). Random numbers are others than without.
        steps_per_execution: Training steps in one call of the compiled function. More save the
            time between two calls, which small networks on fast accelerators feel; but what looks
            at training, checkpoints and `monitor.every` among it, does so only between calls.
        profile_steps: First and last step of a trace for TensorBoard's profile page, e.g. 10,20;
            in calls, if `steps_per_execution` is more.
    """

    run_dir: str | None = None
    seed: NonNegativeInt = 0
    data: DataConfig = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    stages: list[Literal["maximum_likelihood", "wgan_gp", "policy_gradient", "self_critical"]] = (
        field(default_factory=lambda: ["maximum_likelihood"])
    )
    maximum_likelihood: MaximumLikelihoodConfig = field(default_factory=MaximumLikelihoodConfig)
    wgan_gp: WassersteinGANConfig = field(default_factory=WassersteinGANConfig)
    policy_gradient: PolicyGradientConfig = field(default_factory=PolicyGradientConfig)
    self_critical: SelfCriticalConfig = field(default_factory=SelfCriticalConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    checkpoint_minutes: PositiveFloat = 5.0
    strategy: Literal["one_device", "mirrored", "multi_worker"] = "one_device"
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit_compile: bool = False
    steps_per_execution: PositiveInt = 1
    profile_steps: StepRange | None = None
