"use strict";
(() => {
  const root = document.documentElement;
  const get = (id) => document.getElementById(id);
  // Read again each time: a live page gets more of them.
  const articles = () => [...document.querySelectorAll("article[data-kind], #sessions tr, .rows li")];
  const search = get("search"), count = get("count"), keyList = get("keys");
  const chips = [...document.querySelectorAll(".chip")];
  const texts = new WeakMap(), near = new Set();
  let here = null, wanted = "";

  // --- what is shown ---

  function textOf(article) {
    if (!texts.has(article)) texts.set(article, article.textContent.toLowerCase());
    return texts.get(article);
  }

  function filter() {
    if (!count) return; // the server filters the lists
    wanted = search.value.trim().toLowerCase();
    const only = new Set(chips.filter((c) => c.ariaPressed === "true").map((c) => c.dataset.kind));
    const all = articles();
    let shown = 0;
    for (const article of all) {
      const failed = article.classList.contains("failed") && only.has("failed");
      const fits = (!only.size || failed || only.has(article.dataset.kind)) &&
        (!wanted || textOf(article).includes(wanted));
      article.hidden = !fits;
      shown += fits;
    }
    for (const row of document.querySelectorAll("#rows li")) {
      const article = get(row.firstChild.hash.slice(1));
      row.classList.toggle("off", Boolean(article?.hidden));
    }
    count.textContent = shown === all.length ? `${shown} shown` : `${shown} of ${all.length}`;
    document.body.classList.toggle("isolated", only.size > 0);
    mark();
  }

  // A match is opened and marked where it can be seen: a page may have thousands.
  function mark() {
    if (!globalThis.CSS?.highlights) return;
    const ranges = [];
    if (wanted && count) {
      for (const article of near) {
        if (article.hidden || !article.isConnected) continue;
        const walk = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
        while (walk.nextNode() && ranges.length < 2000) {
          const node = walk.currentNode, text = node.data.toLowerCase();
          for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + 1)) {
            if (at + wanted.length > node.data.length) break;
            const range = new Range();
            range.setStart(node, at);
            range.setEnd(node, at + wanted.length);
            ranges.push(range);
            for (let d = node.parentElement.closest("details"); d; d = d.parentElement.closest("details")) {
              if (!d.firstElementChild.contains(node)) d.open = true;
            }
          }
        }
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) { near.add(target); dress(target); } else near.delete(target);
    }
    if (wanted) mark();
  }, { rootMargin: "200px" });

  function watch() {
    for (const article of document.querySelectorAll("article[data-kind]")) watcher.observe(article);
  }

  // --- what an action gets once it is near: copy, pretty JSON, chunks ---

  const wholeText = (box) => [...box.querySelectorAll("pre")]
    .map((pre) => pre.dataset.raw ?? pre.textContent)
    .join(box.matches("[data-joined], :has([data-joined])") ? "" : "\n");

  // Only white space between the tokens changes: no number and no key is read.
  function pretty(text) {
    let out = "", depth = 0, quoted = false;
    const line = () => "\n" + " ".repeat(2 * depth);
    for (let at = 0; at < text.length; at++) {
      const c = text[at];
      if (quoted) {
        out += c;
        if (c === "\\") out += text[++at] ?? "";
        else if (c === '"') quoted = false;
      } else if (c === '"') { quoted = true; out += c; }
      else if (c === "{" || c === "[") {
        const rest = /^\s*[}\]]/.exec(text.slice(at + 1, at + 80));
        if (rest) { out += c + rest[0].trim(); at += rest[0].length; }
        else { depth++; out += c + line(); }
      } else if (c === "}" || c === "]") { depth--; out += line() + c; }
      else if (c === ",") out += c + line();
      else if (c === ":") out += ": ";
      else if (!/\s/.test(c)) out += c;
    }
    return out;
  }

  function setForm(box, form) {
    const pres = [...box.querySelectorAll("pre")];
    const raw = box.dataset.raw ?? wholeText(box);
    box.dataset.raw = raw;
    const lines = (form === "pretty" ? pretty(raw) : raw).split("\n");
    const at = pres.length > 1 ? Math.min(14, lines.length) : lines.length;
    pres[0].textContent = lines.slice(0, at).join("\n");
    if (pres[1]) pres[1].textContent = lines.slice(at).join("\n");
  }

  function button(text, act) {
    const made = document.createElement("button");
    made.className = "small";
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", () => act(made));
    return made;
  }

  async function copy(box, made) {
    try {
      await navigator.clipboard.writeText(box.dataset.raw ?? wholeText(box));
      made.textContent = "Copied";
    } catch { made.textContent = "Not allowed"; }
    setTimeout(() => { made.textContent = "Copy"; }, 1200);
  }

  function dress(article) {
    if (article.dataset.dressed) return;
    article.dataset.dressed = "1";
    for (const part of article.querySelectorAll(".part")) {
      const [name, box] = part.children;
      if (!box.querySelector("pre")) continue;
      const tools = document.createElement("span");
      name.append(tools);
      tools.append(button("Copy", (made) => copy(box, made)));
      if (box.querySelector("pre.json")) {
        setForm(box, "pretty");
        tools.append(button("Raw", (made) => {
          const raw = made.textContent === "Raw";
          setForm(box, raw ? "raw" : "pretty");
          made.textContent = raw ? "Pretty" : "Raw";
        }));
      }
      for (const note of part.querySelectorAll(".chunks")) {
        note.append(" ", button("Show them", (made) => { chunks(box, note); made.remove(); }));
      }
    }
  }

  // Lengths count characters as Python does: code points.
  function chunks(box, note) {
    const points = [...(box.dataset.raw ?? wholeText(box))], shown = document.createElement("pre");
    let at = 0;
    for (const length of note.dataset.lengths.split(" ").map(Number)) {
      const piece = document.createElement("span");
      piece.textContent = points.slice(at, at += length).join("");
      shown.append(piece);
    }
    shown.className = "pieces";
    note.after(shown);
  }

  // --- keys and buttons ---

  function go(step) {
    const shown = articles().filter((a) => !a.hidden && a.checkVisibility());
    if (!shown.length) return;
    const next = shown[Math.min(shown.length - 1, Math.max(0, shown.indexOf(here) + step))];
    here?.classList.remove("here");
    here = next;
    next.classList.add("here");
    const focused = next.matches("article") ? next : next.querySelector("a") ?? next;
    if (focused === next) next.tabIndex = -1;
    focused.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
    const row = document.querySelector(`#rows a[href="#${next.id}"]`);
    for (const one of document.querySelectorAll("#rows .here")) one.classList.remove("here");
    row?.classList.add("here");
    row?.scrollIntoView({ block: "nearest" });
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
    try { localStorage.setItem("memvid-theme", root.dataset.theme); } catch { /* not kept */ }
  }

  const keys = {
    j: () => go(1), k: () => go(-1), f: fold, t: theme, "/": () => search?.focus(),
    c: () => { near.has(here) && dress(here); here?.querySelector("h3 button")?.click(); },
    "?": () => { keyList.open ? keyList.close() : keyList.showModal(); },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches?.("input, select, textarea")) {
      if (event.key === "Escape") {
        if (count) { search.value = ""; filter(); }
        event.target.blur();
      }
      return;
    }
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  search?.addEventListener("input", filter);
  for (const chip of chips) {
    chip.addEventListener("click", (event) => {
      const was = chip.ariaPressed === "true";
      const adds = event.ctrlKey || event.metaKey || event.shiftKey;
      for (const one of chips) if (!adds && one !== chip) one.ariaPressed = "false";
      chip.ariaPressed = was ? "false" : "true";
      filter();
    });
  }
  get("fold")?.addEventListener("click", fold);
  get("theme")?.addEventListener("click", theme);
  try {
    const kept = localStorage.getItem("memvid-theme");
    if (kept && !root.dataset.theme) root.dataset.theme = kept;
  } catch { /* a page from a file may have no storage */ }

  for (const slider of document.querySelectorAll('input[type="range"]')) {
    slider.addEventListener("input", () => {
      slider.closest("label").querySelector("output").textContent = slider.value;
    });
    slider.addEventListener("change", () => slider.form.requestSubmit());
  }

  // The picture's bars lead to the actions, and say what the rows say.
  document.addEventListener("click", (event) => {
    const to = event.target.dataset?.to;
    if (to) location.href = to;
  });
  document.addEventListener("pointerover", (event) => {
    const bar = event.target, to = bar.dataset?.to;
    if (!to || bar.firstChild) return;
    const row = document.querySelector(`#rows a[href="${to}"]`);
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = row ? [...row.children].map((one) => one.textContent).join(" ").trim() : to;
    bar.append(title);
  });

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("main details:not([open])")];
    for (const d of opened) d.open = true;
  });
  addEventListener("afterprint", () => { for (const d of opened) d.open = false; });

  document.querySelector(".tools")?.removeAttribute("hidden");
  document.addEventListener("memvid:new", () => { watch(); filter(); });
  watch();
  filter();
})();
