"""The model and its tokenizer from their folders, on their device, with our attention in it; or why that cannot be.

An architecture is served if its attention is called through Transformers' AttentionInterface and every layer sees all
tokens before it, or a window of them. Whether that is so is found by running it: once to see what its layers pass, once
(`check`) to compare with its own attention. So nothing is served wrongly in silence.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import logging as transformers_logging

from michelangelo import errors
from michelangelo.llm.scorer.engine import Task
from michelangelo.llm.scorer.engines.torch_engine.config import TorchEngineConfig
from michelangelo.llm.scorer.engines.torch_engine.paged_cache import LayerShape, Passing

__all__ = ["Loaded", "attend_with", "layer_shapes", "load", "of_model", "own_hidden_states", "release"]

_numbers = itertools.count()
_KNOWN_LAYERS: Final = {"full_attention", "sliding_attention"}
_LENGTH_DEPENDENT: Final = {"dynamic", "longrope"}
"""Rotary embeddings that change for the whole row once the longest sequence is beyond the original length."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """attention: the name under which the model looks for its attention. context: tokens it takes; 0: not known."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    device: torch.device
    tasks: frozenset[Task]
    attention: str
    context: int
    vocab_size: int
    end_tokens: frozenset[int]

    @property
    def base(self) -> torch.nn.Module:
        """What gives hidden states."""
        return cast(torch.nn.Module, getattr(self.model, self.model.base_model_prefix))


def load(config: TorchEngineConfig) -> Loaded:
    """Raises EngineError or ModelError."""
    device = _device(config.device)
    described = _described(config)
    architectures = getattr(described, "architectures", None) or []
    is_reward = any("ForSequenceClassification" in name for name in architectures)
    if is_reward and described.num_labels != 1:
        raise errors.ModelError(
            f"model {config.model}: classifies into {described.num_labels} labels; a reward model has one"
        )
    kind = AutoModelForSequenceClassification if is_reward else AutoModelForCausalLM
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # who calls has a display of its own
    try:
        model = kind.from_pretrained(
            config.model,
            config=described,
            dtype=config.dtype if config.dtype == "auto" else getattr(torch, config.dtype),
            trust_remote_code=config.trusts_remote_code,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as e:
        raise errors.ModelError(f"model {config.model}: cannot be loaded: {_first_line(e)}") from e
    return of_model(cast(PreTrainedModel, model), _tokenizer(config), device, is_reward=is_reward)


def of_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, device: torch.device, *, is_reward: bool = False
) -> Loaded:
    """A model that is in memory already; it is moved to the device, and its attention becomes ours."""
    model = cast(PreTrainedModel, model.to(device).eval())  # type: ignore[arg-type]  # transformers' own annotation
    text = model.config.get_text_config()
    generates: frozenset[Task] = frozenset({"generate", "choices", "embed"})
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        device=device,
        tasks=frozenset({"reward", "embed"}) if is_reward else generates,
        attention=_use_our_attention(model),
        context=_context(text),
        vocab_size=int(text.vocab_size),
        end_tokens=_end_tokens(model, tokenizer),
    )


def layer_shapes(loaded: Loaded) -> list[LayerShape]:
    """What each layer passes to its attention, by running one token. Raises ModelError if a layer passes nothing."""
    text = loaded.model.config.get_text_config()
    seen: dict[int, LayerShape] = {}

    def record(
        module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **options: Any
    ) -> tuple[torch.Tensor, None]:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        window = options.get("sliding_window")
        is_plain = options.get("softcap") is None and options.get("s_aux") is None
        window = int(window) if window else None
        seen[layer] = LayerShape(key.shape[1], key.shape[-1], value.shape[-1], window, is_plain)
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[-1]), None

    attend_with(loaded, record)
    row = torch.zeros(1, 1, dtype=torch.long, device=loaded.device)
    try:
        with torch.inference_mode():
            loaded.base(input_ids=row, position_ids=row, past_key_values=Passing(), use_cache=True)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, NotImplementedError) as e:
        raise errors.ModelError(f"{_name(loaded)}: cannot be run on a cache of blocks: {_first_line(e)}") from e
    if sorted(seen) != list(range(text.num_hidden_layers)):
        raise errors.ModelError(
            f"{_name(loaded)}: {len(seen)} of its {text.num_hidden_layers} layers call their attention through "
            "Transformers' AttentionInterface, and this engine needs all; use the vllm engine"
        )
    for layer, kind in enumerate(getattr(text, "layer_types", None) or ()):
        if kind not in _KNOWN_LAYERS or (kind == "sliding_attention") != (seen[layer].window is not None):
            raise errors.ModelError(
                f"{_name(loaded)}: layer {layer} ({kind}) cannot be served here; use the vllm engine"
            )
    return [seen[layer] for layer in sorted(seen)]


def own_hidden_states(loaded: Loaded, tokens: Sequence[int]) -> torch.Tensor:
    """Hidden states [tokens, size] by the model's own eager attention, without any of ours. Raises ModelError."""
    ours = loaded.attention
    loaded.model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            row = torch.tensor([list(tokens)], device=loaded.device)
            made = loaded.base(input_ids=row, use_cache=False).last_hidden_state[0]
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, NotImplementedError) as e:
        raise errors.ModelError(f"{_name(loaded)}: cannot be run at all: {_first_line(e)}") from e
    finally:
        loaded.model.set_attn_implementation(ours)
    return cast(torch.Tensor, made)


def attend_with(loaded: Loaded, function: Callable[..., Any]) -> None:
    """From now on the model's layers call it."""
    ALL_ATTENTION_FUNCTIONS.register(loaded.attention, function)


def release(loaded: Loaded) -> None:
    """Transformers forgets the engine's attention. May be called twice."""
    ALL_ATTENTION_FUNCTIONS._global_mapping.pop(loaded.attention, None)


def _use_our_attention(model: PreTrainedModel) -> str:
    name = f"michelangelo_paged_{next(_numbers)}"
    ALL_ATTENTION_FUNCTIONS.register(name, _unset)
    if model._can_set_attn_implementation():
        model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        ALL_ATTENTION_FUNCTIONS._global_mapping.pop(name, None)
        raise errors.ModelError(
            f"{type(model).__name__}: does not call its attention through Transformers' AttentionInterface, "
            "and this engine needs that; use the vllm engine"
        )
    return name


def _unset(*_: Any, **__: Any) -> tuple[torch.Tensor, None]:
    raise ValueError("the engine's attention is not set yet")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise errors.EngineError(f"device: {name} is asked for and torch sees no GPU; set device to cpu")
    return torch.device(name)


def _described(config: TorchEngineConfig) -> Any:
    try:
        described = AutoConfig.from_pretrained(config.model, trust_remote_code=config.trusts_remote_code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise errors.ModelError(f"model {config.model}: no configuration of a model: {_first_line(e)}") from e
    if getattr(described, "is_encoder_decoder", False):
        raise errors.ModelError(f"model {config.model}: {described.model_type} is no decoder-only language model")
    return described


def _tokenizer(config: TorchEngineConfig) -> PreTrainedTokenizerBase | None:
    """None: there is none in the model's folder, and only token ids can be served."""
    try:
        made = AutoTokenizer.from_pretrained(
            config.tokenizer or config.model, trust_remote_code=config.trusts_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as e:
        if not config.tokenizer:
            return None
        raise errors.ModelError(f"tokenizer {config.tokenizer}: cannot be loaded: {_first_line(e)}") from e
    return cast(PreTrainedTokenizerBase, made)


def _context(text: Any) -> int:
    rope = getattr(text, "rope_parameters", None) or {}
    each = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    limits = [int(getattr(text, "max_position_embeddings", 0) or 0)]
    for one in each:
        if one.get("rope_type") in _LENGTH_DEPENDENT and one.get("original_max_position_embeddings"):
            limits.append(int(one["original_max_position_embeddings"]))
    return min(limits)


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> frozenset[int]:
    """As generate() has them; the tokenizer's, if the model says nothing."""
    found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if found is None:
        found = model.config.get_text_config().eos_token_id
    if found is None and tokenizer is not None:
        found = tokenizer.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(found) if isinstance(found, list | tuple) else frozenset({int(found)})


def _name(loaded: Loaded) -> str:
    return type(loaded.model).__name__


def _first_line(e: BaseException) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0]
