"""A CI run as JUnit XML, which every CI system reads: a suite a stage, a test case a case."""

import re
import xml.etree.ElementTree as ET

from everloop.workspace.ci.findings import Case, Report, Stage

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 cannot hold."""


def junit(report: Report) -> bytes:
    """The XML document, UTF-8."""
    root = ET.Element("testsuites", {"name": "everloop ci", **_counts([c for s in report.stages for c in s.cases])})
    for stage in report.stages:
        root.append(_suite(stage))
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _suite(stage: Stage) -> ET.Element:
    suite = ET.Element("testsuite", {"name": stage.name, "time": f"{stage.seconds:.3f}", **_counts(list(stage.cases))})
    for case in stage.cases:
        suite.append(_case(stage.name, case))
    return suite


def _case(stage: str, case: Case) -> ET.Element:
    element = ET.Element(
        "testcase", {"classname": f"everloop.{stage}", "name": _clean(case.name), "time": f"{case.seconds:.3f}"}
    )
    said = _clean("\n".join(part for part in (case.summary, case.hint, case.details) if part))
    if case.state == "failed":
        ET.SubElement(element, "failure", {"message": _clean(case.summary)}).text = said
    elif case.state == "skipped":
        ET.SubElement(element, "skipped", {"message": _clean(case.summary)})
    elif said:
        ET.SubElement(element, "system-out").text = said
    return element


def _counts(cases: list[Case]) -> dict[str, str]:
    failed, left = (sum(case.state == state for case in cases) for state in ("failed", "skipped"))
    return {"tests": str(len(cases)), "failures": str(failed), "errors": "0", "skipped": str(left)}


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
