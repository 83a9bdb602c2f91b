"""What a run leaves to be read: `metrics.json`, `captions.jsonl`, `report.html`, a summary."""

import json
from collections.abc import Sequence

import tensorflow as tf

from caption_gan.config import Config
from caption_gan.data.example import Example
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.records import read_examples
from caption_gan.data.sources import truth_checker
from caption_gan.evaluation import (
    CaptionedImage,
    Decoder,
    baselines,
    caption_images,
    score,
    score_captions,
)
from caption_gan.files import replacing, write_json
from caption_gan.frontier import Frontier
from caption_gan.models.captioner import Captioner
from caption_gan.models.critic import Critic, build_critic
from caption_gan.models.generator import Generator
from caption_gan.objectives import AdversarialConfig
from caption_gan.preparation import prepare_splits
from caption_gan.report import ReportImage, write_report
from caption_gan.run import RunDirectory, dump_config, load_weights
from caption_gan.text.tokenizer import Tokenizer

SHOWN = ("CIDEr", "BLEU-4", "fact_accuracy", "repeated_token_rate", "distinct_captions", "mBLEU-4")


def evaluate_run(
    run: RunDirectory,
    config: Config,
    tokenizer: Tokenizer,
    captioner: Captioner,
    split: str,
    notes: Sequence[str] = (),
) -> tuple[dict[str, float], list[CaptionedImage]]:
    """Captions and scores a split, and writes the figures, the captions and the report.

    Args:
        run: Where to write. Figures of other splits stay; captions and report are replaced.
        config: The run's settings.
        tokenizer: The run's.
        captioner: Trained.
        split: `val`, `test` or `train`.
        notes: Lines for the report, such as what data had to be skipped.

    Returns:
        Figures by `<split>/<decoding>/<metric>`, and the captioned images.
    """
    is_true = truth_checker(config.data)
    # Where truth is known, the nearest training image's caption is what there is to beat.
    wanted = {split, "train"} if is_true else {split}
    splits = prepare_splits(config, captioner.encoder, sorted(wanted))
    prepared = splits[split]
    examples = list(read_examples(prepared))
    pipeline = Pipeline(config.data, config.encoder, captioner.encoder.cached_shape, tokenizer)
    batches = pipeline.validation(prepared, config.decoding.batch_size)
    decoder = Decoder(captioner, tokenizer, config.decoding, config.seed)
    images = caption_images(decoder, batches, examples)
    metrics = score(images, split, is_true)
    earlier, frontier = _compare_stages(run, config, decoder, batches, examples)
    metrics |= {f"{split}/{name}": value for name, value in earlier.items()}
    if is_true:
        metrics |= baselines(split, examples, list(read_examples(splits["train"])), is_true)

    history = run.read_history()
    others = json.loads(run.metrics.read_text()) if run.metrics.is_file() else {}
    kept = {name: value for name, value in others.items() if not name.startswith(f"{split}/")}
    figures = {name: round(value, 6) for name, value in metrics.items()}
    if frontier:
        kept["frontier"] = others.get("frontier", {}) | {split: frontier}
    write_json(run.metrics, kept | figures | {"history": history})
    with replacing(run.captions) as temporary, temporary.open("w") as file:
        for image in images:
            file.write(json.dumps(image.to_json(), ensure_ascii=False) + "\n")
    write_report(
        run.report,
        title=f"{config.data.source}, {split}: {run.path.name}",
        command=f"python -m caption_gan.evaluate {run.path} --split {split}",
        settings=dump_config(config),
        metrics=metrics,
        history=history,
        frontier=frontier,
        images=[_report_image(image) for image in images],
        notes=[*notes, *prepared.skipped],
    )
    return metrics, images


def _compare_stages(
    run: RunDirectory,
    config: Config,
    decoder: Decoder,
    batches: tf.data.Dataset,
    examples: Sequence[Example],
) -> tuple[dict[str, float], dict[str, list[dict[str, float]]]]:
    """What each stage has reached, for runs of several.

    Returns:
        Figures of earlier stages' greedy captions by `<stage>/<metric>`, and the frontier: quality
        and variety after each stage, the last first, and by the critic's choice.
    """
    stages = [run.stage_name(config, number) for number in range(len(config.stages))]
    stages = [stage for stage in stages if run.stage_weights(stage).is_file()]
    # One stage has nothing to be compared with, and one sample an image no variety.
    if len(stages) < 2 or config.decoding.samples < 2:
        return {}, {}
    is_true = truth_checker(config.data)
    frontier = Frontier(batches, examples, is_true, config.decoding.samples, config.seed)
    last = stages.pop()
    figures: dict[str, float] = {}
    curves = {last: frontier.temperatures(decoder, last)}
    for stage in reversed(stages):
        captioner = decoder.captioner.copy()
        load_weights(captioner, run.stage_weights(stage))
        before = Decoder(captioner, decoder.tokenizer, config.decoding, config.seed)
        greedy = [
            caption for batch in batches for ((caption, _),) in before.spell(before.greedy(batch))
        ]
        reached = score_captions(greedy, examples, is_true)
        figures |= {f"{stage}/{name}": value for name, value in reached.items()}
        curves[stage] = frontier.temperatures(before, stage)
    if critic := load_critic(run, config, decoder.captioner.generator):
        curves["critic's choice"] = frontier.choices(decoder, critic)
    return figures, curves


def load_critic(run: RunDirectory, config: Config, generator: Generator) -> Critic | None:
    """The critic that a run's last stage with one has left, if there is any."""
    if not run.critic_weights.is_file():
        return None
    settings = [getattr(config, stage) for stage in config.stages]
    adversarial = [some for some in settings if isinstance(some, AdversarialConfig)]
    critic = build_critic(generator, adversarial[-1].critic)
    load_weights(critic, run.critic_weights)
    return critic


def _report_image(image: CaptionedImage) -> ReportImage:
    return ReportImage(
        image_id=image.example.image_id,
        image=image.example.image,
        references=image.example.captions,
        captions=image.captions,
        cider=image.cider,
        is_true=image.is_true,
        tokens=tuple(image.tokens),
        attention=image.attention,
    )


def summary(
    run: RunDirectory, split: str, metrics: dict[str, float], images: Sequence[CaptionedImage]
) -> str:
    """Scores, a few captions and where everything lies, for the terminal."""
    decodings = list(dict.fromkeys(name.split("/")[1] for name in metrics))
    widths = [max(11, len(decoding) + 2) for decoding in decodings]
    names = zip(decodings, widths, strict=True)
    lines = [f"{'':22}" + "".join(f"{name:>{width}}" for name, width in names)]
    for metric in SHOWN:
        values = [metrics.get(f"{split}/{decoding}/{metric}") for decoding in decodings]
        if any(value is not None for value in values):
            cells = ("" if value is None else f"{value:.3f}" for value in values)
            aligned = zip(cells, widths, strict=True)
            lines.append(f"{metric:22}" + "".join(f"{cell:>{width}}" for cell, width in aligned))
    lines.append("")
    for image in images[:: max(1, len(images) // 4)][:4]:
        lines += [
            f"{image.example.image_id}: {image.captions['greedy'][0][0]}",
            f"    reference: {image.example.captions[0]}",
        ]
    paths = {
        "report": run.report,
        "scores": run.metrics,
        "captions": run.captions,
        "TensorBoard": f"tensorboard --logdir {run.logs}",
        "your own images": f"python -m caption_gan.caption {run.path} IMAGE...",
    }
    lines += ["", *(f"{name + ':':18}{path}" for name, path in paths.items())]
    return "\n".join(lines)
