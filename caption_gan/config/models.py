"""Settings of the text, the encoder, the generator and decoding."""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from caption_gan.config.objective_config import Rate
from caption_gan.config.paths import PathOrName, UserPath

# Of images, in pixels: enough for the built-in data sets, which are drawn at this size.
DEFAULT_IMAGE_SIZE = 64


@dataclass(frozen=True)
class TextConfig:
    """How captions are split into tokens.

    Attributes:
        tokenizer: `word`: one token per word; rare words become the unknown token. `wordpiece`:
            rare words are split into pieces. In both, each character of a script without spaces
            between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is a word. `byte_pair`:
            pieces of words as in `generator.weights`, which generator `gpt2` needs; case and
            spelling stay as they are, and pieces that the training captions do not use are left
            out.
        minimum_count: Least number of times that a word must occur in the training captions to
            enter the vocabulary, or for `byte_pair` to be whole pieces.
        maximum_vocabulary: Largest size of the vocabulary.
        sequence_length: Tokens per caption, including the start and the end token; longer
            captions are cut. `fit` says how many are and which length would keep them whole.
        word_vectors: File of pretrained word vectors in GloVe's text format.
        word_vectors_policy: `frozen`: never trained. `trainable`: trained from the first step.
            `unfrozen`: trained after `unfreeze_after_epochs`.
        unfreeze_after_epochs: Epochs in which `unfrozen` word vectors stay fixed.
    """

    tokenizer: Literal["word", "wordpiece", "byte_pair"] = "word"
    minimum_count: PositiveInt = 5
    maximum_vocabulary: PositiveInt = 20000
    sequence_length: PositiveInt = 24
    word_vectors: UserPath | None = None
    word_vectors_policy: Literal["frozen", "trainable", "unfrozen"] = "trainable"
    unfreeze_after_epochs: NonNegativeInt = 2

    @property
    def trains_word_vectors(self) -> bool:
        """Whether word embeddings are trained, at least in some epochs."""
        return self.word_vectors is None or self.word_vectors_policy != "frozen"


@dataclass(frozen=True)
class EncoderConfig:
    """How an image becomes regions.

    Attributes:
        name: `convolutional`: a small residual network, trained with the captioner.
            `keras_applications`: a backbone of `keras.applications`. `keras_model`: any network in
            a `.keras` file. `keras_hub`: an image backbone of keras-hub, such as CLIP, SigLIP,
            DINOv2 or ViT; `pip install -e '.[hub]'`. `precomputed`: regions from files, such
            as the features of detected objects.
        image_height: Height in pixels to which images are resized, whatever their aspect ratio.
            Default: what the network of `model` was made for, 224 if it takes any size; 64 for
            other encoders.
        image_width: Width in pixels, likewise.
        width: Channels of the first stage of the convolutional encoder; its regions have twice
            as many.
        backbone: Class name in `keras.applications`.
        weights: Weights of the backbone: `imagenet`, a weights file, or `none`.
        model: Network of `keras_model`: a `.keras` file with Keras's own layers, from images
            [batch, height, width, 3] to features [batch, rows, columns, depth] or [batch, regions,
            depth]. Of `keras_hub`: a preset's name, such as `clip_vit_base_patch16`, its handle
            (`kaggle://`, `hf://`) or a local folder, also one of Hugging Face. A run keeps
            architecture and weights and needs the file or preset no more.
        scale: Pixels, from 0 to 255, are multiplied by `scale`, then `offset` is added, before
            they enter the network of `keras_model`; a preset has its own numbers. 1 and 0 suit
            networks that scale by themselves; 0.00784314 and -1 give -1 to 1.
        offset: See `scale`.
        feature_layer: Layer of `model` whose output is taken as regions. Default: the last one.
        trainable: Fine-tune the backbone. A frozen backbone encodes each image once, before
            training, and its regions are cached in the shards.
        frozen_up_to: Last layer that stays frozen when `trainable` is true, e.g. `block_12_add`
            of MobileNetV2; an unknown name is answered with a list. Its output is cached in the
            shards, so that fine-tuning the layers above it costs little.
        flip: Also train on the mirror image of each image. Leave it off where left and right
            matter, as in charts.
        regions: Folder of `precomputed` regions: one NumPy file [regions, depth] per image, with
            the image's name and the ending `.npy`, in subfolders as the images are if names
            repeat. All files have the same shape.
    """

    name: Literal[
        "convolutional", "keras_applications", "keras_model", "keras_hub", "precomputed"
    ] = "convolutional"
    image_height: PositiveInt | None = None
    image_width: PositiveInt | None = None
    width: PositiveInt = 40
    backbone: str = "MobileNetV2"
    weights: Literal["imagenet", "none"] | UserPath = "imagenet"
    model: PathOrName | None = None
    scale: float = 1.0
    offset: float = 0.0
    feature_layer: str | None = None
    trainable: bool = False
    frozen_up_to: str | None = None
    flip: bool = False
    regions: UserPath | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image_height or DEFAULT_IMAGE_SIZE, self.image_width or DEFAULT_IMAGE_SIZE


@dataclass(frozen=True)
class GeneratorConfig:
    """The network that generates captions.

    Attributes:
        kind: `gru`: two GRUs with attention over the regions between them. `transformer`: a
            Transformer decoder, whose blocks attend to the words so far and to the regions.
            `gpt2`: GPT-2 with the weights and the tokenizer of `weights`.
        weights: Folder of `gpt2` as transformers writes it: `config.json`, `model.safetensors`
            and `vocab.json` with `merges.txt`, or `tokenizer.json`; `pip install -e '.[hub]'`.
            Sizes are those of its network: `embedding_size`, `hidden_size`, `layers`,
            `attention_heads`, `feed_forward_factor` and `positions` are not heeded. Once
            something was trained, a run needs the folder no more.
        image_input: How `gpt2` gets the image. `prefix`: vectors before the caption, made of the
            mean of the regions. `cross_attention`: attention to the regions in each block, which
            starts without effect.
        prefix_length: Vectors of the prefix; 10 is that of Mokady et al., "ClipCap" (2021).
        positions: Most vectors and tokens that `gpt2` reads.
        embedding_size: Numbers per word embedding.
        hidden_size: Units of the hidden layers and of the attention.
        layers: Blocks of `transformer`. Two are as deep as the two GRUs; a GRU has no other depth.
        attention_heads: Number of attention heads; must divide `hidden_size`. Where each word
            names a single object, one head learns to attend several times sooner than four.
        feed_forward_factor: Width of the feed-forward layers of `transformer`, as a multiple of
            `hidden_size`; 4 is that of Vaswani et al. (2017) and of GPT-2.
        noise_size: Numbers in the noise z, which varies the captions of an image.
        dropout: Dropout rate of word embeddings, regions and output features, and of the outputs
            of the layers of `transformer`. Built-in data are plentiful and need none; a few
            thousand photographs need about 0.5 with `gru`.
        rematerialize: Whether training computes the blocks of `transformer` or `gpt2` a second time
            for the gradient, instead of keeping what they computed for whole captions. Takes less
            memory and more time; false, because the blocks of small generators take little memory.
    """

    kind: Literal["gru", "transformer", "gpt2"] = "gru"
    weights: UserPath | None = None
    image_input: Literal["prefix", "cross_attention"] = "prefix"
    prefix_length: PositiveInt = 10
    positions: PositiveInt = 1024
    embedding_size: PositiveInt = 128
    hidden_size: PositiveInt = 160
    layers: PositiveInt = 2
    attention_heads: PositiveInt = 1
    feed_forward_factor: PositiveInt = 4
    noise_size: PositiveInt = 16
    dropout: Rate = 0.0
    rematerialize: bool = False


@dataclass(frozen=True)
class DecodingConfig:
    """How the trained generator decodes captions.

    Attributes:
        batch_size: Images per batch.
        samples: Sampled captions per image; diversity is measured among them.
        temperature: Temperature of sampling; below 1, likely tokens become more likely.
        top_k: Sample from the k likeliest tokens only; 0 means all.
        top_p: Sample only from the likeliest tokens that together have this probability.
        beam: Width of the beam search that is scored beside greedy decoding; 1 disables it.
        length_penalty: Exponent of the length by which a beam's log-probability is divided.
        beam_groups: Groups of the beam; must divide `beam`. With more than one, the search is
            diverse: each group avoids the tokens that earlier groups choose at the same time.
        diversity_penalty: Log-probability that a token loses for each beam of an earlier group
            that has just chosen it. 0.5 lies in the middle of the range that worked for the
            method's authors (Vijayakumar et al., 2018).
        minimum_length: Least number of tokens in a caption.
        no_repeat_ngram_size: No sequence of n tokens occurs twice in a caption; 0 allows it.
    """

    batch_size: PositiveInt = 100
    samples: PositiveInt = 5
    temperature: PositiveFloat = 1.0
    top_k: NonNegativeInt = 0
    top_p: ClosedUnitInterval = 1.0
    beam: PositiveInt = 1
    length_penalty: NonNegativeFloat = 1.0
    beam_groups: PositiveInt = 1
    diversity_penalty: NonNegativeFloat = 0.5
    minimum_length: NonNegativeInt = 0
    no_repeat_ngram_size: NonNegativeInt = 0
