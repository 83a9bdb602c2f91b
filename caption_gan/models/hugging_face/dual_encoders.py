"""CLIP and SigLIP from Hugging Face folders, as keras-hub's networks, without PyTorch.

keras-hub converts other networks itself. Its own CLIP and SigLIP come from its own presets.
"""

import functools
from types import ModuleType
from typing import Any

import keras
import numpy as np

from caption_gan.errors import CaptionGANError
from caption_gan.models.hugging_face.weights_folder import CONFIG, WeightsFolder, in_shape_of

# Settings that `config.json` leaves out where they are transformers' defaults.
CLIP_VISION: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
CLIP_TEXT: dict[str, Any] = {
    **CLIP_VISION,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
}
SIGLIP_VISION: dict[str, Any] = {
    **CLIP_VISION,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
SIGLIP_TEXT: dict[str, Any] = {
    **SIGLIP_VISION,
    "vocab_size": 32000,
    "max_position_embeddings": 64,
}
ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_approximate",
}


def convert_dual_encoder(hub: ModuleType, folder: WeightsFolder) -> keras.Model:
    """Builds both towers with their weights: a `CLIPBackbone` or a `SigLIPBackbone`.

    Args:
        hub: The module `keras_hub`.
        folder: With a `model_type` in `KINDS`.

    Raises:
        CaptionGANError: Settings and weights do not fit together, or keras-hub lacks a setting.
    """
    return KINDS[folder.config["model_type"]](hub, folder)


def image_scaling(folder: WeightsFolder) -> tuple[list[float], list[float]]:
    """Scale and offset of pixels from 0 to 255, per channel, by `preprocessor_config.json`.

    Raises:
        CaptionGANError: The file is missing or damaged.
    """
    config = folder.json("preprocessor_config.json")
    rescale = config.get("rescale_factor", 1 / 255)
    scale = [rescale / deviation for deviation in config["image_std"]]
    offset = [
        -mean / deviation
        for mean, deviation in zip(config["image_mean"], config["image_std"], strict=True)
    ]
    return scale, offset


def _clip(hub: ModuleType, folder: WeightsFolder) -> keras.Model:
    vision = _settings(folder, "vision_config", CLIP_VISION)
    text = _settings(folder, "text_config", CLIP_TEXT)
    model = hub.models.CLIPBackbone(
        hub.models.CLIPVisionEncoder(**_blocks(vision), **_patches(vision), name="vision"),
        hub.models.CLIPTextEncoder(**_blocks(text), **_tokens(text), name="text"),
        projection_dim=folder.config.get("projection_dim", 512),
    )
    embedding, name = model.vision_encoder.embedding, "vision_model.embeddings"
    _assign_patches(folder, embedding, name)
    folder.assign(embedding.class_embedding, f"{name}.class_embedding")
    # keras-hub leaves them at 0 until weights are loaded.
    embedding.position_ids.assign(np.arange(embedding.num_positions)[None])
    folder.assign_norm(model.vision_encoder.pre_layer_norm, "vision_model.pre_layrnorm")
    folder.assign_norm(model.vision_encoder.layer_norm, "vision_model.post_layernorm")
    for number, block in enumerate(model.vision_encoder.encoder_layers):
        _assign_clip_block(folder, block, f"vision_model.encoder.layers.{number}")

    embedding, name = model.text_encoder.embedding, "text_model.embeddings"
    folder.assign(embedding.token_embedding.embeddings, f"{name}.token_embedding.weight")
    positions = embedding.position_embedding.position_embeddings
    folder.assign(positions, f"{name}.position_embedding.weight")
    folder.assign_norm(model.text_encoder.layer_norm, "text_model.final_layer_norm")
    for number, block in enumerate(model.text_encoder.encoder_layers):
        _assign_clip_block(folder, block, f"text_model.encoder.layers.{number}")

    folder.assign_dense(model.vision_projection, "visual_projection")
    folder.assign_dense(model.text_projection, "text_projection")
    folder.assign(model.clip_head.logit_scale, "logit_scale")
    return model


def _siglip(hub: ModuleType, folder: WeightsFolder) -> keras.Model:
    vision = _settings(folder, "vision_config", SIGLIP_VISION)
    text = _settings(folder, "text_config", SIGLIP_TEXT)
    projection = text.get("projection_size", text["hidden_size"])
    model = hub.models.SigLIPBackbone(
        hub.models.SigLIPVisionEncoder(**_blocks(vision), **_patches(vision), name="vision"),
        hub.models.SigLIPTextEncoder(
            **_blocks(text), **_tokens(text), projection_dim=projection, name="text"
        ),
    )
    tower = model.vision_encoder
    _assign_patches(folder, tower.embedding, "vision_model.embeddings")
    bias = tower.embedding.patch_embedding.bias
    folder.assign(bias, "vision_model.embeddings.patch_embedding.bias")
    folder.assign_norm(tower.post_layer_norm, "vision_model.post_layernorm")
    for number, block in enumerate(tower.encoder_layers):
        _assign_siglip_block(folder, block, f"vision_model.encoder.layers.{number}")
    _assign_pooling(folder, tower.head, "vision_model.head")

    tower, name = model.text_encoder, "text_model.embeddings"
    folder.assign(tower.embedding.token_embedding.embeddings, f"{name}.token_embedding.weight")
    folder.assign(
        tower.embedding.position_embedding.embeddings, f"{name}.position_embedding.weight"
    )
    folder.assign_norm(tower.post_layer_norm, "text_model.final_layer_norm")
    for number, block in enumerate(tower.encoder_layers):
        _assign_siglip_block(folder, block, f"text_model.encoder.layers.{number}")
    folder.assign_dense(tower.head, "text_model.head")

    for variable in ("logit_scale", "logit_bias"):
        scalar = getattr(model.siglip_head, variable)
        folder.assign(scalar, variable, lambda array: array.reshape(()))
    return model


KINDS = {"clip": _clip, "siglip": _siglip}


def _settings(folder: WeightsFolder, part: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """Settings of a tower.

    Raises:
        CaptionGANError: keras-hub has no such activation, or another epsilon.
    """
    settings = {**defaults, **folder.config.get(part, {})}
    epsilon, activation = settings["layer_norm_eps"], settings["hidden_act"]
    if activation not in ACTIVATIONS or epsilon != defaults["layer_norm_eps"]:
        raise CaptionGANError(
            f"{folder.path / CONFIG}: {part} has hidden_act {activation!r} and layer_norm_eps "
            f"{epsilon}; keras-hub's network has one of {', '.join(ACTIVATIONS)} and "
            f"{defaults['layer_norm_eps']}: choose another model."
        )
    return settings


def _blocks(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_dim": settings["hidden_size"],
        "num_layers": settings["num_hidden_layers"],
        "num_heads": settings["num_attention_heads"],
        "intermediate_dim": settings["intermediate_size"],
        "intermediate_activation": ACTIVATIONS[settings["hidden_act"]],
    }


def _patches(settings: dict[str, Any]) -> dict[str, Any]:
    side = settings["image_size"]
    return {"patch_size": settings["patch_size"], "image_shape": (side, side, 3)}


def _tokens(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "vocabulary_size": settings["vocab_size"],
        "embedding_dim": settings["hidden_size"],
        "max_sequence_length": settings["max_position_embeddings"],
    }


def _assign_patches(folder: WeightsFolder, embedding: keras.layers.Layer, name: str) -> None:
    # PyTorch orders kernels [out, in, height, width].
    folder.assign(
        embedding.patch_embedding.kernel,
        f"{name}.patch_embedding.weight",
        lambda array: array.transpose(2, 3, 1, 0),
    )
    folder.assign(embedding.position_embedding.embeddings, f"{name}.position_embedding.weight")


def _assign_clip_block(folder: WeightsFolder, block: keras.layers.Layer, name: str) -> None:
    _assign_attention(folder, block.attention, f"{name}.self_attn")
    folder.assign_norm(block.layer_norm_1, f"{name}.layer_norm1")
    folder.assign_norm(block.layer_norm_2, f"{name}.layer_norm2")
    _assign_mlp(folder, block.dense_1, block.dense_2, f"{name}.mlp")


def _assign_siglip_block(folder: WeightsFolder, block: keras.layers.Layer, name: str) -> None:
    _assign_attention(folder, block.self_attn, f"{name}.self_attn")
    folder.assign_norm(block.layer_norm1, f"{name}.layer_norm1")
    folder.assign_norm(block.layer_norm2, f"{name}.layer_norm2")
    _assign_mlp(folder, block.mlp.fc1, block.mlp.fc2, f"{name}.mlp")


def _assign_mlp(
    folder: WeightsFolder, widen: keras.layers.Dense, narrow: keras.layers.Dense, name: str
) -> None:
    folder.assign_dense(widen, f"{name}.fc1")
    folder.assign_dense(narrow, f"{name}.fc2")


def _assign_attention(
    folder: WeightsFolder, attention: keras.layers.MultiHeadAttention, name: str
) -> None:
    folder.assign_dense(attention.query_dense, f"{name}.q_proj")
    folder.assign_dense(attention.key_dense, f"{name}.k_proj")
    folder.assign_dense(attention.value_dense, f"{name}.v_proj")
    folder.assign_dense(attention.output_dense, f"{name}.out_proj")


def _assign_pooling(folder: WeightsFolder, head: keras.layers.Layer, name: str) -> None:
    """SigLIP's attention pooling, whose projections PyTorch stores as one array."""
    folder.assign(head.probe, f"{name}.probe")
    attention = head.attention
    projections = (attention.query_dense, attention.key_dense, attention.value_dense)
    for number, layer in enumerate(projections):
        for variable, part in ((layer.kernel, "weight"), (layer.bias, "bias")):
            third = functools.partial(_third, variable, number)
            folder.assign(variable, f"{name}.attention.in_proj_{part}", third)
    folder.assign_dense(attention.output_dense, f"{name}.attention.out_proj")
    folder.assign_norm(head.layer_norm, f"{name}.layernorm")
    _assign_mlp(folder, head.mlp.fc1, head.mlp.fc2, f"{name}.mlp")


def _third(variable: keras.Variable, number: int, array: np.ndarray) -> np.ndarray:
    """One of three projections, in the variable's order; a bias has no order to change."""
    rows = len(array) // 3
    return in_shape_of(variable, array[number * rows : (number + 1) * rows].T)
