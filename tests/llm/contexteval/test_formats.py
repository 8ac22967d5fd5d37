"""Formats of documents: what is a heading, a paragraph, code or a table; and files that are made to do harm."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path

import docx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from michelangelo import errors
from michelangelo.llm.contexteval import blocks
from michelangelo.llm.contexteval.blocks import Block
from michelangelo.llm.contexteval.formats import code, html, markdown, pdf, plain
from michelangelo.llm.contexteval.formats import docx as word


def _seen(found: list[Block]) -> list[tuple[str, tuple[str, ...], str]]:
    return [(block.kind, block.section, block.text) for block in found]


def test_markdown_keeps_its_structure() -> None:
    text = (
        "---\ntitle: Guide\n---\n# Set-up\n\nRun *it* with `make`,\nor not.\n\n- one\n- two\n\n"
        "```py\nx = 1\n\ny = 2\n```\n\n|a|b|\n|-|-|\n|1|2|\n\n## More\nEnd."
    )
    assert _seen(list(markdown.blocks(text))) == [
        ("heading", ("Guide",), "Guide"),
        ("heading", ("Set-up",), "Set-up"),
        ("prose", ("Set-up",), "Run it with make, or not."),
        ("prose", ("Set-up",), "* one"),
        ("prose", ("Set-up",), "* two"),
        ("code", ("Set-up",), "x = 1\n\ny = 2"),
        ("table", ("Set-up",), "a | b\n1 | 2"),
        ("heading", ("Set-up", "More"), "More"),
        ("prose", ("Set-up", "More"), "End."),
    ]


def test_html_keeps_its_structure_and_drops_scripts() -> None:
    text = (
        "<html><head><title>T</title><script>evil()</script></head><body><nav>menu</nav><h1>A</h1>loose"
        "<p>x <b>y</b></p><pre>a\n  b</pre><ul><li>one<li>two</ul><h2>B</h2>"
        "<table><tr><th>k<th>v<tr><td>1<td>2</table></body></html>"
    )
    assert _seen(list(html.blocks(text))) == [
        ("heading", ("A",), "A"),
        ("prose", ("A",), "loose"),
        ("prose", ("A",), "x y"),
        ("code", ("A",), "a\n  b"),
        ("prose", ("A",), "* one"),
        ("prose", ("A",), "* two"),
        ("heading", ("A", "B"), "B"),
        ("table", ("A", "B"), "k | v\n1 | 2"),
    ]


def test_html_nested_absurdly_deep_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(errors.CorpusError, match="nested"):
        list(html.blocks("<div>" * 1_000_000))


def test_plain_text_has_underlined_headings_signatures_and_code() -> None:
    text = (
        "Topic\n*****\n\nIntro text.\n\nobject.__len__(self)\n\n   Called to implement length.\n\n"
        "   >>> len([])\n   0\n\nPart\n====\n\nLast."
    )
    assert _seen(list(plain.blocks(text.split("\n")))) == [
        ("heading", ("Topic",), "Topic"),
        ("prose", ("Topic",), "Intro text."),
        ("prose", ("Topic", "object.__len__(self)"), "object.__len__(self)"),
        ("prose", ("Topic", "object.__len__(self)"), "   Called to implement length."),
        ("prose", ("Topic", "object.__len__(self)"), "   >>> len([])\n   0"),
        ("heading", ("Topic", "Part"), "Part"),
        ("prose", ("Topic", "Part"), "Last."),
    ]


def test_plain_text_is_read_as_it_comes() -> None:
    lines = iter(["word " * 1000] * 200)
    first = next(iter(plain.blocks(lines)))
    assert len(first.text) < 3 * plain.MAX_BLOCK_CHARS
    assert next(lines, None) is not None


def test_python_is_cut_by_its_syntax_tree_and_nothing_is_lost() -> None:
    source = Path(ast.__file__).read_text(encoding="utf-8")
    found = list(code.python_blocks(source))
    assert blocks.joined(iter(found)) == source.strip("\n")
    names = {block.section for block in found}
    assert ("literal_eval",) in names
    assert ("_Unparser", "visit_If") in names


@given(st.text("ab(){}:\n \t", max_size=200))
def test_code_with_its_gaps_is_the_source(source: str) -> None:
    for reader in (code.python_blocks, code.other_blocks):
        assert blocks.joined(reader(source)).strip() == source.strip()


def test_other_code_is_cut_at_what_begins_at_the_margin() -> None:
    source = "package main\n\nfunc Run(a int) {\n\n  x()\n}\n\ntype Pair struct {\n}\n"
    assert [block.section for block in code.other_blocks(source)] == [(), ("Run",), ("Pair",)]


def test_docx_has_headings_lists_and_tables_in_order(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("Plan", 1)
    document.add_paragraph("First words.")
    document.add_paragraph("point", style="List Bullet")
    table = document.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "k", "v"
    path = tmp_path / "plan.docx"
    document.save(str(path))
    assert _seen(list(word.blocks(path, max_bytes=10_000_000))) == [
        ("heading", ("Plan",), "Plan"),
        ("prose", ("Plan",), "First words."),
        ("prose", ("Plan",), "* point"),
        ("table", ("Plan",), "k | v"),
    ]


def test_docx_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * 5_000_000)
    assert path.stat().st_size < 10_000
    with pytest.raises(errors.CorpusError, match="unpack"):
        list(word.blocks(path, max_bytes=1_000_000))


def test_docx_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.docx"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(errors.CorpusError, match="no docx"):
        list(word.blocks(path, max_bytes=1_000_000))


def pdf_of(*pages: str) -> bytes:
    """A PDF with one line of text per page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for text in pages:
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
        font = "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R /Resources {font} >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    end = (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer << /Root 1 0 R /Size {len(objects) + 1} >>\n"
    )
    return data + f"{end}startxref\n{len(data)}\n%%EOF\n".encode()


def test_pdf_has_a_section_per_page_and_bounds(tmp_path: Path) -> None:
    path = tmp_path / "two.pdf"
    path.write_bytes(pdf_of("The first page.", "The second page."))
    found = _seen(list(pdf.blocks(path, max_pages=10, max_chars=1000)))
    assert found == [("prose", ("page 1",), "The first page."), ("prose", ("page 2",), "The second page.")]
    with pytest.raises(errors.CorpusError, match="pages"):
        list(pdf.blocks(path, max_pages=1, max_chars=1000))
    with pytest.raises(errors.CorpusError, match="characters"):
        list(pdf.blocks(path, max_pages=10, max_chars=20))


@pytest.mark.parametrize("data", [b"", b"%PDF-1.4\nnothing", b"\x00" * 100])
def test_pdf_that_is_damaged_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.pdf"
    path.write_bytes(data)
    with pytest.raises(errors.CorpusError, match="no PDF"):
        list(pdf.blocks(path, max_pages=10, max_chars=1000))
