"""Writes networks by transformers: `python tools/hugging_face_golden.py FOLDER [--minilm MINILM]`.

Tests compare converted networks with these tiny random ones, in
tests/models/hugging_face/golden. It needs an environment with `torch`, `transformers` and NumPy,
and nothing of this project; tests need neither of the first two. Each folder holds `config.json`,
`model.safetensors`, and inputs and outputs in `expected.npz`. With MINILM, the Hugging Face folder
of all-MiniLM-L6-v2, it also writes `minilm.npz`: vectors of some sentences, without the weights.
"""

import argparse
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers

SIZE = 16
BLOCKS = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
}
VISION = {**BLOCKS, "image_size": SIZE, "patch_size": 8}
TEXT = {**BLOCKS, "vocab_size": 20, "max_position_embeddings": 6}
PIECES = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "run", "##s", "cafe", ".", ","),
    *("\u4e2d", "\u6587", "##ning", "'"),
)
SENTENCES = ("A dog runs.", "", "Caf\u00e9, running\ta dog's", "\u4e2d\u6587 dog xyz", "a " * 12)
REAL_SENTENCES = (
    "A child in a pink dress is climbing up a set of stairs in an entry way .",
    "Two dogs of different breeds looking at each other on the road.",
    "A blue line rises, then falls sharply; the cr\u00e8me br\u00fbl\u00e9e is unaffected!",
    "",
    "word " * 300,
)

CAPTIONS = (
    "A dog runs across the green grass.",
    "Two dogs are running on the grass, and a third dog's owner isn't.",
    "a man in a red shirt is standing on a rock .",
    "Caf\u00e9 at night: cr\u00e8me br\u00fbl\u00e9e, 3 people & a na\u00efve \u201cwaiter\u201d!",
    "\U0001f415\U0001f3fd runs \u2192 \u4e2d\u6587 \u0440\u0443\u0441\u0441\u043a\u0438\u0439",
    "They're WALKING (12,000 steps)... we've re-counted",
)


def main() -> None:
    """Reads the command line, writes the folders."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minilm", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    bert(arguments.folder / "bert")
    clip(arguments.folder / "clip")
    siglip(arguments.folder / "siglip")
    gpt2(arguments.folder / "gpt2")
    if arguments.minilm:
        tokenizer = transformers.BertTokenizer.from_pretrained(arguments.minilm)
        model = transformers.BertModel.from_pretrained(arguments.minilm)
        vectors = sentence_vectors(model, tokenizer, REAL_SENTENCES, 256)
        np.savez_compressed(
            arguments.folder / "minilm.npz", sentences=np.array(REAL_SENTENCES), vectors=vectors
        )


def bert(folder: Path) -> None:
    """A sentence encoder with its vocabulary."""
    config = transformers.BertConfig(**BLOCKS, vocab_size=len(PIECES), max_position_embeddings=10)
    model = randomized(transformers.BertModel(config, add_pooling_layer=False))
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    vectors = sentence_vectors(model, tokenizer, SENTENCES, 10)
    np.savez_compressed(folder / "expected.npz", sentences=np.array(SENTENCES), vectors=vectors)


def sentence_vectors(model, tokenizer, sentences, maximum: int) -> np.ndarray:
    """Normalised means over tokens [N, H], as sentence-transformers computes them."""
    batch = tokenizer(
        list(sentences), padding=True, truncation=True, max_length=maximum, return_tensors="pt"
    )
    with torch.no_grad():
        tokens = model.eval()(**batch).last_hidden_state  # [N, T, H]
    mask = batch["attention_mask"][..., None].float()
    mean = (tokens * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=-1).numpy()


def clip(folder: Path) -> None:
    """Both towers of CLIP."""
    config = transformers.CLIPConfig(
        vision_config=VISION,
        text_config={**TEXT, "eos_token_id": 19, "bos_token_id": 18},
        projection_dim=4,
    )
    write(folder, transformers.CLIPModel(config), token_ids([[18, 3, 5, 19, 0, 0], [18, 4, 19]]))


def siglip(folder: Path) -> None:
    """Both towers of SigLIP."""
    config = transformers.SiglipConfig(vision_config=VISION, text_config=TEXT)
    write(folder, transformers.SiglipModel(config), token_ids([[3, 5, 1, 1, 1, 1], [4, 7, 9, 2]]))


def gpt2(folder: Path) -> None:
    """GPT-2 with a byte-pair tokenizer that was trained on some captions."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(CAPTIONS[:4], 330, 1, special_tokens=["<|endoftext|>"])
    trained.save_model(str(folder))
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    trained.save_model(str(folder))  # transformers keeps tokenizer.json alone.
    end = tokenizer.eos_token_id
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=20,
        n_embd=8,
        n_layer=2,
        n_head=2,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = randomized(transformers.GPT2LMHeadModel(config)).eval()
    model.save_pretrained(folder)
    pieces = [tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) for text in CAPTIONS]
    tokens = torch.tensor([[end, *tokenizer(text).input_ids[:7]] for text in CAPTIONS[:2]])
    prefix = torch.randn(2, 3, 8)
    expected = {}
    for name, vectors in (("plain", prefix[:, :0]), ("prefixed", prefix)):
        expected[f"{name}_logits"] = next_logits(model, vectors, tokens).numpy()
        written = tokens[:, :1]
        for _ in range(9):
            choice = next_logits(model, vectors, written)[:, -1].argmax(-1, keepdim=True)
            written = torch.cat([written, choice], dim=1)
        expected[f"{name}_greedy"] = written[:, 1:].numpy()
    np.savez_compressed(
        folder / "expected.npz",
        captions=np.array(CAPTIONS),
        pieces=np.array([" ".join(row) for row in pieces]),
        token_ids=tokens.numpy(),
        prefix=prefix.numpy(),
        **expected,
    )


def next_logits(model, prefix: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] of the token after each, behind vectors [B, P, H]."""
    with torch.no_grad():
        embeddings = torch.cat([prefix, model.transformer.wte(tokens)], dim=1)
        return model(inputs_embeds=embeddings).logits[:, prefix.shape[1] :]


def token_ids(rows: list[list[int]]) -> torch.Tensor:
    """Rows padded to the same length."""
    length = TEXT["max_position_embeddings"]
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def write(folder: Path, model, tokens: torch.Tensor) -> None:
    """Writes a dual encoder with the patch tokens of images, and embeddings of images and texts."""
    randomized(model).save_pretrained(folder)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        output = model.eval()(pixel_values=pixels, input_ids=tokens)
        states = model.vision_model(pixel_values=pixels).last_hidden_state
        if model.config.model_type == "clip":  # SigLIP's states are normalised already.
            states = model.vision_model.post_layernorm(states)
    np.savez_compressed(
        folder / "expected.npz",
        pixels=pixels.permute(0, 2, 3, 1).numpy(),  # [N, H, W, 3]
        token_ids=tokens.numpy(),
        patches=states.numpy(),
        # Compared as they enter the logits, with length 1.
        images=torch.nn.functional.normalize(output.image_embeds, dim=-1).numpy(),
        texts=torch.nn.functional.normalize(output.text_embeds, dim=-1).numpy(),
    )


def randomized(model):
    """The model with weights large enough for a swapped one to show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


if __name__ == "__main__":
    main()
