"""Charts, drawn on the server as SVG: no script is needed to see them, and their colours are those of the page."""

from everloop.server.web.charts.bars import bar_chart, histogram_chart
from everloop.server.web.charts.chart import Chart, Zoom
from everloop.server.web.charts.lines import line_chart
from everloop.server.web.charts.parallel import Row, parallel_chart
from everloop.server.web.charts.points import Thing, scatter_chart
from everloop.server.web.charts.strips import strip
from everloop.server.web.charts.thin import envelope, histogram, smoothed, spark_bars, thinned

__all__ = [
    "Chart",
    "Row",
    "Thing",
    "Zoom",
    "bar_chart",
    "envelope",
    "histogram",
    "histogram_chart",
    "line_chart",
    "parallel_chart",
    "scatter_chart",
    "smoothed",
    "spark_bars",
    "strip",
    "thinned",
]
