"""What holds for the text of every rule."""

from __future__ import annotations

import re


def test_paths_in_commands_are_quoted(root):
    """Results folders may hold spaces; what is not quoted, the shell would split or run."""
    safe = {"wildcards.batch", "wildcards.task", "wildcards.method", "wildcards.stage", "wildcards.fold"}
    safe |= {"wildcards.seed", "threads"}
    commands = {}
    for path in sorted((root / "workflow" / "rules").glob("*.smk")):
        found = re.findall(r"shell:\n(.*?)(?=\n\n|\n {0,7}\w|\Z)", path.read_text(), re.DOTALL)
        assert len(found) == path.read_text().count("shell:\n")
        commands |= {f"{path.name}, command {number}": text for number, text in enumerate(found, 1)}
    assert len(commands) >= 25
    for place, text in commands.items():
        assert re.match(r"\s+(command|logged)\(", text), place
        for name in re.findall(r"(?<!{){([^{}]+)}(?!})", text):
            assert name in safe or name.endswith(":q"), f"{place}: {{{name}}}"
