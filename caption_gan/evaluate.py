"""Scores trained runs: `python -m caption_gan.evaluate RUN... [--split val] [--json]`."""

import json

from caption_gan.command_line import ArgumentParser, run_program
from caption_gan.results import evaluate_run, summary
from caption_gan.run import RunDirectory, load_run


def main() -> None:
    """The program."""
    parser = ArgumentParser(
        prog="python -m caption_gan.evaluate", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directory that fit wrote")
    parser.add_argument("--split", default="val", help="train, val or test")
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    arguments = parser.parse_args()

    figures = {}
    for path in arguments.runs:
        config, tokenizer, captioner = load_run(path)
        run = RunDirectory(path)
        metrics, images = evaluate_run(run, config, tokenizer, captioner, arguments.split)
        figures[str(path)] = metrics
        if not arguments.json:
            print(f"\n{path}, {arguments.split}\n{summary(run, arguments.split, metrics, images)}")
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    run_program(main)
