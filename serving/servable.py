"""One loaded version of a model, run by a session of TensorFlow 1, as in TensorFlow Serving.

It loads any SavedModel with a serving graph, whatever program wrote it.

It calls `Session._call_tf_sessionrun`, which has no public name, instead of `Session.run`. The
latter rejects shapes that contradict a placeholder, where TensorFlow Serving leaves the check to
the operations, and takes 0.1 ms to prepare a call: five times the run time of the smallest model.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  Registers operations that models may contain.
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.framework import ops

from serving.errors import RequestError

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_TIMEOUT = 1e6  # Seconds; larger values overflow TensorFlow's counter.


class Servable:
    """A version of a model; several threads may run it at once.

    Args:
        name: Name of the model.
        version: Number of the version.
        path: Folder of the SavedModel.
        session_config: Options of the session, such as its numbers of threads.
        tags: Tags of the graph to load.

    Attributes:
        signatures: Signatures by name.

    Raises:
        RequestError: The SavedModel cannot be loaded. The message is one line.
    """

    def __init__(
        self,
        name: str,
        version: int,
        path: Path,
        session_config: tf.compat.v1.ConfigProto | None = None,
        tags: Sequence[str] = (tf.saved_model.SERVING,),
    ):
        self.name = name
        self.version = version
        self.path = path
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=session_config)
        self._endpoints: dict[str, Any] = {}
        try:
            # Also initializes variables and tables.
            meta_graph = tf.compat.v1.saved_model.load(self._session, list(tags), str(path))
            self._session._extend_graph()
        except Exception as error:  # A broken model may raise anything.
            load_error = _load_error(path, error)
            self.close()
            raise load_error from None
        # Copies, so that the meta graph with all its constants is freed.
        self.signatures: dict[str, meta_graph_pb2.SignatureDef] = {}
        for key, definition in meta_graph.signature_def.items():
            self.signatures[key] = meta_graph_pb2.SignatureDef()
            self.signatures[key].CopyFrom(definition)

    def run(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes outputs of a signature.

        Args:
            signature: One of `signatures`.
            inputs: Arrays of the signature's types and of any shapes.
            outputs: Names of the signature's outputs.
            timeout: Seconds until the computation is cancelled. TensorFlow cancels between
                operations, so a single long operation finishes first.

        Returns:
            The outputs by name; strings are bytes.

        Raises:
            RequestError: The computation failed or timed out, with TensorFlow's code and message.
        """
        definition = self.signatures[signature]
        feeds = {
            self._endpoint(definition.inputs[name].name): array for name, array in inputs.items()
        }
        if len(feeds) < len(inputs):
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Inputs {', '.join(sorted(inputs))} are not all different tensors of the graph",
            )
        fetches = [self._endpoint(definition.outputs[name].name) for name in outputs]
        options = _options(timeout)
        try:
            arrays = self._session._call_tf_sessionrun(options, feeds, fetches, [], None)
        except tf.errors.OpError as error:
            raise RequestError(_CODES[error.error_code], error.message) from error
        finally:
            if options:
                pywrap_tf_session.TF_DeleteBuffer(options)
        return dict(zip(outputs, arrays, strict=True))

    def _endpoint(self, tensor: str) -> Any:
        """Returns a tensor of the graph as an output of TensorFlow's C API."""
        if tensor not in self._endpoints:
            try:
                graph_tensor = self._session.graph.get_tensor_by_name(tensor)
            except (KeyError, ValueError) as error:  # A sparse tensor, for example, has no name.
                raise RequestError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"Tensor {tensor}, specified in either feed_devices or fetch_devices was not "
                    "found in the Graph",
                ) from error
            self._endpoints[tensor] = graph_tensor._as_tf_output()
        return self._endpoints[tensor]

    def close(self) -> None:
        """Frees the session and the graph; no call may run now or later."""
        self._endpoints.clear()
        self._session.close()
        graph = self._session.graph
        del self._session  # The C++ session and its variables go with the object.
        # The graph is full of reference cycles. Garbage collection would free it later and stop all
        # threads for 0.2 s, so take it apart.
        for key in graph.get_all_collection_keys():
            graph.clear_collection(key)
        ops.dismantle_graph(graph)


def _options(timeout: float | None) -> Any:
    if timeout is None:
        return None
    if timeout <= 0:
        raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    milliseconds = math.ceil(min(timeout, _MAX_TIMEOUT) * 1000)
    options = tf.compat.v1.RunOptions(timeout_in_ms=milliseconds)
    return pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())


def _load_error(path: Path, error: Exception) -> RequestError:
    code, message = grpc.StatusCode.INVALID_ARGUMENT, str(error)
    if isinstance(error, tf.errors.OpError):
        code, message = _CODES[error.error_code], error.message
    line = " ".join(message.removeprefix("Graph execution error:").split())
    return RequestError(code, f"{path}: {line}")
