"""What is pushed, what is refused, and what a server sees of pushes that fail or are killed."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from caption_gan import signature
from caption_gan.command_line import run_program
from caption_gan.exporting import gate
from caption_gan.exporting.served_captioner import ServedCaptioner
from caption_gan.exporting.versions import example_images, example_inputs
from caption_gan.run import RunDirectory
from serving import push
from serving.client import caption_images
from serving.connections import connect_grpc
from serving.errors import ServingError
from serving.infra_validation import MODEL, SPOILT, Canary, ask, try_out
from serving.version_policy import Policy, aspired_versions
from tests.runs import untrained_run
from tests.serving.saved_models import write_byte_counter

GOOD = {gate.CIDER: 0.5, "collapsed": {"val": []}}


def write_scores(run: RunDirectory, scores: dict) -> None:
    """Scores of the weights that the run has now."""
    weights = {"val": run.weights_digest()}
    run.metrics.write_text(json.dumps(scores | {"weights": weights}))


def visible(directory: Path) -> list[int]:
    """What servers see, newest first."""
    return list(aspired_versions(directory, Policy(all=Policy.All())).folders)


def log_of(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / push.LOG).read_text().splitlines()]


@pytest.fixture
def pushing(monkeypatch, capsys):
    """The program within this process; returns status, record and errors."""

    def run(*arguments: object) -> tuple[int, dict, str]:
        monkeypatch.setattr(sys, "argv", ["push", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as ended:
            run_program(push.main)
        output, errors = capsys.readouterr()
        return ended.value.code, json.loads(output), errors.splitlines()[-1] if errors else ""

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    return untrained_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def scored(run, tmp_path) -> RunDirectory:
    """A run whose scores are good."""
    copied = RunDirectory(shutil.copytree(run.path, tmp_path / "scored"))
    write_scores(copied, GOOD)
    return copied


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A folder with version 1 of a model with a captioner's signatures, and quick to load."""
    folder = tmp_path_factory.mktemp("stand-in")
    (write_byte_counter(folder, 1) / push.ASSETS_EXTRA).mkdir()
    return folder


@pytest.fixture(scope="module")
def canaries(model) -> list[Canary]:
    signatures = tf.saved_model.load(str(model / "1")).signatures
    types = {bytes: tf.string, float: tf.float32, int: tf.int64}
    images = example_images()
    spoilt = [b"none" if row == SPOILT else image for row, image in enumerate(images)]
    made = []
    for name in signature.ALL:
        inputs = example_inputs(name, images)
        tensors = {key: tf.constant(some, types[type(some[0])]) for key, some in inputs.items()}
        outputs = {
            key: push._as_answered(value) for key, value in signatures[name](**tensors).items()
        }
        made.append(Canary(name, inputs, example_inputs(name, spoilt), outputs))
    return made


@pytest.fixture
def stand_in(model, canaries, monkeypatch) -> SimpleNamespace:
    """Takes the place of what a run is exported to; `calls` are the versions exported."""
    calls: list[Path] = []

    def export_run(path: Path, directory: Path, engine: str) -> Path:
        calls.append(shutil.copytree(model / "1", directory / "1"))
        return calls[-1]

    monkeypatch.setattr(push, "export_run", export_run)
    monkeypatch.setattr(push, "canaries", lambda run: canaries)
    return SimpleNamespace(calls=calls)


@pytest.fixture
def without_server(stand_in, monkeypatch) -> SimpleNamespace:
    monkeypatch.setattr(push, "try_out", lambda base_path, canaries: 1.0)
    return stand_in


@pytest.mark.parametrize(
    ("cider", "collapsed", "served", "words"),
    [
        (0.5, [], None, []),
        (0.5, [], 0.52, []),
        (0.1, [], None, ["less than 0.15"]),
        (float("nan"), [], None, ["less than 0.15"]),
        (0.49, [], 0.52, ["served now 0.520, of which 5%"]),
        (0.1, ["sample: mbleu is 1.000"], 0.5, ["mbleu", "less than", "served now"]),
    ],
)
def test_reasons(cider, collapsed, served, words):
    reasons = gate.rejection_reasons(cider, collapsed, served, 0.15, 0.05)
    assert len(reasons) == len(words)
    for word, reason in zip(words, reasons, strict=True):
        assert word in reason


@pytest.mark.parametrize("why", ["known", "asked", "absent", "other split", "other weights"])
def test_scores_are_of_the_weights_that_are_there(scored, monkeypatch, why):
    evaluation = SimpleNamespace(
        scores=SimpleNamespace(values={gate.CIDER: 0.3}), collapsed=["greedy: all alike"]
    )
    monkeypatch.setattr(gate, "evaluate_run", lambda *arguments: evaluation)
    if why == "absent":
        scored.metrics.unlink()
    elif why == "other split":
        weights = {"test": scored.weights_digest()}
        of_test = {"test/greedy/CIDEr": 0.5, "collapsed": {"test": []}, "weights": weights}
        scored.metrics.write_text(json.dumps(of_test))
    elif why == "other weights":
        with scored.best_weights.open("ab") as file:
            file.write(b"more")
    found = gate.run_scores(scored.path, (None, None, None), anew=why == "asked")
    assert found == ((0.5, []) if why == "known" else (0.3, ["greedy: all alike"]))


def test_the_served_version_is_compared_on_the_same_data(scored, tmp_path, monkeypatch):
    def evaluate(version, change, split):
        changed.append(change(scored.read_config()).data.val_images)
        return SimpleNamespace(scores=SimpleNamespace(values={gate.CIDER: 0.4}))

    changed: list[int] = []
    monkeypatch.setattr(gate, "evaluate_saved_model", evaluate)
    extra = tmp_path / "1" / push.ASSETS_EXTRA
    extra.mkdir(parents=True)
    shutil.copy(scored.config, extra)
    shutil.copy(scored.metrics, extra)
    data = scored.read_config().data
    assert gate.served_cider(extra.parent, data) == 0.5
    assert changed == []
    # Of another data set, and of runs that nobody has scored together yet.
    other = type(data)(val_images=99)
    assert gate.served_cider(extra.parent, other) == 0.4
    (extra / "metrics.json").write_text("{}")
    assert gate.served_cider(extra.parent, data) == 0.4
    assert changed == [99, 12]


def test_a_collapsed_run_is_refused(scored, stand_in, pushing, tmp_path):
    sign = "greedy: image_dependence is 0.000, less than 0.3"
    write_scores(scored, GOOD | {"collapsed": {"val": [sign]}})
    status, record, error = pushing(scored.path, "--to", tmp_path / "to")
    assert status == 1
    assert error == f"error: NOT_BLESSED: signs of collapse: {sign}"
    assert record["evaluation"] == "NOT_BLESSED"
    assert log_of(tmp_path / "to") == [record]
    assert sorted(entry.name for entry in (tmp_path / "to").iterdir()) == [push.LOCK, push.LOG]
    assert not stand_in.calls


def test_versions_follow_each_other(scored, without_server, pushing, tmp_path):
    to = tmp_path / "to"
    status, first, _ = pushing(scored.path, "--to", to)
    assert status == 0
    assert visible(to) == [first["version"]]
    written = json.loads((to / str(first["version"]) / push.ASSETS_EXTRA / push.RECORD).read_text())
    assert written["infrastructure"] == "INFRA_BLESSED"
    assert written["version"] == first["version"]
    # Its scores and settings, which the real export would have put there.
    for file in (scored.metrics, scored.config):
        shutil.copy(file, to / str(first["version"]) / push.ASSETS_EXTRA)

    status, second, _ = pushing(scored.path, "--to", to)
    assert status == 0
    assert second["served_before"] == first["version"] < second["version"]
    assert second["served_cider"] == 0.5
    for file in (scored.metrics, scored.config):
        shutil.copy(file, to / str(second["version"]) / push.ASSETS_EXTRA)

    write_scores(scored, GOOD | {gate.CIDER: 0.4})
    status, third, error = pushing(scored.path, "--to", to)
    assert status == 1
    assert "served now 0.500" in error
    status, fourth, _ = pushing(scored.path, "--to", to, "--tolerance=0.3")
    assert visible(to) == [fourth["version"], second["version"], first["version"]]
    assert log_of(to) == [first, second, third, fourth]
    assert not list(to.glob(f"{push.UNFINISHED}*"))


def test_what_fails_leaves_nothing(scored, stand_in, canaries, pushing, tmp_path, monkeypatch):
    """A real server, and an answer that is not what the run says."""
    to = tmp_path / "to"
    default, *rest = canaries
    captions = default.outputs["caption"].copy()
    captions[2] += " and more"
    wrong = dataclasses.replace(default, outputs=default.outputs | {"caption": captions})
    monkeypatch.setattr(push, "canaries", lambda run: [*rest, wrong])
    status, record, error = pushing(scored.path, "--to", to)
    assert status == 1
    assert record["infrastructure"] == "INFRA_NOT_BLESSED"
    assert error.startswith("error: INFRA_NOT_BLESSED: serving_default over gRPC: caption 2 is")
    assert "version" not in record
    assert sorted(entry.name for entry in to.iterdir()) == [push.LOCK, push.LOG]


def test_a_fresh_server_answers(model, canaries):
    assert try_out(model, canaries) > 0


@pytest.fixture
def predict(canaries):
    """A server that does what it must, unless `fault` changes an answer."""
    default = canaries[0]

    def answer(name, signature, inputs, timeout):
        found = {key: values.copy() for key, values in default.outputs.items()}
        if inputs is default.spoilt:
            found["error"][SPOILT], found["caption"][SPOILT] = "no image", ""
        answer.fault(found, inputs is default.spoilt)
        return found

    answer.fault = lambda found, spoilt: None
    return answer


def _drop(found, spoilt):
    del found["score"]


def _widen(found, spoilt):
    found["caption"] = found["caption"][:, None]


def _not_finite(found, spoilt):
    found["score"][0] = np.nan


def _other_score(found, spoilt):
    found["score"][3] += 0.01


def _no_error(found, spoilt):
    found["error"][:] = ""


def _neighbour(found, spoilt):
    if spoilt:
        found["error"][2] = "no image"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_drop, r"the outputs are \['caption', 'error'\], expected"),
        (_widen, "caption has the shape"),
        (_not_finite, "score 0 is .*nan"),
        (_other_score, "score 3 is"),
        (_no_error, "what is no image has no error"),
        (_neighbour, "beside what is no image, error 1 is"),
    ],
)
def test_wrong_answers_are_noticed(canaries, predict, fault, words):
    ask(predict, canaries[0])
    predict.fault = fault
    with pytest.raises(ServingError, match=words):
        ask(predict, canaries[0])


def test_two_pushes_at_once(scored, without_server, pushing, tmp_path):
    (tmp_path / "to").mkdir()
    with push._alone(tmp_path / "to"):
        status, record, error = pushing(scored.path, "--to", tmp_path / "to")
    assert status == 1
    assert "Another push to" in error
    assert log_of(tmp_path / "to") == [record]
    assert not without_server.calls
    assert pushing(scored.path, "--to", tmp_path / "to")[0] == 0


def test_rollback(pushing, tmp_path):
    for name in ("7", "0012", "unfinished-3"):
        (tmp_path / name).mkdir()
    status, record, _ = pushing("--rollback", "--to", tmp_path)
    assert status == 0
    assert (record["version"], record["rolled_back"]) == (7, 12)
    assert visible(tmp_path) == [7]
    assert Path(record["kept_as"]).is_dir()
    status, _, error = pushing("--rollback", "--to", tmp_path)
    assert status == 1
    assert "has 1 versions" in error
    assert visible(tmp_path) == [7]
    assert [line["action"] for line in log_of(tmp_path)] == ["rollback"] * 2


def test_a_wrong_folder_ends_with_one_line(pushing, scored, tmp_path):
    status, _, error = pushing("--rollback", "--to", tmp_path / "nowhere")
    assert status == 1
    assert "No such file" in error
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").touch()
    status, _, error = pushing(scored.path, "--to", tmp_path / "file")
    assert status == 1
    assert "file: File exists" in error
    assert pushing(tmp_path / "no run", "--to", tmp_path / "to")[0] == 1


# A push of next to nothing that is killed, the worst way, at a moment.
KILLED = """
import os, signal, sys
from pathlib import Path
from serving import push

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def export_run(path, staging, engine):
    (staging / "1" / push.ASSETS_EXTRA).mkdir(parents=True)
    (staging / "1" / "saved_model.pb").touch()
    if moment == "export":
        kill()
    return staging / "1"

moment, = sys.argv[1:2]
del sys.argv[1]
push.load_run = lambda path: (None, None, None)
push.gate.run_scores = lambda *_: (0.5, [])
push.export_run = export_run
push.canaries = lambda run: []
push.try_out = kill if moment == "canaries" else lambda *_: 1.0
if moment == "rename":
    Path.rename = kill
if moment == "log":
    push.flush = lambda *paths: kill() if Path(sys.argv[-1]) in paths else None
push.main()
"""


@pytest.mark.parametrize(
    "moments",
    [("canaries", "rename"), pytest.param(("export", "log"), marks=pytest.mark.slow)],
)
def test_a_killed_push_leaves_nothing_that_servers_see(
    scored, without_server, pushing, tmp_path, moments
):
    started = [
        subprocess.Popen([sys.executable, "-c", KILLED, moment, "run", "--to", tmp_path / moment])
        for moment in moments
    ]
    for moment, process in zip(moments, started, strict=True):
        assert process.wait(120) == -signal.SIGKILL
        to = tmp_path / moment
        left = [entry.name for entry in to.glob(f"{push.UNFINISHED}*")]
        assert len(left) == 1
        # At the last moment the version is whole, and only the log does not know of it.
        assert len(visible(to)) == (moment == "log")
        if moment == "log":
            (found,) = visible(to)
            written = to / str(found) / push.ASSETS_EXTRA / push.RECORD
            assert json.loads(written.read_text())["version"] == found
        status, record, _ = pushing(scored.path, "--to", to, "--tolerance=1")
        assert status == 0
        assert record["removed"] == left
        assert visible(to)[0] == record["version"]
        assert not list(to.glob(f"{push.UNFINISHED}*"))


@pytest.mark.slow
def test_a_run_is_pushed_and_served(scored, pushing, tmp_path, monkeypatch):
    """All of it as it is: export, server, canaries; then what a client gets of the version."""
    to = tmp_path / "to"
    status, record, error = pushing(scored.path, "--to", to)
    assert status == 0, error
    assert visible(to) == [record["version"]]
    assert json.loads((to / str(record["version"]) / push.ASSETS_EXTRA / push.RECORD).read_text())
    with Serving(to, tmp_path / "socket"):
        predict = connect_grpc(f"unix:{tmp_path / 'socket'}")
        rows = caption_images(predict, example_images(), model=MODEL, timeout=60)
    assert all(row["caption"] and not row["error"] for row in rows)

    def in_python(self, image_bytes):
        caption = tf.numpy_function(lambda rows: rows, [image_bytes], tf.string)
        return {"caption": caption, "score": tf.zeros_like(caption, tf.float32)}

    monkeypatch.setattr(ServedCaptioner, "beam", in_python)
    status, refused, error = pushing(scored.path, "--to", to)
    assert status == 1
    assert "PyFunc" in error
    assert visible(to) == [record["version"]]
    assert not list(to.glob(f"{push.UNFINISHED}*"))
    assert log_of(to) == [record, refused]


class Serving:
    """A server of a folder, at a socket."""

    def __init__(self, to: Path, socket: Path):
        arguments = ["--port=0", f"--grpc_socket_path={socket}", f"--model_name={MODEL}"]
        self.command = [sys.executable, "-m", "serving.server", *arguments]
        self.command.append(f"--model_base_path={to}")
        self.socket = socket

    def __enter__(self):
        self.process = subprocess.Popen(self.command)
        until(self.socket.exists)

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(60) == 0


def until(happens, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.02)


def processes_of(folder: Path) -> list[str]:
    """Commands that name it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("moment", ["begun", "written", "server"])
def test_a_real_push_is_killed(scored, tmp_path, moment):
    """Its server does not outlive it, and nothing is to be seen."""
    to = tmp_path / "to"
    reached = {
        "begun": lambda: list(to.glob(f"{push.UNFINISHED}*")),
        "written": lambda: list(to.glob(f"{push.UNFINISHED}*/**/saved_model.pb")),
        "server": lambda: any("grpc_socket_path" in command for command in processes_of(to)),
    }
    process = subprocess.Popen([sys.executable, "-m", "serving.push", scored.path, "--to", to])
    until(reached[moment])
    process.kill()
    process.wait()
    assert visible(to) == []
    assert list(to.glob(f"{push.UNFINISHED}*"))
    until(lambda: not processes_of(to), 60)
    assert visible(to) == []


@pytest.mark.slow
def test_a_model_that_does_not_warm_up_is_refused(model, canaries, tmp_path):
    broken = shutil.copytree(model / "1", tmp_path / "1")
    (broken / push.ASSETS_EXTRA / "tf_serving_warmup_requests").write_bytes(b"no records" * 10)
    with pytest.raises(ServingError, match=r"the server ends with status 1: error: .*warmup"):
        try_out(tmp_path, canaries)
