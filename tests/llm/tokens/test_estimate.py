"""Estimates: intervals that hold what they promise, budgets and currencies, pipelines, and comparisons."""

from __future__ import annotations

import datetime
import json
import subprocess
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from michelangelo import errors
from michelangelo.llm.tokens import budget, diff, pilots, pipeline, prices, sources, work
from michelangelo.llm.tokens import estimate as estimating
from michelangelo.llm.tokens.counts import Count
from michelangelo.llm.tokens.estimate import Calls, Lengths, Share

OWN = (
    prices.OwnPrice(
        model="m", date=datetime.date(2020, 1, 1), input=Decimal(1), output=Decimal(10), cached=Decimal("0.1")
    ),
)


def _calls(calls: int, tokens: int, output: Lengths, **more: object) -> Calls:
    count = Count(tokens, tokens, tokens, True, "t")
    return Calls(name="s", model="m", calls=calls, input=count, output=output, own=OWN, **more)  # type: ignore[arg-type]


def test_what_is_certain_has_no_width() -> None:
    made = estimating.estimate([_calls(100, 10_000, Lengths(samples=(50,) * 30), cached=Share(0.5))])
    # 5,000 x 1 + 5,000 x 0.1 + 5,000 x 10, per million.
    assert made.usd.low == pytest.approx(0.0555)
    assert made.usd.high == pytest.approx(0.0555)


@pytest.mark.slow
@pytest.mark.parametrize("calls", [200, 5000])
def test_the_interval_covers_the_bill_as_often_as_it_says(calls: int) -> None:
    rng = np.random.default_rng(1)
    covered = 0
    trials = 25
    for _ in range(trials):
        pilot = tuple(int(x) for x in rng.lognormal(5, 0.5, 200))
        made = estimating.estimate([_calls(calls, 0, Lengths(samples=pilot))], level=0.9)
        bill = rng.lognormal(5, 0.5, calls).astype(int).sum() * 10 / 1e6
        covered += made.usd.low <= bill <= made.usd.high
    # With the true level 0.9, fewer than 18 of 25 have a probability below 0.3 %.
    assert covered >= 18


def test_retries_cost_as_many_calls_again() -> None:
    made = estimating.estimate([_calls(100_000, 10_000_000, Lengths(samples=(10,)), retries=Share(0.2))])
    assert made.input_tokens.middle == pytest.approx(12_500_000, rel=0.01)
    assert made.output_tokens.middle == pytest.approx(1_250_000, rel=0.01)


def test_a_share_that_was_counted_is_less_certain_than_a_given_one() -> None:
    def width(share: Share) -> float:
        made = estimating.estimate([_calls(1000, 10**6, Lengths(samples=(10,)), cached=share)])
        return made.usd.high - made.usd.low

    assert width(Share.parse("5/10")) > width(Share.parse("500/1000")) > width(Share.parse("50%")) == 0


def test_an_estimated_tokenizer_widens_the_interval() -> None:
    stage = Calls(name="s", model="m", calls=10, input=Count(1000, 900, 1500, False, "t"), own=OWN)
    made = estimating.estimate([stage])
    assert 900 < made.input_tokens.low < 1000 < made.input_tokens.high < 1500


def test_the_tier_is_that_of_each_prompt_and_not_of_their_sum() -> None:
    small = Calls(
        name="s", model="gemini-2.5-pro", provider="google", calls=100, input=Count(10**6, 10**6, 10**6, True, "t"),
        row_tokens=(10_000,) * 100, output=Lengths(samples=(0,)),
    )  # fmt: skip
    assert estimating.estimate([small]).usd.middle == pytest.approx(1.25)


@pytest.mark.parametrize("text", ["2", "x", "-0.1", "5/0", "7/5"])
def test_a_share_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(errors.PricingError):
        Share.parse(text)


def test_numbers_that_cannot_be_are_refused() -> None:
    with pytest.raises(errors.PricingError, match="calls"):
        _calls(-1, 0, Lengths())
    with pytest.raises(errors.PricingError, match="p50"):
        Lengths(p50=10, p95=5)
    with pytest.raises(errors.PricingError, match="level"):
        estimating.estimate([_calls(1, 1, Lengths())], level=1.0)


@pytest.mark.parametrize(
    ("text", "amount", "currency"), [("25usd", 25, "USD"), ("$25", 25, "USD"), ("1,000.50 eur", 1000.5, "EUR")]
)
def test_budgets_are_read(text: str, amount: float, currency: str) -> None:
    assert budget.parse(text) == budget.Money(amount, currency)


@pytest.mark.parametrize("text", ["25", "usd", "-5usd", "$5eur", "1e9usd", "nanusd"])
def test_what_is_no_money_is_refused(text: str) -> None:
    with pytest.raises(errors.PricingError):
        budget.parse(text)


def test_rates_say_where_they_are_from() -> None:
    assert budget.rate_of("EUR", {"EUR": 0.5}).provenance == "given by the caller"
    bundled = budget.rate_of("eur")
    assert bundled.per_usd == pytest.approx(1 / 1.0389)
    assert "2024-12-31" in bundled.provenance
    with pytest.raises(errors.PricingError, match="no rate is known"):
        budget.rate_of("XYZ")
    with pytest.raises(errors.PricingError, match="'EUR=-1', 'A=2'"):
        budget.parse_rates(("EUR=-1", "A=2"))


def test_a_pilot_tells_lengths_by_any_of_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "pilot.jsonl"
    path.write_text(
        '{"output_tokens": 7}\n{"usage": {"prompt_tokens": 1, "completion_tokens": 9}}\n{"text": "hello world"}\n{}\n'
    )
    made = pilots.read(str(path), "gpt-4o")
    assert made.samples == (7, 9, 2)
    assert "1 unusable" in made.source
    path.write_text("{}\n")
    with pytest.raises(errors.PricingError, match="no row of it"):
        pilots.read(str(path), "gpt-4o")


PIPELINE = """
rows: {rows}
stages:
  - name: extract
    model: gpt-4o-mini
    template: "List the claims: {{{{ text }}}}"
    output: {{p50: 100, p95: 200}}
  - model: gpt-4o
    template: "Is it true? {{{{ previous }}}}"
    fan_out: 5
    retries: 12/400
"""


def test_a_pipeline_multiplies_its_calls(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "hello world"}\n{"text": "hello"}\n{"no": 1}\n')
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE.format(rows=rows))
    problems = sources.Problems()
    first, second = pipeline.stages(pipeline.read(str(path)), problems)
    assert (first.calls, second.calls) == (2, 10)
    assert problems.malformed == 1
    # "List the claims: hello world" and "List the claims: hello"
    assert first.input.tokens == 6 + 5
    mean = round(first.output.mean)
    assert second.input.tokens == pytest.approx(10 * (5 + mean), abs=20)
    assert second.name == "stage 2"


def test_a_wrong_pipeline_is_said_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("rows: -1\nstages: [{fan_out: 0, retries: 7, output: {p50: -1}, colour: red}, 3]\n")
    with pytest.raises(errors.PricingError) as caught:
        pipeline.read(str(path))
    for text in ("rows", "[0].model", "[0].fan_out", "[0].retries", "[0].output.p50", "[0].colour", "stages[1]"):
        assert text in caught.value.message


def _git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def test_a_change_is_compared_with_a_revision(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "gone.txt").write_text("hello world")
    (tmp_path / "link.txt").symlink_to("a.txt")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / "a.txt").write_text("hello hello hello")
    (tmp_path / "gone.txt").unlink()
    (tmp_path / "new|.txt").write_text("hello")
    asked = work.Asked()
    after = work.make([str(tmp_path)], asked)
    text = work.compared("HEAD", [str(tmp_path)], asked, after)
    assert "| `a.txt` | 1 | 3 | +2 (+200.0%) |" in text
    assert "| `gone.txt` | 2 | none | -2 (-100.0%) |" in text
    assert "| `new\\|.txt` | none | 1 | +1 |" in text
    assert "**cost, USD**" in text
    assert "link.txt" not in text
    with pytest.raises(errors.PricingError, match="'nowhere' is no report"):
        work.compared("nowhere", [str(tmp_path)], asked, after)


def test_a_change_is_compared_with_a_report_and_with_a_folder(tmp_path: Path) -> None:
    for name, text in (("old", "hello"), ("new", "hello world")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(text)
    asked = work.Asked()
    before, after = (work.make([str(tmp_path / name)], asked) for name in ("old", "new"))
    assert "| `a.txt` | 1 | 2 | +1 (+100.0%) |" in work.compared(
        str(tmp_path / "old"), [str(tmp_path / "new")], asked, after
    )
    saved = tmp_path / "report.json"
    saved.write_text(json.dumps(before.to_dict()))
    assert diff.is_report(str(saved))
    assert "| **tokens in all** | 1 | 2 | +1 (+100.0%) |" in work.compared(str(saved), [], asked, after)


def test_self_hosting_stands_beside_the_price(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello world " * 500)
    asked = work.Asked(calls=1000, self_hosted="llama-3.1-8b", hardware="h100", gpu_hour=2.0)
    made = work.make([str(tmp_path / "a.txt")], asked)
    assert made.self_hosted is not None
    # The price is that of the hours of the planner.
    assert made.self_hosted.usd.middle == pytest.approx(made.self_hosted.hours * 2.0)
    assert made.self_hosted.usd.low < made.self_hosted.usd.middle < made.self_hosted.usd.high
