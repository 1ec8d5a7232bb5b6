// Draws every <div class="chart" data-chart="…"> with Plotly, in the colours of the page.
// data-chart holds {"traces": [...], "layout": {...}} as JSON; a table beside it holds the same numbers.

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function draw(element) {
  const { traces, layout } = JSON.parse(element.dataset.chart);
  const line = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
  const axis = (given) => ({ ...line, ...given, title: { standoff: 8, ...given?.title } });
  const whole = {
    margin: { l: 46, r: 12, t: 12, b: 40 },
    height: element.clientHeight || 250,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--soft"), family: getComputedStyle(document.body).fontFamily, size: 12 },
    colorway: ["--chart-1", "--chart-2", "--chart-3", "--chart-4", "--chart-5", "--chart-6"].map(colour),
    legend: { orientation: "h", y: 1.14, x: 0 },
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
    ...layout,
    xaxis: axis(layout?.xaxis),
    yaxis: axis(layout?.yaxis),
  };
  for (const shape of whole.shapes ?? []) shape.line = { color: colour("--soft"), ...shape.line };
  window.Plotly.react(element, traces, whole, { displayModeBar: false, responsive: true });
}

function drawAll(root = document) {
  root.querySelectorAll(".chart[data-chart]").forEach(draw);
}

drawAll();
document.addEventListener("everloop:refreshed", (event) => drawAll(event.detail));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
