"use strict";
(() => {
  const root = document.documentElement;
  const get = (id) => document.getElementById(id);
  // Read again each time: a live page gets more of them.
  const articles = () => [...document.querySelectorAll("article, #sessions tr, .rows li")];
  const isSeen = (article) => !article.hidden && article.checkVisibility();
  const kindOf = (article) =>
    article.dataset.kind ?? article.querySelector("h2 > i")?.className;
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
      const fits = (!only.size || failed || only.has(kindOf(article))) &&
        (!wanted || textOf(article).includes(wanted));
      article.hidden = !fits;
      shown += fits;
    }
    for (const some of document.querySelectorAll(".some")) {
      some.hidden = [...some.children].every((one) => one.hidden);
    }
    drawRows();
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

  // Of the parts of a list that are far away nothing is watched.
  const someWatcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      for (const article of target.querySelectorAll("article")) {
        if (isIntersecting) watcher.observe(article);
        else { watcher.unobserve(article); near.delete(article); }
      }
    }
  }, { rootMargin: "400px" });

  function watch() {
    for (const some of document.querySelectorAll(".some")) {
      some.style.containIntrinsicSize = `auto ${9 * some.children.length}rem`;
      someWatcher.observe(some);
    }
    for (const article of document.querySelectorAll(":not(.some) > article")) watcher.observe(article);
  }

  // --- a row for each action: what it is, and its bar in the time of all ---

  const NAMED = ["tool_call", "ask", "step", "once"];

  function duration(ms) {
    if (!ms) return "";
    if (ms < 1e3) return `${ms.toFixed(1)} ms`;
    if (ms < 12e4) return `${(ms / 1e3).toFixed(1)} s`;
    const seconds = Math.floor(ms / 1e3), minutes = Math.floor(seconds / 60);
    return minutes < 60 ? `${minutes} min ${seconds % 60} s`
      : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  function element(name, text = "", looks = "") {
    const made = document.createElement(name);
    made.textContent = text;
    if (looks) made.className = looks;
    return made;
  }

  let bars = [], last = 1;

  function readBars() {
    const list = get("rows");
    if (!list) return;
    let begin = 0;
    last = 1;
    bars = (list.dataset.bars || null)?.split(",").map((bar) => {
      const [id, since, lasted, depth] = bar.split(" ");
      begin += Number(since);
      const end = lasted === "" ? null : begin + Number(lasted);
      last = Math.max(last, end ?? begin);
      return { id: id[0] === "s" ? id : "a" + id, begin, end, depth: Math.min(depth ?? 0, 8) };
    }) ?? [];
  }

  function toldOf(bar) {
    const heading = get(bar.id)?.firstChild, kind = heading?.querySelector("i").className ?? "";
    const title = heading?.querySelector("b")?.textContent ?? "";
    const name = NAMED.includes(kind) && title ? title : `${kind.replace("_", " ")} ${title}`;
    const failed = Boolean(heading?.parentNode.classList.contains("failed"));
    const lasted = bar.end === null ? "in flight" : duration((bar.end - bar.begin) / 1e3);
    return { kind, name, failed, lasted };
  }

  function rowOf(bar) {
    const { kind, name, failed, lasted } = toldOf(bar);
    const row = element("li", "", bar.depth ? "d" + bar.depth : ""), link = element("a");
    const line = element("span", "", "line");
    const drawn = element("i", "", failed ? "t-failed" : kind + (bar.end === null ? " t-flight" : ""));
    drawn.style.marginLeft = `${Math.min(99, 100 * bar.begin / last)}%`;
    drawn.style.width = `${Math.max(.6, 100 * ((bar.end ?? last) - bar.begin) / last)}%`;
    line.append(drawn);
    link.href = "#" + bar.id;
    link.append(element("span", name, kind + (failed ? " failed" : "")), line, element("small", lasted));
    row.append(link);
    return row;
  }

  // Rows are made once they are near: a session may have tens of thousands.
  const TOGETHER = 100, waiting = new WeakMap();
  let listed = [];

  function fill(some) {
    some.append(...(waiting.get(some) ?? []).map(rowOf));
    waiting.delete(some);
  }

  const outline = document.querySelector(".outline");
  const rowWatcher = outline && new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) fill(target);
  }, { root: outline, rootMargin: "500px" });

  function drawRows() {
    const list = get("rows");
    if (!list) return;
    rowWatcher.disconnect();
    listed = bars.filter((bar) => !get(bar.id)?.hidden);
    const lists = [];
    for (let at = 0; at < listed.length; at += TOGETHER) {
      const some = listed.slice(at, at + TOGETHER), made = element("ol");
      made.style.height = `${1.55 * some.length}rem`;
      waiting.set(made, some);
      lists.push(made);
    }
    list.replaceChildren(...lists);
    for (const made of lists) rowWatcher.observe(made);
  }

  function showRow(id) {
    const place = listed.findIndex((bar) => bar.id === id);
    if (place < 0) return;
    const some = get("rows").children[Math.floor(place / TOGETHER)];
    fill(some);
    const row = some.children[place % TOGETHER].firstChild;
    for (const one of document.querySelectorAll("#rows .here")) one.classList.remove("here");
    row.classList.add("here");
    row.scrollIntoView({ block: "nearest" });
  }

  // --- what an action gets once it is near: copy, pretty JSON, chunks ---

  // A text is a pre, or two where its end is folded.
  const presOf = (text) => text.matches("pre") ? [text] : [...text.querySelectorAll("pre")];
  const wholeText = (text) => text.dataset.raw ??
    presOf(text).map((pre) => pre.textContent).join("joined" in text.dataset ? "" : "\n");

  // A turn that calls tools reads better as what it says and what it calls.
  function spoken(text) {
    try {
      const { content, tool_calls: calls } = JSON.parse(text);
      const lines = calls.map((call) => `→ ${call.function.name} ${call.function.arguments}`);
      return [content, ...lines].filter((line) => line && typeof line === "string").join("\n");
    } catch { return ""; }
  }

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

  function setForm(text, form) {
    const pres = presOf(text);
    const raw = wholeText(text);
    text.dataset.raw = raw;
    const lines = (form === "pretty" ? spoken(raw) || pretty(raw) : raw).split("\n");
    const at = pres.length > 1 ? Math.min(14, lines.length) : lines.length;
    pres[0].textContent = lines.slice(0, at).join("\n");
    if (pres[1]) pres[1].textContent = lines.slice(at).join("\n");
  }

  function button(text, act) {
    const made = element("button", text, "small");
    made.type = "button";
    made.addEventListener("click", () => act(made));
    return made;
  }

  async function copy(text, made) {
    try {
      await navigator.clipboard.writeText(wholeText(text));
      made.textContent = "Copied";
    } catch { made.textContent = "Not allowed"; }
    setTimeout(() => { made.textContent = "Copy"; }, 1200);
  }

  function dress(article) {
    if (article.dataset.dressed) return;
    article.dataset.dressed = "1";
    for (const pre of article.querySelectorAll("pre.json")) {
      setForm(pre.closest(".long") ?? pre, "pretty");
    }
    for (const name of article.querySelectorAll("dt")) {
      const box = name.nextElementSibling, text = box.querySelector(":scope > pre, :scope > .long");
      if (!text) continue;
      const tools = element("span");
      name.append(tools);
      tools.append(button("Copy", (made) => copy(text, made)));
      if (text.matches(".json, :has(> .json)")) {
        tools.append(button("Raw", (made) => {
          const raw = made.textContent === "Raw";
          setForm(text, raw ? "raw" : "pretty");
          made.textContent = raw ? "Pretty" : "Raw";
        }));
      }
      for (const note of box.querySelectorAll(".chunks")) {
        note.append(" ", button("Show them", (made) => { chunks(text, note); made.remove(); }));
      }
    }
  }

  // Lengths count characters as Python does: code points.
  function chunks(text, note) {
    const points = [...wholeText(text)], shown = element("pre", "", "pieces");
    let at = 0;
    for (const length of note.dataset.lengths.split(" ").map(Number)) {
      shown.append(element("span", points.slice(at, at += length).join("")));
    }
    note.after(shown);
  }

  // --- keys and buttons ---

  function go(step) {
    const all = articles();
    let place = all.indexOf(here) + step;
    while (all[place] && !isSeen(all[place])) place += step;
    const next = all[place] ?? (here?.isConnected ? here : all.find(isSeen));
    if (!next) return;
    here?.classList.remove("here");
    here = next;
    next.classList.add("here");
    const focused = next.matches("article") ? next : next.querySelector("a") ?? next;
    if (focused === next) next.tabIndex = -1;
    focused.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
    showRow(next.id);
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
    c: () => { near.has(here) && dress(here); here?.querySelector("dt button")?.click(); },
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

  // The picture's bars lead to the actions, and say what the rows say. Those at one height are one
  // shape: which it is tells the place of the pointer.
  function barAt(event) {
    const bars = event.target, links = bars.dataset?.to?.split(" ");
    if (!links) return null;
    const { x } = new DOMPoint(event.clientX, event.clientY).matrixTransform(bars.getScreenCTM().inverse());
    const begins = bars.getAttribute("d").split("M").slice(1).map(parseFloat);
    return links[Math.max(0, begins.findLastIndex((begin) => begin <= x))];
  }
  document.addEventListener("click", (event) => {
    const to = barAt(event);
    if (to) location.href = to;
  });
  document.addEventListener("pointermove", (event) => {
    const to = barAt(event);
    if (!to) return;
    const bar = bars.find(({ id }) => "#" + id === to), told = bar && toldOf(bar);
    const title = event.target.firstChild ??
      event.target.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "title"));
    title.textContent = told ? `${told.name} ${told.lasted}${told.failed ? ", failed" : ""}` : to;
  });

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("main details:not([open])")];
    for (const d of opened) d.open = true;
  });
  addEventListener("afterprint", () => { for (const d of opened) d.open = false; });

  document.querySelector(".tools")?.removeAttribute("hidden");
  document.addEventListener("memvid:new", () => { readBars(); watch(); filter(); });
  readBars();
  watch();
  filter();
})();
