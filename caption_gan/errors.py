"""The one exception that is a message to the user rather than a fault in the program."""


class CaptionGANError(Exception):
    """What the user did, what was expected and what to do, in one line.

    Programs print its text to standard error and leave with a non-zero exit status; no stack
    trace is shown. Everything else that is raised is a bug in this project.
    """
