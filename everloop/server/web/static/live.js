// Keeps marked parts of a page fresh: <section id="x" data-live="kind. kind."> is fetched again when such a fact arrives.
// Without JavaScript every page still shows everything; it only does not move.

document.documentElement.classList.add("script");
document.querySelector(".bar nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

const parts = [...document.querySelectorAll("[data-live][id]")];

// What a person is doing must not be taken away: a field with the focus, an opened fold.
const busy = (part) => part.contains(document.activeElement) || part.querySelector("details[open]");

async function refresh(ids) {
  const answer = await fetch(document.body.dataset.address, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ids) {
    const [now, then] = [document.getElementById(id), page.getElementById(id)];
    if (now && then && now.innerHTML !== then.innerHTML && !busy(now)) {
      now.replaceChildren(...then.childNodes);
      document.dispatchEvent(new CustomEvent("everloop:refreshed", { detail: now }));
    }
  }
}

if (parts.length && window.EventSource) {
  const due = new Set();
  let timer = 0;
  const source = new EventSource(`${document.body.dataset.project}/events`);
  addEventListener("pagehide", () => source.close());
  source.addEventListener("fact", (event) => {
    const { kind } = JSON.parse(event.data);
    for (const part of parts) {
      if (part.dataset.live.split(" ").some((wanted) => kind.startsWith(wanted))) due.add(part.id);
    }
    if (due.size && !timer) {
      timer = setTimeout(() => {
        timer = 0;
        const ids = [...due];
        due.clear();
        refresh(ids).catch(() => {});
      }, 400);
    }
  });
}
