"""Remote calls to the dispatcher of a tf.data service for which TensorFlow has no function.

The messages are declared here with the field numbers of TensorFlow's `dispatcher.proto`, only as
far as they are used; protobuf skips other fields.
"""

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

TIMEOUT = 5.0  # Seconds; a running dispatcher answers within milliseconds.

_SERVICE = "tensorflow.data.DispatcherService"
_DECLARATIONS = """
name: "dispatcher" syntax: "proto3"
message_type {
  name: "Worker"
  field { name: "address" number: 1 type: TYPE_STRING }
}
message_type {
  name: "Workers"
  field { name: "workers" number: 1 type: TYPE_MESSAGE type_name: "Worker" label: LABEL_REPEATED }
}
message_type {
  name: "Task"
  field { name: "task_id" number: 4 type: TYPE_INT64 }
}
message_type {
  name: "Heartbeat"
  field { name: "worker_address" number: 1 type: TYPE_STRING }
}
message_type {
  name: "HeartbeatAnswer"
  field { name: "new_tasks" number: 1 type: TYPE_MESSAGE type_name: "Task" label: LABEL_REPEATED }
}
message_type {
  name: "Progress"
  field { name: "task_id" number: 1 type: TYPE_INT64 }
  field { name: "completed" number: 2 type: TYPE_BOOL }
}
message_type {
  name: "Update"
  field { name: "worker_address" number: 1 type: TYPE_STRING }
  field { name: "updates" number: 2 type: TYPE_MESSAGE type_name: "Progress" label: LABEL_REPEATED }
}
"""


def _declare() -> dict[str, Any]:
    """Message classes by name, in a pool apart from TensorFlow's."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_DECLARATIONS, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClassesForFiles(["dispatcher"], pool)


_MESSAGES = _declare()


class Dispatcher:
    """Client of a dispatcher, which need not be running.

    Args:
        address: Host and port of the dispatcher.
    """

    def __init__(self, address: str):
        self.address = address

    def workers(self) -> list[str] | None:
        """Addresses of all workers that ever registered; None if no dispatcher answers."""
        try:
            answer = self._call("GetWorkers", b"")
        except grpc.RpcError:
            return None
        return [worker.address for worker in _MESSAGES["Workers"].FromString(answer).workers]

    def finish(self, worker: str) -> None:
        """Marks all tasks of a worker as completed.

        Raises:
            grpc.RpcError: The dispatcher does not answer.
        """
        # The answer to a heartbeat that reports no tasks lists all tasks of the worker.
        heartbeat = _MESSAGES["Heartbeat"](worker_address=worker)
        answer = self._call("WorkerHeartbeat", heartbeat.SerializeToString())
        tasks = _MESSAGES["HeartbeatAnswer"].FromString(answer).new_tasks
        if not tasks:
            return
        update = _MESSAGES["Update"](worker_address=worker)
        for task in tasks:
            update.updates.add(task_id=task.task_id, completed=True)
        self._call("WorkerUpdate", update.SerializeToString())

    def _call(self, method: str, request: bytes) -> bytes:
        # One channel per call: a channel that has failed backs off before it connects again.
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(self.address, options=options) as channel:
            return channel.unary_unary(f"/{_SERVICE}/{method}")(request, timeout=TIMEOUT)
