"""Settings that cannot work together are refused here, before anything is done."""

from caption_gan.config.objectives import AdversarialConfig
from caption_gan.config.run import Config
from caption_gan.errors import CaptionGANError


def check(config: Config) -> None:
    """Refuses settings that cannot work together, before anything is done.

    Raises:
        CaptionGANError: Names the settings and the remedy.
    """
    heads, hidden = config.generator.attention_heads, config.generator.hidden_size
    if hidden % heads:
        raise CaptionGANError(
            f"generator.attention_heads is {heads}, which does not divide generator.hidden_size "
            f"{hidden}; change one of them."
        )
    if config.decoding.beam % config.decoding.beam_groups:
        raise CaptionGANError(
            f"decoding.beam_groups is {config.decoding.beam_groups}; it must divide decoding.beam, "
            f"which is {config.decoding.beam}."
        )
    if config.text.sequence_length < 3:
        raise CaptionGANError(
            f"text.sequence_length is {config.text.sequence_length}; it must be at least 3, for "
            "the start, a word and the end."
        )
    if config.encoder.frozen_up_to is not None and not config.encoder.trainable:
        raise CaptionGANError(
            f"encoder.frozen_up_to is {config.encoder.frozen_up_to!r}, but encoder.trainable is "
            "false, which freezes all layers; set it to true or leave frozen_up_to out."
        )
    if config.encoder.name == "precomputed":
        if config.encoder.regions is None:
            raise CaptionGANError(
                "encoder.regions is not set; encoder.name 'precomputed' needs the folder of them."
            )
        if config.encoder.flip:
            raise CaptionGANError(
                "encoder.flip is true, but precomputed regions have no mirror image; leave it out."
            )
    if config.data.source == "features" and config.encoder.name != "precomputed":
        raise CaptionGANError(
            f"encoder.name is {config.encoder.name!r}, but data.source 'features' has regions "
            "instead of images; set encoder.name to precomputed and encoder.regions to data.root."
        )
    if config.data.service is not None and config.strategy == "multi_worker":
        raise CaptionGANError(
            "data.service is set, but strategy multi_worker needs the same batches in the same "
            "order on all its workers, which a service does not give; leave one of them out."
        )
    if config.jit_compile and config.strategy != "one_device":
        raise CaptionGANError(
            f"jit_compile is true, but XLA does not compile steps of strategy {config.strategy}, "
            "whose replicas meet within them; leave one of them out."
        )
    if not config.stages:
        raise CaptionGANError("stages is empty; give at least one objective.")
    if len(set(config.stages)) < len(config.stages):
        raise CaptionGANError(f"stages {config.stages} has an objective twice; give each once.")
    if config.data.corpora and not any(_has_critic(config, stage) for stage in config.stages):
        raise CaptionGANError(
            f"data.corpora is set, but none of stages {config.stages} has a critic to read them; "
            "add policy_gradient or wgan_gp, or leave data.corpora out."
        )
    for objective in config.stages:
        settings = getattr(config, objective)
        if isinstance(settings, AdversarialConfig):
            check_adversarial(config, objective, settings)


def check_adversarial(config: Config, objective: str, settings: AdversarialConfig) -> None:
    """Refuses settings of an objective with a critic that cannot work together.

    Raises:
        CaptionGANError: Names the settings and the remedy.
    """
    if objective != "wgan_gp" and settings.captions < 2:
        raise CaptionGANError(
            f"{objective}.captions is {settings.captions}; it must be at least 2, because each "
            "caption is compared with the image's others."
        )
    if settings.has_critic and settings.images_a_step < 2 and settings.mismatched:
        raise CaptionGANError(
            f"{objective}.batch_size is 1, but {objective}.mismatched asks for captions of other "
            "images; raise the one or set the other to 0."
        )
    if (
        settings.has_critic
        and settings.critic_loss == "wasserstein"
        and settings.constraint == "none"
    ):
        raise CaptionGANError(
            f"{objective}.constraint is none, but the critic's loss wasserstein has no lower bound "
            "without one; choose a constraint, or critic_loss relativistic."
        )
    trains_encoder = settings.train_encoder or config.stages[0] == "maximum_likelihood"
    if config.encoder.name == "convolutional" and not trains_encoder:
        raise CaptionGANError(
            f"{objective}.train_encoder is false and maximum_likelihood is not the first of "
            "stages, so that nothing would train the convolutional encoder; set it to true."
        )


def _has_critic(config: Config, objective: str) -> bool:
    settings = getattr(config, objective)
    return isinstance(settings, AdversarialConfig) and settings.has_critic
