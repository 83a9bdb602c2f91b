"""Pushes: the gate, the check in a fresh server, and what servers see of pushes that fail."""

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
from serving.infra_validation import CORRUPT_ROW, MODEL, SignatureCheck, check_answers, validate
from serving.version_policy import Policy, aspired_versions
from tests.runs import untrained_run
from tests.serving.saved_models import write_byte_counter

GOOD = {gate.CIDER: 0.5, "collapsed": {"val": []}}


def write_scores(run: RunDirectory, scores: dict) -> None:
    """Scores of the weights that the run has now."""
    weights = {"val": run.weights_digest()}
    run.metrics.write_text(json.dumps(scores | {"weights": weights}))


def visible(directory: Path) -> list[int]:
    """The versions that servers see, newest first."""
    return list(aspired_versions(directory, Policy(all=Policy.All())).folders)


def stored_record(directory: Path, version: int) -> dict:
    """The record in the folder of a version."""
    path = directory / str(version) / push.ASSETS_EXTRA / push.RECORD_FILE
    return json.loads(path.read_text())


def log_of(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / push.LOG).read_text().splitlines()]


@pytest.fixture
def pushing(monkeypatch, capsys):
    """Runs the program in this process; returns exit status, record and the last line of errors."""

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
    """A run with good scores."""
    copied = RunDirectory(shutil.copytree(run.path, tmp_path / "scored"))
    write_scores(copied, GOOD)
    return copied


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A folder with version 1 of a small model with the signatures of a captioner."""
    folder = tmp_path_factory.mktemp("fake")
    (write_byte_counter(folder, 1) / push.ASSETS_EXTRA).mkdir()
    return folder


@pytest.fixture(scope="module")
def checks(model) -> list[SignatureCheck]:
    signatures = tf.saved_model.load(str(model / "1")).signatures
    types = {bytes: tf.string, float: tf.float32, int: tf.int64}
    images = example_images()
    with_corrupt = [*images]
    with_corrupt[CORRUPT_ROW] = b"not an image"
    checks = []
    for name in signature.ALL:
        inputs = example_inputs(name, images)
        tensors = {
            key: tf.constant(values, types[type(values[0])]) for key, values in inputs.items()
        }
        outputs = {
            key: push.to_client_array(value) for key, value in signatures[name](**tensors).items()
        }
        checks.append(SignatureCheck(name, inputs, example_inputs(name, with_corrupt), outputs))
    return checks


@pytest.fixture
def fake_export(model, checks, monkeypatch) -> SimpleNamespace:
    """Exports the small model instead of the run; `calls` are the exported versions."""
    calls: list[Path] = []

    def export_run(path: Path, directory: Path, engine: str) -> Path:
        calls.append(shutil.copytree(model / "1", directory / "1"))
        return calls[-1]

    monkeypatch.setattr(push, "export_run", export_run)
    monkeypatch.setattr(push, "signature_checks", lambda run: checks)
    return SimpleNamespace(calls=calls)


@pytest.fixture
def without_server(fake_export, monkeypatch) -> SimpleNamespace:
    monkeypatch.setattr(push, "validate", lambda base_path, *arguments: 1.0)
    return fake_export


@pytest.mark.parametrize(
    ("cider", "collapsed", "served_cider", "words"),
    [
        (0.5, [], None, []),
        (0.5, [], 0.52, []),
        (0.1, [], None, ["less than 0.15"]),
        (float("nan"), [], None, ["less than 0.15"]),
        (0.49, [], 0.52, ["more than 5% below the 0.520 of the version served now"]),
        (0.1, ["sample: mbleu is 1.000"], 0.5, ["mbleu", "less than", "served now"]),
    ],
)
def test_rejection_reasons(cider, collapsed, served_cider, words):
    reasons = gate.rejection_reasons(cider, collapsed, served_cider, 0.15, 0.05)
    assert len(reasons) == len(words)
    for word, reason in zip(words, reasons, strict=True):
        assert word in reason


@pytest.mark.parametrize(
    "case", ["up to date", "requested", "absent", "other split", "other weights"]
)
def test_a_run_is_evaluated_unless_its_scores_are_up_to_date(scored, monkeypatch, case):
    evaluation = SimpleNamespace(
        scores=SimpleNamespace(values={gate.CIDER: 0.3}), collapsed=["greedy: all captions equal"]
    )
    monkeypatch.setattr(gate, "evaluate_run", lambda *arguments: evaluation)
    if case == "absent":
        scored.metrics.unlink()
    elif case == "other split":
        weights = {"test": scored.weights_digest()}
        of_test = {"test/greedy/CIDEr": 0.5, "collapsed": {"test": []}, "weights": weights}
        scored.metrics.write_text(json.dumps(of_test))
    elif case == "other weights":
        with scored.best_weights.open("ab") as file:
            file.write(b"more")
    found = gate.run_scores(scored.path, (None, None, None), reevaluate=case == "requested")
    assert found == ((0.5, []) if case == "up to date" else (0.3, ["greedy: all captions equal"]))


def test_the_served_version_is_evaluated_on_the_data_of_the_run(scored, tmp_path, monkeypatch):
    def evaluate(version, config, split):
        changed.append(config.data.val_images)
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
    # First a version with other data settings, then one without scores.
    other = type(data)(val_images=99)
    assert gate.served_cider(extra.parent, other) == 0.4
    (extra / "metrics.json").write_text("{}")
    assert gate.served_cider(extra.parent, data) == 0.4
    assert changed == [99, 12]


def test_a_collapsed_run_is_rejected(scored, fake_export, pushing, tmp_path):
    sign = "greedy: image_dependence is 0.000, less than 0.3"
    write_scores(scored, GOOD | {"collapsed": {"val": [sign]}})
    status, record, error = pushing(scored.path, "--to", tmp_path / "to")
    assert status == 1
    assert error == (
        f"error: {scored.path} is not good enough to be served (NOT_BLESSED): "
        f"signs of collapse: {sign}"
    )
    assert record["evaluation"] == "NOT_BLESSED"
    assert log_of(tmp_path / "to") == [record]
    assert sorted(entry.name for entry in (tmp_path / "to").iterdir()) == [push.LOCK, push.LOG]
    assert not fake_export.calls


def test_each_push_is_compared_with_the_served_version(scored, without_server, pushing, tmp_path):
    to = tmp_path / "to"
    status, first, _ = pushing(scored.path, "--to", to)
    assert status == 0
    assert visible(to) == [first["version"]]
    written = stored_record(to, first["version"])
    assert written["infrastructure"] == "INFRA_BLESSED"
    assert written["version"] == first["version"]
    # A real export contains the scores and settings of the run.
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
    assert "below the 0.500 of the version served now" in error
    status, fourth, _ = pushing(scored.path, "--to", to, "--tolerance=0.3")
    assert visible(to) == [fourth["version"], second["version"], first["version"]]
    assert log_of(to) == [first, second, third, fourth]
    assert not list(to.glob(f"{push.UNFINISHED}*"))


def test_a_failed_push_leaves_nothing(scored, fake_export, checks, pushing, tmp_path, monkeypatch):
    """A real server whose answer differs from the expected caption."""
    to = tmp_path / "to"
    default, *others = checks
    captions = default.outputs["caption"].copy()
    captions[2] += " and more"
    wrong = dataclasses.replace(default, outputs=default.outputs | {"caption": captions})
    monkeypatch.setattr(push, "signature_checks", lambda run: [*others, wrong])
    status, record, error = pushing(scored.path, "--to", to)
    assert status == 1
    assert record["infrastructure"] == "INFRA_NOT_BLESSED"
    assert "(INFRA_NOT_BLESSED): serving_default over gRPC: caption of row 2 is" in error
    assert "version" not in record
    assert sorted(entry.name for entry in to.iterdir()) == [push.LOCK, push.LOG]


def test_a_model_is_validated_in_a_fresh_server(model, checks):
    assert validate(model, checks) > 0


@pytest.fixture
def predict(checks):
    """A server that answers correctly unless `fault` changes an answer."""
    default = checks[0]

    def answer(name, signature, inputs, timeout):
        is_corrupt = inputs is default.corrupt_inputs
        found = {key: values.copy() for key, values in default.outputs.items()}
        if is_corrupt:
            found["error"][CORRUPT_ROW], found["caption"][CORRUPT_ROW] = "not an image", ""
        answer.fault(found, is_corrupt)
        return found

    answer.fault = lambda found, is_corrupt: None
    return answer


def _drop(found, is_corrupt):
    del found["score"]


def _widen(found, is_corrupt):
    found["caption"] = found["caption"][:, None]


def _not_finite(found, is_corrupt):
    found["score"][0] = np.nan


def _other_score(found, is_corrupt):
    found["score"][3] += 0.01


def _no_error(found, is_corrupt):
    found["error"][:] = ""


def _error_in_another_row(found, is_corrupt):
    if is_corrupt:
        found["error"][2] = "not an image"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_drop, r"the outputs are \['caption', 'error'\], expected"),
        (_widen, "caption has the shape"),
        (_not_finite, "score of row 0 is .*nan"),
        (_other_score, "score of row 3 is"),
        (_no_error, "a row that is not an image has no error"),
        (_error_in_another_row, "in a batch with a row that is not an image, error of row 1 is"),
    ],
)
def test_wrong_answers_are_noticed(checks, predict, fault, words):
    check_answers(predict, checks[0])
    predict.fault = fault
    with pytest.raises(ServingError, match=words):
        check_answers(predict, checks[0])


def test_a_push_fails_while_another_runs(scored, without_server, pushing, tmp_path):
    (tmp_path / "to").mkdir()
    with push._locked(tmp_path / "to"):
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
    assert "has 1 of the 2 versions" in error
    assert visible(tmp_path) == [7]
    assert [line["action"] for line in log_of(tmp_path)] == ["rollback"] * 2


def test_a_wrong_folder_is_reported_in_one_line(pushing, scored, tmp_path):
    status, _, error = pushing("--rollback", "--to", tmp_path / "nowhere")
    assert status == 1
    assert "No such file" in error
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").touch()
    status, _, error = pushing(scored.path, "--to", tmp_path / "file")
    assert status == 1
    assert "file: File exists" in error
    assert pushing(tmp_path / "no run", "--to", tmp_path / "to")[0] == 1


# A push of an empty model that kills itself with SIGKILL at a given moment.
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
push.load_run = lambda path, changes: (None, None, None)
push.gate.run_scores = lambda *_: (0.5, [])
push.export_run = export_run
push.signature_checks = lambda run: []
push.validate = kill if moment == "validate" else lambda *_: 1.0
if moment == "rename":
    Path.rename = kill
if moment == "log":
    push.flush = lambda *paths: kill() if Path(sys.argv[-1]) in paths else None
push.main()
"""


@pytest.mark.parametrize(
    "moments",
    [("validate", "rename"), pytest.param(("export", "log"), marks=pytest.mark.slow)],
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
        # At the moment `log` the version is complete; only its line in the log is missing.
        assert len(visible(to)) == (moment == "log")
        if moment == "log":
            (version,) = visible(to)
            assert stored_record(to, version)["version"] == version
        status, record, _ = pushing(scored.path, "--to", to, "--tolerance=1")
        assert status == 0
        assert record["removed"] == left
        assert visible(to)[0] == record["version"]
        assert not list(to.glob(f"{push.UNFINISHED}*"))


@pytest.mark.slow
def test_a_run_is_pushed_and_served(scored, pushing, tmp_path, monkeypatch):
    """Nothing is faked: export, validation in a server, and a client of the pushed version."""
    monkeypatch.chdir(tmp_path)
    to = Path("models/captioner")
    status, record, error = pushing(scored.path.name, "--to", to)
    assert status == 0, error
    assert visible(to) == [record["version"]]
    assert stored_record(to, record["version"])
    with Serving(to, tmp_path / "socket"):
        predict = connect_grpc(f"unix:{tmp_path / 'socket'}")
        rows = caption_images(predict, example_images(), model=MODEL, timeout=60)
    assert all(row["caption"] and not row["error"] for row in rows)

    def python_beam(self, image_bytes):
        caption = tf.numpy_function(lambda rows: rows, [image_bytes], tf.string)
        return {"caption": caption, "score": tf.zeros_like(caption, tf.float32)}

    monkeypatch.setattr(ServedCaptioner, "beam", python_beam)
    status, failed, error = pushing(scored.path, "--to", to)
    assert status == 1
    assert "PyFunc" in error
    assert visible(to) == [record["version"]]
    assert not list(to.glob(f"{push.UNFINISHED}*"))
    assert log_of(to) == [record, failed]


class Serving:
    """A server of a folder, on a Unix socket."""

    def __init__(self, to: Path, socket: Path):
        arguments = ["--port=0", f"--grpc_socket_path={socket}", f"--model_name={MODEL}"]
        self.command = [sys.executable, "-m", "serving.server", *arguments]
        self.command.append(f"--model_base_path={to}")
        self.socket = socket

    def __enter__(self):
        self.process = subprocess.Popen(self.command)
        wait_until(self.socket.exists)

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(60) == 0


def wait_until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that contain the path."""
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
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads processes from /proc")
@pytest.mark.parametrize("moment", ["started", "written", "server"])
def test_a_real_push_is_killed(scored, tmp_path, moment):
    """The server ends with the push, and no version is visible."""
    to = tmp_path / "to"
    reached = {
        "started": lambda: list(to.glob(f"{push.UNFINISHED}*")),
        "written": lambda: list(to.glob(f"{push.UNFINISHED}*/**/saved_model.pb")),
        "server": lambda: any("grpc_socket_path" in command for command in processes_of(to)),
    }
    process = subprocess.Popen([sys.executable, "-m", "serving.push", scored.path, "--to", to])
    wait_until(reached[moment])
    process.kill()
    process.wait()
    assert visible(to) == []
    assert list(to.glob(f"{push.UNFINISHED}*"))
    wait_until(lambda: not processes_of(to), 60)
    assert visible(to) == []


@pytest.mark.slow
def test_a_model_whose_warm_up_fails_is_rejected(model, checks, tmp_path):
    broken = shutil.copytree(model / "1", tmp_path / "1")
    (broken / push.ASSETS_EXTRA / "tf_serving_warmup_requests").write_bytes(b"no records" * 10)
    with pytest.raises(ServingError, match=r"the server ended with status 1: error: .*warmup"):
        validate(tmp_path, checks)


def test_a_server_that_takes_too_long_is_rejected_with_a_reason(model, checks):
    steps: list[str] = []
    with pytest.raises(ServingError, match=r"not ready after 0 s .*increase --timeout"):
        validate(model, checks, 0.1, steps.append)
    assert steps == ["loading the export in a fresh server"]
