// All charts of the page, drawn one after the other while the browser is idle, and again when something changes.
const charts = {
  all: [],
  waiting: new Set(),
  isRunning: false,

  // Adds a chart to `host`. `build` returns { traces, layout, label }, the last being what a screen reader says.
  add(host, build) {
    const chart = { host, build };
    this.all.push(chart);
    this.draw([chart]);
    return chart;
  },

  draw(some) {
    some.forEach(chart => this.waiting.add(chart));
    document.documentElement.dataset.drawn = "false";
    if (theme.isPrinting) this.drawNow(() => true);
    else if (!this.isRunning) this.continue();
  },

  continue() {
    this.isRunning = true;
    setTimeout(() => {
      const end = performance.now() + 30;
      this.drawNow(() => performance.now() < end);
      if (this.waiting.size > 0) this.continue();
      else this.isRunning = false;
    });
  },

  drawNow(hasTime) {
    for (const chart of this.waiting) {
      this.waiting.delete(chart);
      drawChart(chart);
      if (!hasTime()) break;
    }
    document.documentElement.dataset.drawn = String(this.waiting.size === 0);
  },
};

function drawChart({ host, build }) {
  const { traces, layout, label } = build();
  const ink = theme.colour("ink"), faint = theme.colour("faint"), grid = theme.colour("grid");
  const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickfont: { color: faint }, automargin: true };
  const whole = {
    margin: { l: 8, r: 8, t: 8, b: 8 },
    font: { family: "system-ui, sans-serif", size: 11.5, color: ink },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, maxheight: 54, font: { size: 11 } }, // below, the title of the axis is
    hoverlabel: { font: { size: 11.5 }, bgcolor: theme.colour("card"), bordercolor: theme.colour("line"), namelength: 40 },
    // Plotly fits a chart to its place some time later, when the page has been printed.
    ...(theme.isPrinting ? { width: host.clientWidth, height: host.clientHeight } : { autosize: true }),
    ...layout,
    xaxis: { ...axis, ...layout.xaxis, title: { font: { size: 11.5, color: faint }, standoff: 8, ...layout.xaxis?.title } },
    yaxis: { ...axis, ...layout.yaxis, title: { font: { size: 11.5, color: faint }, standoff: 6, ...layout.yaxis?.title } },
  };
  host.setAttribute("role", "img");
  host.setAttribute("aria-label", label);
  Plotly.react(host, traces, whole, {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  });
}

// Plotly reads tags and entities in names; escaped, they are the plain text that they are.
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

// A card with a heading, perhaps controls beside it, and a plot.
function chartCard(title, controls = [], isTall = false) {
  const host = element("div", { class: isTall ? "plot tall" : "plot" });
  const card = element("figure", { class: "card" },
    element("div", { class: "head" }, element("h3", {}, title), controls), host);
  return { card, host };
}
