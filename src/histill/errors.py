"""Errors that a user can act on: what is wrong, where, and the mend."""

from __future__ import annotations

from histill.redact import hide, plain


class HistillError(Exception):
    """A problem the user can mend. The command line prints the message alone, without a traceback.

    Parameters
    ----------
    message
        What is wrong, naming the file and the row or key. Passwords and tokens in it are hidden, control characters
        escaped.
    mend
        What to do about it.
    """

    def __init__(self, message: str, *, mend: str | None = None):
        self.message = plain(hide(message))
        self.mend = mend and plain(hide(mend))
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n  mend: {self.mend}" if self.mend else self.message


class ConfigError(HistillError):
    """Problems of config or sheets, listed all at once."""

    def __init__(self, problems: list[str]):
        self.problems = [plain(hide(problem)) for problem in problems]
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the configuration or its sheets; nothing was run:"
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in self.problems)]))


class SlideError(HistillError):
    """A slide that cannot go on. The cohort does: the slide is quarantined with this reason and mend."""
