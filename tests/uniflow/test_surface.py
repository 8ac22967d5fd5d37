"""What `import michelangelo.uniflow` gives, and what it may load."""

from __future__ import annotations

import json
import subprocess
import sys

from michelangelo import uniflow

LIGHT = (
    "import json, sys\nbefore = set(sys.modules)\n{code}\n"
    "print(json.dumps(sorted(set(sys.modules) - before - {{'json'}})))"
)


def loaded(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", LIGHT.format(code=code)], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_every_public_name_is_there() -> None:
    for name in uniflow.__all__:
        assert getattr(uniflow, name) is not None
    assert dir(uniflow) == sorted(uniflow.__all__)


def test_import_loads_only_the_core_of_the_sdk() -> None:
    ours = {name for name in loaded("import michelangelo.uniflow") if name.startswith("michelangelo.")}
    assert ours == {
        "michelangelo.errors",
        "michelangelo.meta",
        "michelangelo.meta.quantity",
        "michelangelo.uniflow",
        "michelangelo.uniflow.config",
        "michelangelo.uniflow.future",
        "michelangelo.uniflow.image_spec",
        "michelangelo.uniflow.ref",
        "michelangelo.uniflow.retry",
        "michelangelo.uniflow.runner",
        "michelangelo.uniflow.secret",
        "michelangelo.uniflow.task",
        "michelangelo.uniflow.task_context",
        "michelangelo.uniflow.workflow",
    }


def test_import_loads_no_heavy_part_of_the_standard_library() -> None:
    heavy = {"argparse", "asyncio", "pathlib", "random", "sqlite3", "ssl", "subprocess", "tempfile", "uuid", "zoneinfo"}
    assert loaded("import michelangelo.uniflow") & heavy == set()


def test_values_load_only_the_libraries_they_come_from() -> None:
    code = (
        "from michelangelo.uniflow import codecs\nfrom michelangelo.blobs.memory import MemoryBlobStore\n"
        "import dataclasses, datetime\n"
        "blobs = MemoryBlobStore()\n"
        "codecs.decode(codecs.encode([1, {'a'}, b'x', datetime.date(2020, 1, 1), object], blobs), blobs)"
    )
    assert loaded(code) & {"numpy", "pandas", "pyarrow", "pydantic", "fsspec"} == set()
