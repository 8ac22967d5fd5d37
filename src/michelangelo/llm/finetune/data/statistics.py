"""How much there is in a data set, for a plan: tokens, lengths, and how well they pack. Read from a part of the rows,
by the same code that a run reads with.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from transformers import PreTrainedTokenizerBase

from michelangelo.llm.finetune.config import DataConfig
from michelangelo.llm.finetune.data import opening, ordering, packing
from michelangelo.llm.finetune.data.report import DataReport
from michelangelo.llm.finetune.data.rows import Pair, Row, Sample, Unit
from michelangelo.llm.finetune.data.tokenizing import Tokenizing
from michelangelo.llm.training_setup import Objective

__all__ = ["DataStatistics", "count"]

_CHUNK_ROWS: Final = 128
_PERCENTILES: Final = (5, 25, 50, 75, 95, 99)


@dataclass(frozen=True, slots=True)
class DataStatistics:
    """Counts of a pass over the training data, before long samples are cut. With pairs a length is that of the longer
    answer with its prompt, and tokens are those of both."""

    rows_read: int
    rows: int | None
    """Of a pass; None: not known without reading all of it."""
    bad_rows: int
    """Of those read."""
    tokens: int | None
    """Of a pass: counted if `is_exact`, else estimated from the rows read; None: not known."""
    trained_tokens: int | None
    is_exact: bool
    lengths: dict[str, int]
    """Tokens per sample: `p5` … `p99`, and `max`."""
    mean_length: float
    long_share: float
    """Of the samples, 0 … 1: longer than data.sequence_length."""
    packing_efficiency: float
    """Of the rows that packing makes of them, or of rows padded to sequence_length without packing; 0 … 1."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def count(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    limit: int = 10_000,
    *,
    objective: Objective = "sft",
    vocab_size: int = 0,
) -> DataStatistics:
    """Reads up to `limit` rows (0: all) and tokenises them. Which ones: any of the data, at random; of streamed data
    those at the front. Raises DatasetError as a run would, so it also finds bad rows before one."""
    whole = config.model_copy(update={"sequence_length": 2**31 - 1, "long_samples": "truncate"})
    sources = opening.open_sources(config.train, config, is_shuffled=not config.streaming)
    tokenizing = Tokenizing(tokenizer, whole, objective, vocab_size=vocab_size)
    order = sources.make_order()
    report = DataReport()
    units: list[Unit] = []
    num_bytes = 0
    is_exact = False
    while not limit or report.rows < limit:
        rows = order.read(min(_CHUNK_ROWS, limit - report.rows) if limit else _CHUNK_ROWS)
        if not rows:
            is_exact = True
            break
        units += tokenizing.units(rows, report)
        num_bytes += sum(_stored_bytes(row) for row in rows)
        report.check(config)
    report.check(config, is_end=True)
    report.check_usable("data.train")
    share = 1.0 if is_exact else _share_read(order, report.rows, num_bytes, sources.num_bytes)
    return _statistics(config, units, report, share, is_exact=is_exact or share == 1.0)


def _share_read(order: ordering.RowOrder, rows: int, num_bytes: int, total_bytes: int) -> float | None:
    """Of a pass; None: not known."""
    total = order.num_rows()
    if total is not None:
        return rows / total
    return min(1.0, num_bytes / total_bytes) if total_bytes and num_bytes else None


def _statistics(
    config: DataConfig, units: list[Unit], report: DataReport, share: float | None, *, is_exact: bool
) -> DataStatistics:
    lengths = np.array([_length(unit) for unit in units])
    tokens = sum(len(unit) for unit in units)
    trained = sum(unit.num_trained for unit in units)
    found = np.percentile(lengths, _PERCENTILES, method="inverted_cdf").astype(int).tolist()
    return DataStatistics(
        rows_read=report.rows,
        rows=None if share is None else round(report.rows / share),
        bad_rows=report.bad_rows,
        tokens=None if share is None else round(tokens / share),
        trained_tokens=None if share is None else round(trained / share),
        is_exact=is_exact,
        lengths={**{f"p{p}": value for p, value in zip(_PERCENTILES, found, strict=True)}, "max": int(lengths.max())},
        mean_length=float(lengths.mean()),
        long_share=float(np.mean(lengths > config.sequence_length)),
        packing_efficiency=_efficiency(config, units),
    )


def _efficiency(config: DataConfig, units: list[Unit]) -> float:
    length = config.sequence_length
    fitting = [unit.part(0, length) for unit in units if isinstance(unit, Sample)]
    if not config.packing or not fitting:
        return float(np.mean([min(_length(unit), length) for unit in units])) / length
    return sum(len(one) for one in fitting) / (len(packing.pack(fitting, length, is_last=True).rows) * length)


def _length(unit: Unit) -> int:
    return max(len(unit.chosen), len(unit.rejected)) if isinstance(unit, Pair) else len(unit)


def _stored_bytes(row: Row) -> int:
    """With the end of the line; 0: not known."""
    return len(row.data) + 1 if isinstance(row.data, bytes) else 0
