"""Estimate a data set before it is sent, and gate it: the cost as an interval, against a budget, from a small pilot.

    python examples/token_budget/main.py [--out out] [--budget 0.05usd]

It writes 1,000 support tickets and the answers to 50 of them (the pilot), counts what a prompt for each ticket costs,
and ends with exit code 3 if the upper bound is over the budget. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

from michelangelo.llm.tokens import budget, work

TEMPLATE = "You answer support tickets in two sentences.\n\nTicket: {{ ticket }}\nAnswer:"
SUBJECTS = ("my invoice", "the export of my data", "a login that fails", "a slow dashboard", "two-factor codes")
WISHES = ("Please explain what happened.", "I need it by Monday.", "It worked last week.", "Who can help me?")


def main() -> int:
    """0: within the budget; 3: over it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/token_budget"))
    parser.add_argument("--model", default="gpt-4o-mini")
    parser.add_argument("--budget", default="0.25usd")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    tickets, pilot = words.out / "tickets.jsonl", words.out / "pilot.jsonl"
    write_data(tickets, pilot)
    asked = work.Asked(
        model=words.model,
        template=TEMPLATE,
        pilot=str(pilot),
        retries="12/400",
        cached="30%",
        budget=words.budget,
    )
    report = work.make([str(tickets)], asked)
    (words.out / "report.json").write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    if report.estimate is None:
        raise SystemExit(report.no_price)
    usd = report.estimate.usd
    print(f"{report.calls:,} calls, {report.total.tokens:,} input tokens ({report.total.tokenizer})")
    print(f"cost ${usd.middle:.4f} (${usd.low:.4f} to ${usd.high:.4f} at {usd.level:.0%})")
    print(f"price: {report.estimate.provenance[0]}")
    print(f"budget {words.budget}: {'over' if report.is_over else 'within'}")
    return budget.EXIT_CODE if report.is_over else 0


def write_data(tickets: Path, pilot: Path) -> None:
    """The same bytes each time."""
    rng = random.Random(7)
    with tickets.open("w") as out:
        for number in range(1000):
            wishes = " ".join(rng.choices(WISHES, k=rng.randint(1, 6)))
            out.write(json.dumps({"ticket": f"Ticket {number}: {rng.choice(SUBJECTS)}. {wishes}"}) + "\n")
    with pilot.open("w") as out:
        for _ in range(50):
            out.write(
                json.dumps({"text": "Thank you for writing. " + "We look into it now. " * rng.randint(1, 8)}) + "\n"
            )


if __name__ == "__main__":
    sys.exit(main())
