"""Keeps the vectors of sentences on disk: a frozen sentence encoder takes minutes for a data set.

M sentences, D size of sentence vectors.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from caption_gan.models.hugging_face.sentence_encoder import SentenceEncoder
from caption_gan.storage.atomic import replacing
from caption_gan.text.vocabulary import batched

BATCH = 128
SENTENCES_BETWEEN_WRITES = 10_000  # An interrupted program loses at most these.


class SentenceCache:
    """Vectors of sentences by an encoder, from a file where it has them.

    Args:
        encoder: The sentence encoder; another one has another file.
        folder: Where the file is.
    """

    def __init__(self, encoder: SentenceEncoder, folder: Path):
        self.encoder = encoder
        digest = hashlib.sha256(json.dumps(encoder.vocabulary).encode())
        for variable in encoder.variables:
            digest.update(variable.numpy().tobytes())
        self.path = folder / f"sentences-{digest.hexdigest()[:12]}.npz"
        self.row_of: dict[str, int] = {}
        self.vectors = np.zeros((0, encoder.hidden_size), np.float32)
        self._read()

    def vectors_of(self, sentences: Sequence[str], title: str) -> np.ndarray:
        """Vectors [M, D]; those that are missing are computed and kept.

        Args:
            sentences: M texts.
            title: Shown beside the progress.
        """
        missing = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self.row_of]
        missing.sort(key=len)  # Padding costs as much as words.
        embed = tf.function(
            self.encoder, autograph=False, input_signature=[tf.TensorSpec([None], tf.string)]
        )
        with tqdm(total=len(missing), desc=title, unit=" sentences") as progress:
            for some in batched(missing, SENTENCES_BETWEEN_WRITES):
                new = []
                for batch in batched(some, BATCH):
                    new.append(embed(tf.constant(batch)).numpy())
                    progress.update(len(batch))
                self._keep(some, np.concatenate(new))
        return self.vectors[[self.row_of[sentence] for sentence in sentences]]

    def _read(self) -> None:
        """Reads the file, if there is one."""
        if self.path.is_file():
            with np.load(self.path) as content:
                sentences = json.loads(content["sentences"].tobytes())
                self.vectors = content["vectors"]
            self.row_of = {sentence: row for row, sentence in enumerate(sentences)}

    def _keep(self, sentences: Sequence[str], vectors: np.ndarray) -> None:
        """Adds sentences to the file."""
        self._read()  # Another program may have added some.
        new = [row for row, sentence in enumerate(sentences) if sentence not in self.row_of]
        for row, number in enumerate(new, start=len(self.vectors)):
            self.row_of[sentences[number]] = row
        self.vectors = np.concatenate([self.vectors, vectors[new]])
        encoded = np.frombuffer(json.dumps(list(self.row_of)).encode(), np.uint8)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            np.savez(temporary, sentences=encoded, vectors=self.vectors)
