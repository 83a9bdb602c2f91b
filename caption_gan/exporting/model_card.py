"""The model card of an exported captioner: its data, its scores and its limitations.

Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from collections.abc import Mapping
from typing import Any

from caption_gan.config.run import Config
from caption_gan.metrics.table import Place, shown_in

_LICENCES = {
    "figures": "drawn by this project, Apache-2.0",
    "scenes": "drawn by this project, Apache-2.0",
    "flickr": "photographs belong to their owners, for non-commercial research",
    "coco": "captions CC BY 4.0; photographs under the terms of Flickr",
    "scicap": "CC BY-NC-SA 4.0",
}
_UNKNOWN_LICENCE = "not known to this project; see the source of the data set"


def model_card(name: str, config: Config, metrics: Mapping[str, Any]) -> str:
    """The model card in Markdown.

    Args:
        name: Of the run.
        config: Settings of the run.
        metrics: Contents of its `metrics.json`.
    """
    licence = _LICENCES.get(config.data.source, _UNKNOWN_LICENCE)
    lines = [
        f"# {name}",
        "",
        "An image captioner: a generator with attention over image regions, trained by "
        f"{', then '.join(config.stages)}.",
        "",
        "## Data",
        "",
        f"- Data layout: `{config.data.source}`. Licence: {licence}.",
        "- The captioner names only what occurs in the training captions. It has their language "
        "and their gaps.",
        "",
        "## Scores",
        "",
        "Of held-out images, one caption per image. Intervals are 95% bootstrap intervals over "
        "images.",
        "",
        "| metric | value | interval |",
        "|---|---|---|",
    ]
    shown = shown_in(Place.MODEL_CARD)
    intervals = metrics.get("intervals", {})
    for key, value in metrics.items():
        split, _, rest = key.partition("/")
        decoding, _, metric = rest.partition("/")
        if metric in shown and decoding in ("greedy", "sample", "beam"):
            interval = "{:.3f} to {:.3f}".format(*intervals[key]) if key in intervals else ""
            lines.append(f"| {split}, {decoding}: {metric} | {value:.3f} | {interval} |")
    for notes in metrics.get("notes", {}).values():
        lines += ["", *(f"{note}." for note in notes)]
    lines += ["", "## Known limitations", ""]
    for signs in metrics.get("collapsed", {}).values():
        lines += [f"- Signs of collapse: {sign}." for sign in signs]
    lines += [
        "- Images unlike the training images get wrong captions with scores just as high.",
        "- Counts, text in images and relations between small objects are often wrong.",
        "- It repeats what the training captions assume about people (gender, age, occupation).",
        "",
    ]
    return "\n".join(lines)
