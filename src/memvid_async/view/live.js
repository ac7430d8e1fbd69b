"use strict";
// A served page asks for what is new whenever its server says that something was recorded.
(() => {
  const status = document.getElementById("live");
  const isList = Boolean(document.getElementById("sessions"));
  const isSession = Boolean(document.getElementById("flight"));
  let asking = false, again = false;

  function take(html) {
    const news = new DOMParser().parseFromString(html, "text/html");
    for (const piece of news.querySelectorAll("[data-replace]")) {
      const old = document.getElementById(piece.dataset.replace);
      // What somebody is reading or using there stays.
      const made = piece.querySelector("#" + piece.dataset.replace);
      if (old && made && !old.contains(document.activeElement)) old.replaceWith(made);
    }
    for (const piece of news.querySelectorAll("[data-append]")) {
      document.getElementById(piece.dataset.append).append(...piece.childNodes);
    }
    document.dispatchEvent(new Event("memvid:new"));
  }

  async function refresh() {
    if (asking) { again = true; return; }
    asking = true;
    const place = new URL(location.href), begun = performance.now();
    place.searchParams.set("part", isList ? "rows" : "new");
    if (isSession) {
      const ids = [...document.querySelectorAll("#list article[id]")].map((a) => a.id);
      place.searchParams.set("from", ids.length ? Number(ids.at(-1).slice(1)) + 1 : 0);
    }
    try {
      const answer = await fetch(place);
      if (answer.ok) take(await answer.text());
    } finally {
      // What takes long is asked for less often.
      const pause = 200 + 4 * (performance.now() - begun);
      setTimeout(() => { asking = false; if (again) { again = false; refresh(); } }, pause);
    }
  }

  if (!isList && !isSession) { status?.remove(); return; }
  const events = new EventSource("/live");
  events.onmessage = refresh;
  events.onopen = () => { if (status) status.textContent = "live"; };
  events.onerror = () => { if (status) status.textContent = "not connected"; };
})();
