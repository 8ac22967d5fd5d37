"""A type of one's own with its reader and writer, and a reference that a task takes as it is."""

import os

import michelangelo.uniflow.core as uniflow
from michelangelo.uniflow.core.io_registry import IO, io_registry
from michelangelo.uniflow.core.ref import Ref


class Table:
    def __init__(self, rows):
        self.rows = rows


class TableIO(IO[Table]):
    def write(self, url, value):
        with open(url, "w") as file:
            file.write("\n".join(",".join(map(str, row)) for row in value.rows))
        return {"rows": len(value.rows)}

    def read(self, url, metadata):
        with open(url) as file:
            rows = [[int(cell) for cell in line.split(",")] for line in file.read().splitlines()]
        assert len(rows) == metadata["rows"]
        return Table(rows)


io_registry().set(Table, TableIO())


@uniflow.task()
def make(rows: int) -> Table:
    return Table([[row, row * row] for row in range(rows)])


@uniflow.task()
def total(table: Table) -> int:
    return sum(value for _, value in table.rows)


@uniflow.workflow()
def table_workflow(rows: int = 4):
    table = make(rows)
    print("the workflow holds", type(table).__name__, isinstance(table, (Ref, Table)))
    return total(table)


if __name__ == "__main__":
    ctx = uniflow.create_context()
    print("total:", ctx.run(table_workflow, rows=int(os.environ.get("ROWS", "4"))))
