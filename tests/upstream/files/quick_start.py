"""The quick example of the README: a task without a configuration."""

import michelangelo.uniflow.core as uniflow


@uniflow.task()
def train(learning_rate: float = 0.01) -> str:
    print("training at", learning_rate)
    return f"model_path-{learning_rate}"


@uniflow.workflow()
def my_pipeline(learning_rate: float = 0.01):
    model = train(learning_rate=learning_rate)
    return model


if __name__ == "__main__":
    ctx = uniflow.create_context()
    assert ctx.is_local_run()
    print("result:", ctx.run(my_pipeline, learning_rate=0.5))
