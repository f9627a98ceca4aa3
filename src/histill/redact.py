"""Take machine paths out of what is shown: a report travels, the folders of the machine it was made on do not."""

from __future__ import annotations

import os
import re
from typing import Any

_QUOTED = re.compile(r"""(['"])/(?:[^'"\n]*/)?([^'"/\n]*)\1""")
# A path has two parts at least, so that '10x/20x', '1/2' and web addresses stay as they are.
_BARE = re.compile(r"(?<![\w.:/-])/(?:[^\s/'\"<>|;,()]+/)+([^\s/'\"<>|;,()]*)")


def redact(value: Any) -> Any:
    """The value with absolute paths in its texts, at any depth, shortened to `…/name`."""
    if isinstance(value, dict):
        return {key: redact(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [redact(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if os.path.isabs(value) and "\n" not in value and not re.search(r"[:;,] ", value):
        return f"…/{os.path.basename(value.rstrip('/'))}"  # a path alone may hold spaces
    return _BARE.sub(r"…/\1", _QUOTED.sub(r"\1…/\2\1", value))
