"""Settings of a run: typed, validated, and documented where they stand.

The command line, YAML files and `config.yaml` of a run directory all hold these fields. The
defaults train on the built-in `figures` on two CPU cores in about six minutes.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    restricted_string_type,
)

from caption_gan.config.data import DataConfig
from caption_gan.config.models import DecodingConfig, EncoderConfig, GeneratorConfig, TextConfig
from caption_gan.config.objectives import (
    MaximumLikelihoodConfig,
    MonitorConfig,
    PolicyGradientConfig,
    SelfCriticalConfig,
    WassersteinGANConfig,
)

if TYPE_CHECKING:
    StepRange = str
else:
    StepRange = restricted_string_type("StepRange", r"^\d+,\d+$", "two steps, e.g. 10,20")


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
