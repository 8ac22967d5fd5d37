"""The table of verbs: where each is, and its one line of help, so that `mactl --help` loads none of them.

It holds data only. The groups of the kinds (`mactl pipeline_run get …`) come from the registry of kinds; what a kind
has beyond the verbs that all kinds share is in `KIND_VERBS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["GENERIC_VERBS", "KIND_VERBS", "VERBS", "Verb"]


@dataclass(frozen=True, slots=True)
class Verb:
    """`module:attribute` of a click command, relative to `michelangelo.cli`, and its short help."""

    target: str
    help: str


VERBS: Final[Mapping[str, Verb]] = {
    "init": Verb("init:init", "Make a new project folder that runs"),
    "serve": Verb("serve:serve", "Start the API server and its controllers"),
    "sandbox": Verb("sandbox:sandbox", "Make, fill, stop and remove a platform to try things on"),
    "get": Verb("get:get", "Show objects as a table, JSON, YAML or names"),
    "describe": Verb("describe:describe", "Show one object in full, with its events"),
    "apply": Verb("apply:apply", "Create or update objects from files"),
    "delete": Verb("delete:delete", "Delete objects"),
    "edit": Verb("edit:edit", "Edit an object in your editor"),
    "logs": Verb("logs:logs", "Print what a run's tasks printed"),
    "artifact": Verb("artifact:artifact", "List, fetch and look into what tasks produced; free what nobody refers to"),
    "cache": Verb("cache:cache", "Say why a step was computed or not; list and delete what is cached"),
    "wait": Verb("wait:wait", "Wait until objects are in a state"),
    "events": Verb("events:events", "Show what happened, oldest first"),
    "explain": Verb("explain:explain", "Describe the fields of a kind"),
    "template": Verb("template:template", "Print a file to start from for a kind"),
    "llm": Verb("llm:llm", "Plan, tune and measure language models"),
    "contexteval": Verb("contexteval:contexteval", "Answer questions from a corpus only, with citations"),
    "tokens": Verb("tokens:tokens", "Count tokens and say what they cost, before anything is sent"),
    "tracebench": Verb("tracebench:tracebench", "Find what changed between two versions of a model or prompt"),
    "environment": Verb("environment:environment", "Show and remove the environments of tasks with requirements"),
    "config": Verb("config:config", "Show and change the contexts"),
    "version": Verb("version:version", "Show the versions of this program and of the server"),
    "completion": Verb("completion:completion", "Print the completion script of a shell"),
}

KIND_VERBS: Final[Mapping[str, Mapping[str, Verb]]] = {
    "Pipeline": {
        "apply": Verb("pipeline_apply:apply", "Register a pipeline: its source, schema and revision"),
        "run": Verb("pipeline_run_verb:run", "Start a run of a registered pipeline"),
        "dev-run": Verb("pipeline_dev_run:dev_run", "Start a run of a workflow file, without registering it"),
        "graph": Verb("pipeline_graph:graph", "Draw the graph of a workflow, a pipeline or a run"),
    },
    "PipelineRun": {
        "kill": Verb("pipeline_run_kill:kill", "End a run"),
        "signal": Verb("pipeline_run_signal:signal", "Send a signal that a run waits for"),
        "logs": Verb("logs:logs", "Print what the run's tasks printed"),
    },
    "Secret": {
        "set": Verb("secret_set:set_value", "Set a value of a secret, read from standard input, a file or a variable"),
        "unset": Verb("secret_unset:unset", "Remove values of a secret"),
    },
}

GENERIC_VERBS: Final[Mapping[str, str]] = {
    "get": "Show objects of this kind",
    "describe": "Show one object in full, with its events",
    "apply": "Create or update objects of this kind from files",
    "delete": "Delete objects of this kind",
}
