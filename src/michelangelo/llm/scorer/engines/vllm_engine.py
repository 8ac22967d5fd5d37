"""vLLM as an engine: its own step loop behind `submit` and `poll`, without a server in between.

vLLM is imported when an engine is opened, and not before: it is heavy, and commonly lives in an environment of its own.
Written against vLLM 0.32 (`vllm.v1.engine.llm_engine`). It serves one model on the devices of this process's machine;
what happens between replicas is not its business.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import Field

from michelangelo import errors
from michelangelo.llm.scorer.engine import Completion, FinishReason, Request, Task, Timing, TokenLogprob
from michelangelo.llm.scorer.engines import requests

__all__ = ["VllmConfig", "VllmEngine", "open_engine"]

_TASKS_OF: Final[Mapping[str, tuple[Task, ...]]] = {
    "generate": ("generate", "choices"),
    "embed": ("embed",),
    "classify": ("reward",),
}
"""By the names that vLLM has for what a model can do."""
_MAX_LOGPROBS: Final = 101
"""A hundred others, and the chosen one."""


class VllmConfig(pydantic.BaseModel):
    """One model in vLLM. What has no field here goes into `arguments`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    kind: Literal["vllm"] = "vllm"
    model: Annotated[str, Field(min_length=1)]
    """A folder with config.json and weights, or a name that vLLM knows."""
    tokenizer: str = ""
    """Empty: the model's."""
    runner: Literal["auto", "generate", "pooling"] = "auto"
    """pooling: embeddings and rewards."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_context: Annotated[int, Field(ge=0)] = 0
    """Tokens of a prompt and its output; 0: what the model takes."""
    max_sequences: Annotated[int, Field(ge=1)] = 256
    """Worked on at once."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    pipeline_parallel: Annotated[int, Field(ge=1)] = 1
    memory_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Of a GPU's memory, for weights and cache together."""
    cache_bytes: Annotated[int, Field(ge=0)] = 0
    """Of keys and values; 0: what is left of `memory_share`, and on a CPU what VLLM_CPU_KVCACHE_SPACE says."""
    reuses_prefixes: bool = True
    compiles: bool = True
    """torch.compile and CUDA graphs: a slower start, faster steps."""
    separate_process: bool = True
    """vLLM's core in a process of its own, so that it need not wait for ours."""
    seed: int = 0
    trusts_remote_code: bool = False
    chat_template: str = ""
    """Jinja; empty: the tokenizer's."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Of vLLM's EngineArgs, by their names."""


@dataclass(slots=True)
class _Row:
    """A request in flight, as one request of vLLM's or several (one for each choice)."""

    request: Request
    submitted: float
    num_prompt: int
    outputs: dict[int, Any] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)
    """vLLM's ids."""


class _RowError(Exception):
    """This row cannot be served."""


def open_engine(config: VllmConfig, *, clock: Callable[[], float] = time.monotonic) -> VllmEngine:
    """Loads the model. Raises EngineError if vLLM is not there, or does not start with this model."""
    try:
        from vllm.config import StructuredOutputsConfig  # type: ignore[import-not-found,unused-ignore]
        from vllm.engine.arg_utils import EngineArgs  # type: ignore[import-not-found,unused-ignore]
        from vllm.usage.usage_lib import UsageContext  # type: ignore[import-not-found,unused-ignore]
        from vllm.v1.engine.llm_engine import LLMEngine  # type: ignore[import-not-found,unused-ignore]
        from vllm.v1.executor import Executor  # type: ignore[import-not-found,unused-ignore]
    except ImportError as e:
        raise errors.EngineError(f"vLLM cannot be imported: {e}; install vllm, or choose another engine") from e
    values = _arguments(config)
    known = {each.name for each in dataclasses.fields(EngineArgs)}
    if unknown := sorted(values.keys() - known):
        raise errors.EngineError(f"arguments: vLLM has no {', '.join(unknown)}")
    try:
        values["structured_outputs_config"] = StructuredOutputsConfig(**values["structured_outputs_config"])
        made = EngineArgs(**values).create_engine_config(UsageContext.LLM_CLASS)
        core = LLMEngine(
            vllm_config=made,
            executor_class=Executor.get_class(made),
            log_stats=True,
            multiprocess_mode=config.separate_process,
        )
    except (OSError, ValueError, TypeError, RuntimeError, _vllm_error()) as e:
        raise errors.EngineError(f"vLLM cannot open {config.model}: {_line(e)}") from e
    return VllmEngine(config, core, clock)


class VllmEngine:
    """`scorer.engine.Engine`. See `open_engine`. core: vLLM's LLMEngine."""

    def __init__(self, config: VllmConfig, core: Any, clock: Callable[[], float]) -> None:
        self._config = config
        self._core = core
        self._clock = clock
        self._tokenizer = core.renderer.get_tokenizer()
        self._tasks = frozenset(task for name in core.get_supported_tasks() for task in _TASKS_OF.get(name, ()))
        self._rows: dict[str, _Row] = {}
        self._rows_of: dict[str, tuple[_Row, int]] = {}
        """By vLLM's id: the row, and which of its parts."""
        self._ended: list[Completion] = []
        self._num_parts = 0
        self._lost = ""

    @property
    def name(self) -> str:
        return f"vllm {self._config.model.rstrip('/').rsplit('/', 1)[-1]}"

    @property
    def tasks(self) -> frozenset[Task]:
        return self._tasks

    @property
    def capacity(self) -> int:
        """Twice what is worked on, so that one is there when one ends."""
        return 2 * self._config.max_sequences

    def submit(self, request: Request) -> None:
        """Raises EngineError once the engine is closed or lost, ValueError for an id that is in flight."""
        self._check_alive()
        if request.id in self._rows:
            raise ValueError(f"a request of the id {request.id!r} is in flight already")
        now = self._clock()
        try:
            if error := requests.problem(request, self._tasks):
                raise _RowError(error)
            row = self._row(request, now)
        except _RowError as e:
            self._ended.append(requests.failed(request, str(e), submitted=now, finished=self._clock()))
        else:
            self._rows[request.id] = row

    def poll(self, timeout: float | None = None) -> Sequence[Completion]:
        """Raises EngineError if vLLM's core dies."""
        self._check_alive()
        deadline = math.inf if timeout is None else self._clock() + timeout
        while not self._ended and self._rows:
            try:
                outputs = self._core.step()
            except (RuntimeError, _vllm_error()) as e:
                self._lost = f"vLLM ended with {len(self._rows)} requests in flight: {_line(e)}"
                raise errors.EngineError(self._lost) from e
            for output in outputs:
                if output.finished:
                    self._take(output)
            if self._clock() >= deadline:
                break
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, request_id: str) -> None:
        row = self._rows.get(request_id)
        if row is not None:
            self._forget(row)
            timing = Timing(row.submitted, None, self._clock())
            self._ended.append(Completion(request_id, finish_reason="cancelled", timing=timing))

    def close(self) -> None:
        if not self._lost:
            self._lost = f"the engine {self.name} is closed: open another one"
        core, self._core = self._core, None
        self._rows.clear()
        self._rows_of.clear()
        self._ended.clear()
        if core is not None:
            core.engine_core.shutdown()

    def _row(self, request: Request, now: float) -> _Row:
        """Given to vLLM, whole or not at all. Raises _RowError."""
        prompt = self._tokens(request)
        if not prompt:
            raise _RowError("the prompt is empty: give at least one token")
        row = _Row(request, now, len(prompt))
        parts = [prompt]
        if request.task == "choices":
            parts = [prompt + self._choice(request, prompt, choice) for choice in request.choices]
        try:
            params = _params(request)
            for number, tokens in enumerate(parts):
                name = str(self._num_parts)
                self._num_parts += 1
                self._core.add_request(name, {"prompt_token_ids": tokens}, params)
                row.parts.append(name)
                self._rows_of[name] = (row, number)
        except (ValueError, TypeError, _vllm_error()) as e:
            self._forget(row)
            raise _RowError(_line(e)) from e
        return row

    def _tokens(self, request: Request) -> list[int]:
        if request.token_ids is not None:
            return list(request.token_ids)
        if request.prompt is not None:
            return list(self._tokenizer(request.prompt)["input_ids"])
        template = self._config.chat_template or None
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in request.messages or ()],
                tools=[dict(tool) for tool in request.tools] or None,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=True,
            )
        except (ValueError, TypeError, KeyError, AttributeError, _template_error()) as e:
            raise _RowError(f"the chat template does not take these messages: {_line(e)}") from e
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _choice(self, request: Request, prompt: list[int], choice: str) -> list[int]:
        """What follows the prompt's tokens in prompt + choice; where both meet in one token, those of the choice."""
        if request.prompt is not None:
            whole = list(self._tokenizer(request.prompt + choice)["input_ids"])
            if whole[: len(prompt)] == prompt and len(whole) > len(prompt):
                return whole[len(prompt) :]
        tokens = list(self._tokenizer(choice, add_special_tokens=False)["input_ids"])
        if not tokens:
            raise _RowError(f"the choice {choice!r} has no tokens")
        return tokens

    def _take(self, output: Any) -> None:
        row, number = self._rows_of.pop(output.request_id, (None, 0))
        if row is None:
            return
        row.outputs[number] = output
        if len(row.outputs) == len(row.parts):
            del self._rows[row.request.id]
            self._ended.append(_completion(row, self._clock()))

    def _forget(self, row: _Row) -> None:
        self._rows.pop(row.request.id, None)
        for part in row.parts:
            self._rows_of.pop(part, None)
        if row.parts:
            self._core.abort_request(row.parts)

    def _check_alive(self) -> None:
        if self._lost:
            raise errors.EngineError(self._lost)


def _arguments(config: VllmConfig) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": config.model,
        "runner": config.runner,
        "dtype": config.dtype,
        "max_num_seqs": config.max_sequences,
        "tensor_parallel_size": config.tensor_parallel,
        "pipeline_parallel_size": config.pipeline_parallel,
        "gpu_memory_utilization": config.memory_share,
        "enable_prefix_caching": config.reuses_prefixes,
        "enforce_eager": not config.compiles,
        "seed": config.seed,
        "trust_remote_code": config.trusts_remote_code,
        "max_logprobs": _MAX_LOGPROBS,
        # Without whitespace: a model that likes it could go on with it for ever, and stay valid.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
    }
    if config.tokenizer:
        values["tokenizer"] = config.tokenizer
    if config.max_context:
        values["max_model_len"] = config.max_context
    if config.cache_bytes:
        values["kv_cache_memory_bytes"] = config.cache_bytes
    return values | config.arguments


def _params(request: Request) -> Any:
    from vllm.pooling_params import PoolingParams  # type: ignore[import-not-found,unused-ignore]
    from vllm.sampling_params import (  # type: ignore[import-not-found,unused-ignore]
        RequestOutputKind,
        SamplingParams,
        StructuredOutputsParams,
    )

    sampling = request.sampling
    match request.task:
        case "embed":
            return PoolingParams(task="embed", use_activation=True)
        case "reward":
            return PoolingParams(task="classify", use_activation=False)
        case "choices":
            return SamplingParams(
                max_tokens=1,
                temperature=0.0,
                prompt_logprobs=0,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
    structured = None
    if sampling.json_schema is not None:
        structured = StructuredOutputsParams(json=json.dumps(sampling.json_schema))
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        stop=list(sampling.stop) or None,
        logprobs=None if sampling.logprobs is None else sampling.logprobs + (1 if sampling.logprobs else 0),
        ignore_eos=sampling.ignores_eos,
        structured_outputs=structured,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _completion(row: _Row, now: float) -> Completion:
    outputs = [row.outputs[number] for number in range(len(row.parts))]
    cached = sum(output.num_cached_tokens or 0 for output in outputs)
    first = getattr(getattr(outputs[0], "metrics", None), "first_token_ts", 0.0)
    request = row.request
    done = Completion(request.id, prompt_tokens=row.num_prompt, cached_tokens=min(cached, row.num_prompt))
    try:
        match request.task:
            case "embed" | "reward":
                done = _pooled(request, done, outputs[0])
                first = 0.0
            case "choices":
                done = _chosen(row, done, outputs)
                first = 0.0
            case _:
                done = _generated(request, done, outputs[0].outputs[0])
    except _RowError as e:
        done = dataclasses.replace(done, finish_reason="error", error=str(e))
    # The core's monotonic clock is the machine's, as ours; a clock of a test's own has nothing to do with it.
    first_token = min(max(first, row.submitted), now) if first else None
    return dataclasses.replace(done, timing=Timing(row.submitted, first_token, now))


def _generated(request: Request, done: Completion, output: Any) -> Completion:
    reasons: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
    if output.finish_reason not in reasons:
        raise _RowError(f"vLLM ended the request: {output.finish_reason}")
    logprobs = None
    if request.sampling.logprobs is not None:
        pairs = zip(output.token_ids, output.logprobs or (), strict=True)
        logprobs = tuple(_logprob(token, given, request.sampling.logprobs) for token, given in pairs)
    return dataclasses.replace(
        done,
        text=output.text,
        token_ids=tuple(output.token_ids),
        finish_reason=reasons[output.finish_reason],
        output_tokens=len(output.token_ids),
        logprobs=logprobs,
    )


def _logprob(token: int, given: Mapping[int, Any], count: int) -> TokenLogprob:
    chosen = given[token]
    others = sorted((each for name, each in given.items() if name != token), key=lambda each: -each.logprob)
    top = tuple((each.decoded_token or "", float(each.logprob)) for each in others[:count])
    return TokenLogprob(chosen.decoded_token or "", float(chosen.logprob), top)


def _chosen(row: _Row, done: Completion, outputs: Sequence[Any]) -> Completion:
    sums, counts = [], []
    for output in outputs:
        tokens = output.prompt_token_ids[row.num_prompt :]
        given = list(output.prompt_logprobs or ())[-len(tokens) :]
        if len(given) != len(tokens):
            raise _RowError("vLLM gave no log-probabilities of the prompt")
        sums.append(math.fsum(each[token].logprob for token, each in zip(tokens, given, strict=True)))
        counts.append(len(tokens))
    return dataclasses.replace(done, choice_logprobs=tuple(sums), choice_tokens=tuple(counts))


def _pooled(request: Request, done: Completion, output: Any) -> Completion:
    if output.error is not None:
        raise _RowError(f"vLLM failed the request: {output.error}")
    values = [float(value) for value in output.outputs.data.flatten()]
    if request.task == "reward":
        if len(values) != 1:
            raise _RowError(f"the model gives {len(values)} numbers for a text, and a reward is one")
        return dataclasses.replace(done, score=values[0])
    length = math.sqrt(math.fsum(value * value for value in values))
    if not length > 0.0:
        raise _RowError("the embedding is no direction")
    return dataclasses.replace(done, embedding=tuple(value / length for value in values))


def _vllm_error() -> type[Exception]:
    from vllm.exceptions import VLLMError  # type: ignore[import-not-found,unused-ignore]

    found: type[Exception] = VLLMError
    return found


def _template_error() -> type[Exception]:
    import jinja2

    return jinja2.TemplateError


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else text[:399] + "…"
