"use strict";
// A served page asks for what is new whenever its server says that something was recorded.
(() => {
  const list = document.getElementById("list");
  const status = document.getElementById("live");
  let asking = false, again = false;

  async function refresh() {
    if (asking) { again = true; return; }
    asking = true;
    const place = new URL(location.href);
    const rows = document.getElementById("sessions");
    place.searchParams.set("part", rows ? "rows" : "new");
    if (!rows) place.searchParams.set("from", list.querySelectorAll("article[id]").length);
    try {
      const answer = await fetch(place);
      if (answer.ok) {
        const html = await answer.text();
        if (rows) rows.innerHTML = html;
        else if (html) list.insertAdjacentHTML("beforeend", html);
        document.dispatchEvent(new Event("memvid:new"));
      }
    } finally {
      asking = false;
      if (again) { again = false; setTimeout(refresh, 200); }
    }
  }

  // A page that does not end with the newest action stays as it is.
  if (document.querySelector('a[rel="next"]') && !document.getElementById("sessions")) return;
  const events = new EventSource("/live");
  events.onmessage = refresh;
  events.onopen = () => { if (status) status.textContent = "live"; };
  events.onerror = () => { if (status) status.textContent = "not connected"; };
})();
