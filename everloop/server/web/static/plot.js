// Axes as the server draws them (server/web/charts), for what a page reads out of a chart or draws by itself while it is open.

const SECOND = 1e6;
const SVG = "http://www.w3.org/2000/svg";

// The share of its axis at which a value lies.
export function share(axis, value) {
  if (axis.kind !== "log") return (value - axis.low) / (axis.high - axis.low);
  return (Math.log(value) - Math.log(axis.low)) / (Math.log(axis.high) - Math.log(axis.low));
}

// The value at a share of its axis.
export function valueAt(axis, part) {
  if (axis.kind !== "log") return axis.low + part * (axis.high - axis.low);
  return Math.exp(Math.log(axis.low) + part * (Math.log(axis.high) - Math.log(axis.low)));
}

export function shownNumber(value) {
  if (value === null || value === undefined) return "-";
  const size = Math.abs(value);
  if (size && (size < 1e-4 || size >= 1e12)) return value.toExponential(4);
  return value.toLocaleString("en", size >= 1e4 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 5 });
}

export function shownPosition(axis, value) {
  if (axis.labels) return axis.labels[Math.round(value)] ?? "";
  if (axis.kind === "time") return new Date((value - (axis.shift ?? 0)) / 1000).toISOString().replace("T", " ").slice(0, axis.high - axis.low < 60 * SECOND ? 23 : 19);
  if (axis.kind === "duration") return value < 120 ? `${shownNumber(value)} s` : value < 7200 ? `${shownNumber(value / 60)} min` : `${shownNumber(value / 3600)} h`;
  return shownNumber(axis.kind === "whole" ? Math.round(value) : value);
}

export function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

function step(span, wanted) {
  const power = 10 ** Math.floor(Math.log10(span / wanted));
  return [1, 2, 5, 10].map((nice) => nice * power).find((one) => one >= span / wanted * 0.999);
}

const percent = (part) => `${(part * 100).toFixed(2)}%`;

// Draws lines over time into `place`: series is [{name, x: [microseconds], y: [number or null]}]. From zero on.
export function drawLines(place, series) {
  const times = series.flatMap((one) => one.x);
  const values = series.flatMap((one) => one.y).filter((value) => value !== null);
  const most = Math.max(...values, 0) || 1;
  const tall = step(most, 4);
  const x = { kind: "time", low: Math.min(...times), high: Math.max(Math.max(...times), Math.min(...times) + SECOND) };
  const y = { kind: "linear", low: 0, high: Math.ceil(most / tall - 1e-9) * tall };
  const digits = Math.max(0, -Math.floor(Math.log10(tall) + 1e-9));
  const labels = [];
  for (let at = 0; at <= y.high * 1.0001; at += tall) labels.push([at, at.toFixed(digits)]);
  const plot = element("svg", { class: "plot", role: "img", "aria-label": place.dataset.title ?? "", style: `--left:${Math.max(...labels.map(([, text]) => text.length))}ch` });
  const grid = element("g", { class: "grid" });
  const upright = element("g", { class: "axis y" });
  for (const [at, text] of labels) {
    const height = percent(1 - share(y, at));
    grid.append(element("line", { x1: 0, x2: "100%", y1: height, y2: height, class: at ? "" : "base" }));
    upright.append(element("text", { x: -8, y: height, dy: "0.33em" }, text));
  }
  const flat = element("g", { class: "axis x" });
  for (const part of [0, 0.5, 1]) flat.append(element("text", { x: percent(part), y: "100%", dy: "1.45em" }, new Date(valueAt(x, part) / 1000).toISOString().slice(11, 19)));
  const paths = element("svg", { class: "paths", viewBox: "0 0 10000 10000", preserveAspectRatio: "none", width: "100%", height: "100%" });
  series.forEach((one, index) => {
    const group = element("g", { class: `s s${index % 6} d${Math.floor(index / 6) % 4}`, "data-s": index });
    let pen = "M";
    let path = "";
    one.x.forEach((at, place) => {
      const value = one.y[place];
      if (value === null) return void (pen = "M");
      path += `${pen}${Math.round(share(x, at) * 1e4)} ${Math.round((1 - share(y, value)) * 1e4)}`;
      pen = "L";
    });
    group.append(element("path", { class: "line", d: path }));
    paths.append(group);
  });
  plot.append(grid, upright, flat, paths);
  const figure = document.createElement("figure");
  figure.className = "figure chart-low";
  figure.dataset.chart = JSON.stringify({ x, y, series: series.map((one, index) => ({ ...one, mark: `s${index % 6} d${Math.floor(index / 6) % 4}` })) });
  if (series.length > 1) {
    const legend = document.createElement("div");
    legend.className = "legend";
    series.forEach((one, index) => {
      const entry = document.createElement("span");
      entry.className = `entry s${index % 6} d${Math.floor(index / 6) % 4}`;
      entry.dataset.s = index;
      entry.append(document.createElement("i"), one.name);
      legend.append(entry);
    });
    figure.append(legend);
  }
  figure.append(plot);
  place.replaceChildren(figure);
}
