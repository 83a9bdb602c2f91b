"""Captions in scripts without spaces: tokens, metrics, and a captioner trained on Chinese."""

# ruff: noqa: RUF001

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw

from caption_gan.config.models import DecodingConfig
from caption_gan.config.objectives import MaximumLikelihoodConfig
from caption_gan.evaluation.text_metrics import score_captions
from caption_gan.metrics.repetition import repeated_token_rate
from caption_gan.metrics.tokenization import tokenize
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.models.encoders.convolutional import ConvolutionalEncoder
from caption_gan.models.generators.gru import GRUGenerator
from caption_gan.text.coverage import describe_captions
from caption_gan.text.scripts import are_unspaced, split_unspaced
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import build_vocabulary, split_words, write_vocabulary

# Caption, its words separated by blanks, and how it is written again.
CAPTIONS = {
    "一只dog在 3 个方块上。": ("一 只 dog 在 3 个 方 块 上 。", "一只dog在3个方块上。"),
    "猫，狗！《书》里的？": ("猫 , 狗 ! 《 书 》 里 的 ?", "猫，狗！《书》里的？"),
    "一 只 狗": ("一 只 狗", "一只狗"),
    "50% 的人, 25 岁": ("50 % 的 人 , 25 岁", "50%的人，25岁"),
    "スケートに乗る人。": ("ス ケ ー ト に 乗 る 人 。", "スケートに乗る人。"),
    "ﾀﾞﾝｽ": ("ダ ン ス", "ダンス"),
    "เด็กวิ่ง 2 คน": ("เ ด็ ก วิ่ ง 2 ค น", "เด็กวิ่ง2คน"),
    "ຄົນແລ່ນ": ("ຄົ ນ ແ ລ່ ນ", "ຄົນແລ່ນ"),
    "ក្មេងរត់": ("ក្ មេ ង រ ត់", "ក្មេងរត់"),
    "ကလေးပြေး": ("က လေး ပြေး", "ကလေးပြေး"),
    "한 남자가 공을 차고 있다.": ("한 남자가 공을 차고 있다 .", "한 남자가 공을 차고 있다."),
    "한국 韓國 사람": ("한국 韓 國 사람", "한국 韓國 사람"),
    "собака бежит, 3 раза": ("собака бежит , 3 раза", "собака бежит, 3 раза"),
    "a dog's t-shirt, (red) 3.5%": (
        "a dog's t-shirt , ( red ) 3.5 %",
        "a dog's t-shirt, (red) 3.5%",
    ),
}


@pytest.fixture(scope="module", params=["word", "wordpiece"])
def tokenizer(request, tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "vocabulary.txt"
    write_vocabulary(path, build_vocabulary(CAPTIONS, request.param, 1, 1000))
    return Tokenizer(path, request.param, 40)


@pytest.mark.parametrize("caption", CAPTIONS)
def test_each_character_is_a_word(caption):
    (words,) = split_words(tf.constant([caption])).numpy().tolist()
    assert b" ".join(words).decode() == CAPTIONS[caption][0]


@pytest.mark.parametrize("caption", CAPTIONS)
def test_captions_are_written_without_spaces_between_characters(caption, tokenizer):
    token_ids = tokenizer.tokenize(tf.constant(caption))
    text = tokenizer.detokenize(token_ids)
    assert text.numpy().decode() == CAPTIONS[caption][1]
    assert tokenizer.tokenize(text).numpy().tolist() == token_ids.numpy().tolist()


def test_unknown_characters(tokenizer):
    text = tokenizer.detokenize(tokenizer.tokenize(tf.constant("一只龍在跑")))
    assert text.numpy().decode() == "一只[UNK]在[UNK]"


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("一只Dog在 3 个方块上。", "一 只 dog 在 3 个 方 块 上"),
        ("《书》，是（好）的！", "书 是 -lrb- 好 -rrb- 的"),
        ("ス・ケート。", "ス ケ ー ト"),
        ("เด็กวิ่ง", "เ ด็ ก วิ่ ง"),
        ("한 남자가 있다.", "한 남자가 있다"),
        ("The dog's «bone».", "the dog 's bone"),
    ],
)
def test_metrics_count_characters(caption, tokens):
    assert tokenize(caption) == tokens
    # Captions that the tokenizer has written have the same tokens.
    assert tokenize(tokens.replace("-lrb-", "(").replace("-rrb-", ")")) == tokens


def test_scores_of_chinese_captions(monkeypatch):
    monkeypatch.setenv("PATH", "")
    references = {
        "a": ["一个红色的方块", "图中有一个红方块。"],
        "b": ["一个蓝色的圆", "蓝色的圆。"],
    }
    scores = score_captions({"a": "一个红色的方块。", "b": "一个红色的圆"}, references)
    assert scores.values["CIDEr"] > 3
    assert scores.values["BLEU-1"] == pytest.approx(12 / 13)
    assert scores.values["mean_length"] == 6.5
    assert "without spaces" in scores.not_run["SPICE"]
    assert scores.notes == ["metrics compare characters: the script has no spaces between words"]
    assert "object_recall" not in scores.values
    assert not are_unspaced(["a dog", "собака", "개", "一"])


def test_doubled_characters_are_words_but_repeated_ones_are_not():
    assert repeated_token_rate([["妈妈在慢慢走。"]]).value == 0
    for collapsed in ("红红红红红", "一个圆一个圆", "一个圆。。。。", "一个圆，，，，"):
        assert repeated_token_rate([[collapsed]]).value >= 0.4


def test_only_captions_in_such_scripts_are_changed():
    assert split_unspaced("A ½ dog… ＡＢＣ") == ["A ½ dog… ＡＢＣ"]


def test_notes_say_that_characters_are_counted_and_how_long_captions_may_be(tmp_path):
    captions = ["一个红色的方块"] * 199 + ["图中有一个红色的方块，背景是白色的"]
    write_vocabulary(tmp_path / "v.txt", build_vocabulary(captions, "word", 1, 100))
    notes = describe_captions(captions, Tokenizer(tmp_path / "v.txt", "word", 8))
    assert any("200 captions are in a script without spaces" in note for note in notes)
    assert any(
        "200 captions are longer than text.sequence_length 8" in note
        and "--text.sequence_length=9 keeps 99% of all captions whole, 19 all of them" in note
        for note in notes
    )


COLOURS = {"红": (220, 30, 30), "蓝": (30, 30, 220), "绿": (30, 180, 30)}


def square(colour: str, left: int) -> Image.Image:
    image = Image.new("RGB", (40, 32), "white")
    ImageDraw.Draw(image).rectangle((left, 6, left + 20, 26), fill=COLOURS[colour])
    return image


def test_a_captioner_learns_chinese(tmp_path):
    references = [f"一个{colour}色的方块。" for colour in COLOURS] * 8
    images = np.stack(
        [square(colour, 2 + 5 * (number % 4)) for number, colour in enumerate([*COLOURS] * 8)]
    ).astype(np.float32)
    write_vocabulary(tmp_path / "v.txt", build_vocabulary(references, "word", 1, 100))
    tokenizer = Tokenizer(tmp_path / "v.txt", "word", 10)
    keras.utils.set_random_seed(0)
    encoder = ConvolutionalEncoder(32, 40, 8)
    encoder.build((None, 32, 40, 3))
    generator = GRUGenerator(tokenizer.vocabulary_size, 32, 32, 2, 3, 0.0)
    generator.build((None, *encoder.regions_shape))
    captioner = Captioner(encoder, generator)
    config = MaximumLikelihoodConfig(batch_size=24, captions=1, learning_rate=0.01)
    trainer = config.load_trainer().from_config(captioner, config, 120, 0)
    token_ids = tokenizer.tokenize(tf.constant(references)[:, tf.newaxis])
    batches = tf.data.Dataset.from_tensors({"image": images, "token_ids": token_ids}).repeat(120)
    trainer.make_train_function()
    iterator = trainer.iterator(batches)
    for _ in range(120):
        trainer.train_function(iterator)
    decoder = TextDecoder(captioner, tokenizer, DecodingConfig(), 0)
    decoded = decoder.detokenize(decoder.greedy({"image": images[:3]}))
    assert [caption for ((caption, _),) in decoded] == references[:3]
