"""The frame of a report: one HTML page that fetches nothing. ``evaluation.report`` fills it with ``str.format``."""

STYLE = """
:root { color-scheme: light dark; --line: #8884; --best: #2a7d4f; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0 0 1rem; }
dt { opacity: .65; } dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
thead th { position: sticky; top: 0; background: Canvas; border-bottom: 2px solid var(--line); text-align: right; }
thead th:first-child { text-align: left; }
thead button { all: unset; cursor: pointer; padding: .4rem .6rem; font-weight: 600; white-space: nowrap; }
thead button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
tbody th { text-align: left; font-weight: 400; padding: .6rem; width: 320px; }
tbody tr { border-bottom: 1px solid var(--line); }
td { text-align: right; padding: .4rem .6rem; font-variant-numeric: tabular-nums; }
td.best { color: var(--best); font-weight: 700; }
img { display: block; width: 300px; height: 72px; margin: .25rem 0; }
audio { display: block; width: 300px; height: 32px; }
pre { font-size: 12px; margin: .25rem 0 0; white-space: pre-wrap; }
summary { cursor: pointer; opacity: .65; }
"""

SCRIPT = """
"use strict";
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("thead th")];
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const up = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach(other => other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.value;
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");  // what has no value stays at the end
    return up ? x - y : y - x;
  });
  body.append(...rows);
}));
// One sound at a time.
document.addEventListener("play", event => document.querySelectorAll("audio").forEach(
  audio => { if (audio !== event.target) audio.pause(); }), true);
"""

POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

PAGE = (
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{title}}</title>
<style>{style}</style>
</head>
<body>
<h1>{{title}}</h1>
<dl>{{facts}}</dl>
<p>A click on a column sorts by it; the best value of each is green. The first row is the input itself.{{note}}</p>
<div class="scroll"><table>
<thead><tr>{{heads}}</tr></thead>
<tbody>{{body}}</tbody>
</table></div>
<script>{script}</script>
</body>
</html>
"""
).format(
    policy=POLICY,
    style=STYLE.replace("{", "{{").replace("}", "}}"),
    script=SCRIPT.replace("{", "{{").replace("}", "}}"),
)
