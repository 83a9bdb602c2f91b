"""A minute of load from many clients while versions, some of them corrupt, come and go."""

import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from tests.serving import saved_models
from tests.serving.manager_helpers import resident_megabytes
from tests.serving.server_processes import serving

CLIENTS, SECONDS, SWAP_SECONDS = 64, 60, 2


@pytest.mark.slow
def test_no_request_fails_while_versions_are_swapped(tmp_path):
    """Every answer is that of the version that it names; memory does not grow."""
    stock, folder = tmp_path / "stock", tmp_path / "m"
    saved_models.write_tf1(folder, 1)
    count = SECONDS // SWAP_SECONDS
    for version in range(2, 2 + count):
        write = saved_models.write_broken if version % 3 == 0 else saved_models.write_tf1
        write(stock, version)
    end = threading.Event()

    def swap() -> None:
        for version in range(2, 2 + count):
            if end.wait(SWAP_SECONDS):
                return
            shutil.move(stock / str(version), folder / "unfinished")
            (folder / "unfinished").rename(folder / str(version))

    def ask(client: int) -> Counter[int]:
        stub, versions, number = server.prediction(), Counter(), client
        while not end.is_set():
            number += 1
            request = predict_pb2.PredictRequest(model_spec={"name": "m"})
            request.inputs["x"].CopyFrom(tf.make_tensor_proto([float(number)]))
            answer = stub.Predict(request, timeout=30)
            version = answer.model_spec.version.value
            assert tf.make_ndarray(answer.outputs["y"]) == [number + version]
            versions[version] += 1
        return versions

    flags = ["--model_name=m", f"--model_base_path={folder}"]
    with serving(tmp_path / "log.txt", *flags) as server, ThreadPoolExecutor(CLIENTS + 1) as pool:
        swapping = pool.submit(swap)
        answers = [pool.submit(ask, client) for client in range(CLIENTS)]
        memory = []
        for _ in range(4):
            time.sleep(SECONDS / 4)
            memory.append(resident_megabytes(server.process.pid))
        end.set()
        swapping.result()
        versions = sum((answer.result() for answer in answers), Counter())
    assert len(versions) > count / 3
    assert not any(version % 3 == 0 for version in versions)
    assert memory[-1] < memory[0] + 100
