"""Settings of data sets: typed, validated, and documented where they stand."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jsonargparse.typing import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    restricted_number_type,
    restricted_string_type,
)

if TYPE_CHECKING:
    HeldOut = float
    Address = str
else:
    Address = restricted_string_type(
        "Address", r"^[^\s/]+:\d+$", "host and port, e.g. input-dispatcher:5050"
    )
    HeldOut = restricted_number_type("HeldOut", float, [(">=", 0), ("<", 0.5)])


@dataclass(frozen=True)
class SciCapConfig:
    """What of SciCap is used.

    Attributes:
        collection: Which figures, by the release's lists: all whose caption has a first sentence,
            those with one sentence, those with at most 100 tokens.
        subfigures: Whether the figures with subfigures are taken instead of those without.
        text: Form of the captions: as in the paper; lower-cased, tokenized and without "Figure 2:";
            with numbers as NUM-TK besides; with brackets and equations as BRACKET-TK and EQUAT-TK
            besides.
        caption: The first sentence of a caption, or all of it.
    """

    collection: Literal["first_sentence", "single_sentence", "at_most_100_tokens"] = (
        "first_sentence"
    )
    subfigures: bool = False
    text: Literal["original", "lower_case", "num_tk", "bracket_tk"] = "lower_case"
    caption: Literal["first_sentence", "whole"] = "first_sentence"


@dataclass(frozen=True)
class HuggingFaceConfig:
    """How a set on the Hugging Face Hub, or in its formats on disk, is read.

    Attributes:
        name: Of the configuration, for sets that have several.
        revision: Branch, tag or commit on the Hub; the newest where it is not given.
        streaming: Whether examples are read from the Hub as they are needed, without a copy of
            the whole set on disk.
        image_column: Column of the image; needed only if there are several.
        caption_columns: Columns of captions, each a text or a list of texts; needed only if none
            is called `caption`, `captions`, `text`, `sentence` or `sentences`.
        id_column: Column that names the image, for sets with one row a caption: rows with the same
            name are one image. Without it each row is an image.
    """

    name: str | None = None
    revision: str | None = None
    streaming: bool = False
    image_column: str | None = None
    caption_columns: list[str] = field(default_factory=list)
    id_column: str | None = None


@dataclass(frozen=True)
class DataConfig:
    """Where images and captions come from.

    Attributes:
        source: The data set's layout. `figures` and `scenes` are drawn on the spot and need no
            `root`. `flickr`: the folder of Flickr8k or Flickr30k. `coco`: COCO 2014 or 2017, or
            captions in its format. `scicap`: SciCap or FigCaps-HF as released. `hugging_face`: a
            set on the Hub, or Parquet files. `folder`: images with `metadata.jsonl` or
            `metadata.csv`. `features`: regions in `features.npy` with `captions.en`.
        root: Folder of the data set; a name on the Hub for `hugging_face`. May be `gs://`.
        karpathy: File of Karpathy's splits (`dataset_coco.json`, `dataset_flickr8k.json`), which
            then replace the official ones, for `coco` and `flickr`.
        held_out: Share of the images that become `val`, and as many `test`, where the data set
            has no splits of its own; of a small set, one each at least, unless it is 0.
        corpora: Files of text without images, one sentence a line or JSON Lines: more real
            captions for a critic (`unpaired` of the objectives).
        scicap: Settings of the layout `scicap`.
        hugging_face: Settings of the layout `hugging_face`.
        cache: Folder for prepared shards, shared by all runs.
        shards: Folder that `caption_gan.prepare --to` has filled; then it is used and nothing is
            prepared.
        gzip: Whether shards are compressed, which may gain where they hold regions.
        train_images: Number of training images that are drawn. More of them and fewer epochs take
            the same time, and less is learnt by heart.
        val_images: Number of validation images that are drawn; at 1,000 the standard error of
            an accuracy of 0.95 is 0.007.
        test_images: Number of test images that are drawn.
        seed: Of the images that are drawn; runs with different seeds of their own share the data.
        captions_per_image: Captions that are drawn for an image, and taken of it in validation;
            five is what the usual data sets have.
        memory_limit_gib: Decoded examples are kept in memory if they fit into this many GiB,
            else read again in each epoch.
        service: Host and port of a tf.data service's dispatcher (`caption_gan.input_server`), such
            as `input-dispatcher:5050`, whose workers make the training batches, for a host that
            cannot feed its accelerators. They must reach the shards by the same path: a shared
            folder or `gs://`. Nothing is kept in memory. Batches of several workers come in no
            certain order, so that a continued run has the weights and states of the interrupted
            one, but goes on with other batches, and a part of an epoch's images may come again.
    """

    source: Literal[
        "figures", "scenes", "flickr", "coco", "scicap", "hugging_face", "folder", "features"
    ] = "figures"
    root: str | None = None
    karpathy: str | None = None
    held_out: HeldOut = 0.05
    corpora: list[str] = field(default_factory=list)
    scicap: SciCapConfig = field(default_factory=SciCapConfig)
    hugging_face: HuggingFaceConfig = field(default_factory=HuggingFaceConfig)
    cache: str = "~/.cache/caption_gan"
    shards: str | None = None
    gzip: bool = False
    train_images: PositiveInt = 12000
    val_images: PositiveInt = 1000
    test_images: PositiveInt = 1000
    seed: NonNegativeInt = 0
    captions_per_image: PositiveInt = 5
    memory_limit_gib: NonNegativeFloat = 6.0
    service: Address | None = None
