"""Errors that are messages to the user rather than faults in the program."""


class CaptionGANError(Exception):
    """A mistake of the user: what is wrong, what was expected and what to do, in one line.

    Programs print the message to standard error without a stack trace and exit with status 1. Any
    other exception is a bug in this project.
    """


class UsageError(CaptionGANError):
    """A wrong call of a program or a wrong settings file; programs exit with status 2."""
