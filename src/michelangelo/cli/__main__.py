"""`python -m michelangelo.cli`: the same program as `mactl`."""

from __future__ import annotations

from michelangelo.cli.main import main

__all__: list[str] = []

main()
