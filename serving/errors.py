"""Errors that are answers: to the one who started a program, or to the one who sent a request."""

import grpc


class ServingError(Exception):
    """What the user did, what was expected and what to do, in one line.

    Programs print its text to standard error and leave with exit status 1.
    """


class RequestError(Exception):
    """Why a request was not answered.

    Args:
        code: As gRPC has it; REST maps it to an HTTP status.
        message: TensorFlow Serving's wording, which clients may search.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> RequestError:
    """The error of a request that is wrong in itself."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)
