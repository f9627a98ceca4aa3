"""Take machine paths and secrets out of what is shown.

A report travels, the folders of the machine it was made on do not. Passwords and tokens are taken out of everything:
errors, logs, receipts.
"""

from __future__ import annotations

import os
import re
from typing import Any

_QUOTED = re.compile(r"""(['"])/(?:[^'"\n]*/)?([^'"/\n]*)\1""")
# A path has two parts at least, so that '10x/20x', '1/2' and web addresses stay as they are.
_BARE = re.compile(r"(?:(?<![\w.:/-])|(?<=\bfile://))/(?:[^\s/'\"<>|;,()]+/)+([^\s/'\"<>|;,()]*)")
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s@'\"<>]+@"), "…@"),  # user and password of an address
    (re.compile(r"\b(hf_|gh[opsur]_|github_pat_|glpat-|AKIA)[A-Za-z0-9_-]{12,}"), r"\1…"),
    (re.compile(r"\b(Bearer|Basic) +[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), r"\1 …"),
    # Keys of a signed address.
    (
        re.compile(
            r"([?&](?:[\w-]*(?:token|signature|secret|password|credential|api[_-]?key)|sig|key)=)[^&\s'\"<>]+",
            re.IGNORECASE,
        ),
        r"\1…",
    ),
)
_SECRET_VARIABLE = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS|(API|ACCESS|SECRET|PRIVATE)_?KEY)$", re.I)
_LEAST = 8  # characters; a shorter value of the environment is a word that a text may hold by chance


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # tabs and line breaks are text


def redact(value: Any) -> Any:
    """The value with absolute paths in its texts, at any depth, shortened to `…/name`; secrets are hidden."""
    if isinstance(value, dict):
        return {key: redact(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [redact(entry) for entry in value]
    if not isinstance(value, str):
        return value
    value = hide(value)
    if os.path.isabs(value) and "\n" not in value and not re.search(r"[:;,] ", value):
        return f"…/{os.path.basename(value.rstrip('/'))}"  # a path alone may hold spaces
    return _BARE.sub(r"…/\1", _QUOTED.sub(r"\1…/\2\1", value))


def hide(text: str) -> str:
    """The text without secrets: tokens, passwords and keys of addresses, and what the environment holds as secrets."""
    for name, value in os.environ.items():
        if len(value) >= _LEAST and _SECRET_VARIABLE.search(name):
            text = text.replace(value, "…")
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def plain(text: str) -> str:
    """The text with control characters as escapes: names from sheets and files must not steer a terminal."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
