"""All settings of a run.

The command line, YAML files and the `config.yaml` of a run directory all hold these fields. The
defaults train on the built-in `figures`, first by maximum likelihood and then with WGAN-GP.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_string_type,
)

from caption_gan.config.data import DataConfig
from caption_gan.config.models import DecodingConfig, EncoderConfig, GeneratorConfig, TextConfig
from caption_gan.config.objectives import OBJECTIVES, ObjectiveSettings
from caption_gan.config.paths import UserPath

if TYPE_CHECKING:
    ObjectiveName = str
    StepRange = str
else:
    ObjectiveName = Literal[tuple(OBJECTIVES)]
    StepRange = restricted_string_type("StepRange", r"^\d+,\d+$", "two steps, e.g. 10,20")


@dataclass(frozen=True)
class EvaluationConfig:
    """How captions are scored.

    Attributes:
        bootstrap_samples: Bootstrap samples of the images for confidence intervals. Above 1,000
            the ends of the intervals hardly move.
        dual_encoder: SavedModel that embeds images and texts in one space, as CLIP does, to
            measure whether captions retrieve their images; `caption_gan.train_dual_encoder` writes
            one (see `models/dual_encoders/saved_model.py`).
    """

    bootstrap_samples: PositiveInt = 1000
    dual_encoder: UserPath | None = None


@dataclass(frozen=True)
class MonitorConfig:
    """Bounds of healthy sampled captions, checked in all stages with samples of the generator.

    The bounds are far from healthy runs and close to a collapse, such as one repeated word or one
    caption for all images. Metrics of diversity are relative to those of the references.

    Attributes:
        every_steps: Steps between measurements; each epoch also ends with one.
        images: Validation images to caption.
        samples: Sampled captions per image.
        repeated_token_rate: Largest share of tokens, punctuation included, that repeat the token or
            n-gram just before; of people's captions of photographs it is 0.0001.
        mbleu: Largest mBLEU-4 among the samples of an image; on charts it is 0.72.
        distinct_captions: Smallest share of distinct captions across images, relative to the
            references.
        distinct_2: Smallest distinct-2, relative to the references.
        vocabulary: Smallest number of distinct words, relative to the references.
        image_dependence: Smallest share of CIDEr that is lost if captions are assigned to other
            images.
        rollbacks: Number of times that training may return to the last healthy state before it
            stops.
        patience: Unhealthy measurements in a row after which training stops if it has not been
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


@dataclass(frozen=True)
class LoggingConfig:
    """What is written for TensorBoard in addition to scalars.

    Attributes:
        images: Validation images shown with captions and attention after each epoch.
        histograms: Write histograms of the weights after each epoch.
    """

    images: NonNegativeInt = 6
    histograms: bool = False


@dataclass(frozen=True)
class Config(ObjectiveSettings):
    """All settings of a run.

    Attributes:
        run_dir: Folder of the run. An existing run is continued. Default: a new folder below
            `runs/`, named after the data set and the time.
        seed: Seed of the weights, the order of the data, dropout and sampling.
        data: Images and captions.
        text: Tokens.
        encoder: Regions of an image.
        generator: The network that generates captions.
        stages: Objectives that train the generator, one after another. Each starts from the best
            weights of the one before. `[maximum_likelihood]` trains without a critic.
        monitor: Signs of collapse and the reaction to them.
        decoding: How captions are decoded.
        evaluation: How captions are scored.
        logging: What is written for TensorBoard.
        checkpoint_minutes: Minutes of training between checkpoints within an epoch; each epoch
            also ends with one. A killed run continues from the last checkpoint. Writing one took
            0.1 seconds for 9 MB and 3 seconds for 290 MB, at most one per cent of five minutes.
        strategy: `one_device`. `mirrored`: all GPUs of this machine, each with its share of a
            batch (`tf.distribute.MirroredStrategy`). `multi_worker`: the GPUs of several machines,
            listed in the environment variable TF_CONFIG (`MultiWorkerMirroredStrategy`). Batches
            are as large as on one device; steps differ only in their random numbers. Where there
            is only one device, both are `one_device`.
        precision: Precision of the networks during training. `mixed_bfloat16` has the range of
            float32 and is faster on GPUs and some CPUs. `mixed_float16`, for older GPUs, scales
            losses so that small gradients do not vanish (`tools/benchmark_compilation.py`).
            Variables, the final evaluation, export and serving use float32.
        jit_compile: Compile training steps with XLA, on one device. XLA fuses operations, of
            which a step has tens of thousands, but takes time before the first step of a stage.
            On a CPU it pays for small networks: a step of `wgan_gp` took 0.38 times as long; with
            the default sizes it took 1.5 times as long (`tools/benchmark_compilation.py`). Random
            numbers differ from those without it.
        steps_per_execution: Training steps per call of the compiled function. A higher number
            saves time between calls, which matters for small networks on fast accelerators.
            Checkpoints, `monitor.every_steps` and other callbacks run only between calls.
        profile_steps: First and last step of a trace for TensorBoard's profile page, e.g. 10,20;
            counted in calls if `steps_per_execution` is more than 1.
    """

    run_dir: str | None = None
    seed: NonNegativeInt = 0
    data: DataConfig = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    stages: list[ObjectiveName] = field(default_factory=lambda: ["maximum_likelihood", "wgan_gp"])
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
