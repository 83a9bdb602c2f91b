"""Checks of settings that depend on each other, before any work is done."""

from caption_gan.config.run import Config
from caption_gan.errors import CaptionGANError

WITH_COLUMNS = ("coco", "flickr", "folder", "hugging_face")  # Layouts with data.split_column.

WITH_BLOCKS = ("transformer", "gpt2")  # Generators with rematerialize and LoRA.
FINE_TUNABLE = ("keras_applications", "keras_model", "keras_hub")  # Encoders with a backbone.


def check(config: Config) -> None:
    """Refuses settings that do not fit together.

    Raises:
        CaptionGANError: Two settings contradict each other, or a setting is missing.
    """
    _check_networks(config)
    _check_data(config)
    _check_devices(config)
    _check_stages(config)


def _check_networks(config: Config) -> None:
    heads, hidden = config.generator.attention_heads, config.generator.hidden_size
    if hidden % heads:
        raise CaptionGANError(
            f"generator.attention_heads is {heads}, which does not divide generator.hidden_size "
            f"{hidden}; change one of them."
        )
    _check_gpt2(config)
    if config.decoding.beam % config.decoding.beam_groups:
        raise CaptionGANError(
            f"decoding.beam_groups is {config.decoding.beam_groups}; it must divide decoding.beam, "
            f"which is {config.decoding.beam}."
        )
    if config.text.sequence_length < 3:
        raise CaptionGANError(
            f"text.sequence_length is {config.text.sequence_length}; it must be at least 3, for "
            "the start token, one word and the end token."
        )
    if config.text.maximum_vocabulary < 6:
        raise CaptionGANError(
            f"text.maximum_vocabulary is {config.text.maximum_vocabulary}; it must be at least 6, "
            "for four special tokens and two words."
        )
    if config.generator.rematerialize and config.generator.kind not in WITH_BLOCKS:
        raise CaptionGANError(
            f"generator.rematerialize is true, but generator.kind is {config.generator.kind}, of "
            f"which nothing is computed again; choose {' or '.join(WITH_BLOCKS)}, or omit it."
        )
    encoder = config.encoder
    if encoder.frozen_up_to is not None and not encoder.trainable:
        raise CaptionGANError(
            f"encoder.frozen_up_to is {encoder.frozen_up_to!r}, but encoder.trainable is false, "
            "which freezes all layers; set encoder.trainable to true or omit encoder.frozen_up_to."
        )
    needed = {"keras_model": "a .keras file", "keras_hub": "a preset or its folder"}
    if encoder.name in needed and encoder.model is None:
        raise CaptionGANError(
            f"encoder.model is not set; encoder.name {encoder.name} needs {needed[encoder.name]}: "
            "--encoder.model NAME."
        )
    if encoder.name == "precomputed":
        if encoder.regions is None:
            raise CaptionGANError(
                "encoder.regions is not set; encoder.name precomputed needs the folder of regions."
            )
        if encoder.flip:
            raise CaptionGANError(
                "encoder.flip is true, but precomputed regions cannot be mirrored; omit it."
            )
    if config.data.source == "features" and encoder.name != "precomputed":
        raise CaptionGANError(
            f"encoder.name is {encoder.name!r}, but data.source features has regions instead of "
            "images; set encoder.name to precomputed and encoder.regions to data.root."
        )


def _check_gpt2(config: Config) -> None:
    is_gpt2 = config.generator.kind == "gpt2"
    if is_gpt2 != (config.text.tokenizer == "byte_pair"):
        raise CaptionGANError(
            f"generator.kind is {config.generator.kind}, but text.tokenizer is "
            f"{config.text.tokenizer}; gpt2 and byte_pair need each other: set both or neither."
        )
    if is_gpt2 != (config.generator.weights is not None):
        raise CaptionGANError(
            f"generator.kind is {config.generator.kind}, but generator.weights is "
            f"{config.generator.weights or 'not set'}; gpt2, and it alone, needs a folder: "
            "--generator.kind gpt2 --generator.weights FOLDER."
        )
    if is_gpt2 and config.text.word_vectors is not None:
        raise CaptionGANError(
            f"text.word_vectors is {config.text.word_vectors}, but generator.kind gpt2 has its own "
            "embeddings; omit one of them."
        )


def _check_data(config: Config) -> None:
    data = config.data
    if data.split_column is not None and (data.source not in WITH_COLUMNS or data.karpathy):
        reason = f"data.source {data.source} has no columns"
        if data.karpathy:
            reason = "data.karpathy says the splits"
        raise CaptionGANError(
            f"data.split_column is {data.split_column!r}, but {reason}; omit one of them."
        )


def _check_devices(config: Config) -> None:
    if config.data.service is not None and config.strategy == "multi_worker":
        raise CaptionGANError(
            "data.service is set, but strategy multi_worker needs the same batches in the same "
            "order on all workers, which a service does not guarantee; omit one of them."
        )
    if config.jit_compile and config.generator.rematerialize:
        raise CaptionGANError(
            "jit_compile and generator.rematerialize are true, but XLA computes equal operations "
            "once, and so keeps what should be computed again; omit one of them."
        )
    if config.jit_compile and config.strategy != "one_device":
        raise CaptionGANError(
            f"jit_compile is true, but XLA does not compile steps of strategy {config.strategy}, "
            "because its replicas communicate within a step; omit one of them."
        )

    if config.profile_steps is not None:
        first, last = map(int, config.profile_steps.split(","))
        if not 1 <= first <= last:
            raise CaptionGANError(
                f"profile_steps is {config.profile_steps}; give the first and the last step, from "
                "1, such as 10,20."
            )


def _check_stages(config: Config) -> None:
    if not config.stages:
        raise CaptionGANError("stages is empty; give at least one objective.")
    if len(set(config.stages)) < len(config.stages):
        raise CaptionGANError(
            f"stages {config.stages} contains an objective twice; give each at most once."
        )
    objectives = {name: config.objective(name) for name in config.stages}
    if config.data.corpora and not any(each.has_critic for each in objectives.values()):
        raise CaptionGANError(
            f"data.corpora is set, but none of stages {config.stages} has a critic, which reads "
            "it; add policy_gradient or wgan_gp, or omit data.corpora."
        )
    for name, settings in objectives.items():
        if config.jit_compile and settings.dual_encoder_path is not None:
            raise CaptionGANError(
                f"jit_compile is true, but XLA does not compile the texts that {name}.dual_encoder "
                "reads; omit one of them."
            )
    encoder_is_trained = False
    fine_tunes = config.encoder.trainable and config.encoder.name in FINE_TUNABLE
    for index, (name, settings) in enumerate(objectives.items()):
        settings.check(name)
        if settings.lora_rank and config.generator.kind not in WITH_BLOCKS:
            raise CaptionGANError(
                f"{name}.lora_rank is {settings.lora_rank}, but generator.kind is "
                f"{config.generator.kind}, which cannot have it; choose "
                f"{' or '.join(WITH_BLOCKS)}, or omit it."
            )
        if settings.lora_rank and not index and config.generator.kind != "gpt2":
            raise CaptionGANError(
                f"{name}.lora_rank is {settings.lora_rank}, but {name} is the first stage, and "
                "the generator's random weights would stay; train it in a stage before, or omit it."
            )
        if settings.epochs_with_frozen_encoder and not fine_tunes:
            raise CaptionGANError(
                f"{name}.encoder_frozen_epochs is {settings.epochs_with_frozen_encoder}, but no "
                "pretrained encoder is trained after them; set encoder.trainable to true with "
                f"encoder.name {', '.join(FINE_TUNABLE)}, or omit it."
            )
        encoder_is_trained |= settings.trains_encoder
        if config.encoder.name == "convolutional" and not encoder_is_trained:
            raise CaptionGANError(
                f"{name}.train_encoder is false and no stage before it trains the convolutional "
                "encoder, so its random weights would be kept; set it to true, or begin stages "
                "with maximum_likelihood."
            )
