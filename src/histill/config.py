"""Config: read, complete with defaults, validate against the schema, all problems at once."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from histill.errors import ConfigError, HistillError

SCHEMAS = Path(__file__).parent / "schemas"


def schema(name: str) -> dict[str, Any]:
    """A JSON schema of `workflow/schemas` by name (`config`, `slides`, `clinical`)."""
    import yaml

    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text(encoding="utf-8"))


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """The config with every default filled in; raises `ConfigError` with all problems of form.

    Whether files exist and sheets make sense is checked by `histill.cohort.sheets.load`.
    """
    from jsonschema import Draft202012Validator

    form = schema("config")
    filled = _fill(copy.deepcopy(config), form)
    errors = sorted(Draft202012Validator(form).iter_errors(filled), key=lambda error: [str(p) for p in error.path])
    if errors:
        raise ConfigError([_explain(error) for error in errors])
    return filled


def load(path: str | Path) -> dict[str, Any]:
    """Read a YAML or JSON config file and complete it."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise HistillError(f"cannot read the config {path}: {error.strerror}", mend="name it with --config") from None
    try:
        config = json.loads(text) if str(path).endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise HistillError(f"{path} is not valid YAML: {error}", mend="check indentation and quotes") from None
    if not isinstance(config, dict):
        raise HistillError(f"{path} holds no mapping of keys", mend="start from the commented config.yaml")
    return complete(config)


def _fill(value: Any, form: dict[str, Any]) -> Any:
    """Fill defaults of objects, depth first; `additionalProperties` schemas apply to keys of the user's own naming."""
    if not isinstance(value, dict):
        return value
    properties = form.get("properties", {})
    for key, sub in properties.items():
        if key not in value and "default" in sub:
            value[key] = copy.deepcopy(sub["default"])
        if key in value:
            value[key] = _fill(value[key], sub)
    extra = form.get("additionalProperties")
    if isinstance(extra, dict):
        for key in value.keys() - properties.keys():
            value[key] = _fill(value[key], extra)
    return value


def _explain(error: Any) -> str:
    """One line that names the key, what is wrong and what is allowed."""
    where = ".".join(str(part) for part in error.absolute_path)
    at = f"config key '{where}'" if where else "config"
    if error.validator == "additionalProperties" and isinstance(error.schema.get("additionalProperties"), bool):
        import difflib

        known = list(error.schema.get("properties", {}))
        hints = []
        for key in sorted(set(error.instance) - set(known), key=str):
            near = difflib.get_close_matches(str(key), known, n=1)
            hints.append(f"'{key}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
        noun = "key" if len(hints) == 1 else "keys"
        return f"{at}: unknown {noun} {', '.join(hints)}; known keys: {', '.join(known)}"
    if error.validator in ("oneOf", "anyOf", "not", "dependentRequired") and "errorMessage" in error.schema:
        return f"{at}: {error.schema['errorMessage']}"
    if error.validator == "pattern":
        return f"{at}: {error.instance!r} must match {error.validator_value}"
    if error.validator == "const":
        return f"{at}: {error.instance!r} must be {error.validator_value!r}"
    return f"{at}: {error.message}"
