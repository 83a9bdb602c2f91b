"""Pages for people to look at, made from the templates beside this file."""

import math
from collections.abc import Sequence
from pathlib import Path

import jinja2

# In the order in which figures are shown.
MEANINGS = {
    "BLEU-1": "words shared with the references, 0 to 1",
    "BLEU-2": "up to pairs of words shared, 0 to 1",
    "BLEU-3": "up to triples of words shared, 0 to 1",
    "BLEU-4": "up to runs of four words shared, 0 to 1",
    "ROUGE-L": "longest common sequence of words, 0 to 1",
    "CIDEr": "agreement with the references, telling words counting more, 0 to 10",
    "METEOR": "words matched, synonyms too, and their order, 0 to 1",
    "SPICE": "objects, attributes and relations shared, 0 to 1",
    "fact_accuracy": "share of captions whose every statement is true",
    "CIDEr_drop": "what CIDEr loses when captions change images; 0 if none is looked at",
    "object_recall": "share of the objects that two references name which are named",
    "object_precision": "share of the objects named that any reference names",
    "attribute_recall": "the same for attributes, such as colours",
    "attribute_precision": "the same for attributes, such as colours",
    "retrieval_recall@1": "share of captions whose own image is found first by the dual encoder",
    "retrieval_recall@5": "share whose own image is among the first five",
    "retrieval_similarity": "cosine of caption and image by the dual encoder",
    "repeated_token_rate": "share of words that repeat the word before; 0 is right",
    "distinct_captions": "share of captions that differ; compare the references",
    "mean_length": "words a caption",
    "mBLEU-1": "likeness among the captions of one image; lower is more varied",
    "mBLEU-2": "the same, up to pairs of words",
    "mBLEU-3": "the same, up to triples of words",
    "mBLEU-4": "the same, up to runs of four words",
    "distinct-1": "share of words that differ, among all captions",
    "distinct-2": "share of pairs of words that differ, among all captions",
    "vocabulary": "number of different words used",
    "novel_captions": "share that no training caption equals",
    "novel_5-grams": "share of runs of five words that no training caption has",
}


def new_environment() -> jinja2.Environment:
    """Templates in which text is escaped and a missing value is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    return environment


def place(name: str, order: Sequence[str]) -> int:
    """Where a name stands in an order; unknown ones come last."""
    return order.index(name) if name in order else len(order)


def format_number(value: float | None) -> str:
    """A number as people read it."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 100 or (abs(value) >= 10 and value == round(value)):
        return f"{value:,.0f}"
    text = f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
    return text.replace("-", "\N{MINUS SIGN}")
