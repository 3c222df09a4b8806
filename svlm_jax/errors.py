"""The one family of errors that a user can cause. The command line prints them as one sentence and exits with 2."""

LONGEST = 2000  # characters of a sentence


class SvlmError(Exception):
    """Something the user gave does not fit: the message names the thing and says what was expected."""

    def __init__(self, message: str = "") -> None:
        message = " ".join(message.splitlines())  # of what libraries and files say, too, comes one sentence
        # A value of a megabyte in a file must not become a sentence of one.
        super().__init__(message if len(message) <= LONGEST else f"{message[: LONGEST - 500]} … {message[-400:]}")


class ConfigError(SvlmError):
    """A setting, or a combination of settings, that cannot work."""


class CheckpointError(SvlmError):
    """A folder or hub id that does not hold a usable checkpoint."""


class SourceError(SvlmError):
    """A video source that cannot be opened or read."""


class StreamError(SvlmError):
    """A running stream that cannot go on, e.g. because its cache is full."""


class OutputError(SvlmError):
    """A file or folder that cannot be written: a missing folder, a full disk, or something that must not be replaced."""


class DataError(SvlmError):
    """Training data that cannot be used: a broken annotation, an index that does not fit its file, an unreadable transcript."""


class EvalError(SvlmError):
    """Published evaluation data that cannot be used, or results of another run where new ones were to go."""


class TrainError(SvlmError):
    """A training run that cannot go on, e.g. because its loss is not a number any more."""


class EndpointError(SvlmError):
    """A language model's server that refuses or does not answer."""


class RequestError(SvlmError):
    """A client of the server asked for what cannot be had.

    code: a short name of the reason, for programs. status: of the HTTP answer. param: the field that is at fault.
    """

    def __init__(self, code: str, sentence: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(sentence)
        self.code, self.status, self.param = code, status, param
