"""Ray Data as a source: the rows of a real local cluster, in the order of the files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.llm.finetune.data import written_rows
from tests.llm.finetune.data.test_shards import ROWS, texts

from michelangelo.llm.finetune.config import SourceConfig

# Ray warns of its own settings while it copies them, and a thread of Ray Data may end with InterruptedError when its
# iterator is closed.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore:.*deprecated.*",
    "ignore:.*completion-signaler:pytest.PytestUnhandledThreadExceptionWarning",
)


@pytest.mark.slow
def test_ray_reads_in_the_order_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    expected = [row["text"] for row in ROWS]

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    written_rows.write(tmp_path / "1.jsonl", ROWS[:15])
    written_rows.write(tmp_path / "2.jsonl", ROWS[15:])
    (tmp_path / "parquet").mkdir()
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "parquet" / "a.parquet", row_group_size=9)
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        lines = SourceConfig(path=str(tmp_path / "*.jsonl"), format="ray")
        assert texts(lines, streaming=True) == expected
        columns = SourceConfig(path=str(tmp_path / "parquet"), format="ray")
        assert texts(columns, streaming=False) == expected
    finally:
        ray.shutdown()
