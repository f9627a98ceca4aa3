"""What holds for the text of every rule."""

from __future__ import annotations

import re


def test_paths_in_commands_are_quoted(root):
    """Results folders may hold spaces; what is not quoted, the shell would split or run."""
    safe = {"wildcards.batch", "wildcards.task", "wildcards.method", "wildcards.stage", "wildcards.fold"}
    safe |= {"wildcards.seed", "threads"}
    for path in sorted((root / "workflow" / "rules").glob("*.smk")):
        for line in path.read_text().splitlines():
            if not re.search(r"LOGGED|^\s+\"( --|histill )", line):
                continue
            for name in re.findall(r"(?<!{){([^{}]+)}(?!})", line):
                assert name in safe or name.endswith(":q"), f"{path.name}: {{{name}}} in: {line.strip()}"
