"""What the trainer calls: a configuration → batches for training and validation, and a report that is kept up to date.

It puts the parts together; each of them knows no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from transformers import PreTrainedTokenizerBase

from michelangelo import errors
from michelangelo.llm.finetune.config import DataConfig, SourceConfig
from michelangelo.llm.finetune.data import batching, ordering, shards, tables
from michelangelo.llm.finetune.data.batching import Share
from michelangelo.llm.finetune.data.prefetching import PrefetchedBatches
from michelangelo.llm.finetune.data.report import DataReport
from michelangelo.llm.finetune.data.stream import Side, Stream, StreamPlan
from michelangelo.llm.finetune.data.tokenizing import Tokenizing
from michelangelo.llm.training_setup import Objective

__all__ = ["OpenedData", "Sources", "open_data", "open_sources", "open_stream"]


@dataclass(frozen=True, slots=True)
class OpenedData:
    """Batches of this process. To be closed."""

    train: PrefetchedBatches
    validation: PrefetchedBatches | None

    @property
    def report(self) -> DataReport:
        """Of the training data, as far as it was handed out."""
        return self.train.report

    def close(self) -> None:
        self.train.close()
        if self.validation is not None:
            self.validation.close()


@dataclass(frozen=True, slots=True)
class Sources:
    """Sources that were found, and how to read them in order."""

    make_order: Callable[[], ordering.RowOrder]
    is_streamed: bool
    identity: str
    """A digest of names, sizes and weights."""
    num_bytes: int
    """Of all rows, as they are read; 0: not known."""


def open_data(
    config: DataConfig,
    *,
    objective: Objective,
    tokenizer: PreTrainedTokenizerBase,
    micro_batch: int,
    data_rank: int = 0,
    data_parallel: int = 1,
    vocab_size: int = 0,
) -> OpenedData:
    """Finds the sources and reads as much of them as an index needs; rows are read when the first batch is asked for.

    `vocab_size`: of the model; token ids beyond it are a ModelError; 0: not checked. Raises DatasetError if a source is
    missing, empty or unreachable, or the chat template malformed.
    """
    if objective == "dpo" and config.long_samples == "split":
        raise errors.DatasetError("data.long_samples: split has no meaning for dpo: choose truncate or drop")
    share = Share(micro_batch, data_rank, data_parallel)
    tokenizing = Tokenizing(tokenizer, config, objective, vocab_size=vocab_size)
    held_out = config.validation_share if not config.validation else 0.0
    train_sources = open_sources(config.train, config, is_shuffled=config.shuffle_buffer > 0)

    def batches(name: str, sources: Sources, side: Side) -> PrefetchedBatches:
        stream = open_stream(name, sources, config, objective, tokenizing, side)
        report = DataReport(notes=tokenizing.notes())
        return PrefetchedBatches(
            lambda state: batching.batches(stream, share, state),
            stream.check,
            None if sources.is_streamed else lambda: batching.count_batches(stream, share),
            report,
        )

    train = batches("data.train", train_sources, "train" if held_out else "all")
    if config.validation:
        return OpenedData(
            train, batches("data.validation", open_sources(config.validation, config, is_shuffled=False), "all")
        )
    if held_out:
        in_order = open_sources(config.train, config, is_shuffled=False)
        return OpenedData(train, batches("the validation share of data.train", in_order, "validation"))
    return OpenedData(train, None)


def open_sources(sources: Sequence[SourceConfig], config: DataConfig, *, is_shuffled: bool) -> Sources:
    """Raises DatasetError."""
    found = [(shards.shards_of(source, config, streaming=config.streaming), source.weight) for source in sources]
    listing = [
        [weight, [(shard.name.rstrip("/").rsplit("/", 1)[-1], shard.num_bytes) for shard in members]]
        for members, weight in found
    ]
    sizes = [_plain_bytes(shard) for members, _ in found for shard in members]
    num_bytes = sum(sizes) if all(sizes) else 0
    identity = hashlib.blake2b(orjson.dumps(listing), digest_size=8).hexdigest()
    make_order: Callable[[], ordering.RowOrder]
    if config.streaming:
        streams = [ordering.StreamSource(members, weight) for members, weight in found]
        block = config.shuffle_buffer if is_shuffled else 0

        def make_order() -> ordering.RowOrder:
            return ordering.StreamOrder(streams, seed=config.seed, block_rows=block)
    else:
        held = [
            ordering.TableSource([tables.table_of(shard) for shard in members], weight) for members, weight in found
        ]

        def make_order() -> ordering.RowOrder:
            return ordering.TableOrder(held, seed=config.seed, shuffled=is_shuffled)

    return Sources(make_order, config.streaming, identity, num_bytes)


def _plain_bytes(shard: shards.Shard) -> int:
    """0: the rows do not take the bytes of the file."""
    return shard.num_bytes if isinstance(shard, shards.LineShard) and not shard.file.compression else 0


def open_stream(
    name: str, sources: Sources, config: DataConfig, objective: Objective, tokenizing: Tokenizing, side: Side
) -> Stream:
    """One stream of packed rows."""
    settings: dict[str, Any] = config.model_dump(
        mode="json", exclude={"train", "validation", "max_bad_rows", "max_bad_share"}
    )
    identity = {
        "the files": sources.identity,
        "the settings of data": _digest([settings, objective, side]),
        "the tokenizer": _digest(tokenizing.identity()),
    }
    return Stream(StreamPlan(name, config, objective, side, tokenizing, sources.make_order, identity))


def _digest(value: Any) -> str:
    return hashlib.blake2b(orjson.dumps(value), digest_size=8).hexdigest()
