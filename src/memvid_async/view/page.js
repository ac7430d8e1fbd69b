"use strict";
(() => {
  const root = document.documentElement;
  // Read anew each time: a live page gets more of them.
  const articles = () => [...document.querySelectorAll("article[data-kind], #sessions tr")];
  const search = document.getElementById("search");
  const count = document.getElementById("count");
  const chips = [...document.querySelectorAll(".chip")];
  let here = null;

  function filter() {
    if (!count) return; // the server filters the list of sessions
    const wanted = search.value.trim().toLowerCase();
    const off = new Set(chips.filter((c) => c.ariaPressed === "false").map((c) => c.dataset.kind));
    const all = articles();
    let shown = 0;
    for (const article of all) {
      const fits = !off.has(article.dataset.kind) &&
        (!wanted || article.textContent.toLowerCase().includes(wanted));
      article.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === all.length ? `${shown} shown` : `${shown} of ${all.length}`;
  }

  function go(step) {
    const shown = articles().filter((a) => !a.hidden && a.checkVisibility());
    if (!shown.length) return;
    const at = shown.indexOf(here);
    const next = shown[Math.min(shown.length - 1, Math.max(0, at + step))];
    here?.classList.remove("here");
    here = next;
    next.classList.add("here");
    (next.querySelector("td a") ?? next).focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  function fold() {
    const folded = [...document.querySelectorAll("main details")];
    const open = folded.some((d) => !d.open);
    for (const d of folded) d.open = open;
  }

  function theme() {
    const dark = root.dataset.theme ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  }

  const keys = { j: () => go(1), k: () => go(-1), f: fold, t: theme, "/": () => search.focus() };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === search) {
      if (event.key === "Escape" && count) { search.value = ""; filter(); search.blur(); }
      return;
    }
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  search.addEventListener("input", filter);
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.ariaPressed = chip.ariaPressed === "true" ? "false" : "true";
      filter();
    });
  }
  document.getElementById("fold")?.addEventListener("click", fold);
  document.getElementById("theme")?.addEventListener("click", theme);
  document.querySelector(".tools")?.removeAttribute("hidden");
  document.addEventListener("memvid:new", filter);
  filter();
})();
