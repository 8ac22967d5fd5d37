"""The peer: TRL's SFTTrainer on one case, with its best documented settings, in a process of its own. Prints JSON.

bf16, Liger kernels, fused AdamW, SDPA attention, no activation checkpointing where it fits, torch.compile if asked for.
Rows are full, so that packing has nothing to win, and the weights are random: speed and memory do not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import datasets
import torch
import transformers
import trl.trainer.sft_config
import trl.trainer.sft_trainer

from michelangelo.llm import model_shape


class Clock(transformers.TrainerCallback):
    """Seconds of each step, the device at rest before and after."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        torch.cuda.synchronize()
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--method", choices=("full", "lora", "qlora"), required=True)
    parser.add_argument("--micro-batch", type=int, required=True)
    parser.add_argument("--sequence-length", type=int, default=4096)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--weights", choices=("bf16", "fp32"), default="bf16", help="fp32: autocast, as TRL loads them")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--memory-cap-gb", type=float, default=0.0)
    arguments = parser.parse_args()
    if arguments.memory_cap_gb:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(arguments.memory_cap_gb * 1e9 / total)
    try:
        result = run(arguments)
    except torch.OutOfMemoryError:
        result = {"out_of_memory": True}
    print(json.dumps({"versions": {"trl": trl.__version__, "transformers": transformers.__version__}, **result}))
    return 0


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    config = transformers.AutoConfig.for_model(**model_shape.published_config(arguments.model))
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.float32 if arguments.weights == "fp32" else torch.bfloat16, attn_implementation="sdpa"
        )
    adapter = None
    if arguments.method != "full":
        import peft

        adapter = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    if arguments.method == "qlora":
        model = quantised(model)
    length = arguments.sequence_length
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, config.vocab_size, (arguments.micro_batch * arguments.steps, length), generator=generator)
    settings = trl.trainer.sft_config.SFTConfig(
        output_dir="/tmp/trl",
        per_device_train_batch_size=arguments.micro_batch,
        max_steps=arguments.steps,
        max_length=length,
        learning_rate=1e-5,
        bf16=True,
        use_liger_kernel=True,
        optim="adamw_torch_fused",
        gradient_checkpointing=arguments.checkpointing,
        torch_compile=arguments.compiled,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        dataloader_pin_memory=True,
    )
    clock = Clock()
    trainer = trl.trainer.sft_trainer.SFTTrainer(
        model=model,
        args=settings,
        train_dataset=datasets.Dataset.from_dict({"input_ids": rows.tolist()}),
        processing_class=tokenizer(),
        peft_config=adapter,
        callbacks=[clock],
    )
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    typical = statistics.median(clock.seconds[2:])
    return {
        "tokens_per_second": arguments.micro_batch * length / typical,
        "allocated_bytes": torch.cuda.max_memory_allocated(),
        "first_step_seconds": clock.seconds[0],
        "loss": trainer.state.log_history[0].get("loss"),
    }


def quantised(model: Any) -> Any:
    """Its linear layers in NF4, as `BitsAndBytesConfig(load_in_4bit=True)` makes them at loading."""
    from bitsandbytes.nn import modules
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    settings = transformers.BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )
    weights = {
        name: module.weight.data for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
    }
    replaced = replace_with_bnb_linear(model, modules_to_not_convert=["lm_head"], quantization_config=settings)
    for name, module in replaced.named_modules():
        if isinstance(module, modules.Linear4bit):
            module.weight = modules.Params4bit(
                weights.pop(name).cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
            )
            module.to("cuda")
    replaced.is_loaded_in_4bit = True
    replaced.config.quantization_config = settings
    return replaced


def tokenizer() -> Any:
    """The trainer wants one; the rows are numbers already."""
    from tokenizers import Tokenizer, models

    vocabulary = {"<pad>": 0, "</s>": 1}
    return transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>")), pad_token="<pad>", eos_token="</s>"
    )


if __name__ == "__main__":
    sys.exit(main())
