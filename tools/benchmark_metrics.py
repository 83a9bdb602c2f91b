"""Measures the metrics: `python tools/benchmark_metrics.py [--images 5000]`.

Prints the seconds for BLEU, ROUGE-L and CIDEr of one caption per image with five references each
(5,000 images is COCO's test size), for all diversity metrics of five samples per image, for
1,000 bootstrap samples of each metric, and for METEOR if Java is installed. The captions are those
of the built-in scenes.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.registry import open_source
from caption_gan.evaluation.text_metrics import collapse_metrics, novelty, sample_diversity
from caption_gan.metrics import java_scores
from caption_gan.metrics.bootstrap import Bootstrap
from caption_gan.metrics.quality import quality

CAPTIONS = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, prints one line per part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    images = parser.parse_args(arguments).images
    data = DataConfig(
        source="scenes", train_images=images, val_images=images, captions_per_image=2 * CAPTIONS
    )
    source = open_source(data, Skips())
    examples = list(source.examples("val", range(images)))
    references = {example.image_id: example.captions[:CAPTIONS] for example in examples}
    samples = [list(example.captions[CAPTIONS:]) for example in examples]
    captions = {name: drawn[0] for name, drawn in zip(references, samples, strict=True)}
    training = [
        caption
        for example in source.examples("train", range(images))
        for caption in example.captions[:CAPTIONS]
    ]

    def diversity() -> dict[str, Any]:
        return {
            **collapse_metrics([drawn[:1] for drawn in samples]),
            **sample_diversity(samples),
            **novelty(samples, training),
        }

    scores = timed("BLEU, ROUGE-L and CIDEr", lambda: quality(captions, references))
    varied = timed(f"diversity of {CAPTIONS} samples per image", diversity)
    metrics = {**scores, **varied}
    bootstrap = timed("drawing 1,000 bootstrap samples", lambda: Bootstrap(images))
    timed(
        f"intervals of {len(metrics)} metrics",
        lambda: [bootstrap.interval(metric) for metric in metrics.values()],
    )
    found = timed("METEOR", lambda: java_scores.meteor(captions, references))
    if isinstance(found, java_scores.NotRun):
        print(f"METEOR {found}")


def timed(name: str, run: Callable[[], Any]) -> Any:
    """Result of a part; prints its time."""
    started = time.perf_counter()
    result = run()
    print(f"{name}: {time.perf_counter() - started:.1f} s", flush=True)
    return result


if __name__ == "__main__":
    main()
