"""METEOR equals the Java program for any resample; a failure in Java never looks like a score."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caption_gan.errors import CaptionGANError
from caption_gan.metrics import java_scores
from caption_gan.metrics.java_scores import NotRun, Scored, meteor, spice
from caption_gan.metrics.metric import Metric, mean_of

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no java on the PATH")

CAPTIONS = {
    "whole": "two men play tennis",
    "other order": "on grass a brown dog runs",
    "stems and synonyms": "An automobile is parking near the sidewalk.",
    "paraphrase": "a couple of people sit in front of a computer",
    "empty": "",
    "nothing": "purple",
    "one word": "dog",
    "fields": "a dog ||| a cat http://dogs|||cats |",
    "lines": "a dog\nEVAL ||| 1\r\nand a\u2028cat\x85 asleep",
    "letters": "a \u0130stanbul caf\u00e9 \u72d7 \ud83d\x00 5 1/2 (red) 1,5",
}
REFERENCES = {
    "whole": ["two men play tennis", "tennis players"],
    "other order": ["a brown dog runs across the grass", "the dog is running on grass"],
    "stems and synonyms": ["a car parked near the pavement", "cars"],
    "paraphrase": ["two people are sitting before a computer"],
    "empty": ["a line chart that rises", "a chart"],
    "nothing": ["a red bus", "the bus"],
    "one word": ["a dog", "", "dogs"],
    "fields": ["a dog ||| a cat http://dogs|||cats", "a cat"],
    "lines": ["a dog and\na cat asleep"],
    "letters": ["an \u0130stanbul caf\u00e9, \u72d7 5 1/2 [red] 1,5"],
}


def resample_counts() -> np.ndarray:
    everything = np.ones((1, len(CAPTIONS)), int)
    random = np.random.default_rng(0).integers(0, 3, (20, len(CAPTIONS)))
    return np.concatenate([everything, 2 * everything, random])


@pytest.fixture(scope="module")
def scored_and_statistics() -> tuple[Scored, list[str]]:
    """The scores of `CAPTIONS`, and the lines of statistics that METEOR wrote."""
    runs = []

    def recording(*args: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
        runs.append(run(*args, **options))
        return runs[-1]

    run = subprocess.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(java_scores.subprocess, "run", recording)
        scored = meteor(CAPTIONS, REFERENCES)
    assert isinstance(scored, Scored), scored
    return scored, runs[0].stdout.decode().splitlines()


@pytest.fixture(scope="module")
def scores_of_meteor(scored_and_statistics: tuple[Scored, list[str]]) -> list[list[float]]:
    """METEOR's scores for each resample: those of its images, then that of the corpus."""
    _, statistics = scored_and_statistics
    counts = resample_counts()
    samples = [np.repeat(np.arange(len(statistics)), row) for row in counts]
    lines = [" ||| ".join(["EVAL", *(statistics[n] for n in sample)]) for sample in samples]
    jar = str(java_scores._TOOLKIT / "meteor" / "meteor-1.5.jar")
    done = subprocess.run(
        ["java", "-jar", jar, "-", "-", "-stdio", "-l", "en", "-norm"],
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=True,
    )
    found = iter(map(float, done.stdout.split()))
    scores = [[next(found) for _ in range(row.sum() + 1)] for row in counts]
    assert next(found, None) is None
    return scores


@needs_java
def test_image_scores_equal_meteor(
    scored_and_statistics: tuple[Scored, list[str]], scores_of_meteor: list[list[float]]
) -> None:
    scored, statistics = scored_and_statistics
    assert len(statistics) == len(CAPTIONS)  # No line break or `|||` broke the protocol.
    assert list(scored.per_image) == list(CAPTIONS)
    assert list(scored.per_image.values()) == pytest.approx(scores_of_meteor[0][:-1], abs=1e-9)
    assert scored.per_image["whole"] == pytest.approx(1)
    assert scored.per_image["empty"] == scored.per_image["nothing"] == 0
    for name in ("stems and synonyms", "paraphrase", "fields", "lines", "letters"):
        assert 0.2 < scored.per_image[name] < 1, name


def assert_corpus_scores_equal_meteor(metric: Metric, scores: list[list[float]]) -> None:
    of_all = [sample[-1] for sample in scores]
    assert metric.resampled(resample_counts()) == pytest.approx(of_all, abs=1e-6)
    assert metric.value == pytest.approx(of_all[0], abs=1e-6)


@needs_java
def test_corpus_scores_of_resamples_equal_meteor(
    scored_and_statistics: tuple[Scored, list[str]], scores_of_meteor: list[list[float]]
) -> None:
    metric = scored_and_statistics[0].metric
    assert_corpus_scores_equal_meteor(metric, scores_of_meteor)
    once, twice, *_ = metric.resampled(resample_counts())
    assert once == pytest.approx(twice)


def mean_of_images(scored: Scored, statistics: list[str]) -> Metric:
    return mean_of(list(scored.per_image.values()))


def with_chunks_of_whole_matches(scored: Scored, statistics: list[str]) -> Metric:
    sums = scored.metric.per_image.copy()
    sums[:, 4] = [float(line.split()[20]) for line in statistics]
    return Metric(sums, scored.metric.from_sums)


@needs_java
@pytest.mark.parametrize("fault", [mean_of_images, with_chunks_of_whole_matches])
def test_corpus_score_test_fails_for_wrong_aggregation(
    fault: Callable[[Scored, list[str]], Metric],
    scored_and_statistics: tuple[Scored, list[str]],
    scores_of_meteor: list[list[float]],
) -> None:
    with pytest.raises(AssertionError):
        assert_corpus_scores_equal_meteor(fault(*scored_and_statistics), scores_of_meteor)


@needs_java
def test_golden_scores(real_data: Path) -> None:
    folder = real_data / "metric_golden"
    annotations = json.loads((folder / "fakecap_subset_annotations.json").read_text())
    results = json.loads((folder / "fakecap_subset_results.json").read_text())
    golden = json.loads((folder / "fakecap_subset_scores_pycocoevalcap.json").read_text())
    references: dict[str, list[str]] = {}
    for row in annotations["annotations"]:
        references.setdefault(str(row["image_id"]), []).append(row["caption"])
    scored = meteor({str(row["image_id"]): row["caption"] for row in results}, references)
    assert isinstance(scored, Scored), scored
    assert scored.metric.value == pytest.approx(0.19201304162397623, abs=1e-4)
    expected = zip(map(str, golden["image_ids"]), golden["per_image"]["METEOR"], strict=True)
    assert scored.per_image == pytest.approx(dict(expected), abs=1e-4)


# Below, a script replaces Java and empty files replace the models of SPICE.

FEW = {"dog": "a dog runs", "cat": "a red cat", "none": ""}
FEW_REFERENCES = {"cat": ["a cat"], "none": ["a man"], "dog": ["the dog runs fast", "a dog"]}
# Answers in reverse order; the score is a tenth of the number of words of the caption.
SPICE = """
import json, sys
arguments = sys.argv[1:]
jar = arguments.index("-jar")
assert arguments[jar + 1].endswith("spice-1.0.jar") and "-Xmx8G" in arguments[:jar]
rows = json.load(open(arguments[jar + 2]))
assert rows[0]["refs"] == ["the dog runs fast", "a dog"]
answer = [
    {"image_id": row["image_id"], "scores": {
        "All": {"pr": 0.5, "re": 0.5, "f": len(row["test"].split()) / 10, "numImages": 1},
        "Color": {"pr": None, "re": None, "f": None, "numImages": 1}}}
    for row in reversed(rows)
]
CHANGE
json.dump(answer, open(arguments[arguments.index("-out") + 1], "w"))
"""


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Returns a function that replaces Java by a script."""
    (tmp_path / "spice" / "lib").mkdir(parents=True)
    for name in java_scores._MODELS:
        (tmp_path / "spice" / "lib" / name).touch()
    monkeypatch.setattr(java_scores, "_TOOLKIT", tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def write(script: str) -> None:
        (tmp_path / "bin" / "java").write_text(script)
        (tmp_path / "bin" / "java").chmod(0o755)

    return write


def spice_with(change: str) -> str:
    return f"#!{sys.executable}\n{SPICE.replace('CHANGE', change)}"


def test_spice_reads_the_output_file(plant: Callable[[str], None]) -> None:
    plant(spice_with(""))
    scored = spice(FEW, FEW_REFERENCES)
    assert isinstance(scored, Scored), scored
    assert list(scored.per_image.items()) == [("dog", 0.3), ("cat", 0.3), ("none", 0.0)]
    assert scored.metric.value == pytest.approx(0.2)
    samples = np.array([[2, 2, 2], [1, 0, 1]])
    assert scored.metric.resampled(samples) == pytest.approx([0.2, 0.15])


@pytest.mark.parametrize(
    "change",
    [
        "answer = answer[1:]",
        "answer[0]['scores']['All']['f'] = float('nan')",
        "answer[0]['scores']['All']['f'] = None",
        "answer[0]['scores']['All']['f'] = 17",
        "del answer[0]['scores']['All']",
        "answer = {'error': 'no memory'}",
        "sys.exit()",
        "open(arguments[arguments.index('-out') + 1], 'w').write('[{'); sys.exit()",
    ],
)
def test_broken_output_of_spice_is_no_score(plant: Callable[[str], None], change: str) -> None:
    plant(spice_with(change))
    outcome = spice(FEW, FEW_REFERENCES)
    assert isinstance(outcome, NotRun)
    assert "SPICE" in outcome.reason


@pytest.mark.parametrize(
    "line", ["rubbish", "0.5", "", "1,0 " * 23, "1.0 " * 22, "NaN " * 23, "-1.0 " * 23]
)
@pytest.mark.parametrize("times", [len(FEW), 1])
def test_broken_output_of_meteor_is_no_score(
    plant: Callable[[str], None], line: str, times: int
) -> None:
    plant("#!/bin/sh\ncat > /dev/null\n" + f"echo '{line}'\n" * times)
    outcome = meteor(FEW, FEW_REFERENCES)
    assert isinstance(outcome, NotRun)
    assert "METEOR" in outcome.reason


def test_missing_output_of_meteor_is_no_score(plant: Callable[[str], None]) -> None:
    plant("#!/bin/sh\ncat > /dev/null\n" + f"echo '{'1.0 ' * 23}'\n" * (len(FEW) - 1))
    assert isinstance(meteor(FEW, FEW_REFERENCES), NotRun)


both = pytest.mark.parametrize("score", [meteor, spice])


@both
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\nexit 3\n", "exit status 3: no message"),
        (
            "#!/bin/sh\necho picked up >&2\necho 'Exception in main: no heap' >&2\n"
            "echo '  at Main.main' >&2\nexit 1\n",
            "exit status 1: Exception in main: no heap; ",
        ),
        ("#!/bin/sh\nkill -9 $$\n", "exit status -9"),
        ("#!/no/such/program\n", "java could not be started"),
    ],
)
def test_a_crash_is_no_score(
    plant: Callable[[str], None], script: str, words: str, score: Callable
) -> None:
    plant(script)
    outcome = score(FEW, FEW_REFERENCES)
    assert isinstance(outcome, NotRun)
    assert words in outcome.reason


@both
def test_without_java_there_is_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: Callable
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert str(score(FEW, FEW_REFERENCES)) == "not run: no java on the PATH"


def test_spice_does_not_start_without_models(plant: Callable[[str], None], tmp_path: Path) -> None:
    plant(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    for name in java_scores._MODELS:
        (tmp_path / "spice" / "lib" / name).unlink()
        outcome = spice(FEW, FEW_REFERENCES)
        assert isinstance(outcome, NotRun)
        assert "get_stanford_models" in outcome.reason
        (tmp_path / "spice" / "lib" / name).touch()
    assert not (tmp_path / "started").exists()


@needs_java
def test_meteor_without_its_jar_is_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java_scores, "_TOOLKIT", tmp_path)
    outcome = meteor(FEW, FEW_REFERENCES)
    assert isinstance(outcome, NotRun)
    assert "meteor-1.5.jar" in outcome.reason


def ends(process: int) -> bool:
    for _ in range(100):
        # A killed child keeps its process id until its parent waits for it.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, os.WNOHANG)
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@both
def test_program_that_hangs_is_killed(
    plant: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: Callable
) -> None:
    plant(f"#!/bin/sh\necho $$ > {tmp_path}/process\nexec sleep 60\n")
    monkeypatch.setattr(java_scores, "_START_SECONDS", 0.5)
    monkeypatch.setattr(java_scores, "_SPICE_SECONDS", 0.1)
    outcome = score(FEW, FEW_REFERENCES)
    assert outcome == NotRun("java did not finish within 0.8 seconds")
    assert ends(int((tmp_path / "process").read_text()))


def test_interrupt_kills_the_process(plant: Callable[[str], None], tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    plant(f"#!/bin/sh\necho $$ > {tmp_path}/process\nexec sleep 60\n")
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            meteor(FEW, FEW_REFERENCES)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ends(int((tmp_path / "process").read_text()))


def test_many_captions_and_warnings_cause_no_deadlock(plant: Callable[[str], None]) -> None:
    number = 25_000
    plant(
        f"#!{sys.executable}\nimport sys\n"
        "for line in sys.stdin:\n"
        "    print('1.0 ' * 23)\n"
        "    print('warning: ' * 9, file=sys.stderr)\n"
    )
    begun = time.monotonic()
    captions = {str(image): "a brown dog runs on the green grass" for image in range(number)}
    scored = meteor(captions, {image: [text] * 5 for image, text in captions.items()})
    assert isinstance(scored, Scored)
    assert len(scored.per_image) == number
    assert time.monotonic() - begun < 120


@both
def test_wrong_input_is_an_error(score: Callable) -> None:
    with pytest.raises(CaptionGANError, match="no reference for image 'cat'"):
        score({"cat": "a cat"}, {})
