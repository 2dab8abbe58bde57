"""Write docs/reference.md, the Python API, from the package's own docstrings.

    python scripts/reference.py

Sources are read, not imported. What is listed is what SECTIONS names; a name that is gone is an error, and a test
asserts that the page is the one that this writes.
"""

from __future__ import annotations

import argparse
import ast
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference.md"
SECTIONS: dict[str, list[tuple[str, list[str]]]] = {  # heading -> [(file, names)]
    "ddcm": [("ddcm/pipeline/pipeline.py", ["DDCMPipeline"]), ("ddcm/pipeline/output.py", ["Output"])],
    "ddcm.recipes": [("ddcm/recipes.py", ["Recipe", "resolve"])],
    "ddcm.codec": [("ddcm/codec/settings.py", ["CodecSettings"])],
    "ddcm.quantize": [
        ("ddcm/quantize/base.py", ["Quantizer", "Quantized"]),
        ("ddcm/quantize/vector.py", ["SingleCodebook"]),
        ("ddcm/quantize/hard.py", ["HardQuantizer"]),
        ("ddcm/quantize/soft.py", ["SoftQuantizer"]),
        ("ddcm/quantize/residual.py", ["ResidualQuantizer"]),
        ("ddcm/quantize/projected.py", ["ProjectedQuantizer"]),
    ],
    "ddcm.quantize.pretrained": [("ddcm/quantize/pretrained.py", ["Codebook", "load_codebook", "save_codebook"])],
    "ddcm.backbone": [
        ("ddcm/backbone/__init__.py", ["load"]),
        ("ddcm/backbone/base.py", ["Backbone", "Condition"]),
        ("ddcm/backbone/latent_diffusion.py", ["FrozenBackbone"]),
    ],
    "ddcm.audio.files": [("ddcm/audio/files.py", ["read_audio", "write_audio"])],
    "ddcm.audio.mel": [("ddcm/audio/mel.py", ["MelSpec", "log_mel"])],
    "ddcm.diffusion.loop": [("ddcm/diffusion/loop.py", ["denoise_loop"])],
    "ddcm.evaluation.metrics": [
        (
            "ddcm/evaluation/metrics.py",
            ["log_mel_mae_db", "log_mel_corr", "lsd_db", "mrstft", "si_sdr_db", "hf_ratio_db"],
        ),
        ("ddcm/evaluation/folder.py", ["measure"]),
    ],
    "ddcm.fit": [
        ("ddcm/fit/module.py", ["CodebookModule"]),
        ("ddcm/fit/data/module.py", ["LatentData"]),
        ("ddcm/fit/data/streaming.py", ["StreamedLatents"]),
    ],
}
TITLED = re.compile(r"^(Args|Returns|Raises|Yields):$")
HOOKS = re.compile(r"on_|(training|validation|test)_step|configure_|setup|train_|val_|test_")  # called by Lightning


def page() -> str:
    parts = [
        "# Python API\n\nWritten by `python scripts/reference.py` from the docstrings. Letters in shapes:\n\n"
        f"```text\n{_letters()}\n```\n\n" + " · ".join(f"[{name}](#{name.replace('.', '')})" for name in SECTIONS)
    ]
    for heading, files in SECTIONS.items():
        parts.append(f"## {heading}")
        for file, names in files:
            found = {node.name: node for node in _parsed(file).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
            parts += [_class(node) if isinstance(node, ast.ClassDef) else _function(node, "###")
                      for node in (found[name] for name in names)]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def _letters() -> str:
    """The axes' names, from the package's docstring."""
    text = ast.get_docstring(_parsed("ddcm/__init__.py")) or ""
    return textwrap.dedent(text.partition("package:\n\n")[2]).strip("\n")


def _class(node: ast.ClassDef) -> str:
    start = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    lines = [
        f"### {node.name}",
        _code(f"class {node.name}", start) if start else f"`class {node.name}{bases and f'({bases})'}`",
    ]
    if start and bases:
        lines.append(f"A `{bases}`.")
    lines += [_prose(node), _fields(node, all_of_them=start is None)]
    for method in node.body:
        public = isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
        if public and ast.get_docstring(method) and not HOOKS.match(method.name):
            lines.append(_function(method, "####"))
    return "\n\n".join(line for line in lines if line)


def _function(node: ast.FunctionDef, level: str) -> str:
    kinds = [ast.unparse(decorator) for decorator in node.decorator_list]
    prose = _prose(node)
    if "property" in kinds or "cached_property" in kinds:
        return f"{level} {node.name}\n\n`{ast.unparse(node.returns) if node.returns else 'Any'}`. {prose}"
    prefix = "@classmethod\n" if "classmethod" in kinds else ""
    return f"{level} {node.name}\n\n{_code(f'{prefix}def {node.name}', node)}\n\n{prose}"


def _code(start: str, node: ast.FunctionDef) -> str:
    """The signature, without self, on as many lines as it takes."""
    given = ast.unparse(node.args)
    given = re.sub(r"^(self|cls)(, )?", "", given)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    line = f"{start}({given}){returns}"
    if len(line.splitlines()[-1]) > 100:
        given = re.sub(r"(?<!,) ", "\N{NO-BREAK SPACE}", given)  # lines end after a comma
        inside = textwrap.fill(
            given, 96, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
        line = f"{start}(\n{inside}\n){returns}".replace("\N{NO-BREAK SPACE}", " ")
    return f"```python\n{line}\n```"


def _fields(node: ast.ClassDef, all_of_them: bool) -> str:
    """Annotated attributes; their docstring is the string that follows. Without one, only those of dataclasses."""
    rows = []
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or ast.unparse(field.target).startswith("_"):
            continue
        said = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            said = ": " + _inline(" ".join(after.value.value.split()))
        elif not all_of_them:
            continue
        value = f" = {ast.unparse(field.value)}" if field.value else ""
        if "field(default_factory" in value:
            value = ""
        rows.append(f"- `{ast.unparse(field.target)}: {ast.unparse(field.annotation)}{value}`{said}")
    return "\n".join(rows)


def _prose(node: ast.ClassDef | ast.FunctionDef) -> str:
    """A Google style docstring as Markdown: sections become lists."""
    out: list[str] = []
    lines, title = (ast.get_docstring(node) or "").splitlines(), ""
    for line in lines:
        if TITLED.match(line):
            title = line[:-1]
            out += ["", f"{title}:", ""]
        elif title and line.startswith("    ") and not line.startswith("     "):
            name, colon, rest = line.strip().partition(": ")
            named = colon and title != "Returns" and re.fullmatch(r"[\w., ]+", name)
            out.append(f"- `{name}`: {_inline(rest)}" if named else f"- {_inline(line.strip())}")
        elif title and line.startswith("     "):
            out[-1] += " " + _inline(line.strip())
        else:
            title = title if not line.strip() else ""
            out.append(_inline(line))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()


def _inline(text: str) -> str:
    """Double backticks are single ones in Markdown; what Markdown would read as its own is escaped outside them."""
    parts = text.replace("``", "`").split("`")
    parts[::2] = [re.sub(r"([*<])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
