"""The report as one HTML page: no scripts, no links to anywhere, light or dark as the reader's system is."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["INK", "render"]

INK: Final = "#1c2127"
"""The colour of axes and labels in the curves; on the page it gives way to that of the text."""

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2127; --soft: #5d6673; --line: #dfe3e8; --back: #f6f7f9; --card: #ffffff;
  --good: #1f8a5b; --bad: #c2410c; --accent: #2f6fd0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b2; --line: #2c333d; --back: #14171b;
  --card: #1c2127; --good: #4cc38a; --bad: #fb923c; --accent: #74a9ff; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .3rem } h2 { font-size: 1.2rem; margin: 2.4rem 0 .8rem }
p { margin: .4rem 0 } .soft { color: var(--soft) } code { font: .86em ui-monospace, monospace; overflow-wrap: anywhere }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .9rem; margin: 1.6rem 0 }
.card, .sample, .wide { background: var(--card); border: 1px solid var(--line); border-radius: .7rem;
  padding: 1rem 1.1rem }
.card b { display: block; font-size: 1.65rem; line-height: 1.25; font-variant-numeric: tabular-nums }
.card span { color: var(--soft); font-size: .88rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .42rem .7rem; text-align: right; border-top: 1px solid var(--line) }
th { border-top: 0; color: var(--soft); font-weight: 600; font-size: .86rem }
th:first-child, td:first-child { text-align: left } tr.best td { font-weight: 600 }
.wide { overflow-x: auto } .wide svg { display: block; width: 100%; height: auto }
.verdicts { list-style: none; padding: 0; margin: 0 }
.verdicts li { padding: .25rem 0 .25rem 1.7rem; position: relative }
.verdicts li::before { position: absolute; left: .2rem; font-weight: 700 }
li.good::before { content: "✓"; color: var(--good) } li.bad::before { content: "✗"; color: var(--bad) }
.samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: .9rem }
.sample dl { margin: 0 } .sample dt { color: var(--soft); font-size: .8rem; margin-top: .55rem }
.sample dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere } .sample dd.prompt { font-weight: 600 }
.sample dd.made { color: var(--accent) }
.two { display: grid; grid-template-columns: 2fr 3fr; gap: .9rem; align-items: start }
.two code { font-size: .74em } .two td { padding: .3rem .5rem } .two tr:first-child td { border-top: 0 }
@media (max-width: 48rem) { .samples, .two { grid-template-columns: 1fr } }
"""
_NAMES: Final = {
    "unigram": "unigram baseline",
    "untrained": "untrained model",
    "trained": "trained model",
    "LoRA": "trained + LoRA",
}


def render(metrics: dict[str, Any], lineage: dict[str, Any], samples: list[dict[str, Any]], curves: str) -> str:
    """The page; `curves` is an SVG document, drawn in INK."""
    texts = [one for one in samples if one["kind"] == "text"]
    questions = [one for one in samples if one["kind"] == "question"]
    parts = [
        "<h1>A tiny language model, from nothing</h1>",
        f'<p class="soft">{_introduction(metrics)}</p>',
        _cards(metrics, lineage),
        f"<h2>Does it learn?</h2>{_verdicts(metrics)}",
        f'<h2>Losses on the way</h2><div class="wide">{_inline(curves)}</div>'
        f'<p class="soft">Dashed: the step whose weights were kept, chosen on the validation set. The test set was '
        "looked at once, at the end.</p>",
        '<h2>On held-out text</h2><div class="wide">' + _evaluations(metrics, "text") + "</div>",
        '<h2>On answers to held-out questions</h2><div class="wide">' + _evaluations(metrics, "answers") + "</div>",
        f'<h2>Held-out text, continued by the trained model</h2><div class="samples">{_samples(texts)}</div>',
        f'<h2>Held-out questions, answered after LoRA</h2><div class="samples">{_samples(questions)}</div>',
        f'<h2>Data</h2><div class="wide">{_data(metrics)}</div>',
        f'<h2>Configuration and lineage</h2><div class="two">{_lineage(metrics, lineage)}</div>',
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>tiny_llm</title>\n'
        f"<style>{_STYLE}</style>\n<main>\n" + "\n".join(parts) + "\n</main>\n</html>\n"
    )


def _introduction(metrics: dict[str, Any]) -> str:
    train = metrics["data"]["train"]
    return (
        f"A Llama of {metrics['weights'] / 1e6:.1f} million parameters and a BPE tokenizer of "
        f"{metrics['vocabulary']:,} tokens, trained on {train['characters'] / 1000:.0f} thousand characters of "
        f"Python's language reference, tuned on {train['questions']:.0f} questions with "
        f"{metrics['loraWeights'] / 1e3:.0f} thousand LoRA parameters, and measured on topics that it has never seen."
    )


def _cards(metrics: dict[str, Any], lineage: dict[str, Any]) -> str:
    found = {(one["name"], one["subject"]): one for one in metrics["evaluations"]}
    trained, unigram = found["trained", "text"], found["unigram", "text"]
    speed = lineage["training"]
    cards = [
        (f"{trained['loss']:.3f}", "nats per token on held-out text"),
        (
            f"{trained['loss'] - unigram['loss']:+.2f}".replace("-", "−"),
            f"against the unigram baseline's {unigram['loss']:.3f}",
        ),
        (f"{trained['bits_per_byte']:.3f}", f"bits per byte (unigram {unigram['bits_per_byte']:.3f})"),
        (f"{trained['perplexity']:,.0f}", f"perplexity (unigram {unigram['perplexity']:,.0f})"),
        (f"{speed['tokensPerSecond']:,.0f}", f"tokens per second, {speed['seconds']:.0f} s of training"),
    ]
    return '<div class="cards">' + "".join(_card(value, what) for value, what in cards) + "</div>"


def _card(value: str, what: str) -> str:
    return f'<div class="card"><b>{html.escape(value)}</b><span>{html.escape(what)}</span></div>'


def _verdicts(metrics: dict[str, Any]) -> str:
    items = zip(metrics["gains"], metrics["verdicts"], strict=True)
    rows = (f'<li class="{"good" if gain["low"] > 0 else "bad"}">{html.escape(text)}</li>' for gain, text in items)
    return f'<ul class="verdicts">{"".join(rows)}</ul>'


def _evaluations(metrics: dict[str, Any], subject: str) -> str:
    chosen = [one for one in metrics["evaluations"] if one["subject"] == subject]
    best = min(one["loss"] for one in chosen)
    rows = [
        (
            _NAMES[one["name"]],
            f"{one['loss']:.4f}",
            f"{one['bits_per_byte']:.4f}",
            f"{one['perplexity']:,.1f}",
            f"{one['tokens']:,}",
        )
        for one in chosen
    ]
    marks = [one["loss"] == best for one in chosen]
    return _table(("Model", "Nats per token", "Bits per byte", "Perplexity", "Tokens"), rows, marks)


def _samples(samples: list[dict[str, Any]]) -> str:
    return "".join(
        '<div class="sample"><dl>'
        f'<dd class="prompt">{html.escape(one["prompt"].strip())}</dd>'
        f'<dt>greedy</dt><dd class="made">{_said(one["greedy"])}</dd>'
        f'<dt>sampled</dt><dd class="made">{_said(one["sampled"])}</dd>'
        f"<dt>the documentation ({one['reference_loss']:.2f} nats per token)</dt><dd>{_said(one['reference'])}</dd>"
        "</dl></div>"
        for one in samples
    )


def _said(text: str) -> str:
    return html.escape(text.strip()) or '<span class="soft">(nothing)</span>'


def _data(metrics: dict[str, Any]) -> str:
    rows = [
        (
            split,
            f"{one['topics']:.0f}",
            f"{one['documents']:,.0f}",
            f"{one['characters']:,.0f}",
            f"{one['questions']:.0f}",
            "" if split == "train" else f"{100 * one['overlap']:.2f} %",
        )
        for split, one in metrics["data"].items()
    ]
    head = ("Split", "Topics", "Documents", "Characters", "Questions", "Runs of 13 words seen in training")
    return _table(head, rows, [False] * len(rows))


def _lineage(metrics: dict[str, Any], lineage: dict[str, Any]) -> str:
    parameters = [(name.replace("_", "-"), str(value)) for name, value in metrics["parameters"].items()]
    origin = [
        *((f"{name} digest", digest) for name, digest in lineage["digests"].items()),
        ("run", f"{lineage['project']}/{lineage['run']}"),
        *lineage["versions"].items(),
        *((name, str(value)) for name, value in lineage["machine"].items()),
    ]
    return "".join(f'<div class="wide">{_pairs(pairs)}</div>' for pairs in (parameters, origin))


def _pairs(pairs: list[tuple[str, str]]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td><code>{html.escape(value)}</code></td></tr>" for name, value in pairs
    )
    return f"<table>{rows}</table>"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], marks: list[bool]) -> str:
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in head)
    body = "".join(
        ('<tr class="best">' if mark else "<tr>") + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row, mark in zip(rows, marks, strict=True)
    )
    return f"<table><tr>{titles}</tr>{body}</table>"


def _inline(curves: str) -> str:
    """The drawing alone, in the colour of the text."""
    return curves[curves.index("<svg") :].replace(INK, "currentColor")
