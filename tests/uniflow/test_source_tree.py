"""Source as a blob: which files are in it, that they come back, and what Git says of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from michelangelo.blobs.memory import MemoryBlobStore
from michelangelo.errors import CodecError, SourceError
from michelangelo.uniflow import source_tree

FILES = {
    "flow.py": "import json, near, pkg.deep.leaf\nfrom pkg import sub\nimport numpy\n",
    "near.py": "def f():\n    from late import x\n",
    "late.py": "",
    "unused.py": "",
    "pkg/__init__.py": "from . import base\n",
    "pkg/base.py": "",
    "pkg/sub.py": "from .deep import *\nfrom ..escape import x\nfrom .. import near\n",
    "pkg/other.py": "",
    "pkg/deep/__init__.py": "",
    "pkg/deep/leaf.py": "from ...pkg import other\n",
    "data.csv": "1,2\n",
    "json.py": "raise SystemExit\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "json.py").unlink()
    return root


def test_tree_holds_what_is_imported_transitively(project: Path) -> None:
    tree = source_tree.find_source(str(project / "flow.py"))
    assert (tree.root, tree.main, tree.module) == (str(project), "flow.py", "flow")
    assert tree.files == (
        "flow.py",
        "late.py",
        "near.py",
        "pkg/__init__.py",
        "pkg/base.py",
        "pkg/deep/__init__.py",
        "pkg/deep/leaf.py",
        "pkg/sub.py",
    )


def test_tree_of_a_module_in_a_package_starts_at_its_root(project: Path) -> None:
    tree = source_tree.find_source(str(project / "pkg" / "sub.py"), "pkg.sub")
    assert (tree.root, tree.main) == (str(project), "pkg/sub.py")
    assert tree.files == ("pkg/__init__.py", "pkg/base.py", "pkg/deep/__init__.py", "pkg/sub.py")


def test_unpack_after_pack_is_identity(project: Path, tmp_path: Path) -> None:
    blobs = MemoryBlobStore()
    tree = source_tree.find_source(str(project / "flow.py"))
    blob = source_tree.pack_source(tree, blobs)
    source_tree.unpack_source(blob.digest, blobs, str(tmp_path / "copy"))
    assert {name: (tmp_path / "copy" / name).read_text() for name in tree.files} == {n: FILES[n] for n in tree.files}
    copy = source_tree.find_source(str(tmp_path / "copy" / "flow.py"))
    assert source_tree.pack_source(copy, blobs) == blob
    (project / "near.py").write_text("x = 1\n")
    assert source_tree.pack_source(tree, blobs) != blob


def test_broken_or_missing_source_is_refused(project: Path) -> None:
    (project / "near.py").write_text("def f(:\n")
    with pytest.raises(SourceError, match=r"near\.py, line 1: SyntaxError"):
        source_tree.find_source(str(project / "flow.py"))
    with pytest.raises(SourceError, match=r"cannot read .*absent\.py"):
        source_tree.find_source(str(project / "absent.py"))


def test_source_over_the_bound_is_refused(project: Path, tmp_path: Path) -> None:
    with open(project / "late.py", "wb") as file:
        file.write(b"#")
        file.truncate(source_tree.MAX_SOURCE_BYTES + 1)
    tree = source_tree.SourceTree(str(project), "flow.py", "flow", ("late.py", "near.py"))
    blobs = MemoryBlobStore()
    with pytest.raises(SourceError, match=r"at most 10000 files and 64\.0 MiB") as refused:
        source_tree.pack_source(tree, blobs)
    assert "the largest are late.py (64.0 MiB), near.py (0.0 MiB)" in str(refused.value)
    assert list(blobs.iterate()) == []


def files_of(project: Path) -> set[str]:
    return set(source_tree.find_source(str(project / "flow.py")).files)


def test_data_files_go_along_when_mainclude_names_them(project: Path, tmp_path: Path) -> None:
    before = files_of(project)
    for name in ("data/a.csv", "data/b.json", "data/deep/c.csv", "data/.venv/pyvenv.cfg", "data/.venv/d.csv"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name)
    (project / ".mainclude").write_text("# tables\n/data/**/*.csv\n")
    assert files_of(project) - before == {"data/a.csv", "data/deep/c.csv"}
    blobs = MemoryBlobStore()
    packed = source_tree.pack_source(source_tree.find_source(str(project / "flow.py")), blobs)
    source_tree.unpack_source(packed.digest, blobs, str(tmp_path / "copy"))
    assert (tmp_path / "copy/data/deep/c.csv").read_text() == "data/deep/c.csv"


def test_ignored_data_stays_behind(project: Path) -> None:
    for name in ("data/a.csv", "data/big.csv", "data/kept.csv", "secret/x.csv", "other/y.csv"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name)
    (project / ".mainclude").write_text("*.csv\n")
    (project / ".gitignore").write_text("data.csv\n/data/*\n/secret/\n")
    (project / ".maignore").write_text("other\n")
    (project / "data" / ".gitignore").write_text("!kept.csv\n")
    assert {name for name in files_of(project) if name.endswith(".csv")} == {"data/kept.csv"}


def test_rules_above_the_root_hold_inside_of_a_repository_only(project: Path) -> None:
    (project / ".mainclude").write_text("data.csv\n")
    (project.parent / ".gitignore").write_text("*.csv\n")
    assert "data.csv" in files_of(project)
    (project.parent / ".git").mkdir()
    assert "data.csv" not in files_of(project)


def test_maignore_leaves_out_modules_but_gitignore_does_not(project: Path) -> None:
    (project / ".gitignore").write_text("near.py\n")
    assert {"near.py", "late.py"} <= files_of(project)
    (project / ".maignore").write_text("near.py\npkg/deep/\nflow.py\n")
    left = files_of(project)
    assert "flow.py" in left, "the workflow's own file always goes"
    assert not {"near.py", "late.py", "pkg/deep/__init__.py", "pkg/deep/leaf.py"} & left


def test_patterns_that_cannot_be_read_are_named(project: Path) -> None:
    (project / ".mainclude").write_bytes(b"\xff\xfe\n")
    with pytest.raises(SourceError, match=r"cannot read .*\.mainclude"):
        files_of(project)


def test_blob_that_is_no_source_is_refused(tmp_path: Path) -> None:
    blobs = MemoryBlobStore()
    with pytest.raises(CodecError, match="archive is damaged"):
        source_tree.unpack_source(blobs.put(b"junk" * 400).digest, blobs, str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_git_state_is_of_the_packed_files(project: Path) -> None:
    tree = source_tree.find_source(str(project / "flow.py"))
    assert source_tree.git_state(tree) is None
    git(project, "init", "-b", "topic")
    assert source_tree.git_state(tree) is None
    git(project, "add", "-A")
    git(project, "commit", "-m", "first")
    state = source_tree.git_state(tree)
    assert state == source_tree.GitState(git(project, "rev-parse", "HEAD").strip(), "topic", True)
    (project / "unused.py").write_text("changed")
    assert source_tree.git_state(tree) == state
    (project / "near.py").write_text("changed")
    assert source_tree.git_state(tree) == source_tree.GitState(state.commit, "topic", False)
    git(project, "checkout", "-f", "--detach")
    assert source_tree.git_state(tree) == source_tree.GitState(state.commit, "", True)
