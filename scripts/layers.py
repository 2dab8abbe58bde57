"""Draw docs/layers.svg: the packages of ddcm/ and who imports whom, read from the imports.

    python scripts/layers.py

A package stands above everything that it imports. An arrow that follows from others is left out: if A imports B, and
B imports C, there is no arrow from A to C.
"""

import argparse
import ast
import textwrap
from functools import cache
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE, PICTURE = ROOT / "ddcm", ROOT / "docs" / "layers.svg"
COLUMNS = {"diffusion": -1.55, "audio": -0.6, "quantize": 0.6, "fit": 1.2, "recipes": 2.05}  # others: the middle
UNIT, WIDTH, HEIGHT, ROW, MARGIN = 240, 216, 76, 116, 24
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
  font-family="system-ui, sans-serif">
<title>Packages of ddcm: arrows are imports</title>
<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0L8 4L0 8z" fill="#64748b"/></marker></defs>
<rect width="100%" height="100%" fill="#ffffff"/>"""
BOX = """<rect x="{x}" y="{y}" width="216" height="76" rx="8" fill="#eef2ff" stroke="#6366f1"/>
<text x="{x_text}" y="{y_name}" font-size="15" font-weight="700" fill="#1e1b4b">{name}</text>"""
LINE = '<text x="{x}" y="{y}" font-size="11.5" fill="#475569">{text}</text>'
ARROW = '<path d="{path}" fill="none" stroke="#64748b" stroke-width="1.3" marker-end="url(#arrow)"/>'


def read_imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Entry of the package (a folder or a file) -> the other entries that it imports, also inside functions."""
    entries = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    graph: dict[str, set[str]] = {name: set() for name in entries - {"__init__"}}
    for file in package.rglob("*.py"):
        own = file.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if own in graph else ():
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            parts = [name.split(".") for name in names if name.startswith("ddcm.")]
            graph[own] |= {part[1] for part in parts if part[1] in graph and part[1] != own}
    return graph


def assign_rows(graph: dict[str, set[str]]) -> dict[str, int]:
    """Entry -> row, 0 at the bottom: one above the highest entry that it imports."""

    @cache
    def row(name: str) -> int:
        return 1 + max(map(row, graph[name]), default=-1)

    return {name: row(name) for name in sorted(graph)}


def reduce_arrows(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """(from, to) of the imports that do not follow from others."""

    @cache
    def reach(name: str) -> frozenset[str]:
        return frozenset(graph[name]).union(*map(reach, graph[name]))

    return [
        (name, to) for name in sorted(graph) for to in sorted(graph[name])
        if not any(to in reach(other) for other in graph[name] - {to})
    ]  # fmt: skip


def read_summary(name: str) -> str:
    """The first sentence of the entry's docstring."""
    file = PACKAGE / name / "__init__.py" if (PACKAGE / name).is_dir() else PACKAGE / f"{name}.py"
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].replace("``", "").split()).split(". ")[0].rstrip(".")


def draw() -> str:
    """The picture as SVG."""
    graph = read_imports()
    rows = assign_rows(graph)
    top, left = max(rows.values()), min(COLUMNS.values())
    centre = {
        name: (MARGIN + WIDTH / 2 + UNIT * (COLUMNS.get(name, 0) - left), MARGIN + HEIGHT / 2 + ROW * (top - row))
        for name, row in rows.items()
    }  # fmt: skip
    width = max(x for x, _ in centre.values()) + WIDTH / 2 + MARGIN
    parts = [HEAD.format(width=round(width), height=2 * MARGIN + HEIGHT + ROW * top)]
    for name, to in reduce_arrows(graph):
        (x, y), (x_to, y_to) = centre[name], centre[to]
        y_to -= HEIGHT / 2
        side = x + (WIDTH / 2 if x_to > x else -WIDTH / 2)
        if rows[name] - rows[to] > 1 and x != x_to:  # around the boxes between: out at the side, down above the target
            path = f"M{side:g} {y:g}Q{x_to:g} {y:g} {x_to:g} {y + 60:g}L{x_to:g} {y_to:g}"
        else:
            path = f"M{x:g} {y + HEIGHT / 2:g}L{x_to:g} {y_to:g}"
        parts.append(ARROW.format(path=path))
    for name, (x, y) in centre.items():
        x, y = x - WIDTH / 2, y - HEIGHT / 2
        parts.append(BOX.format(x=f"{x:g}", y=f"{y:g}", x_text=f"{x + 12:g}", y_name=f"{y + 23:g}", name=name))
        for number, text in enumerate(textwrap.wrap(read_summary(name), 31)[:3]):
            parts.append(LINE.format(x=f"{x + 12:g}", y=f"{y + 40 + 14 * number:g}", text=escape(text)))
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
