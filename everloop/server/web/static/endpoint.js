// The endpoint's live charts (differences of the gateways' counters) and its form for trying a question.

import { drawLines } from "./plot.js";

const frame = document.getElementById("live-charts");
const KEPT = 90;
const EVERY = 2000;

// Latency buckets are a quarter of an octave wide; this is the end of bucket `index`, in milliseconds.
const upper = (index) => ((4 + (index & 3) + 1) * 2 ** (index >> 2)) / 1000;

function quantile(counts, share) {
  const buckets = Object.entries(counts).map(([bucket, count]) => [Number(bucket), count]).filter(([, c]) => c > 0).sort((a, b) => a[0] - b[0]);
  const wanted = share * buckets.reduce((sum, [, count]) => sum + count, 0);
  let seen = 0;
  for (const [bucket, count] of buckets) {
    seen += count;
    if (seen >= wanted) return upper(bucket);
  }
  return null;
}

function added(now, before) {
  const found = {};
  for (const [bucket, count] of Object.entries(now)) found[bucket] = count - (before[bucket] ?? 0);
  return found;
}

const lines = new Map(); // chart id -> name -> {x, y}

function push(chart, name, at, value) {
  if (!lines.has(chart)) lines.set(chart, new Map());
  const own = lines.get(chart);
  if (!own.has(name)) own.set(name, { x: [], y: [] });
  const line = own.get(name);
  line.x.push(at);
  line.y.push(value);
  if (line.x.length > KEPT) {
    line.x.shift();
    line.y.shift();
  }
}

function show() {
  for (const [chart, own] of lines) {
    const place = document.getElementById(chart);
    if (place.contains(document.activeElement) || place.matches(":hover")) continue; // somebody reads it
    drawLines(place, [...own].map(([name, line]) => ({ name, ...line })));
    document.dispatchEvent(new CustomEvent("everloop:refreshed", { detail: place }));
  }
}

// The graph's boxes say what each node does now: how often, how fast, how many of a hundred fail.
function showNodes(now, before, seconds) {
  if (now.serving !== before.serving) return;
  for (const [number, its] of Object.entries(now.nodes)) {
    const last = before.nodes[number];
    const note = document.querySelector(`#flow [data-node="${number}"] .note, #flow [data-node="${number} end"] .note`);
    if (!last || !note) continue;
    const asked = its.requests - last.requests;
    const failed = asked ? (100 * (its.errors - last.errors)) / asked : 0;
    note.textContent = !asked ? "not asked now" : `${(asked / seconds).toFixed(1)}/s, p99 ${(its.p99_micros / 1000).toFixed(1)} ms, ${failed.toFixed(0)} % fail`;
  }
}

async function watch() {
  let before = null;
  const note = document.getElementById("live-note");
  const calm = note.textContent;
  for (;;) {
    if (!document.hidden) {
      try {
        const answer = await fetch(frame.dataset.stats);
        if (!answer.ok) throw new Error(answer.status);
        const now = await answer.json();
        const seconds = before ? (now.wall - before.wall) / 1e6 : 0;
        const same = before && now.started.join() === before.started.join();
        if (same && seconds > 0) {
          for (const revision of now.revisions) {
            const last = before.revisions.find((one) => one.label === revision.label);
            if (!last || (revision.weight === 0 && revision.requests === last.requests && !lines.get("live-requests")?.has(revision.label))) continue;
            const latency = added(revision.latency, last.latency);
            push("live-requests", revision.label, now.wall, (revision.requests - last.requests) / seconds);
            push("live-errors", revision.label, now.wall, (revision.errors - last.errors) / seconds);
            push("live-latency", `${revision.label} p50`, now.wall, quantile(latency, 0.5));
            push("live-latency", `${revision.label} p99`, now.wall, quantile(latency, 0.99));
          }
          show();
          showNodes(now, before, seconds);
        }
        before = now;
        note.textContent = now.started.length ? calm : "no gateway runs here now";
      } catch {
        note.textContent = "the server does not answer; trying again";
      }
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
}

if (frame) watch();

const form = document.getElementById("try");

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const output = form.querySelector("output");
  output.hidden = false;
  try {
    JSON.parse(form.elements.question.value);
  } catch (error) {
    output.textContent = `This is no JSON: ${error.message}`;
    return;
  }
  output.textContent = "asking…";
  const began = performance.now();
  try {
    const answer = await fetch(form.dataset.address, { method: "POST", headers: { "content-type": "application/json" }, body: form.elements.question.value });
    const text = await answer.text();
    let shown = text;
    try {
      shown = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      shown = text;
    }
    output.textContent = `${answer.status} in ${Math.round(performance.now() - began)} ms\n${shown}`;
  } catch {
    output.textContent = "The gateway does not answer.";
  }
});
