"""The model card of an exported captioner: what it was made from, how good it is, where it fails.

Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from collections.abc import Mapping
from typing import Any

from caption_gan.config.run import Config

_LICENCES = {
    "figures": "drawn by this project, Apache-2.0",
    "scenes": "drawn by this project, Apache-2.0",
    "flickr": "photographs are their owners', for non-commercial research",
    "coco": "captions CC BY 4.0; photographs under the terms of Flickr",
    "scicap": "CC BY-NC-SA 4.0",
}
_SHOWN = (
    *("CIDEr", "BLEU-4", "METEOR", "fact_accuracy", "object_recall", "object_precision"),
    *("repeated_token_rate", "distinct_captions", "mBLEU-4", "novel_captions"),
)


def model_card(name: str, config: Config, metrics: Mapping[str, Any]) -> str:
    """Markdown.

    Args:
        name: Of the run.
        config: Its settings.
        metrics: Its `metrics.json`.
    """
    licence = _LICENCES.get(config.data.source, "that of whoever gathered them; not known here")
    lines = [
        f"# {name}",
        "",
        "An image captioner: a generator with attention over an image's regions, trained by "
        f"{', then '.join(config.stages)}.",
        "",
        "## Data",
        "",
        f"- Layout `{config.data.source}`; licence of the data: {licence}.",
        "- All it can name stands in the training captions; it has their language and their gaps.",
        "",
        "## Scores",
        "",
        "Single captions of held-out images, with 95% intervals over images where there are any.",
        "",
        "| figure | value | interval |",
        "|---|---|---|",
    ]
    intervals = metrics.get("intervals", {})
    for figure, value in metrics.items():
        split, _, rest = figure.partition("/")
        decoding, _, metric = rest.partition("/")
        if metric in _SHOWN and decoding in ("greedy", "sample", "beam"):
            low, high = intervals.get(figure, ("", ""))
            ends = f"{low:.3f} to {high:.3f}" if low != "" else ""
            lines.append(f"| {split}, {decoding}: {metric} | {value:.3f} | {ends} |")
    lines += ["", "## Known failings", ""]
    lines += [f"- Signs of collapse: {sign}." for sign in _collapsed(metrics)]
    lines += [
        "- It is as sure of images unlike those it was trained on, and wrong about them.",
        "- Counts, text in images and the relation of small things are often wrong.",
        "- What training captions assume of people (gender, age, occupation) it assumes too.",
        "",
    ]
    return "\n".join(lines)


def _collapsed(metrics: Mapping[str, Any]) -> list[str]:
    return [sign for signs in metrics.get("collapsed", {}).values() for sign in signs]
