"""What the dispatcher of a tf.data service is told and asked that TensorFlow has no function for.

Its messages are declared here by the numbers of TensorFlow's `dispatcher.proto`, as far as they are
used; protobuf skips fields that are not declared.
"""

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

TIMEOUT = 5.0  # Seconds; it answers within milliseconds or is not there.

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
    """Message classes by name, in a pool beside TensorFlow's own."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_DECLARATIONS, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClassesForFiles(["dispatcher"], pool)


_MESSAGES = _declare()


class Dispatcher:
    """A dispatcher's address, at which there need not be one.

    Args:
        address: Host and port.
    """

    def __init__(self, address: str):
        self.address = address

    def workers(self) -> list[str] | None:
        """Addresses of all workers that ever registered; None where nothing answers."""
        try:
            answer = self._call("GetWorkers", b"")
        except grpc.RpcError:
            return None
        return [worker.address for worker in _MESSAGES["Workers"].FromString(answer).workers]

    def finish(self, worker: str) -> None:
        """Takes all that a worker has been given to do for done.

        Raises:
            grpc.RpcError: The dispatcher does not answer.
        """
        # A worker that says it knows of no task is told of all that it should have.
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
        # A channel for each call: one that has failed waits longer and longer to connect again.
        unlimited = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(self.address, options=unlimited) as channel:
            return channel.unary_unary(f"/{_SERVICE}/{method}")(request, timeout=TIMEOUT)
