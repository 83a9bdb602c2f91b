"""`tools/compare_frontiers.py` on curves with answers computed by hand."""

import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "compare_frontiers.py"
CONTROL = "0-maximum_likelihood"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def curve(metric, *points, axis="temperature", **others):
    return [
        {axis: at, "mBLEU-4": variety, metric: value, **others} for at, variety, value in points
    ]


@pytest.fixture
def write(tmp_path):
    """Writes a run directory with curves by name and other metrics."""

    def write(name, curves, seconds=(100.0, 50.5), **metrics):
        stages = sorted({curve.removesuffix(", top-p") for curve in curves} - {"critic's choice"})
        content = {
            "frontier": {"val": curves},
            "history": {
                stage: [{"epoch": 1, "seconds": spent}, {"epoch": 2, "seconds": spent}]
                for stage, spent in zip(stages, seconds, strict=False)
            },
            "val/greedy/CIDEr": 0.6,
            f"val/{CONTROL}/CIDEr": 0.5,
            "val/greedy/repeated_token_rate": 0.0,
            "val/sample/distinct_captions": 0.9,
            "val/reference/distinct_captions": 1.0,
            **metrics,
        }
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps(content))
        return str(folder)

    return write


def test_false_captions_at_the_same_variety(tool, write, capsys):
    # Half way between the points of maximum likelihood: 0.2 and 0.3 of its captions are false.
    curves = {
        "1-policy_gradient": curve("fact_accuracy", (0.7, 0.6, 0.99), (1.0, 0.5, 0.9)),
        CONTROL: curve("fact_accuracy", (1.0, 0.4, 0.7), (0.7, 0.6, 0.8)),
    }
    tool.main([write("run", curves)])
    printed = capsys.readouterr().out
    assert (
        "training: 0-maximum_likelihood 200 s, 1-policy_gradient 101 s, together 301 s" in printed
    )
    assert "greedy CIDEr 0.6000, maximum likelihood 0.5000: 1.200" in printed
    # Both captioners reach 0.5 to 0.6.
    assert "false samples 0.1000 at mBLEU-4 0.500, maximum likelihood 0.2500: 0.40" in printed
    assert "false samples 0.0100 at mBLEU-4 0.600, maximum likelihood 0.2000: 0.05" in printed
    assert (
        "temperature 1: false samples 0.1000 at mBLEU-4 0.5000, maximum likelihood 0.3000 at 0.4000"
    ) in printed
    assert "maximum likelihood at the mBLEU-4 of that temperature 1: 0.2500, 0.40" in printed
    assert "distinct captions of samples 0.900, of references 1.000" in printed


def test_the_better_of_temperature_and_nucleus_is_compared(tool, write, capsys, tmp_path):
    curves = {
        "1-wgan_gp": curve("CIDEr", (0.3, 0.6, 0.7), (1.0, 0.2, 0.3)),
        "1-wgan_gp, top-p": curve("CIDEr", (0.5, 0.5, 0.5), axis="top_p"),
        CONTROL: curve("CIDEr", (0.3, 0.6, 0.5), (1.0, 0.1, 0.0)),
        # Above the curve of temperatures (0.3) at 0.4, below it at 0.5.
        f"{CONTROL}, top-p": curve("CIDEr", (0.5, 0.5, 0.3), (0.9, 0.3, 0.4), axis="top_p"),
    }
    plot = tmp_path / "plot.svg"
    tool.main([write("run", curves), "--plot", str(plot)])
    printed = capsys.readouterr().out
    assert "CIDEr 0.5000 at mBLEU-4 0.4, maximum likelihood 0.3500: +0.1500" in printed
    assert "CIDEr 0.6000 at mBLEU-4 0.5, maximum likelihood 0.4000: +0.2000" in printed
    # Curves are not extrapolated.
    assert "CIDEr nan at mBLEU-4 0.15, maximum likelihood 0.0500: +nan" in printed
    for label in ("1-wgan_gp, top-p", "maximum likelihood, better of both"):
        assert label in plot.read_text()


def test_a_control_of_equal_time(tool, write, capsys, tmp_path):
    point = {"mBLEU-4": 0.3, "mean_length": 9.0, "unchosen_mean_length": 9.5, "CIDEr": 0.5}
    curves = {
        "1-wgan_gp": curve("CIDEr", (0.3, 0.6, 0.7), (1.0, 0.2, 0.3)),
        CONTROL: curve("CIDEr", (0.3, 0.6, 0.5), (1.0, 0.1, 0.0)),
        "critic's choice": [{"drawn": 10, **point}],
    }
    aucs = {"val/sample/critic_auc": 0.9, "val/sample/likelihood_auc": 0.8}
    run = write("run", curves, **aucs)
    longer = {CONTROL: curve("CIDEr", (0.3, 0.6, 0.6), (1.0, 0.1, 0.1))}
    control = write("longer", longer, seconds=[150.0], **{"val/greedy/CIDEr": 0.75})
    plot = tmp_path / "plot.svg"
    tool.main([run, "--control", control, "--plot", str(plot)])
    printed = capsys.readouterr().out
    assert "control longer: 0-maximum_likelihood 300 s, together 300 s" in printed
    assert "CIDEr 0.4000 at mBLEU-4 0.3, maximum likelihood 0.2000: +0.2000" in printed
    assert "CIDEr 0.4000 at mBLEU-4 0.3, control 0.3000: +0.1000" in printed
    assert "greedy CIDEr 0.6000, control 0.7500: 0.800" in printed
    assert (
        "critic's choice among 10 samples: CIDEr 0.5000 at mBLEU-4 0.3000, maximum likelihood "
        "0.2000, control 0.3000; 9.00 words, unchosen 9.50"
    ) in printed
    assert "ranking of captions, sample: critic_auc 0.9000, likelihood_auc 0.8000" in printed
    assert "control, better of both" in plot.read_text()
    # A run of several stages is no control.
    with pytest.raises(SystemExit, match="is no control; give a run of maximum_likelihood alone"):
        tool.main([control, "--control", run])
    with pytest.raises(SystemExit):
        tool.main([run, run, run, "--control", control, control])
    assert "--control: give one run or 3" in capsys.readouterr().err


def test_objects_of_samples(tool, write, capsys):
    def stage(*values):
        return [
            {"temperature": at, "mBLEU-4": 0.3, "CIDEr": 0.1, "object_recall": recall}
            | {"object_precision": precision}
            for at, recall, precision in values
        ]

    curves = {
        "1-wgan_gp": stage((1.0, 0.4, 0.7)),
        CONTROL: stage((0.5, 0.5, 0.75), (1.0, 0.3, 0.55)),
    }
    tool.main([write("run", curves)])
    assert (
        "temperature 1: object_precision 0.7000 at object_recall 0.4000, maximum likelihood 0.5500 "
        "at 0.3000, and 0.6500 at the same object_recall: +0.0500"
    ) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (None, "has no metrics.json; give the directory of a finished run"),
        ({}, "give a run with several stages"),
        ({"frontier": {"val": {"1-self_critical": [], "0-wgan_gp": []}}}, "maximum_likelihood"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tool, tmp_path, metrics, message):
    if metrics is not None:
        (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(SystemExit, match=f"{tmp_path.name}.*{message}"):
        tool.main([str(tmp_path)])
