// Keeps marked parts of a page fresh: <section data-live="kind kind"> is fetched again when such a fact arrives.
// Without JavaScript every page still shows everything; it only does not move.

const parts = [...document.querySelectorAll("[data-live]")];

async function refresh(ids) {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ids) {
    const [now, then] = [document.getElementById(id), page.getElementById(id)];
    if (now && then && now.innerHTML !== then.innerHTML && !now.contains(document.activeElement)) {
      now.innerHTML = then.innerHTML;
      document.dispatchEvent(new CustomEvent("everloop:refreshed", { detail: now }));
    }
  }
}

if (parts.length && window.EventSource) {
  const due = new Set();
  let timer = 0;
  const source = new EventSource(`/${document.body.dataset.project}/events`);
  source.addEventListener("fact", (event) => {
    const kind = JSON.parse(event.data).kind;
    for (const part of parts) {
      if (part.dataset.live.split(" ").some((wanted) => kind.startsWith(wanted))) due.add(part.id);
    }
    if (due.size && !timer) {
      timer = setTimeout(() => {
        timer = 0;
        const ids = [...due];
        due.clear();
        refresh(ids);
      }, 400);
    }
  });
}
