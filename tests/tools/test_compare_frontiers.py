"""`tools/compare_frontiers.py` on curves with answers computed by hand."""

import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "compare_frontiers.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def curve(metric, *points):
    return [
        {"temperature": temperature, "mBLEU-4": variety, metric: value}
        for temperature, variety, value in points
    ]


@pytest.fixture
def run(tmp_path):
    """Writes a run directory with frontiers of CIDEr or fact accuracy."""

    def write(metric, ours, control):
        curves = {"1-policy_gradient": curve(metric, *ours)}
        curves["0-maximum_likelihood"] = curve(metric, *control)
        metrics = {
            "frontier": {"val": curves},
            f"val/greedy/{metric}": 0.6,
            f"val/0-maximum_likelihood/{metric}": 0.5,
            "val/greedy/repeated_token_rate": 0.0,
            "val/sample/distinct_captions": 0.9,
            "val/reference/distinct_captions": 1.0,
        }
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return write


def test_false_captions_at_the_same_variety(tool, run, capsys):
    # Half way between the points of maximum likelihood: 0.2 and 0.3 of its captions are false.
    ours = [(0.7, 0.6, 0.99), (1.0, 0.5, 0.9)]
    folder = run("fact_accuracy", ours, [(1.0, 0.4, 0.7), (0.7, 0.6, 0.8)])
    tool.main([str(folder)])
    printed = capsys.readouterr().out
    assert "greedy fact_accuracy 0.6000, before 0.5000: 1.200" in printed
    assert "false samples 0.1000 at temperature 1, mBLEU-4 0.5000" in printed
    assert "maximum likelihood at temperature 1 0.3000, mBLEU-4 0.4000: 0.33" in printed
    assert "maximum likelihood at the same mBLEU-4 0.2500: 0.40" in printed
    assert "distinct captions of samples 0.900, of references 1.000" in printed


def test_temperatures_above_one_without_more_variety_are_ignored(tool):
    points = curve("CIDEr", (0.5, 0.6, 0.8), (1.0, 0.4, 0.6), (1.2, 0.5, 0.0))
    assert tool.at_variety(points, "CIDEr", 0.5) == pytest.approx(0.7)


def test_cider_at_several_mbleu(tool, run, capsys, tmp_path):
    ours = [(0.3, 0.6, 0.7), (1.2, 0.2, 0.3)]
    folder = run("CIDEr", ours, [(0.3, 0.6, 0.5), (1.2, 0.1, 0.0)])
    plot = tmp_path / "plot.svg"
    tool.main([str(folder), "--plot", str(plot)])
    printed = capsys.readouterr().out
    assert "CIDEr 0.4000 at mBLEU-4 0.3, maximum likelihood 0.2000: +0.2000" in printed
    # Curves are not extrapolated.
    assert "CIDEr nan at mBLEU-4 0.15, maximum likelihood 0.0500: +nan" in printed
    assert "1-policy_gradient" in plot.read_text()


def test_selection_by_the_critic_is_not_a_curve(tool):
    selection = [{"drawn": 5, "mBLEU-4": 0.5, "CIDEr": 0.5}]
    ours = curve("CIDEr", (1.0, 0.5, 0.5))
    metrics = {"frontier": {"val": {"1-wgan_gp": ours, "critic's choice": selection}}}
    assert tool.curves(metrics) == {"1-wgan_gp": ours}


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
