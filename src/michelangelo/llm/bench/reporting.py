"""An experiment's report for people: rows of text for a terminal, and Markdown. It computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["TITLES", "markdown", "rows"]

TITLES: Final = ("CASE", "QUANTITY", "PREDICTED", "MEASURED", "ERROR", "CLAIMED")


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """One per quantity, in the columns TITLES."""
    return [
        [
            quantity["case"],
            quantity["name"],
            _value(quantity["predicted"], quantity["unit"]),
            _value(quantity["measured"], quantity["unit"]) + _interval(quantity),
            "" if quantity["error"] is None else _error(quantity),
            _claimed(quantity),
        ]
        for quantity in report["quantities"]
    ]


def markdown(report: Mapping[str, Any]) -> str:
    """With the plot (`plot.svg`, beside it)."""
    task = report["task"]
    lines = [
        f"# {report['question']}",
        "",
        *(f"{sentence}\n" for sentence in report["conclusions"]),
        "| " + " | ".join(title.capitalize() for title in TITLES) + " |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        *("| " + " | ".join(row) + " |" for row in rows(report)),
        "",
        "![What was predicted and what was measured](plot.svg)",
        "",
        f"Claim: {report['claim']}",
        "",
        f"- experiment: `{report['experiment']}`, {report['seconds']:.0f} s",
        f"- model: {task['model']}, on {task['device_name']}",
        f"- memory for tensors: {_value(task['capacity_bytes'], 'bytes')}{' (capped)' if task['is_capped'] else ''}",
        f"- predicted at {report['predicted_at']}, measured until {report['measured_at']}",
        *(
            f"- {quantity['name']} ({quantity['case']}): {quantity['note']}"
            for quantity in report["quantities"]
            if quantity["note"]
        ),
        *(f"- left out for want of time: {what}" for what in report["left_out"]),
    ]
    return "\n".join(lines) + "\n"


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    match unit:
        case "bytes":
            return f"{value / 1e9:.2f} GB" if abs(value) >= 1e8 else f"{value / 1e6:.2f} MB"
        case "share":
            return f"{value:.1%}"
        case "times":
            return f"{value:.2f}x"
        case "tokens/s" | "FLOP/byte":
            return f"{value:,.0f}"
        case "nats":
            return f"{value:.4f}"
        case "seconds":
            return f"{value:.3g} s"
        case _:
            return f"{value:g}"


def _interval(quantity: Mapping[str, Any]) -> str:
    if quantity["low"] is None or quantity["high"] is None:
        return ""
    return f" [{_value(quantity['low'], quantity['unit'])}, {_value(quantity['high'], quantity['unit'])}]"


def _error(quantity: Mapping[str, Any]) -> str:
    return f"{100 * quantity['error']:+.1f} points" if quantity["unit"] == "share" else f"{quantity['error']:+.1%}"


def _claimed(quantity: Mapping[str, Any]) -> str:
    if quantity["goal"] is None:
        return ""
    sign = "<=" if quantity["goal_is_upper"] else ">="
    reached = {None: "", True: " reached", False: " not reached"}[quantity["reaches_goal"]]
    return f"{sign} {_value(quantity['goal'], quantity['unit'])}{reached}"
