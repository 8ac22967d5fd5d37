"""How fast text is counted, with how much memory, and how far the bundled tokenizers are apart on kinds of text.

    python benchmarks/tokens.py [--megabytes 100] [--processes 2] [--tokenizer o200k_base]

The text is this repository's own source and documentation, repeated with a number on each file so that no part is the
same as another.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from michelangelo.llm.tokens import counting, sources, tokenizers

ROOT = Path(__file__).parents[1]
KINDS = {
    "Russian": "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "Chinese": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
}


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tokenizer", default="o200k_base")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        _write(path, words.megabytes * 1_000_000)
        begun = time.perf_counter()
        problems = sources.Problems()
        items = sources.items([str(path)], problems)
        (made,) = counting.count_items(items, "gpt-4o", tokenizer=words.tokenizer, num_processes=words.processes)
        seconds = time.perf_counter() - begun
        size = path.stat().st_size
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    peak = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    report = {
        "megabytes": size / 1e6,
        "tokenizer": words.tokenizer,
        "processes": words.processes,
        "tokens": made.count.tokens,
        "exact": made.count.is_exact,
        "seconds": round(seconds, 2),
        "cpuSeconds": round(sum(one.ru_utime + one.ru_stime for one in used), 2),
        "megabytesPerSecond": round(size / 1e6 / seconds, 2),
        "peakMiB": {"self": round(peak[0]), "largestProcess": round(peak[1])},
        "tokensPerO200k": _ratios(),
    }
    print(json.dumps(report, indent=2))


def _write(path: Path, size: int) -> None:
    files = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md")])
    texts = [file.read_text(encoding="utf-8") for file in files]
    written = copies = 0
    with path.open("w", encoding="utf-8") as out:
        while written < size:
            copies += 1
            for number, text in enumerate(texts):
                if written < size:
                    written += out.write(f"{copies} {number}\n{text}")


def _ratios() -> dict[str, dict[str, float]]:
    texts = {
        **KINDS,
        "English": (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"),
        "Python": Path(counting.__file__).read_text(encoding="utf-8"),
    }
    made = {}
    for kind, text in texts.items():
        base = tokenizers.load("o200k_base").count_exact(text)
        made[kind] = {name: round(tokenizers.load(name).count_exact(text) / base, 2) for name in tokenizers.BUNDLED}
    return made


if __name__ == "__main__":
    main()
