"""The file of the SQLite store: opening, schema, damage, full disks, other processes."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.storage import migrations
from michelangelo.storage.sqlite import SqliteStore
from michelangelo.storage.store import ANY, Write


def test_file_and_side_files_belong_to_their_owner_only(database: Path, sqlite_store: SqliteStore) -> None:
    sqlite_store.write(Write("/a", b"1")).result()

    for suffix in ("", "-wal", "-shm"):
        assert stat.S_IMODE(os.stat(f"{database}{suffix}").st_mode) == 0o600


def test_data_is_there_after_reopening(open_store: Callable[[], SqliteStore]) -> None:
    first = open_store()
    record = first.write(Write("/a", b"1")).result()
    first.close()

    assert open_store().get("/a") == record


def test_path_with_characters_of_uris_is_taken_literally(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "50%41 #1?mode=ro&x.db").close()

    assert [path.name for path in tmp_path.iterdir()] == ["50%41 #1?mode=ro&x.db"]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.StorageError, match=r"cannot make the database .*/gone/s\.db"):
        SqliteStore(tmp_path / "gone" / "s.db")


def test_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.StorageError, match="is a folder"):
        SqliteStore(tmp_path)


def test_synchronous_is_one_of_two(database: Path) -> None:
    with pytest.raises(ValueError, match="NORMAL or FULL"):
        SqliteStore(database, synchronous="OFF")  # type: ignore[arg-type]  # what a caller without types may do
    assert not database.exists()


@pytest.mark.parametrize("content", [b"hello, I am a text file\n" * 100, b"x", os.urandom(8192)])
def test_file_that_is_no_database_is_left_alone(database: Path, content: bytes) -> None:
    database.write_bytes(content)

    with pytest.raises(
        errors.CorruptDatabaseError, match=rf"{database} is .*no database.*nothing was changed: move it away"
    ):
        SqliteStore(database)
    assert database.read_bytes() == content


def test_damaged_file_with_a_log_beside_it_is_left_alone(database: Path, open_store: Callable[[], SqliteStore]) -> None:
    """What a killed process left in the -wal file must not be written over what somebody may want to repair."""
    open_store().close()
    store = open_store()
    store.write(Write("/a", b"1")).result()
    logged = Path(f"{database}-wal").read_bytes()
    store.close()
    database.write_bytes(b"damage " * 3000)
    Path(f"{database}-wal").write_bytes(logged)

    with pytest.raises(errors.CorruptDatabaseError):
        SqliteStore(database)
    assert database.read_bytes() == b"damage " * 3000
    assert Path(f"{database}-wal").read_bytes() == logged


def test_database_of_another_program_is_left_alone(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE migration (theirs)")
    connection.close()
    content = database.read_bytes()

    with pytest.raises(errors.CorruptDatabaseError, match="is a database of another program"):
        SqliteStore(database)
    assert database.read_bytes() == content


def test_database_of_a_newer_version_is_left_alone(database: Path, sqlite_store: SqliteStore) -> None:
    sqlite_store.close()
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO migration VALUES (99, 'm099_future', 0)")
    connection.close()
    content = database.read_bytes()

    with pytest.raises(errors.NewerSchemaError, match=r"schema 99, this program knows \d+\): upgrade it"):
        SqliteStore(database)
    assert database.read_bytes() == content


@hypothesis.settings(
    max_examples=40, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(where=st.floats(0, 1), damage=st.binary(min_size=1, max_size=200), cut=st.booleans())
def test_damaged_file_raises_only_storage_errors(tmp_path: Path, where: float, damage: bytes, cut: bool) -> None:
    intact = tmp_path / "intact.db"
    if not intact.exists():
        store = SqliteStore(intact)
        for n in range(40):
            store.write(Write(f"/{n % 20}", b"x" * 700, terms=frozenset([f"n={n}"]))).result()
        store.close()
    content = intact.read_bytes()
    at = int(where * (len(content) - 1))
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(content[:at] if cut else content[:at] + damage + content[at + len(damage) :])

    try:
        store = SqliteStore(damaged)
    except errors.StorageError:
        return
    try:
        for act in (
            lambda: store.list("/"),
            lambda: store.list("/", terms=frozenset(["n=30"])),
            lambda: store.events("/", after=0),
            lambda: store.write(Write("/new", b"1")).result(),
            lambda: store.write(Write("/1", None)).result(),
        ):
            try:
                act()
            except (errors.StorageError, errors.NotFoundError):
                pass
    finally:
        store.close()


def test_damaged_schema_that_is_no_text_is_told(tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    SqliteStore(database).close()
    content = database.read_bytes()
    assert b"migrationmigration" in content
    damaged = content.replace(b"migrationmigration", b"\xa8igration\xa8igration")
    database.write_bytes(damaged.replace(b"CREATE TABLE", b"\xa8\xa9EATE TABLE"))
    with pytest.raises(errors.CorruptDatabaseError, match="is damaged"):
        SqliteStore(database)


def test_stores_opened_at_once_by_threads_and_processes_make_one_schema(database: Path) -> None:
    code = "import sys; from michelangelo.storage.sqlite import *; input(); SqliteStore(sys.argv[1]).close()"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(database)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    failures: list[BaseException] = []

    def open_one() -> None:
        try:
            SqliteStore(database).close()
        except errors.StorageError as e:
            failures.append(e)

    threads = [threading.Thread(target=open_one) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        _, complaint = process.communicate()
        assert process.returncode == 0, complaint.decode()
    assert not failures
    with sqlite3.connect(database) as connection:
        applied = [number for (number,) in connection.execute("SELECT number FROM migration")]
    connection.close()
    assert applied == [step.number for step in migrations.MIGRATIONS]


def test_opening_waits_for_a_process_that_is_just_making_the_file(database: Path) -> None:
    other = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, other.execute, ["ROLLBACK"])
    release.start()

    SqliteStore(database).close()
    release.join()
    other.close()


KILLED_WHILE_MAKING = """
import os, signal, sqlite3, sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.execute("CREATE TABLE half_made (value)")
connection.executemany("INSERT INTO half_made VALUES (?)", [(bytes(3000),)] * 200)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_file_whose_maker_was_killed_is_made_anew(database: Path) -> None:
    """Half a transaction is in the file, and beside it the journal that undoes it."""
    subprocess.run([sys.executable, "-c", KILLED_WHILE_MAKING, str(database)])
    assert Path(f"{database}-journal").stat().st_size > 0
    assert database.stat().st_size > 0

    store = SqliteStore(database)
    assert store.write(Write("/a", b"1")).result().revision == 1
    store.close()


@pytest.mark.parametrize("statement", [1, 2])
def test_schema_made_by_another_process_meanwhile_is_taken_for_ours(database: Path, statement: int) -> None:
    class Interrupted(sqlite3.Connection):
        """Before the statement of that number, another store makes the schema."""

        executed = 0

        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            self.executed += 1
            if self.executed == statement:
                SqliteStore(database).close()
            return super().execute(*arguments)

    connection = sqlite3.connect(database, isolation_level=None, factory=Interrupted)
    assert not migrations.pending(connection, str(database))
    connection.close()


def test_migration_that_fails_leaves_the_schema_before_it(database: Path, sqlite_store: SqliteStore) -> None:
    def m002_fails(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (made)")
        connection.execute("NONSENSE")

    known = [*migrations.MIGRATIONS, migrations.Migration(2, "m002_fails", m002_fails)]
    connection = sqlite3.connect(database, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="NONSENSE"):
        migrations.migrate(connection, str(database), known=known)

    assert not connection.execute("SELECT * FROM sqlite_master WHERE name = 'half'").fetchall()
    assert [step.name for step in migrations.pending(connection, str(database), known=known)] == ["m002_fails"]
    connection.close()
    assert sqlite_store.write(Write("/a", b"1")).result().revision == 1


FULL_DISK = """
import resource, sys
from michelangelo import errors
from michelangelo.storage.sqlite import SqliteStore
from michelangelo.storage.store import Write

store = SqliteStore(sys.argv[1])
store.write(Write("/kept", b"before")).result()
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, unlimited[1]))
futures = [store.write(Write(f"/full/{n}", bytes(50_000))) for n in range(8)]
failures = [future.exception() for future in futures]
assert all(type(failure) is errors.StorageError for failure in failures[-2:]), failures
assert "the disk" in str(failures[-1]) and sys.argv[1] in str(failures[-1]), failures[-1]
written = [f"/full/{n}" for n, failure in enumerate(failures) if failure is None]
assert sorted(r.key for r in store.list("/full/").records) == sorted(written)
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
assert store.write(Write("/after", bytes(300_000))).result().revision == 2 + len(written)
store.close()
"""


def test_full_disk_fails_the_batch_and_the_store_goes_on(database: Path, open_store: Callable[[], SqliteStore]) -> None:
    """The operating system refuses to let a file grow, in the middle of a commit, and then allows it again."""
    process = subprocess.run([sys.executable, "-c", FULL_DISK, str(database)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr

    store = open_store()
    assert [record.key for record in store.list("/").records if "full" not in record.key] == ["/after", "/kept"]
    assert store.revision() == len(store.events("/", after=0))


def test_lock_held_by_another_process_is_named(database: Path) -> None:
    store = SqliteStore(database, busy_timeout_seconds=0.01)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(errors.StorageError, match=r"another process held its lock for 0\.01 s"):
        store.write(Write("/a", b"1")).result()
    other.execute("ROLLBACK")
    other.close()
    assert store.write(Write("/a", b"1", ANY)).result().revision == 1
    store.close()


def test_batch_that_fails_leaves_nothing_of_itself(sqlite_store: SqliteStore, database: Path) -> None:
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    first = sqlite_store.write(Write("/first", b"1"))
    while not first.running():
        pass
    good = sqlite_store.write(Write("/good", b"1"))
    bad = sqlite_store.write(Write("/bad", [1]))  # type: ignore[arg-type]  # the one way to fail inside a transaction
    other.execute("ROLLBACK")
    other.close()

    assert first.result().revision == 1
    for future in (good, bad):
        with pytest.raises(errors.StorageError, match="nothing was changed"):
            future.result()
    assert sqlite_store.get("/good") is None
    assert sqlite_store.write(Write("/next", b"1")).result().revision == 2


def test_cancelled_write_is_not_written(database: Path, sqlite_store: SqliteStore) -> None:
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    first = sqlite_store.write(Write("/a", b"1"))
    while not first.running():
        pass
    second = sqlite_store.write(Write("/b", b"1"))
    third = sqlite_store.write(Write("/c", b"1"))
    assert second.cancel()
    other.execute("ROLLBACK")
    other.close()

    assert third.result().revision == 2
    assert [record.key for record in sqlite_store.list("/").records] == ["/a", "/c"]


def test_compaction_that_was_interrupted_is_finished_by_the_next(sqlite_store: SqliteStore, database: Path) -> None:
    for n in range(1200):
        sqlite_store.write(Write("/a", None if n % 300 == 299 else b"%d" % n))
    sqlite_store.write(Write("/b", b"")).result()
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE compaction SET floor = 1100")
    sqlite_store.compact(1000)

    assert connection.execute("SELECT min(revision), count(*) FROM log").fetchone() == (1100, 102)
    connection.close()


def test_parent_goes_on_when_children_end_in_every_way(database: Path, sqlite_store: SqliteStore) -> None:
    """Forks in the middle of writing; children that tidy up all they inherited do not harm the file."""
    stopped = threading.Event()

    def write() -> None:
        while not stopped.is_set():
            sqlite_store.write(Write("/busy", bytes(5000))).result()

    writer = threading.Thread(target=write)
    writer.start()
    code = (
        "import os, sys, threading\n"
        "from michelangelo.storage.sqlite import SqliteStore\n"
        "from michelangelo.storage.store import Write\n"
        "store = SqliteStore(sys.argv[1])\n"
        "def write(): [store.write(Write('/t', bytes(4000))).result() for _ in range(300)]\n"
        "again = threading.Thread(target=write)\n"
        "again.start()\n"
        "children = []\n"
        "for n in range(10):\n"
        "    store.write(Write('/a', b'%d' % n)).result()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        del store, again\n"
        "        sys.exit(0)\n"
        "    children.append(child)\n"
        "codes = [os.waitpid(child, 0)[1] for child in children]\n"
        "again.join()\n"
        "store.close()\n"
        "sys.exit(any(codes))\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(database)], capture_output=True, text=True)
    stopped.set()
    writer.join()

    assert process.returncode == 0, process.stderr
    record = sqlite_store.get("/a")
    assert record is not None
    assert record.value == b"9"
    assert sqlite_store.revision() == len(sqlite_store.events("/", after=0, limit=0))
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
