"""Captioners loaded from a run directory or from a SavedModel.

B batch, K captions per image, T time, R regions, V vocabulary.
"""

import dataclasses
import math
import os
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import tensorflow as tf

from caption_gan import signature
from caption_gan.config.models import DecodingConfig
from caption_gan.data.images import decode_and_resize
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.changed_settings import refuse_decoding
from caption_gan.evaluation.saved_models import SETTINGS, SavedCaptioner, is_saved_model
from caption_gan.evaluation.stage_comparison import load_critic
from caption_gan.evaluation.trained_captioner import (
    Caption,
    CaptionOptions,
    CaptionScore,
    TrainedCaptioner,
)
from caption_gan.models.decoding.sampling import Decoded
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.models.encoders.encoder import Regions, restore_encoder
from caption_gan.run import RunDirectory, load_run
from caption_gan.settings import read_config_file
from caption_gan.storage.paths import local_path
from caption_gan.text.vocabulary import PAD_ID

COMPILED_DECODERS = 8  # Compiled for one set of options each.
# Padding is an empty string in a SavedModel.
NOT_WORDS = (b"", b"[PAD]", b"[END]")


def load_captioner(path: str | os.PathLike[str], changes: Sequence[str] = ()) -> TrainedCaptioner:
    """Loads a captioner.

    Args:
        path: A run directory, or a SavedModel that was exported from one.
        changes: Settings of decoding that replace the run's, as on a command line.

    Raises:
        CaptionGANError: The path is neither, the run has no trained weights yet, its encoder needs
            precomputed regions, or settings shall change in a SavedModel.
    """
    path = local_path(path)
    if not is_saved_model(path):
        return RunCaptioner(path, changes)
    refuse_decoding(path, changes)
    return ExportedCaptioner(path)


class RunCaptioner(TrainedCaptioner):
    """The captioner of a run directory.

    Args:
        path: The run directory.
        changes: See `load_captioner`.

    Raises:
        CaptionGANError: See `load_captioner`.
    """

    def __init__(self, path: Path, changes: Sequence[str] = ()):
        self.path = path.absolute()  # Its critic is loaded later, perhaps in another folder.
        self.config, self.tokenizer, self.captioner = load_run(path, changes)
        if not self.captioner.encoder.needs_pixels:
            raise CaptionGANError(
                f"{path} was trained on precomputed regions and cannot read images; "
                "`python -m caption_gan.evaluate` captions the images of its data set."
            )
        self._decoder = lru_cache(COMPILED_DECODERS)(self._build_decoder)

    @cached_property
    def critic(self):
        """The critic that the last adversarial stage left, or None."""
        return load_critic(RunDirectory(self.path), self.config, self.captioner.generator)

    def _build_decoder(self, settings: DecodingConfig, seed: int) -> TextDecoder:
        return TextDecoder(self.captioner, self.tokenizer, settings, seed)

    def _caption(self, image: bytes, options: CaptionOptions) -> list[Caption]:
        run = self.config.decoding
        settings = dataclasses.replace(
            run,
            samples=max(options.n - 1, 1),
            temperature=options.temperature,
            top_p=run.top_p if options.top_p is None else options.top_p,
            beam=options.beam,
            beam_groups=math.gcd(options.beam, run.beam_groups),
        )
        decoder = self._decoder(settings, options.seed)
        # One image at a time: its samples depend on the seed alone.
        batch = {"image": self.pixels(image)[tf.newaxis]}  # [1, H, W, 3]
        if options.beam > 1:
            return self._captions(decoder, decoder.beam(batch), options)[: options.n]
        captions = self._captions(decoder, decoder.greedy(batch), options)
        if options.n > 1:
            sampled = self._captions(decoder, decoder.sample(batch, tf.constant(0)), options)
            captions += sorted(sampled, key=lambda caption: -caption.score)
        return captions

    def _captions(
        self, decoder: TextDecoder, decoded: Decoded, options: CaptionOptions
    ) -> list[Caption]:
        """Captions from decoded token ids [1, K, T]."""
        (pairs,) = decoder.detokenize(decoded)
        if not options.attention:
            return [Caption(text, score) for text, score in pairs]
        if decoded.attention is None:
            raise CaptionGANError(
                f"{self.path} has a generator without attention; leave out attention=True."
            )
        tokens = self.tokenizer.token_strings(decoded.token_ids[0]).numpy()  # [K, T]
        attention = decoded.attention[0].numpy()  # [K, T, R]
        grid = self.captioner.encoder.grid
        return [
            Caption(text, score, *_attention_map(weights, words, grid))
            for (text, score), weights, words in zip(pairs, attention, tokens, strict=True)
        ]

    def _score(self, images: Sequence[bytes], captions: Sequence[str]) -> list[CaptionScore]:
        batch_size = self.config.decoding.batch_size
        scores: list[CaptionScore] = []
        self.critic  # noqa: B018  Its variables must exist before the function is traced.
        for start in range(0, len(images), batch_size):
            batch = slice(start, start + batch_size)
            pixels = tf.stack([self.pixels(image) for image in images[batch]])
            token_ids = self.tokenizer.tokenize(captions[batch])[:, tf.newaxis]  # [B, 1, T]
            likelihoods, ratings = self._compute_scores(pixels, token_ids)
            scores += [
                CaptionScore(float(likelihood), float(rating) if self.critic else None)
                for likelihood, rating in zip(likelihoods, ratings, strict=True)
            ]
        return scores

    @tf.function(reduce_retracing=True)
    def _compute_scores(
        self, pixels: tf.Tensor, token_ids: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Log-likelihoods and critic scores [B] of captions [B, 1, T]; zeros without a critic."""
        regions = self.captioner.regions({"image": pixels})
        likelihoods = self._log_likelihoods(regions, token_ids)
        if not self.critic:
            return likelihoods, tf.zeros_like(likelihoods)
        ratings = self.critic.score_tokens(token_ids, self.critic.encode(regions))
        return likelihoods, ratings[:, 0]

    def _log_likelihoods(self, regions: Regions, token_ids: tf.Tensor) -> tf.Tensor:
        """Mean log-probabilities per token [B] of captions [B, 1, T], without noise."""
        generator = self.captioner.generator
        predicted = token_ids[..., 1:]  # [B, 1, T - 1]
        noise = tf.zeros([tf.shape(token_ids)[0], 1, generator.noise_size])
        memory = generator.encode(regions)
        logits = generator.teacher_forcing(token_ids[..., :-1], memory, noise)  # [B, 1, T - 1, V]
        log_probabilities = tf.gather(tf.nn.log_softmax(logits), predicted, batch_dims=3)
        mask = tf.cast(predicted != PAD_ID, tf.float32)
        total = tf.reduce_sum(log_probabilities * mask, axis=-1)  # [B, 1]
        return (total / tf.reduce_sum(mask, axis=-1))[:, 0]

    def pixels(self, image: bytes) -> tf.Tensor:
        """Pixels uint8 [H, W, 3] of the size that the encoder reads."""
        return decode_and_resize(image, *self.config.encoder.image_size)


class ExportedCaptioner(TrainedCaptioner):
    """The captioner of a SavedModel.

    Args:
        path: The SavedModel.

    Raises:
        CaptionGANError: See `load_captioner`.
    """

    def __init__(self, path: Path):
        self.path = path.absolute()  # Its settings are read later, perhaps in another folder.
        self.signatures = SavedCaptioner(path).model.signatures

    def _caption(self, image: bytes, options: CaptionOptions) -> list[Caption]:
        if options.attention:
            return [self._with_attention(image, options)]
        if options.beam > 1:
            return self._beam(image, options)
        captions = self._captions(
            self._call(signature.DEFAULT, image), signature.CAPTION, signature.SCORE
        )
        return captions + (self._samples(image, options) if options.n > 1 else [])

    def _samples(self, image: bytes, options: CaptionOptions) -> list[Caption]:
        """The n - 1 samples, the likeliest first."""
        drawn = self._captions(
            self._call(
                signature.SAMPLE,
                image,
                temperature=tf.constant([options.temperature], tf.float32),
                top_p=tf.constant([1.0 if options.top_p is None else options.top_p], tf.float32),
                seed=tf.constant([options.seed], tf.int64),
            )
        )
        if options.n - 1 > len(drawn):
            raise CaptionGANError(
                f"{self.path} was exported to draw {len(drawn)} samples; give n up to "
                f"{len(drawn) + 1}, or load the run."
            )
        return sorted(drawn[: options.n - 1], key=lambda caption: -caption.score)

    def _beam(self, image: bytes, options: CaptionOptions) -> list[Caption]:
        found = self._captions(self._call(signature.BEAM, image))
        if options.beam != len(found):
            raise CaptionGANError(
                f"{self.path} was exported with a beam of width {len(found)}, not {options.beam}; "
                f"give beam={len(found)}, or load the run."
            )
        return found[: options.n]

    def _with_attention(self, image: bytes, options: CaptionOptions) -> Caption:
        """The greedy caption with its attention."""
        if options.n > 1 or options.beam > 1:
            raise CaptionGANError(
                f"{self.path} has attention for its likeliest caption only; give n=1 and beam=1, "
                "or load the run."
            )
        (caption,) = self._caption(image, dataclasses.replace(options, attention=False))
        found = self._call(signature.ATTENTION, image)
        weights, words = found[signature.WEIGHTS][0].numpy(), found[signature.TOKENS][0].numpy()
        attention, tokens = _attention_map(weights, words, self.grid)
        return dataclasses.replace(caption, attention=attention, tokens=tokens)

    @cached_property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the regions, by the settings of the run that was exported."""
        settings = self.path / SETTINGS
        if not settings.is_file():
            raise CaptionGANError(
                f"{self.path} has no {SETTINGS}, so the places of its regions are unknown; leave "
                "out attention=True, or load the run."
            )
        config = read_config_file(settings)
        return restore_encoder(settings.parent, config.encoder).grid

    def _score(self, images: Sequence[bytes], captions: Sequence[str]) -> list[CaptionScore]:
        raise CaptionGANError(f"{self.path} is a SavedModel, which cannot score; load the run.")

    def _call(self, name: str, image: bytes, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        if name not in self.signatures:
            raise CaptionGANError(f"{self.path} was exported without the signature {name}.")
        return self.signatures[name](image_bytes=tf.constant([image]), **inputs)

    def _captions(
        self,
        outputs: dict[str, tf.Tensor],
        texts: str = signature.CAPTIONS,
        scores: str = signature.SCORES,
    ) -> list[Caption]:
        """The captions of the only row of a signature's outputs."""
        pairs = zip(outputs[texts].numpy().flat, outputs[scores].numpy().flat, strict=True)
        return [Caption(text.decode(), float(score)) for text, score in pairs]


def _attention_map(
    attention: np.ndarray, tokens: np.ndarray, grid: tuple[int, int] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Attention [T, rows, columns] and tokens, from [T, R] and byte strings with padding.

    Regions without a grid are one row.
    """
    words = tuple(token.decode() for token in tokens if token not in NOT_WORDS)
    return attention[: len(words)].reshape(-1, *(grid or (1, attention.shape[-1]))), words
