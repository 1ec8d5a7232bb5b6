// Draws every <div class="chart" data-chart="…"> with Plotly, in the colours of the page.
// data-chart holds {"traces": [...], "layout": {...}} as JSON; a table beside it holds the same numbers.

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function draw(element) {
  const { traces, layout } = JSON.parse(element.dataset.chart);
  const line = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line") };
  const whole = {
    margin: { l: 48, r: 14, t: 14, b: 40 },
    height: element.clientHeight || 260,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--soft"), family: "inherit", size: 12 },
    colorway: [colour("--accent"), colour("--warn"), colour("--bad"), "#6b7fd7", "#a05ec9", "#3aa0c9"],
    legend: { orientation: "h", y: 1.12 },
    hovermode: "x unified",
    ...layout,
    xaxis: { ...line, ...(layout?.xaxis ?? {}) },
    yaxis: { ...line, ...(layout?.yaxis ?? {}) },
  };
  window.Plotly.react(element, traces, whole, { displayModeBar: false, responsive: true });
}

function drawAll(root = document) {
  root.querySelectorAll(".chart[data-chart]").forEach(draw);
}

drawAll();
document.addEventListener("everloop:refreshed", (event) => drawAll(event.detail));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
