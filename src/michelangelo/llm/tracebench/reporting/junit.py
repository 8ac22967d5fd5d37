"""A comparison as JUnit XML, which every CI shows: a test for the verdict, and one per measure and case."""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree

from michelangelo.llm.tracebench.comparison import Comparison
from michelangelo.llm.tracebench.pairing import Pair

__all__ = ["render"]

_CONTROL: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CHARACTERS: Final = 2000


def render(made: Comparison, *, allows_inconclusive: bool = False) -> bytes:
    """Failures are what ends the gate: a regression, and without `allows_inconclusive` an inconclusive verdict. Cases
    that became worse are in their messages: one case alone proves nothing. UTF-8."""
    root = ElementTree.Element("testsuites", name="tracebench")
    gate = ElementTree.SubElement(root, "testsuite", name=f"{made.a.reference} to {made.b.reference}")
    fails = made.state == "regression" or (made.state == "inconclusive" and not allows_inconclusive)
    _test(gate, "verdict", "; ".join(made.reasons) if fails else "", "" if fails else "; ".join(made.reasons))
    for measure in made.measures:
        says = f"{100 * measure.rate_a:.1f} % to {100 * measure.rate_b:.1f} %, adjusted p = {measure.adjusted}"
        is_bad = measure.state == "regression"
        _test(gate, measure.name, says if is_bad else "", "" if is_bad else f"{measure.state}: {says}")
    cases = ElementTree.SubElement(root, "testsuite", name=f"cases of {made.b.reference}")
    changed = {change.pair.case.id: change.kind for change in made.changes}
    for pair in made.pairing.pairs:
        output = "" if pair.case.id not in changed else f"{changed[pair.case.id]}\n{_shown(pair)}"
        _test(cases, pair.case.id, "", output)
    for suite in (gate, cases):
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _test(suite: ElementTree.Element, name: str, failure: str, output: str) -> None:
    test = ElementTree.SubElement(suite, "testcase", name=_clean(name), classname=suite.get("name") or "")
    if failure:
        ElementTree.SubElement(test, "failure", message=_clean(failure)[:_CHARACTERS])
    if output:
        ElementTree.SubElement(test, "system-out").text = _clean(output)


def _shown(pair: Pair) -> str:
    details = "; ".join(one.detail for row in pair.b[:1] for one in row.outcomes if one.detail)
    return f"{details}\nA: {pair.a[0].answer.text[:_CHARACTERS]}\nB: {pair.b[0].answer.text[:_CHARACTERS]}"


def _clean(text: str) -> str:
    """XML has no way to say most control characters."""
    return _CONTROL.sub("\ufffd", text)
