"""Config: read, complete with defaults, validate against the schema, all problems at once."""

from __future__ import annotations

import copy
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from histill.errors import ConfigError, HistillError
from histill.redact import hide
from histill.stages import PRETRAIN

GENE_GROUPS = ("families", "hallmark")  # shipped; anything else is a GMT file
_NO_TERM = {"attention": ["lambda_variance"], "deformable": ["lambda_rebuild", "lambda_gene", "lambda_map"]}
_MOST_VALUES, _DEEPEST = 100_000, 50
SCHEMAS = Path(__file__).parent / "schemas"
NUMBER = re.compile(r"[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?")
UNSAFE = re.compile(r"""[\x00-\x1f\x7f{}\\*?"'`$;&|<>!\[\]]|^-|^~|^\s|\s$|://""")


def schema(name: str) -> dict[str, Any]:
    """A JSON schema of `workflow/schemas` by name (`config`, `slides`, `clinical`)."""
    import yaml

    return yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text(encoding="utf-8"))


def written(path: str | Path) -> dict[str, Any]:
    """The complete config that a run wrote: what an earlier version wrote keeps its keys, and gets the newer ones."""
    filled, errors = _filled(read(path))
    problems = [f"{path}: {_explain(error)}" for error in errors if error.validator != "additionalProperties"]
    if problems:
        raise ConfigError(problems)
    return filled


def complete(config: dict[str, Any]) -> dict[str, Any]:
    """The config with every default filled in; raises `ConfigError` with all problems of form.

    Whether files exist and sheets make sense is checked by `histill.cohort.sheets.load`.
    """
    filled, errors = _filled(config)
    problems = [_explain(error) for error in errors] or [
        *_unusable(filled),
        *_check_results(filled["results"]),
        *check_disentangled(filled["methods"]["disentangled"]),
        *_check_mirror(filled),
        *_check_msrl(filled["methods"]["msrl"]["model"]),
        *_check_tasks(filled["tasks"]),
    ]
    if problems:
        raise ConfigError(problems)
    filled["results"] = os.path.normpath(filled["results"])
    return filled


def _filled(config: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The config with every default filled in, and what the schema says against it."""
    from jsonschema import Draft202012Validator, validators

    form = schema("config")
    filled = _fill(copy.deepcopy(config), form)
    validator = validators.extend(Draft202012Validator, {"pattern": _whole})(form)
    return filled, sorted(validator.iter_errors(filled), key=lambda error: [str(p) for p in error.path])


def _whole(validator: Any, pattern: str, value: Any, form: dict[str, Any]) -> Iterator[Any]:
    """JSON Schema's `pattern` for patterns of the whole text: Python's `$` would allow a line break behind it."""
    from jsonschema import ValidationError

    if isinstance(value, str) and not re.fullmatch(pattern, value):
        yield ValidationError(f"{value!r} must match {pattern}")


def load(path: str | Path) -> dict[str, Any]:
    """Read a YAML or JSON config file and complete it."""
    return complete(read(path))


def read(path: str | Path) -> dict[str, Any]:
    """The keys of a YAML or JSON config file as they stand there; a key that is given twice is an error."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Without this, the second `tiles:` of a file replaces the first in silence."""

        def construct_mapping(self, node, deep=False):
            seen: dict[Any, int] = {}
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise HistillError(
                        f"{path}, line {line}: key '{key.value}' is given a second time (first on line "
                        f"{seen[key.value]})",
                        mend="keep one of the two",
                    )
                if isinstance(key, yaml.ScalarNode):
                    seen[key.value] = line
            return super().construct_mapping(node, deep)

    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        mend = "name it with --config"
        if os.path.basename(path) == "config.json":
            mend = "snakemake writes it at its start (where histill is a module: onstart: histill.onstart())"
        raise HistillError(f"cannot read the config {path}: {error.strerror}", mend=mend) from None
    except UnicodeDecodeError as error:
        raise HistillError(f"{path} is not UTF-8 text (byte {error.start})", mend="save the file as UTF-8") from None
    try:
        config = json.loads(text) if str(path).endswith(".json") else Loader(text).get_single_data()
    except RecursionError:
        raise HistillError(f"{path} is nested too deep", mend="start from the commented config.yaml") from None
    except (ValueError, yaml.YAMLError) as error:
        mend = "check indentation and quotes" + ("; indent with spaces, not tabs" if "'\\t'" in str(error) else "")
        raise HistillError(f"{path} is not valid YAML: {error}", mend=mend) from None
    if not isinstance(config, dict):
        raise HistillError(f"{path} holds no mapping of keys", mend="start from the commented config.yaml")
    if _is_huge(config):
        raise HistillError(
            f"{path} holds more than {_MOST_VALUES} values, its aliases written out, or is nested too deep",
            mend="start from the commented config.yaml",
        )
    return config


def _is_huge(config: dict[str, Any]) -> bool:
    """Whether a config has too many values or levels: ten lines of aliases of aliases are a thousand million."""
    todo: list[tuple[Any, int]] = [(config, 0)]
    for _ in range(_MOST_VALUES):
        if not todo:
            return False
        value, depth = todo.pop()
        if depth > _DEEPEST:
            return True
        held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        todo.extend((item, depth + 1) for item in held)
    return bool(todo)


def _fill(value: Any, form: dict[str, Any]) -> Any:
    """Fill defaults of objects, depth first; `additionalProperties` schemas apply to keys of the user's own naming."""
    if value is None and form.get("type") == "object":
        value = {}  # a section whose keys are all commented out
    if isinstance(value, list) and "items" in form:
        return [_fill(item, form["items"]) for item in value]
    if not isinstance(value, dict):
        return _scalar(value, form.get("type"))
    properties = form.get("properties", {})
    if "presets" in form:
        name = value.get("preset", properties["preset"]["default"])
        value = _preset(value, form["presets"].get(str(name), {}))
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


def _preset(value: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """The value with a preset's keys where it has none, or null."""
    filled = dict(value)
    for key, own in preset.items():
        given = value.get(key)
        if isinstance(own, dict) and (given is None or isinstance(given, dict)):
            filled[key] = _preset(given or {}, own)
        elif given in (None, "null"):
            filled[key] = copy.deepcopy(own)
    return filled


def _scalar(value: Any, kind: Any) -> Any:
    """The value as the schema's type: `--config 'tiles={"overlap": 0.25}'` reaches us as text, and so does YAML's 1e-4.

    One spelling a number, whatever the file's: 224.0 tiles are 224, and an overlap of 0 is 0.0 in every recipe.
    """
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    if isinstance(kind, list) and "null" in kind and value == "null":
        return None
    if kind not in ("integer", "number") or isinstance(value, bool):
        return value
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)
    if kind == "number" and isinstance(value, int) and abs(value) < 2**53:
        return float(value)
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _unusable(value: Any, where: str = "") -> Iterator[str]:
    """What the schema cannot say: numbers must be finite, and text must be text that a file can hold."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _unusable(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unusable(item, f"{where}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"config key '{where}': {value} is no finite number"
    elif isinstance(value, str) and hide(value) != value:
        yield (
            f"config key '{where}': its value holds a password, a token or a key, which config.json and the report "
            "would show; take it out (the hub's token comes from HF_TOKEN or 'hf auth login')"
        )
    elif isinstance(value, str) and value != value.encode(errors="replace").decode():
        yield f"config key '{where}': {value!r} holds half a character, which no file can hold"


def _check_results(path: str) -> Iterator[str]:
    """The results folder is part of every file name and of every command of the workflow."""
    bad = UNSAFE.search(path)
    if bad:
        yield (
            f"config key 'results': {path!r} holds {bad.group()!r}, which Snakemake or the shell would read as more "
            "than a name; use letters, digits, spaces, '/', '.', '_' and '-' (no '~': write the whole path)"
        )
    elif not path.strip(os.sep):
        yield "config key 'results': '/' is the root of the file system; name a folder below it"
    elif os.path.exists(path) and not os.path.isdir(path):
        yield f"config key 'results': '{path}' is a file, not a folder"


def check_disentangled(options: dict[str, Any]) -> Iterator[str]:
    """Widths the network cannot have, and terms of the loss that it has no output for."""
    at, model = "config key 'methods.disentangled", options["model"]
    if model["dim"] % model["heads"]:
        yield f"{at}.model.heads': {model['heads']} heads do not divide a width of {model['dim']}"
    for term in _NO_TERM[model["network"]]:
        if options["teacher"][term]:
            yield f"{at}.teacher.{term}': the network '{model['network']}' has no such term; set it to 0"


def _check_mirror(config: dict[str, Any]) -> Iterator[str]:
    """Widths that heads do not divide, and what genes are chosen by."""
    options = config["methods"]["mirror"]
    at, model, task = "config key 'methods.mirror", options["model"], options["genes"]["rfe"]
    for heads in ("heads", "rna_heads"):
        if model["dim"] % model[heads]:
            yield f"{at}.model.{heads}': {model[heads]} heads do not divide a width of {model['dim']}"
    if task is not None and config["tasks"].get(task, {}).get("type") != "classification":
        known = [name for name, own in config["tasks"].items() if own["type"] == "classification"]
        yield f"{at}.genes.rfe': '{task}' is no classification task; there are: {', '.join(known) or 'none'}"
    path = options["genes"]["list"]
    if path is not None and not os.path.isfile(path):
        yield f"{at}.genes.list': there is no file '{path}'"


def _check_msrl(model: dict[str, Any]) -> Iterator[str]:
    """Gene groups that are not there, and a search that the graph does not allow."""
    at = "config key 'methods.msrl.model"
    if model["groups"] not in GENE_GROUPS and not os.path.isfile(model["groups"]):
        yield f"{at}.groups': '{model['groups']}' is neither {' nor '.join(GENE_GROUPS)} nor a GMT file"
    if model["search"] == "approximate" and model["graph"] == "euclidean":
        yield f"{at}.search': approximate search compares cosines; use exact, or another graph"


def _check_tasks(tasks: dict[str, Any]) -> Iterator[str]:
    if PRETRAIN in tasks:
        yield f"config key 'tasks': '{PRETRAIN}' is the name of what is trained for all tasks; give another"


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
    if error.validator == "type" and error.instance is None:
        return f"{at}: has no value; give one, or remove the key to have the default"
    if error.validator == "type" and error.validator_value == "string":
        return f"{at}: {error.message}; put it in quotes"
    if error.validator == "const":
        return f"{at}: {error.instance!r} must be {error.validator_value!r}"
    return f"{at}: {error.message}"
