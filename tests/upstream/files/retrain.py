"""One pipeline that runs another registered one."""

import michelangelo.uniflow.core as uniflow
from michelangelo.uniflow.plugins.pipeline import run_pipeline


@uniflow.task()
def report(name: str, state: str) -> str:
    return f"{name} {state}"


@uniflow.workflow()
def retrain_workflow(
    namespace: str = "ma-dev-test", pipeline_name: str = "churn", timeout_seconds: int = 3600, poll_seconds: int = 10
):
    run = run_pipeline(
        namespace=namespace,
        pipeline_name=pipeline_name,
        environ={"DATA_SIZE": 50},
        kwargs={"threshold": 0.25},
        timeout_seconds=timeout_seconds,
        poll_seconds=poll_seconds,
        actor="tester",
    )
    return report(run["metadata"]["namespace"], run["status"]["state"]), run["result"]["rows"]


if __name__ == "__main__":
    ctx = uniflow.create_context()
    print(ctx.run(retrain_workflow))
