"""What a tokenizer keeps of captions."""

from collections.abc import Sequence

import numpy as np

from caption_gan.text.scripts import has_unspaced
from caption_gan.text.tokenizer import Tokenizer


def describe_captions(captions: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Describes the training captions and what the tokenizer loses of them, one line each."""
    usable, lengths = tokenizer.usable(captions).numpy(), tokenizer.lengths(captions).numpy()
    long = lengths > tokenizer.sequence_length
    unknown = float(tokenizer.out_of_vocabulary_rate(captions))
    lines = [
        f"{len(captions)} training captions, {tokenizer.vocabulary_size} tokens, "
        f"{unknown:.2%} of the words unknown"
    ]
    unspaced = sum(map(has_unspaced, captions))
    if unspaced > len(captions) / 100:  # A few may be names in captions of another script.
        lines.append(
            f"{unspaced} captions are in a script without spaces between words: each of its "
            "characters is a token, and metrics compare characters"
        )
    if long.any():
        longest, most = int(lengths.max()), int(np.quantile(lengths, 0.99, method="higher"))
        remedy = f"{longest} keeps all of them whole"
        if tokenizer.sequence_length < most < longest:
            remedy = f"{most} keeps 99% of all captions whole, {longest} all of them"
        lines.append(
            f"{long.sum()} captions are longer than text.sequence_length "
            f"{tokenizer.sequence_length} and were cut; --text.sequence_length={remedy}"
        )
    if not usable.all():
        lines.append(f"{(~usable).sum()} captions have no word of the vocabulary and were skipped")
    return lines
