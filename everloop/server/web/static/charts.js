// What a script adds to the server's charts: a read-out under the pointer (or the arrow keys), series that can be hidden,
// and a range that can be dragged; the range goes into the address and the server draws it anew, with more detail.

import { element, share, shownNumber, shownPosition, valueAt } from "./plot.js";

const MOST_READ = 10;
const SHORTEST_DRAG = 6;
const NEAR = 0.01; // of the axis: series that were thinned apart do not share their positions

const hiddenBefore = new Map(); // title of a chart -> names of its hidden series: a chart that is drawn anew keeps them

class Plot {
  constructor(figure) {
    this.figure = figure;
    this.svg = figure.querySelector("svg.plot");
    this.data = JSON.parse(figure.dataset.chart);
    const names = hiddenBefore.get(figure.dataset.title) ?? new Set();
    hiddenBefore.set(figure.dataset.title, names);
    this.hidden = new Set((this.data.series ?? []).flatMap((one, index) => (names.has(one.name) ? [index] : [])));
    this.names = names;
    for (const one of this.data.series ?? []) one.x ??= this.data.series[0].x;
    const title = this.svg.querySelector(":scope > title");
    for (const one of this.svg.querySelectorAll(".s > title")) one.remove();
    if (title) {
      // a title would pop up over the read-out
      this.svg.setAttribute("aria-label", title.textContent);
      title.remove();
    }
    if (this.data.axes) this.brushes();
    if (this.data.series?.length) {
      this.legend();
      this.pointer();
    }
  }

  // The rectangle in which values lie: the element without its padding.
  room() {
    const whole = this.svg.getBoundingClientRect();
    const style = getComputedStyle(this.svg);
    const [left, right, top, bottom] = ["Left", "Right", "Top", "Bottom"].map((side) => parseFloat(style[`padding${side}`]));
    return { left: whole.left + left, top: whole.top + top, width: whole.width - left - right, height: whole.height - top - bottom };
  }

  legend() {
    for (const entry of this.figure.querySelectorAll(".legend .entry")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = entry.className;
      button.append(...entry.childNodes);
      entry.replaceWith(button);
      const index = Number(entry.dataset.s);
      const group = this.svg.querySelector(`.s[data-s="${index}"]`);
      const show = () => {
        button.setAttribute("aria-pressed", String(!this.hidden.has(index)));
        group?.classList.toggle("off", this.hidden.has(index));
      };
      show();
      button.addEventListener("click", () => {
        const { name } = this.data.series[index];
        if (this.hidden.delete(index)) this.names.delete(name);
        else {
          this.hidden.add(index);
          this.names.add(name);
        }
        show();
      });
      for (const [event, dim] of [["pointerenter", true], ["pointerleave", false]]) {
        button.addEventListener(event, () => {
          for (const other of this.svg.querySelectorAll(".s")) other.classList.toggle("dim", dim && other !== group);
        });
      }
    }
  }

  pointer() {
    const { svg } = this;
    let from = null;
    svg.tabIndex = 0;
    svg.addEventListener("pointermove", (event) => (from === null ? this.read(this.part(event)) : this.drag(from, this.part(event))));
    svg.addEventListener("pointerleave", () => from === null && this.clear());
    svg.addEventListener("blur", () => this.clear());
    svg.addEventListener("keydown", (event) => this.key(event));
    if (!this.figure.dataset.zoom) return;
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.pointerType === "touch") return;
      from = this.part(event);
      svg.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    svg.addEventListener("pointerup", (event) => {
      const [low, high] = [from, this.part(event)].sort((a, b) => a - b);
      from = null;
      this.clear();
      if (low !== null && (high - low) * this.room().width >= SHORTEST_DRAG) this.zoom(low, high);
    });
    svg.addEventListener("dblclick", () => ask(this.figure.dataset.zoom, ""));
  }

  part(event) {
    const room = this.room();
    return Math.min(Math.max((event.clientX - room.left) / room.width, 0), 1);
  }

  zoom(low, high) {
    const { x } = this.data;
    const ends = [valueAt(x, low), valueAt(x, high)];
    const [first, last] = x.kind === "whole" ? [Math.floor(ends[0]), Math.ceil(ends[1])] : ends.map((end) => Number(end.toPrecision(12)));
    ask(this.figure.dataset.zoom, `${first}..${last}`);
  }

  // Arrow keys walk over the positions of the first visible series.
  key(event) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const line = this.data.series.find((_, index) => !this.hidden.has(index));
    if (event.key === "Escape") this.clear();
    if (!way || !line) return;
    event.preventDefault();
    this.index = Math.min(Math.max((this.index ?? (way > 0 ? -1 : line.x.length)) + way, 0), line.x.length - 1);
    this.read(share(this.data.x, line.x[this.index]));
  }

  read(part) {
    const { x, y, series } = this.data;
    const at = nearest(series.flatMap((one, index) => (this.hidden.has(index) ? [] : [one.x])), valueAt(x, part));
    this.clear();
    if (at === null) return;
    const across = share(x, at);
    if (across < -1e-9 || across > 1 + 1e-9) return;
    const percent = `${across * 100}%`;
    this.added = [element("line", { class: "hair", x1: percent, x2: percent, y1: 0, y2: "100%" })];
    const rows = [];
    series.forEach((one, index) => {
      const place = this.hidden.has(index) ? null : nearest([one.x], at);
      if (place === null || Math.abs(share(x, place) - across) > NEAR) return;
      const value = one.y[find(one.x, place)];
      if (value === null) return;
      rows.push({ ...one, value });
      const up = 1 - share(y, value);
      if (!this.data.bars && up >= 0 && up <= 1) {
        const spot = element("circle", { class: `spot ${one.mark}`, cx: `${share(x, place) * 100}%`, cy: `${up * 100}%`, r: 4 });
        if (one.shade !== undefined) shade(spot, one.shade);
        this.added.push(spot);
      }
    });
    this.svg.append(...this.added);
    this.tell(shownPosition(x, at), rows, across);
  }

  tell(heading, rows, across) {
    const box = document.createElement("div");
    box.className = "readout";
    box.setAttribute("role", "status");
    const strong = document.createElement("strong");
    strong.textContent = heading;
    box.append(strong);
    const sorted = rows.length > 3 && !this.data.bars ? [...rows].sort((a, b) => b.value - a.value) : rows;
    for (const row of sorted.slice(0, MOST_READ)) {
      const line = document.createElement("div");
      const dot = document.createElement("i");
      dot.className = row.mark;
      if (row.shade !== undefined) shade(dot, row.shade);
      const [name, value] = [document.createElement("span"), document.createElement("b")];
      [name.textContent, value.textContent] = [row.name, shownNumber(row.value)];
      line.append(dot, name, value);
      box.append(line);
    }
    if (sorted.length > MOST_READ) box.append(`and ${sorted.length - MOST_READ} more`);
    this.figure.append(box);
    const [room, whole] = [this.room(), this.figure.getBoundingClientRect()];
    const at = room.left - whole.left + across * room.width;
    box.style.left = `${at + box.offsetWidth + 14 > whole.width ? Math.max(at - box.offsetWidth - 12, 0) : at + 12}px`;
    box.style.top = `${room.top - whole.top + 4}px`;
    this.box = box;
  }

  drag(from, to) {
    this.clear();
    const [low, high] = [Math.min(from, to), Math.max(from, to)];
    this.added = [element("rect", { class: "drag", x: `${low * 100}%`, width: `${(high - low) * 100}%`, y: 0, height: "100%" })];
    this.svg.append(...this.added);
  }

  clear() {
    for (const one of this.added ?? []) one.remove();
    this.box?.remove();
    this.added = this.box = null;
  }

  // On parallel coordinates a range dragged along an axis of numbers chooses the rows within it.
  brushes() {
    const { svg, data } = this;
    const name = this.figure.dataset.zoom;
    if (!name) return;
    let held = null;
    const place = (event) => {
      const room = this.room();
      const across = (event.clientX - room.left) / room.width;
      const axis = data.axes.reduce((best, one) => (Math.abs(one.at - across) < Math.abs(best.at - across) ? one : best));
      return { axis, near: Math.abs(axis.at - across) * room.width < 16, up: Math.min(Math.max(1 - (event.clientY - room.top) / room.height, 0), 1), height: room.height };
    };
    svg.addEventListener("pointerdown", (event) => {
      const found = place(event);
      if (!found.near || found.axis.kind === "band" || event.button !== 0) return;
      held = found;
      svg.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    svg.addEventListener("pointermove", (event) => {
      if (!held) return;
      this.clear();
      const { up } = place(event);
      const box = element("svg", { x: `${held.axis.at * 100}%`, overflow: "visible" });
      box.append(element("rect", { class: "brush", x: -7, width: 14, y: `${(1 - Math.max(up, held.up)) * 100}%`, height: `${Math.abs(up - held.up) * 100}%` }));
      this.added = [box];
      svg.append(box);
    });
    svg.addEventListener("pointerup", (event) => {
      if (!held) return;
      const { axis, up: first, height } = held;
      const ends = [first, place(event).up].sort((a, b) => a - b);
      held = null;
      this.clear();
      const kept = new URLSearchParams(location.search).getAll(name).filter((one) => !one.startsWith(`${axis.name}:`));
      const chosen = (ends[1] - ends[0]) * height < SHORTEST_DRAG ? [] : [`${axis.name}:${ends.map((end) => Number(valueAt(axis, end).toPrecision(6))).join("..")}`];
      ask(name, [...kept, ...chosen]);
    });
  }
}

function shade(one, part) {
  one.classList.add("shaded");
  one.style.setProperty("--shade", part);
}

function find(sorted, value) {
  let [low, high] = [0, sorted.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function nearest(lists, value) {
  let best = null;
  for (const list of lists) {
    const at = find(list, value);
    for (const one of [list[at], list[at - 1]]) {
      if (one !== undefined && (best === null || Math.abs(one - value) < Math.abs(best - value))) best = one;
    }
  }
  return best;
}

// Puts `value` (a text, or several) under `name` into the address and shows the figures of the page as the server draws them then.
async function ask(name, value) {
  const address = new URL(location.href);
  address.searchParams.delete(name);
  for (const one of [value].flat()) if (one) address.searchParams.append(name, one);
  history.pushState({ charts: true }, "", address);
  await redraw();
}

async function redraw() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return void location.reload();
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [now, then] = [document, page].map((root) => [...root.querySelectorAll(".figure[data-zoom]")]);
  if (now.length !== then.length) return void location.reload();
  document.body.dataset.address = location.pathname + location.search;
  now.forEach((figure, index) => figure.replaceWith(then[index]));
  attach(document);
}

const seen = new WeakSet();

function attach(root) {
  for (const figure of root.querySelectorAll(".figure[data-chart]")) {
    if (seen.has(figure) || !figure.querySelector("svg.plot")) continue;
    seen.add(figure);
    new Plot(figure);
  }
}

attach(document);
document.addEventListener("everloop:refreshed", (event) => attach(event.detail));
addEventListener("popstate", () => redraw());
