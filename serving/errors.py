"""Errors for the user of a program and for the client that sent a request."""

import grpc


class ServingError(Exception):
    """An error that the user can fix: one line with what is wrong, what was expected, what to do.

    Programs print the line to standard error and exit with status 1.
    """


class RequestError(Exception):
    """A request failed.

    Args:
        code: Status code of gRPC; the REST API maps it to an HTTP status.
        message: As TensorFlow Serving words it, since clients may search for its words.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> RequestError:
    """Returns an INVALID_ARGUMENT error."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)
