"""Evaluates captioners: `python -m caption_gan.evaluate RUN... [--split val] [--json]`.

RUN is a run directory or a SavedModel exported from one. Several runs are compared with the first.
`--results R.json --references REFS.json` scores captions of any system, in COCO's format.
`--ratings R --references REFS` correlates the metrics with human ratings.
"""

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from caption_gan.command_line import ArgumentParser, run_program
from caption_gan.config.run import Config
from caption_gan.evaluation.coco_results import results_lines, score_results
from caption_gan.evaluation.human_ratings import correlate_with_ratings, correlation_lines
from caption_gan.evaluation.result import Evaluation, summary
from caption_gan.evaluation.run_comparison import compare, comparison_lines, write_comparison
from caption_gan.evaluation.runs import evaluate_run, output_paths
from caption_gan.evaluation.saved_models import evaluate_saved_model, is_saved_model
from caption_gan.run import RunDirectory, load_run
from caption_gan.storage.paths import expand, local_path, resolve

PROGRAM = "python -m caption_gan.evaluate"


def main() -> None:
    """Runs the program."""
    first_line, _, rest = (__doc__ or "").partition("\n\n")
    parser = ArgumentParser(prog=PROGRAM, description=f"{first_line} {rest}")
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", type=expand, help="run directory or SavedModel"
    )
    parser.add_argument("--split", default="val", help="train, val or test")
    parser.add_argument(
        "--frontier",
        action="store_true",
        help="sample at many temperatures, for the quality-diversity frontier",
    )
    parser.add_argument(
        "--dual_encoder",
        type=resolve,
        help="SavedModel of a dual encoder such as CLIP, for retrieval metrics",
    )
    parser.add_argument(
        "--to",
        type=expand,
        default="comparison.html",
        help="HTML file of the comparison of several runs",
    )
    parser.add_argument("--results", type=expand, help="captions in COCO's format")
    parser.add_argument(
        "--ratings", type=expand, help="human ratings, in Flickr8k's formats or JSON lines"
    )
    parser.add_argument("--references", type=expand, help="references for --results or --ratings")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )
    arguments = parser.parse_args()
    given = [bool(arguments.runs), arguments.results is not None, arguments.ratings is not None]
    if sum(given) != 1:
        parser.error("give exactly one of RUN..., --results and --ratings")
    if bool(arguments.runs) != (arguments.references is None):
        parser.error("give --references with --results or --ratings, and not with RUN")

    if arguments.results:
        scored = score_results(arguments.results, arguments.references)
        output, lines = scored.to_json(), results_lines(scored)
    elif arguments.ratings:
        output = correlate_with_ratings(arguments.ratings, arguments.references)
        lines = correlation_lines(output)
    else:
        output, lines = evaluate_all(arguments)
    print(json.dumps(output) if arguments.json else "\n".join(lines))


def evaluate_all(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Evaluates runs, and compares them if there are several.

    Returns:
        The output as JSON, and its lines for the terminal.
    """
    evaluations: dict[str, Evaluation] = {}
    lines = []
    for path in map(str, dict.fromkeys(arguments.runs)):
        evaluations[path] = evaluation = evaluate_captioner(
            path, arguments.split, arguments.frontier, arguments.dual_encoder
        )
        lines += ["", f"{path}, {arguments.split}", summary(evaluation)]
        if not is_saved_model(Path(path)):
            lines += ["", output_paths(RunDirectory(path))]
    output: dict[str, Any] = {path: result.to_json() for path, result in evaluations.items()}
    if len(evaluations) > 1:
        comparison = compare(evaluations)
        command = shlex.join(["python", "-m", "caption_gan.evaluate", *sys.argv[1:]])
        write_comparison(Path(arguments.to), comparison, command)
        output["comparison"] = comparison.to_json()
        lines += [*comparison_lines(comparison), "", f"{'comparison:':18}{arguments.to}"]
    return output, lines


def evaluate_captioner(
    path: str | Path, split: str, frontier: bool = False, dual_encoder: str | None = None
) -> Evaluation:
    """Evaluates a run or a SavedModel.

    Args:
        path: The run directory, whose results are updated, or the SavedModel.
        split: `val`, `test` or `train`.
        frontier: Whether to sample a run's captions at many temperatures, for the frontier.
        dual_encoder: Replaces `evaluation.dual_encoder` of the run's settings.
    """
    path = local_path(path)

    def with_encoder(config: Config) -> Config:
        if dual_encoder is None:
            return config
        changed = dataclasses.replace(config.evaluation, dual_encoder=dual_encoder)
        return dataclasses.replace(config, evaluation=changed)

    if is_saved_model(path):
        return evaluate_saved_model(path, with_encoder, split)
    config, tokenizer, captioner = load_run(path)
    return evaluate_run(
        RunDirectory(path), with_encoder(config), tokenizer, captioner, split, sweep=frontier
    )


if __name__ == "__main__":
    run_program(main)
