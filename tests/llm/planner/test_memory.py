"""Properties of the estimate of memory: what must hold for every model and every setup, and sums that are known."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm import model_shape, training_setup
from michelangelo.llm.planner import activations, memory, parameters
from michelangelo.llm.training_setup import TrainingSetup

GIB = 2**30
MODELS = (
    "llama-3.2-1b",
    "llama-3.1-8b",
    "mixtral-8x7b",
    "gemma-2-9b",
    "qwen3-30b-a3b",
    "falcon-7b",
    "gpt2",
    "phi-3-mini",
)
SHAPES = {name: model_shape.load(name) for name in MODELS}

setups = st.builds(
    TrainingSetup,
    method=st.sampled_from(training_setup.METHODS),
    objective=st.sampled_from(training_setup.OBJECTIVES),
    micro_batch=st.integers(1, 8),
    sequence_length=st.sampled_from((512, 2048, 8192)),
    gradient_accumulation=st.sampled_from((1, 4)),
    num_gpus=st.sampled_from((1, 8, 16)),
    sharding=st.sampled_from(training_setup.SHARDINGS),
    offload=st.sampled_from(training_setup.OFFLOADS),
    checkpointing=st.sampled_from(training_setup.CHECKPOINTINGS),
    attention=st.sampled_from(training_setup.ATTENTIONS),
    cross_entropy=st.sampled_from(training_setup.CROSS_ENTROPIES),
    optimizer=st.sampled_from(training_setup.OPTIMIZERS),
    precision=st.sampled_from(training_setup.PRECISIONS),
    lora_rank=st.sampled_from((8, 64)),
    compiled=st.booleans(),
)
shapes = st.sampled_from(MODELS).map(SHAPES.__getitem__)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(shapes, setups)
def test_components_sum_to_the_peak_and_are_positive(shape: model_shape.ModelShape, setup: TrainingSetup) -> None:
    estimate = memory.estimate(shape, setup)

    assert estimate.peak == sum(component.bytes for component in estimate.gpu)
    assert all(component.bytes >= 0 and component.formula and component.source for component in estimate.gpu)
    assert estimate.allocated == max(estimate.phases.values())
    assert estimate.allocated <= estimate.reserved <= estimate.peak
    assert estimate.low <= estimate.peak <= estimate.high
    outside = estimate.component("fragmentation") + estimate.component("framework")
    assert abs(estimate.peak - outside - estimate.allocated) <= len(estimate.gpu)


@quick
@given(shapes, setups)
def test_memory_grows_with_batch_sequence_and_depth(shape: model_shape.ModelShape, setup: TrainingSetup) -> None:
    peak = memory.estimate(shape, setup).allocated
    deeper = model_shape.ModelShape(
        **{
            field: getattr(shape, field) * (2 if field in ("num_layers", "num_sliding_layers") else 1)
            for field in shape.__dataclass_fields__
            if field != "notes"
        }
        if not shape.qk_norm
        else {field: getattr(shape, field) for field in shape.__dataclass_fields__}
    )

    assert memory.estimate(shape, setup.replace(micro_batch=setup.micro_batch + 1)).allocated >= peak
    assert memory.estimate(shape, setup.replace(sequence_length=2 * setup.sequence_length)).allocated >= peak
    assert memory.estimate(deeper, setup).allocated >= peak


@quick
@given(shapes, setups)
def test_sharded_states_never_need_more_than_whole_ones(shape: model_shape.ModelShape, setup: TrainingSetup) -> None:
    whole = parameters.states_of(shape, setup.replace(sharding="none", num_gpus=8, offload="none"))
    for sharding in ("zero1", "zero2", "zero3", "fsdp2"):
        sharded = parameters.states_of(shape, setup.replace(sharding=sharding, num_gpus=8, offload="none"))
        assert (
            sharded.weights + sharded.gradients + sharded.optimizer <= whole.weights + whole.gradients + whole.optimizer
        )


@quick
@given(shapes, setups)
def test_stages_of_zero_need_ever_less(shape: model_shape.ModelShape, setup: TrainingSetup) -> None:
    stages = [
        parameters.states_of(shape, setup.replace(sharding=s, num_gpus=16, offload="none"))
        for s in ("none", "zero1", "zero2", "zero3")
    ]
    sums = [s.weights + s.gradients + s.optimizer for s in stages]

    assert all(later <= earlier for earlier, later in itertools.pairwise(sums))


@quick
@given(shapes, setups)
def test_checkpointing_never_keeps_more(shape: model_shape.ModelShape, setup: TrainingSetup) -> None:
    kept = {
        mode: activations.kept_by_layers(shape, setup.replace(checkpointing=mode)).total
        for mode in ("none", "selective", "full")
    }

    assert kept["full"] <= kept["none"]
    assert (
        kept["selective"] <= kept["none"] + activations.kept_by_layers(shape, setup.replace(checkpointing="full")).total
    )


@quick
@given(shapes, setups)
def test_checkpointing_never_needs_more_memory(shape: model_shape.ModelShape, setup: TrainingSetup) -> None:
    none = memory.estimate(shape, setup.replace(checkpointing="none")).allocated

    assert memory.estimate(shape, setup.replace(checkpointing="full")).allocated <= none * 1.001


@quick
@given(shapes, setups)
def test_compiling_never_keeps_more(shape: model_shape.ModelShape, setup: TrainingSetup) -> None:
    eager = activations.kept_by_layers(shape, setup.replace(compiled=False, checkpointing="none")).total

    assert activations.kept_by_layers(shape, setup.replace(compiled=True, checkpointing="none")).total <= eager


@quick
@given(shapes, setups)
def test_methods_need_ever_less_weights_and_states(shape: model_shape.ModelShape, setup: TrainingSetup) -> None:
    full, lora, qlora = (parameters.states_of(shape, setup.replace(method=m)) for m in ("full", "lora", "qlora"))

    assert qlora.weights + qlora.host_weights < lora.weights + lora.host_weights
    assert lora.optimizer <= full.optimizer
    assert lora.gradients <= full.gradients


@quick
@given(shapes, setups)
def test_what_is_offloaded_is_on_the_host(shape: model_shape.ModelShape, setup: TrainingSetup) -> None:
    setup = setup.replace(method="full", optimizer="adamw")
    kept = parameters.states_of(shape, setup.replace(offload="none"))
    moved = parameters.states_of(shape, setup.replace(offload="optimizer"))
    local = min(setup.gpus_per_node, setup.num_gpus)

    assert moved.optimizer == 0
    assert moved.host_optimizer == pytest.approx(kept.optimizer * local)
    assert memory.estimate(shape, setup.replace(offload="optimizer")).host_bytes > 0


def test_full_tuning_takes_sixteen_bytes_a_parameter_until_the_step() -> None:
    shape = SHAPES["llama-3.1-8b"]

    states = parameters.states_of(shape, TrainingSetup(method="full", precision="bf16_mixed"))

    per_parameter = (states.weights + states.gradients + states.optimizer) / shape.num_parameters
    assert per_parameter == 16
    assert states.step_gradients == 4 * shape.num_parameters


def test_tuning_in_bf16_takes_eight_bytes_a_parameter_and_six_with_8_bit_states() -> None:
    shape = SHAPES["llama-3.1-8b"]
    setup = TrainingSetup(method="full", precision="bf16")

    def per_parameter(optimizer: training_setup.Optimizer) -> float:
        states = parameters.states_of(shape, setup.replace(optimizer=optimizer))
        return (states.weights + states.gradients + states.optimizer) / shape.num_parameters

    assert per_parameter("adamw") == 8
    assert per_parameter("adamw_8bit") == pytest.approx(6, abs=0.04)
    assert per_parameter("paged_adamw_8bit") == 4
    assert per_parameter("sgd") == 6


def test_nf4_takes_4_127_bits_a_weight_with_double_quantization() -> None:
    assert 8 * parameters.nf4_bytes_per_weight(True) == pytest.approx(4.127, abs=5e-4)
    assert 8 * parameters.nf4_bytes_per_weight(False) == 4.5


def test_qlora_quantises_layers_and_leaves_embedding_and_head() -> None:
    shape = SHAPES["llama-3.1-8b"]
    states = parameters.states_of(shape, TrainingSetup(method="qlora", lora_rank=8))
    quantised = shape.counts.attention + shape.counts.mlp
    plain = shape.num_parameters - quantised
    adapters = shape.lora_parameters(8)

    assert states.weights == pytest.approx(quantised * (0.5 + 1 / 64 + 4 / 16384) + 2 * plain + 2 * adapters)


def test_zero_divides_states_by_replicas_not_by_gpus_of_a_tensor_parallel_group() -> None:
    shape = SHAPES["llama-3.1-8b"]
    setup = TrainingSetup(method="full", sharding="zero3", num_gpus=16, tensor_parallel=2)

    states = parameters.states_of(shape, setup)

    assert states.optimizer == pytest.approx(12 * shape.num_parameters / 16, rel=1e-3)


def test_eager_attention_keeps_scores_that_grow_with_the_square_of_the_sequence() -> None:
    shape = SHAPES["llama-3.1-8b"]

    def attention(length: int) -> float:
        setup = TrainingSetup(method="full", attention="eager", sequence_length=length)
        return activations.kept_by_layers(shape, setup).attention * length

    growth = (attention(8192) - attention(4096)) / (attention(4096) - attention(2048))
    assert 3.8 < growth < 4.0


def test_flash_attention_halves_memory_of_a_long_sequence() -> None:
    shape = SHAPES["llama-3.1-8b"]
    setup = TrainingSetup(sequence_length=4096)

    flash, eager = (memory.estimate(shape, setup.replace(attention=a)).allocated for a in ("flash", "eager"))

    assert flash < 0.5 * eager


def test_experts_cost_activations_by_those_visited_and_weights_by_all() -> None:
    shape = SHAPES["mixtral-8x7b"]
    dense = model_shape.load("mistral-7b-v0.1")
    setup = TrainingSetup(method="full")

    visited = activations.kept_by_layers(shape, setup).mlp / activations.kept_by_layers(dense, setup).mlp
    weights = shape.counts.mlp / dense.counts.mlp

    assert 2 < visited < 2.5
    assert weights == 8


def test_preference_pairs_count_twice_and_full_tuning_holds_a_reference() -> None:
    shape = SHAPES["llama-3.2-1b"]
    sft = TrainingSetup(method="full")
    dpo = sft.replace(objective="dpo")

    assert parameters.states_of(shape, dpo).reference == 2 * shape.num_parameters
    assert parameters.states_of(shape, dpo.replace(method="lora")).reference == 0
    assert parameters.states_of(shape, dpo.replace(reference_precomputed=True)).reference == 0
    assert memory.estimate(shape, dpo).component("activations_mlp") >= 2 * memory.estimate(shape, sft).component(
        "activations_mlp"
    )


def test_chunked_loss_takes_one_piece_where_the_plain_one_takes_all_logits() -> None:
    shape = SHAPES["llama-3.1-8b"]
    setup = TrainingSetup(method="lora")

    plain = memory.loss_bytes(shape, setup.replace(cross_entropy="plain"), 8192)
    chunked = memory.loss_bytes(shape, setup, 8192)

    assert plain == 8192 * 128256 * 14
    assert chunked < 1.1 * GIB


def test_paged_states_rest_on_the_host() -> None:
    shape = SHAPES["llama-3.2-1b"]
    setup = TrainingSetup(method="full", precision="bf16", optimizer="paged_adamw_8bit")

    estimate = memory.estimate(shape, setup)

    assert estimate.component("optimizer_states") == 0
    assert estimate.host_bytes == pytest.approx(2 * (1 + 4 / 256) * shape.num_parameters)


def test_unknown_targets_are_named_with_those_there_are() -> None:
    setup = TrainingSetup(lora_targets=("query",))

    with pytest.raises(errors.ModelError, match=r"lora_targets: .* has no query; it has q_proj, k_proj"):
        memory.estimate(SHAPES["llama-3.1-8b"], setup)
