"""A language model from nothing: text, tokenizer, pre-training, LoRA, evaluation, scoring on Ray, and a report.

    python examples/tiny_llm/main.py --learning-rate 0.002 --steps 300 --seed 2

Each step is cached by its code, its inputs and the part of the configuration that it takes: a second run does nothing
again; another learning rate trains and measures again, but keeps text, tokenizer and random weights. The same
parameters give the same model, bit for bit, also when a run was killed on its way and resumed.

torch, transformers, peft and Ray are imported by the tasks, in processes of their own. What the tasks do is in modules
beside this one; here is how they hang together.
"""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import data
import evaluate
import finetune
import model
import report
import score
import tokenizer
from evaluate import Evaluation
from report import Report, Story

from michelangelo import errors, uniflow
from michelangelo.uniflow.plugins.ray import RayTask

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Report", "check", "tiny_llm"]

TRAINING: Final = uniflow.Process(cpu=2)
SCORING: Final = RayTask(head_cpu=1, worker_instances=2, worker_cpu=1, head_object_store_memory="100Mi")
"""A task in a Ray of the run's own, with room for two actors."""
EXTRAS: Final = {
    "pyarrow": "data",
    "peft": "llm",
    "safetensors": "llm",
    "tokenizers": "llm",
    "torch": "llm",
    "transformers": "llm",
    "ray": "ray",
}
"""The optional libraries of the tasks, and which extra of the package brings them."""

LIMITS: Final[dict[str, tuple[float, float]]] = {
    "learning_rate": (1e-6, 1.0),
    "steps": (1, 100_000),
    "batch_size": (1, 1024),
    "seed": (0, 2**31 - 1),
    "vocabulary": (300, 32_768),
    "hidden": (64, 1024),
    "layers": (1, 32),
    "context": (64, 1024),
    "lora_rank": (1, 256),
    "lora_learning_rate": (1e-6, 1.0),
    "lora_epochs": (1, 1000),
    "prompts": (1, 200),
    "temperature": (0.05, 5.0),
}


@dataclass
class Corpus:
    """The cleaned text (columns split, topic, text) and the questions (split, topic, question, answer)."""

    documents: pa.Table
    questions: pa.Table
    statistics: dict[str, dict[str, float]]
    """By split: topics, documents, characters, questions, and which share of its runs of 13 words training has too."""


@dataclass
class Vocabulary:
    """A trained tokenizer. `bytes_per_token` is measured on the test set."""

    file: uniflow.File
    size: int
    bytes_per_token: float


@dataclass
class Network:
    """A model's folder, as transformers writes it; `digest` is that of the weights."""

    folder: uniflow.Directory
    digest: str
    parameters: int


@dataclass
class Trained:
    """What a training made, and how it went. `network.parameters` are those that were trained."""

    network: Network
    curve: model.Curve


@uniflow.task(cache_enabled=True)
def prepare(config: data.DataConfig) -> Corpus:
    """Clean the text, divide it by topic, and make questions of its headings."""
    import pyarrow as pa

    everything = [block for topic, raw in data.topics().items() for block in data.parse(topic, raw)]
    splits = data.assign(everything, config)
    blocks = data.unique(everything)
    asked = list(data.questions(blocks))
    documents = pa.table(
        {
            "split": [splits[block.topic] for block in blocks],
            "topic": [block.topic for block in blocks],
            "text": [block.document for block in blocks],
        }
    )
    questions = pa.table(
        {
            "split": [splits[one.topic] for one in asked],
            "topic": [one.topic for one in asked],
            "question": [one.question for one in asked],
            "answer": [one.answer for one in asked],
        }
    )
    train = _texts(documents, "train")
    statistics = {}
    for split in data.SPLITS:
        texts = _texts(documents, split)
        statistics[split] = {
            "topics": len({topic for topic, name in splits.items() if name == split}),
            "documents": len(texts),
            "characters": sum(map(len, texts)),
            "questions": len(_pairs(questions, split)),
            "overlap": 0.0 if split == "train" else data.overlap(train, texts),
        }
        print(f"{split}: {statistics[split]}")
    return Corpus(documents, questions, statistics)


@uniflow.task(cache_enabled=True)
def train_tokenizer(documents: pa.Table, config: tokenizer.TokenizerConfig) -> Vocabulary:
    """Learn the tokenizer from the training text."""
    learnt = tokenizer.train(_texts(documents, "train"), config)
    path = _folder() / "tokenizer.json"
    learnt.save(str(path))
    measured = tokenizer.bytes_per_token(learnt, _texts(documents, "test"))
    print(f"{learnt.get_vocab_size()} tokens, {measured:.2f} bytes each on the test set")
    return Vocabulary(uniflow.File(path), learnt.get_vocab_size(), measured)


@uniflow.task(cache_enabled=True)
def initialise(config: model.ModelConfig, vocabulary: Vocabulary, seed: int) -> Network:
    """Random weights: where training starts, and what evaluation calls untrained."""
    model.prepare()
    end = tokenizer.end_of(tokenizer.load(vocabulary.file.path))
    return _network(model.initialise(config, vocabulary.size, end, seed))


@uniflow.task(TRAINING, cache_enabled=True)
def pretrain(
    start: Network, vocabulary: Vocabulary, documents: pa.Table, config: model.TrainConfig, seed: int
) -> Trained:
    """Train on the training text; validation chooses which weights are kept."""
    model.prepare()
    learnt = tokenizer.load(vocabulary.file.path)
    network = model.load(start.folder.path)
    tokens, validation = (tokenizer.encode(learnt, _texts(documents, split)) for split in ("train", "validation"))
    print(f"{start.parameters:,} parameters, {len(tokens):,} tokens of text")
    curve = model.train(network, tokens, validation, config, seed)
    return Trained(_network(network), curve)


@uniflow.task(TRAINING, cache_enabled=True)
def tune(
    base: Network, vocabulary: Vocabulary, questions: pa.Table, settings: finetune.LoraSettings, seed: int
) -> Trained:
    """Train LoRA matrices beside the model, on the questions of the training topics."""
    model.prepare()
    learnt = tokenizer.load(vocabulary.file.path)
    tuned = finetune.attach(model.load(base.folder.path), settings, seed)
    context = tuned.config.max_position_embeddings
    train, validation = (
        finetune.examples(learnt, _pairs(questions, split), context) for split in ("train", "validation")
    )
    trained = model.parameters(tuned, trainable=True)
    print(f"{trained:,} parameters are trained beside {base.parameters:,}; {len(train)} questions")
    curve = finetune.train(tuned, train, validation, settings, seed)
    folder = _folder() / "adapter"
    finetune.save(tuned, folder)
    made = uniflow.Directory(folder)
    return Trained(Network(made, made.digest, trained), curve)


@uniflow.task(cache_enabled=True)
def measure(
    name: str, network: Network, adapter: Network | None, vocabulary: Vocabulary, corpus: Corpus
) -> list[Evaluation]:
    """One model on the held-out text and on the held-out answers."""
    model.prepare(threads=1)
    learnt = tokenizer.load(vocabulary.file.path)
    measured = model.load(network.folder.path)
    if adapter is not None:
        measured = finetune.load(measured, adapter.folder.path)
    return evaluate.of_network(name, measured, learnt, _held_out(corpus))


@uniflow.task(cache_enabled=True)
def measure_baseline(vocabulary: Vocabulary, corpus: Corpus, context: int) -> list[Evaluation]:
    """The frequencies of tokens, on the same text and answers."""
    learnt = tokenizer.load(vocabulary.file.path)
    train = tokenizer.encode(learnt, _texts(corpus.documents, "train"))
    return evaluate.of_unigram(train, learnt, _held_out(corpus), context)


@uniflow.task(SCORING, cache_enabled=True)
def complete(
    base: Network, adapter: Network, vocabulary: Vocabulary, corpus: Corpus, config: score.ScoreConfig, seed: int
) -> pa.Table:
    """Complete held-out prompts on Ray actors: columns kind, prompt, reference, greedy, sampled, reference_loss."""
    import pyarrow as pa

    learnt = tokenizer.load(vocabulary.file.path)
    prompts = score.prompts_of(learnt, _texts(corpus.documents, "test"), _pairs(corpus.questions, "test"), config)
    models = (base.folder.path, adapter.folder.path, vocabulary.file.path)
    done = score.in_parallel(prompts, config, *models, config, seed)
    rows = [
        {"kind": one.prompt.kind, "prompt": one.prompt.text, "reference": one.prompt.reference}
        | {"greedy": one.greedy, "sampled": one.sampled, "reference_loss": one.reference_loss}
        for one in done
    ]
    return pa.Table.from_pylist(rows)


@uniflow.task(cache_enabled=True)
def write_report(story: Story, completions: pa.Table, seed: int) -> Report:
    """Compare, draw and write everything into one folder."""
    return report.write(story, completions.to_pylist(), _folder() / "tiny_llm", seed)


@uniflow.workflow
def tiny_llm(
    learning_rate: float = 3e-3,
    steps: int = 500,
    batch_size: int = 8,
    seed: int = 1,
    vocabulary: int = 2048,
    hidden: int = 256,
    layers: int = 4,
    context: int = 128,
    lora_rank: int = 16,
    lora_learning_rate: float = 1e-3,
    lora_epochs: int = 4,
    prompts: int = 8,
    temperature: float = 0.8,
) -> Report:
    """Train a small Llama on Python's language reference, tune it on questions, measure it, and report."""
    given = dict(locals())
    check(**given)
    shape = model.ModelConfig(hidden, layers, max(hidden // 64, 1), _intermediate(hidden), context)
    training = model.TrainConfig(learning_rate, steps, batch_size, evaluate_every=max(steps // 12, 1))
    settings = finetune.LoraSettings(lora_rank, 2 * lora_rank, learning_rate=lora_learning_rate, epochs=lora_epochs)
    scoring = score.ScoreConfig(prompts, temperature=temperature)

    corpus = prepare(data.DataConfig())
    words = train_tokenizer(corpus.documents, tokenizer.TokenizerConfig(vocabulary))
    start = initialise(shape, words, seed)
    baseline = measure_baseline.submit(words, corpus, context)
    untrained = measure.submit("untrained", start, None, words, corpus)
    trained = pretrain(start, words, corpus.documents, training, seed)
    base = measure.submit("trained", trained.network, None, words, corpus)
    tuned = tune(trained.network, words, corpus.questions, settings, seed)
    lora = measure.submit("LoRA", trained.network, tuned.network, words, corpus)
    completions = complete(trained.network, tuned.network, words, corpus, scoring, seed)
    evaluations = [one for part in (baseline, untrained, base, lora) for one in part.result()]
    story = Story(
        parameters=given,
        statistics=corpus.statistics,
        vocabulary=words.size,
        bytes_per_token=words.bytes_per_token,
        weights=start.parameters,
        lora_weights=tuned.network.parameters,
        digests={"model": trained.network.digest, "adapter": tuned.network.digest, "tokenizer": words.file.digest},
        training=trained.curve,
        tuning=tuned.curve,
        evaluations=evaluations,
        model=trained.network.folder,
        adapter=tuned.network.folder,
        tokenizer=words.file,
    )
    return write_report(story, completions, seed)


def check(**given: Any) -> None:
    """Raises ArgumentsError that names every parameter out of its range, SettingsError when a library is missing."""
    missing = [name for name in (*EXTRAS, "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({EXTRAS[name] for name in missing if name in EXTRAS}))
        wanted = [f"'michelangelo-oss[{extras}]'"] * bool(extras) + ["matplotlib"] * ("matplotlib" in missing)
        raise errors.SettingsError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: pip install {' '.join(wanted)}"
        )
    wrong = [
        errors.FieldError(name, f"is {given[name]}; must be {_range(low, high)}")
        for name, (low, high) in LIMITS.items()
        if name in given and not low <= given[name] <= high
    ]
    if given.get("hidden", 64) % 64:
        wrong.append(errors.FieldError("hidden", f"is {given['hidden']}; must be a multiple of 64, the size of a head"))
    if wrong:
        lines = "".join(f"\n  {one}" for one in wrong)
        raise errors.ArgumentsError(f"wrong arguments for tiny_llm:{lines}", errors=wrong)


def _range(low: float, high: float) -> str:
    return f"from {low:g} to {high:g}"


def _intermediate(hidden: int) -> int:
    """Llama's 8/3 of the width, in steps of 16."""
    return round(hidden * 8 / 3 / 16) * 16


def _texts(documents: pa.Table, split: str) -> list[str]:
    return [row["text"] for row in documents.to_pylist() if row["split"] == split]


def _pairs(questions: pa.Table, split: str) -> list[tuple[str, str]]:
    return [(row["question"], row["answer"]) for row in questions.to_pylist() if row["split"] == split]


def _held_out(corpus: Corpus) -> evaluate.HeldOut:
    return evaluate.HeldOut(_texts(corpus.documents, "test"), _pairs(corpus.questions, "test"))


def _network(network: Any) -> Network:
    folder = _folder() / "model"
    model.save(network, folder)
    return Network(uniflow.Directory(folder), model.digest_of(network), model.parameters(network))


def _folder() -> Path:
    """A folder of this attempt; what is returned as File or Directory outlives it as a blob."""
    context = uniflow.task_context.current()
    return Path(tempfile.mkdtemp(dir=context.scratch if context and context.scratch else None))


if __name__ == "__main__":
    uniflow.main(tiny_llm)
