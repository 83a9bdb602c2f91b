"""Checks of settings that depend on each other."""

import dataclasses
from types import SimpleNamespace

import pytest

from caption_gan.command_line import RaisingArgumentParser
from caption_gan.config.adversarial import (
    CriticConfig,
    PolicyGradientConfig,
    SelfCriticalConfig,
    WGANGPConfig,
)
from caption_gan.config.checks import check
from caption_gan.config.data import DataConfig
from caption_gan.config.models import DecodingConfig, EncoderConfig, GeneratorConfig, TextConfig
from caption_gan.config.objectives import MaximumLikelihoodConfig
from caption_gan.config.run import Config
from caption_gan.config.self_play import SelfPlayConfig
from caption_gan.distribution import replicas, strategies
from caption_gan.errors import CaptionGANError
from caption_gan.fit import resolve
from caption_gan.training.stage import steps_per_epoch

# What `steps_per_epoch` asks of an encoder.
ENCODER = SimpleNamespace(normalizes_over_batch=True)
REFUSED = {
    "attention_heads is 3": {"generator": GeneratorConfig(attention_heads=3, hidden_size=160)},
    "beam_groups is 2": {"decoding": DecodingConfig(beam=5, beam_groups=2)},
    "rematerialize is true, but generator.kind is gru": {
        "generator": GeneratorConfig(rematerialize=True)
    },
    "XLA computes equal operations once": {
        "generator": GeneratorConfig("transformer", rematerialize=True),
        "jit_compile": True,
    },
    "lora_rank is 8, but generator.kind is gru": {
        "stages": ["maximum_likelihood", "self_play"],
        "self_play": SelfPlayConfig(lora_rank=8),
    },
    "lora_rank is 8, but maximum_likelihood is the first stage": {
        "generator": GeneratorConfig("transformer"),
        "maximum_likelihood": MaximumLikelihoodConfig(lora_rank=8),
    },
    "sequence_length is 2": {"text": TextConfig(sequence_length=2)},
    "maximum_vocabulary is 5": {"text": TextConfig(maximum_vocabulary=5)},
    "profile_steps is 20,10": {"profile_steps": "20,10"},
    "profile_steps is 0,10": {"profile_steps": "0,10"},
    "frozen_up_to": {"encoder": EncoderConfig(frozen_up_to="block_1")},
    "strategy multi_worker needs the same batches": {
        "data": DataConfig(service="a:5050"),
        "strategy": "multi_worker",
    },
    "XLA does not compile steps of strategy mirrored": {
        "jit_compile": True,
        "strategy": "mirrored",
    },
    "split_column is 'set', but data.source figures has no": {
        "data": DataConfig(split_column="set")
    },
    "split_column is 'set', but data.karpathy says": {
        "data": DataConfig("coco", karpathy="dataset_coco.json", split_column="set")
    },
    "stages is empty": {"stages": []},
    "encoder_frozen_epochs is 1, but no pretrained": {
        "maximum_likelihood": MaximumLikelihoodConfig(encoder_frozen_epochs=1)
    },
    "encoder_frozen_epochs is 2, but there are only 2": {
        "encoder": EncoderConfig("keras_applications", trainable=True),
        "maximum_likelihood": MaximumLikelihoodConfig(epochs=2, encoder_frozen_epochs=2),
    },
    "twice": {"stages": ["maximum_likelihood", "maximum_likelihood"]},
    "policy_gradient.captions is 1": {
        "stages": ["maximum_likelihood", "policy_gradient"],
        "policy_gradient": PolicyGradientConfig(captions=1),
    },
    "self_critical.captions is 1": {
        "stages": ["maximum_likelihood", "self_critical"],
        "self_critical": SelfCriticalConfig(captions=1),
    },
    "wgan_gp.captions is 1; with wgan_gp.critic.references": {
        "stages": ["maximum_likelihood", "wgan_gp"],
        "wgan_gp": WGANGPConfig(captions=1, critic=CriticConfig(references=True)),
    },
    "captions of other images": {
        "stages": ["maximum_likelihood", "wgan_gp"],
        "wgan_gp": WGANGPConfig(batch_size=1, critic_updates=1),
    },
    "no lower bound": {
        "stages": ["maximum_likelihood", "wgan_gp"],
        "wgan_gp": WGANGPConfig(critic_loss="wasserstein", constraint="none"),
    },
    "no stage before it trains": {"stages": ["wgan_gp"]},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message):
    with pytest.raises(CaptionGANError, match=message):
        check(dataclasses.replace(Config(), **REFUSED[message]))


def test_steps_of_an_epoch_and_images_that_are_too_few():
    config = Config(
        policy_gradient=PolicyGradientConfig(
            batch_size=4, critic_updates=5, epochs=2, critic_warmup_steps=6
        ),
        self_critical=SelfCriticalConfig(batch_size=4, epochs=1, critic_warmup_steps=1000),
    )
    assert steps_per_epoch(config, "policy_gradient", 99, ENCODER) == 4
    assert (
        steps_per_epoch(config, "self_critical", 99, ENCODER) == 24
    )  # There is no critic to warm up.
    with pytest.raises(CaptionGANError, match="takes 20 images, but there are only 19"):
        steps_per_epoch(config, "policy_gradient", 19, ENCODER)
    with pytest.raises(CaptionGANError, match="critic_warmup_steps is 6, but"):
        steps_per_epoch(config, "policy_gradient", 60, ENCODER)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stages": ["maximum_likelihood", "wgan_gp", "policy_gradient", "self_critical"]},
        {"stages": ["wgan_gp"], "wgan_gp": WGANGPConfig(train_encoder=True)},
        # Settings of objectives that are not used do not matter.
        {"policy_gradient": PolicyGradientConfig(captions=1)},
    ],
)
def test_accepted(settings):
    check(dataclasses.replace(Config(), **settings))


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_workers_that_are_not_named(text, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(CaptionGANError, match="TF_CONFIG"), strategies.using("multi_worker"):
        pytest.fail("nothing may begin")


def test_a_batch_that_cannot_be_divided(monkeypatch):
    monkeypatch.setattr(replicas, "count", lambda: 5)
    with pytest.raises(CaptionGANError, match="batch_size is 32, which cannot be divided among 5"):
        steps_per_epoch(Config(), "maximum_likelihood", 100, ENCODER)


def test_lengths_with_an_encoder_that_normalises(monkeypatch):
    monkeypatch.setattr(replicas, "count", lambda: 2)
    config = Config(maximum_likelihood=MaximumLikelihoodConfig(length_buckets=2))
    with pytest.raises(CaptionGANError, match="length_buckets is 2, but must be 1"):
        steps_per_epoch(config, "maximum_likelihood", 100, ENCODER)


def test_more_parts_than_images():
    config = Config(maximum_likelihood=MaximumLikelihoodConfig(batch_size=4, accumulation_steps=5))
    with pytest.raises(CaptionGANError, match="a device has only 4 images"):
        steps_per_epoch(config, "maximum_likelihood", 100, ENCODER)


def test_parts_with_an_encoder_that_normalises():
    parts = MaximumLikelihoodConfig(accumulation_steps=2)
    with pytest.raises(CaptionGANError, match=r"must be 1 with encoder\.name convolutional"):
        steps_per_epoch(Config(maximum_likelihood=parts), "maximum_likelihood", 100, ENCODER)
    frozen = Config(self_play=SelfPlayConfig(accumulation_steps=2))
    assert steps_per_epoch(frozen, "self_play", 100, ENCODER) == 3


def test_several_workers_need_one_folder():
    with pytest.raises(CaptionGANError, match="run_dir is not set"):
        resolve(["--strategy=multi_worker"])


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--data.service=dispatcher", "expected host and port, .* got dispatcher"),
        ("--profile_steps=10", "expected two steps, .* got 10"),
    ],
)
def test_values_with_a_form_are_shown_with_an_example(argument, words):
    with pytest.raises(CaptionGANError, match=words):
        resolve([argument], RaisingArgumentParser)
