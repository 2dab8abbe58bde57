// Names that Gradio leaves out, for screen readers. Gradio makes its elements late, so each change of the page is seen.
(() => {
  const names = [
    [".empty[aria-label]:not([role])", e => e.setAttribute("role", "img")],
    [".picture img[alt='']", e => e.setAttribute("alt", "Log-mel spectrograms, in kHz over seconds")],
    [".picture .image-frame:not([tabindex])", e => e.setAttribute("tabindex", "0")],  // it scrolls on a phone
    ["input[type=range]:not([aria-label])", e => e.setAttribute("aria-label",
      e.closest(".block")?.querySelector("[data-testid=block-info]")?.textContent.trim() || "value")],
  ];
  let waiting = false;
  const mend = () => {
    waiting = false;
    for (const [selector, change] of names) document.querySelectorAll(selector).forEach(change);
    document.documentElement.lang ||= "en";
  };
  new MutationObserver(() => { if (!waiting) { waiting = true; requestAnimationFrame(mend); } })
    .observe(document.documentElement, {childList: true, subtree: true});
})();
