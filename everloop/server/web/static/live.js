// Keeps marked parts of a page fresh: <section id="x" data-live="kind. kind."> is fetched again when such a fact arrives,
// <section id="x" data-source="address"> when the stream at that address says that something changed.
// Without JavaScript every page still shows everything; it only does not move.

document.documentElement.classList.add("script");
document.querySelector(".bar nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// Links that mlflow clients print end in #/experiments/N/runs/ID: only a script sees what stands after the #.
const meant = /^#\/experiments\/(\d+)(?:\/runs\/([0-9a-f]{32}))?(?:[/?].*)?$/.exec(location.hash);
if (meant) location.replace(`${document.body.dataset.project}/runs${meant[2] ? `/${meant[2]}` : `?experiment=${meant[1]}`}`);

const parts = [...document.querySelectorAll("[data-live][id]")];

// What a person is doing must not be taken away: a field with the focus, an opened fold.
const busy = (part) => part.contains(document.activeElement) || part.querySelector("details[open], .readout, svg.plot .drag");

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

const due = new Set();
let timer = 0;

function soon(id) {
  due.add(id);
  timer ||= setTimeout(() => {
    timer = 0;
    const ids = [...due];
    due.clear();
    refresh(ids).catch(() => {});
  }, 400);
}

const sources = new Map(); // address -> the parts that follow it
for (const part of document.querySelectorAll("[data-source][id]")) {
  sources.set(part.dataset.source, [...(sources.get(part.dataset.source) ?? []), part]);
}
for (const [address, followers] of window.EventSource ? sources : []) {
  const source = new EventSource(address);
  const all = () => followers.forEach((part) => soon(part.id));
  addEventListener("pagehide", () => source.close());
  source.addEventListener("changed", all);
  source.addEventListener("over", () => {
    source.close();
    all();
  });
}

if (parts.length && window.EventSource) {
  const source = new EventSource(`${document.body.dataset.project}/events`);
  addEventListener("pagehide", () => source.close());
  source.addEventListener("fact", (event) => {
    const { kind } = JSON.parse(event.data);
    for (const part of parts) {
      if (part.dataset.live.split(" ").some((wanted) => kind.startsWith(wanted))) soon(part.id);
    }
  });
}
