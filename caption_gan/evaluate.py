"""Evaluates captioners: `python -m caption_gan.evaluate RUN... [--split val] [--json]`.

RUN is a run directory or a SavedModel exported from one. Several runs are compared with the first.
`--results R.json --references REFS.json` scores captions of any system, in COCO's format.
`--ratings R --references REFS` correlates the metrics with human ratings.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caption_gan.command_line import ArgumentParser, run_program
from caption_gan.config.data import DataConfig
from caption_gan.data.shards.prepare import check_split
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.changed_settings import add_settings, given_settings
from caption_gan.evaluation.coco_results import results_lines, score_results
from caption_gan.evaluation.human_ratings import correlate_with_ratings, correlation_lines
from caption_gan.evaluation.result import Evaluation, summary
from caption_gan.evaluation.run_comparison import compare, comparison_lines, write_comparison
from caption_gan.evaluation.runs import evaluate_run, output_paths
from caption_gan.evaluation.saved_models import (
    evaluate_saved_model,
    is_saved_model,
    read_saved_settings,
)
from caption_gan.run import RunDirectory, load_run, read_trained_config
from caption_gan.storage.atomic import check_writable
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
        help="sample at many temperatures and from many nuclei, for the quality-diversity frontier",
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
    add_settings(parser)
    arguments = parser.parse_args()
    changes = given_settings(arguments)
    if arguments.dual_encoder is not None:
        changes.append(f"--evaluation.dual_encoder={arguments.dual_encoder}")
    given = [bool(arguments.runs), arguments.results is not None, arguments.ratings is not None]
    if sum(given) != 1:
        parser.error("give exactly one of RUN..., --results and --ratings")
    if bool(arguments.runs) != (arguments.references is None):
        parser.error("give --references with --results or --ratings, and not with RUN")
    if changes and not arguments.runs:
        parser.error(f"{changes[0]} is a setting of a RUN; leave it out")

    if arguments.results:
        scored = score_results(arguments.results, arguments.references)
        output, lines = scored.to_json(), results_lines(scored)
    elif arguments.ratings:
        output = correlate_with_ratings(arguments.ratings, arguments.references)
        lines = correlation_lines(output)
    else:
        output, lines = evaluate_all(arguments, changes)
    print(json.dumps(output) if arguments.json else "\n".join(lines))


def evaluate_all(
    arguments: argparse.Namespace, changes: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Evaluates runs, and compares them if there are several.

    Args:
        arguments: What the command line asks for.
        changes: Settings that replace those of each run, as on a command line.

    Returns:
        The output as JSON, and its lines for the terminal.
    """
    paths = [str(path) for path in dict.fromkeys(arguments.runs)]
    if len(paths) > 1:
        check_runs(paths, arguments.split, changes, Path(arguments.to))
    evaluations: dict[str, Evaluation] = {}
    lines = []
    for path in paths:
        evaluations[path] = evaluation = evaluate_captioner(
            path, arguments.split, arguments.frontier, changes
        )
        lines += ["", f"{path}, {arguments.split}", summary(evaluation)]
        if not is_saved_model(Path(path)):
            run = RunDirectory(path)
            lines += ["", output_paths(run, run.read_config(changes))]
    output: dict[str, Any] = {path: result.to_json() for path, result in evaluations.items()}
    if len(evaluations) > 1:
        comparison = compare(evaluations)
        command = shlex.join(["python", "-m", "caption_gan.evaluate", *sys.argv[1:]])
        write_comparison(Path(arguments.to), comparison, command)
        output["comparison"] = comparison.to_json()
        lines += [*comparison_lines(comparison), "", f"{'comparison:':18}{arguments.to}"]
    return output, lines


def check_runs(paths: Sequence[str], split: str, changes: Sequence[str], to: Path) -> None:
    """Checks all runs, and where their comparison is written, before the first is evaluated.

    Raises:
        CaptionGANError: One of them could not be evaluated, or the comparison not be written.
    """
    try:
        check_writable(to.parent)
    except OSError as error:
        raise CaptionGANError(
            f"Cannot write the comparison to {to}: {error.strerror}; choose another --to."
        ) from error
    data: list[DataConfig] = []
    for path in map(Path, paths):
        if is_saved_model(path):
            config = read_saved_settings(path, changes)
        else:
            config = read_trained_config(path, changes)
        if config.data not in data:
            check_split(config, split)
            data.append(config.data)


def evaluate_captioner(
    path: str | Path, split: str, frontier: bool = False, changes: Sequence[str] = ()
) -> Evaluation:
    """Evaluates a run or a SavedModel.

    Args:
        path: The run directory, which receives the results, or the SavedModel.
        split: `val`, `test` or `train`.
        frontier: Whether to sample a run's captions at many temperatures and from many nuclei, for
            the frontier.
        changes: Settings that replace those of the run, as on a command line.
    """
    path = local_path(path)
    if is_saved_model(path):
        return evaluate_saved_model(path, read_saved_settings(path, changes), split)
    config, tokenizer, captioner = load_run(path, changes)
    return evaluate_run(
        RunDirectory(path), config, tokenizer, captioner, split, sweep=frontier, changes=changes
    )


if __name__ == "__main__":
    run_program(main)
