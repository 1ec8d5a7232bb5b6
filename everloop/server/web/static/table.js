// The table of runs: ticking many rows, finding a key among hundreds, and the next page when one scrolls to its end.
// Also the console of a run. Without this file there are boxes, lists and links that do the same.

const sheet = document.getElementById("sheet");
const form = document.getElementById("picked");
const boxes = () => [...document.querySelectorAll('#rows .pick input')];
const KEPT = 3000;

function told() {
  const ticked = boxes().filter((box) => box.checked).length;
  const note = form.querySelector("[data-picked]");
  note.hidden = ticked === 0;
  note.textContent = `${ticked} ticked`;
  for (const button of document.querySelectorAll("button[data-needs]")) button.disabled = ticked < Number(button.dataset.needs);
  const all = sheet?.querySelector("[data-all]");
  if (all) {
    all.checked = ticked > 0 && ticked === boxes().length;
    all.indeterminate = ticked > 0 && !all.checked;
  }
}

let last = null;
sheet?.addEventListener("click", (event) => {
  const box = event.target;
  if (box.matches?.("[data-all]")) {
    for (const one of boxes()) one.checked = box.checked;
  } else if (box.closest?.(".pick") && box.type === "checkbox") {
    const every = boxes();
    if (event.shiftKey && last && every.includes(last)) {
      const [from, to] = [every.indexOf(last), every.indexOf(box)].sort((a, b) => a - b);
      for (const one of every.slice(from, to + 1)) one.checked = box.checked;
    }
    last = box;
  } else return;
  told();
});

for (const field of document.querySelectorAll("input[data-narrows]")) {
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const label of document.getElementById(field.dataset.narrows).querySelectorAll("[data-text]")) {
      label.hidden = !label.dataset.text.toLowerCase().includes(wanted);
    }
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault();
  });
}

// one fold open at a time, closed by Escape or a click elsewhere
const folds = [...document.querySelectorAll("details.pop")];
document.addEventListener("click", (event) => {
  for (const fold of folds) if (!fold.contains(event.target)) fold.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const fold of folds) fold.open = false;
});

let loading = false;
async function more() {
  const link = document.getElementById("next");
  if (!link || loading || boxes().length >= KEPT) return;
  loading = true;
  try {
    const answer = await fetch(link.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const columns = (of) => of.querySelectorAll("thead th").length;
    if (columns(page) !== columns(document)) throw new Error("other columns");
    document.getElementById("rows").append(...page.getElementById("rows").children);
    const then = page.getElementById("next");
    if (then) link.href = then.href;
    else link.remove();
    const shown = document.querySelector("#count [data-last]");
    const reached = page.querySelector("#count [data-last]");
    if (shown && reached) shown.textContent = reached.textContent;
    told();
  } catch {
    observer?.disconnect(); // the link still leads on
  } finally {
    loading = false;
  }
}

let observer = null;
if (sheet && document.getElementById("next")) {
  const mark = document.createElement("div");
  mark.className = "mark";
  sheet.append(mark);
  observer = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && more(), { root: sheet, rootMargin: "600px" });
  observer.observe(mark);
}

if (form) told();
addEventListener("pageshow", () => form && told());

// the console: the newest lines in sight while one is at the end, and lines that wrap
const output = document.getElementById("console");
if (output) {
  let atEnd = "tail" in output.dataset;
  const down = () => atEnd && output.scrollTo(0, output.scrollHeight);
  output.addEventListener("scroll", () => (atEnd = output.scrollTop + output.clientHeight >= output.scrollHeight - 8));
  document.addEventListener("everloop:refreshed", (event) => event.detail === output && down());
  document.getElementById("wrap")?.addEventListener("change", (event) => output.classList.toggle("wrapped", event.target.checked));
  down();
}
