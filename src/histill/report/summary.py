"""The summary: one paragraph a task in plain words, the cohort in one line, a traffic light of what went wrong."""

from __future__ import annotations

from typing import Any

from histill.report import audit
from histill.report.comparisons import tells_of_distillation
from histill.report.metric_table import is_student
from histill.report.wording import estimate, inputs, listed, p_value, percent, plural, signed

FINE, LOOK, BAD, NONE = "fine", "look", "failed", "not run"
_CHANCE = 0.5  # of C-index and AUC, the first metrics of the two types of task
_RED_SHARE = 0.5  # of the slides: beyond it the cohort, or how it was cut, is at fault
_LOST_SHARE = 0.1  # of the slides: beyond it what is left may be another cohort


def paragraph(task: dict[str, Any]) -> dict[str, Any]:
    """What a task came to, for readers who read nothing else.

    Parameters
    ----------
    task
        Of `histill.report.task.task_facts`.

    Returns
    -------
    `task`, `lead` and `tested` (a sentence each), `shown` and `not_shown` (sentences).
    """
    report = task["report"]
    if report is None:
        return _nothing(task, "It has not been evaluated.")
    models = report["paired"]["models"]
    if not models:
        return _nothing(task, "No patient was predicted by every model, so the models cannot be compared.")
    name = next((name for name in models if is_student(name)), next(iter(models)))
    shown, not_shown = [], []
    for other in [name, *(other for other in models if is_student(other) and other != name)]:
        above = _against_chance(task, other, named=other != name)
        (shown if above["shown"] else not_shown).append(above["text"])
    for entry in (task["comparisons"] or {"primary": []})["primary"]:
        if tells_of_distillation(entry):
            found = _distillation(task, entry)
            (shown if found["shown"] else not_shown).append(found["text"])
    shown += _external(task, name)
    if not task["external"]:
        not_shown.append("Nothing is shown of other hospitals, scanners or stains: no external cohort was tested.")
    said = {"lead": _lead(task, name), "tested": _tested(report)}
    return {"task": task["name"], **said, "shown": shown, "not_shown": not_shown}


def _nothing(task: dict[str, Any], why: str) -> dict[str, Any]:
    return {"task": task["name"], "lead": why, "tested": "", "shown": [], "not_shown": []}


def _lead(task: dict[str, Any], name: str) -> str:
    report, metric = task["report"], task["headline"]
    reads = next(inputs(model["inputs"]) for model in report["models"] if model["name"] == name)
    found = estimate(report["paired"]["models"][name][metric["key"]], report["confidence"], digits=2)
    alone = "" if " and " in reads else " alone"
    return (
        f"The {name}, which reads the {reads}{alone}, reaches {_article(metric['name'])} {metric['name']} of {found}."
    )


def _article(word: str) -> str:
    return "an" if word[0] in "AEIOU" else "a"


def _tested(report: dict[str, Any]) -> str:
    paired = report["paired"]
    outcome = (
        plural(paired["events"], "event")
        if report["type"] == "survival"
        else listed([f"{name} {n}" for name, n in paired["classes"].items()])
    )
    return (
        f"All models were tested on the same {plural(paired['n'], 'patient')} ({outcome}), each by models that had not "
        f"seen the patient ({plural(len(report['folds']), 'fold')}, {plural(len(report['seeds']), 'seed')})."
    )


def _against_chance(task: dict[str, Any], name: str, *, named: bool) -> dict[str, Any]:
    """Whether a model is better than chance; with its name and value where the lead has not given them."""
    metric = task["headline"]
    found = task["report"]["paired"]["models"][name][metric["key"]]
    value = f" ({metric['name']} {estimate(found, digits=2)})" if named else ""
    subject, chance = f"The {name}{value} is", f"better than chance ({_CHANCE:g}; 1 is perfect)"
    if found["low"] is None:
        return {"shown": False, "text": f"The {name}{value} has no interval; whether it is {chance} is open."}
    if found["low"] > _CHANCE:
        return {"shown": True, "text": f"{subject} {chance}."}
    return {"shown": False, "text": f"{subject} not shown to be {chance}."}


def _distillation(task: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    name = task["headline"]["name"]
    what = f"{entry['meaning'].capitalize()} ({entry['a']} less {entry['b']}, in {name}): {signed(entry['value'])}"
    if entry["low"] is None:
        return {"shown": False, "text": f"{what}; it has no interval, so nothing is shown."}
    confidence = percent(task["report"]["confidence"])
    what += f" ({confidence} interval {signed(entry['low'])} to {signed(entry['high'])}{_tests(entry)})"
    if entry["low"] <= 0 <= entry["high"]:
        return {"shown": False, "text": f"{what}; neither a gain nor its absence is shown."}
    return {"shown": entry["verdict"].endswith(" is better"), "text": f"{what}; {entry['verdict']}."}


def _tests(entry: dict[str, Any]) -> str:
    if entry["p"] is None:
        return ""
    holm = f", {p_value(entry['p_holm'])} after Holm's correction" if entry["p_holm"] is not None else ""
    return f"; {p_value(entry['p'])}{holm}"


def _external(task: dict[str, Any], name: str) -> list[str]:
    key, metric = task["headline"]["key"], task["headline"]["name"]
    return [
        f"On the external cohort {cohort['name']} ({plural(cohort['scored']['n'], 'patient')}) the {name} reaches "
        f"{_article(metric)} {metric} of {estimate(cohort['scored']['models'][name][key], digits=2)}."
        for cohort in task["external"]
        if name in cohort["scored"]["models"]
    ]


def cohort_line(facts: dict[str, Any]) -> str:
    """Patients, slides, sites and folds in one sentence.

    Parameters
    ----------
    facts
        Of `histill.report.stage.collect`.
    """
    cohort = facts["cohort"]
    if not cohort:
        return "The cohort has not been put together yet."
    parts = [f"{plural(cohort['patients'], 'patient')} ({cohort['both']} with slide and transcriptome)"]
    parts += [plural(facts["n_slides"], "slide")] * bool(facts["n_slides"])
    parts += [plural(cohort["sites"], "site")] * (cohort["sites"] > 1)
    folds = cohort["folds"]
    repeats = f", {folds['repeats']} times over" if folds["repeats"] > 1 else ""
    sizes = dict.fromkeys((str(folds["smallest"]), str(folds["largest"])))
    parts.append(f"{plural(folds['n'], 'fold')} of {' to '.join(sizes)} patients{repeats}")
    made = "described by the encoder" if facts["source"] == "extract" else "with vectors imported from elsewhere,"
    return f"{listed(parts)}; slides {made} {facts['encoder']}."


def checks(facts: dict[str, Any]) -> list[dict[str, str]]:
    """Traffic light: what was checked (`name`, `href`), its `state` (fine, look, failed, not run), a sentence."""
    rows = [_slides(facts), _quality(facts), _transcriptome(facts), _audit(facts["audit"])]
    for task in facts["tasks"]:
        rows.append(_evaluation(task))
    if facts["pretraining"]:
        texts = [text for found in facts["pretraining"] for text in found["warnings"]]
        rows.append(_check("Pre-training", "pretraining", texts, "No monitor looks collapsed."))
    return rows


def _check(name: str, href: str, texts: list[str], fine: str) -> dict[str, str]:
    if not texts:
        return {"name": name, "href": href, "state": FINE, "text": fine}
    more = f" And {len(texts) - 1} more." if len(texts) > 1 else ""
    return {
        "name": name,
        "href": href,
        "state": LOOK,
        "text": f"{texts[0][:1].upper()}{texts[0][1:].rstrip('.')}.{more}",
    }


def _slides(facts: dict[str, Any]) -> dict[str, str]:
    row = {"name": "Slides", "href": "failures"}
    states, n = facts["states"], facts["n_slides"]
    lost = states["quarantined"] + states["empty"]
    if not n:
        return row | {"state": NONE, "text": "No slide stage has run."}
    if not lost:
        return row | {"state": FINE, "text": f"{'The slide was' if n == 1 else f'All {n} slides were'} used."}
    state = BAD if lost > _LOST_SHARE * n else LOOK
    said = [
        f"{plural(states[name], 'slide')} {text}"
        for name, text in (("quarantined", "could not be used"), ("empty", "held no usable tissue"))
        if states[name]
    ]
    return row | {"state": state, "text": f"Of {n}, {listed(said)}; reason and mend are given."}


def _quality(facts: dict[str, Any]) -> dict[str, str]:
    row = {"name": "Slide quality", "href": "quality"}
    if not facts["lights"]:
        return row | {"state": NONE, "text": "No slide was cut into tiles: the features came from elsewhere."}
    counts, conflicts = facts["lights"]["counts"], len(facts["resolution"]["conflicts"])
    texts = [f"{plural(n, 'slide')} with {light} light" for light, n in counts.items() if light != "green" and n]
    if conflicts:
        texts.append(plural(conflicts, "conflict") + " between what slides say of their resolution")
    if not texts:
        return row | {"state": FINE, "text": f"Every slide has a green light ({counts['green']})."}
    state = BAD if counts["red"] > _RED_SHARE * sum(counts.values()) else LOOK
    return row | {"state": state, "text": f"{listed(texts).capitalize()}."}


def _transcriptome(facts: dict[str, Any]) -> dict[str, str]:
    if not facts["transcriptome"]:
        return {"name": "Transcriptome", "href": "transcriptome", "state": NONE, "text": "None was given."}
    return _check("Transcriptome", "transcriptome", facts["transcriptome"]["warnings"], "Read without a warning.")


def _audit(found: dict[str, Any] | None) -> dict[str, str]:
    state = {None: NONE, audit.OK: FINE, audit.WARNED: LOOK, audit.LEAK: BAD}[found and found["state"]]
    return {"name": "Leakage audit", "href": "audit", "state": state, "text": audit.verdict(found)}


def _evaluation(task: dict[str, Any]) -> dict[str, str]:
    name, href = f"Task {task['name']}", f"task-{task['name']}"
    if task["report"] is None:
        return {"name": name, "href": href, "state": NONE, "text": "It has not been evaluated."}
    return _check(name, href, task["report"]["warnings"], "Evaluated without a warning.")
