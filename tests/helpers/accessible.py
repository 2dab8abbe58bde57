"""Barriers on a page: what axe-core finds, and text that is cut off."""

from typing import Any

SEVERE = ("serious", "critical")
CLIPPED = """() => [...document.querySelectorAll("body *")].filter(e => {
  const style = getComputedStyle(e), box = e.getBoundingClientRect();
  if (!e.checkVisibility({opacityProperty: true, visibilityProperty: true}) || box.width <= 2 || box.height <= 2)
    return false;
  const hasText = [...e.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  const hides = axis => style[axis] === "hidden" || style[axis] === "clip";
  return hasText && ((hides("overflowX") && e.scrollWidth > e.clientWidth + 1)
    || (hides("overflowY") && e.scrollHeight > e.clientHeight + 1)
    || box.right > innerWidth + 1 && !e.closest(".scroll"));
}).map(e => e.outerHTML.slice(0, 200))"""


def find_barriers(tab: Any) -> list[str]:
    """Serious findings of axe-core on a page of playwright, visible texts that are cut, and sideways scrolling."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
    lines = [
        f"{finding['id']}: {node['html'][:200]} {[check['message'] for check in node['any']]}"
        for finding in found if finding["impact"] in SEVERE for node in finding["nodes"]
    ]  # fmt: skip
    lines += [f"cut off: {text}" for text in tab.evaluate(CLIPPED)]
    if tab.evaluate("document.documentElement.scrollWidth > innerWidth"):
        lines.append("the page scrolls sideways")
    return lines
