"use strict";
// Tables sort on a click on a heading and copy as tab-separated text; figures are drawn once plotly.js is unpacked.

const cellValue = (cell) => (cell.dataset.v === undefined ? cell.textContent : cell.dataset.v);

function compare(a, b, numeric) {
  if (!numeric) return a.localeCompare(b, undefined, { numeric: true });
  const [x, y] = [parseFloat(a), parseFloat(b)];
  return x === y ? 0 : x < y ? -1 : 1;
}

function sortTable(th) {
  const table = th.closest("table");
  const body = table.tBodies[0];
  const column = th.cellIndex;
  const numeric = th.classList.contains("n");
  const now = th.getAttribute("aria-sort");
  const descending = now ? now === "ascending" : numeric; // a first click on numbers shows the largest first
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const missing = (text) => text === "" || (numeric && Number.isNaN(parseFloat(text)));
  const rows = [...body.rows].map((row) => [cellValue(row.cells[column]), row]);
  rows.sort(([a], [b]) => missing(a) - missing(b) || (missing(a) ? 0 : compare(a, b, numeric) * (descending ? -1 : 1)));
  body.append(...rows.map(([, row]) => row));
}

async function copyTable(button) {
  const table = button.closest(".table").querySelector("table");
  const clean = (text) => text.replace(/[\t\r\n]+/g, " ");
  const text = [...table.rows].map((row) => [...row.cells].map((cell) => clean(cellValue(cell))).join("\t")).join("\n");
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    // a sandboxed frame has no clipboard interface; the old command still works within a click
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  const label = button.textContent;
  button.textContent = done ? "copied" : "not allowed here";
  setTimeout(() => (button.textContent = label), 1500);
}

document.addEventListener("click", (event) => {
  const heading = event.target.closest("thead th");
  if (heading) sortTable(heading);
  if (event.target.matches(".copy")) copyTable(event.target);
  const link = event.target.closest("nav a");
  if (link) {
    // inside a frame made from a blob a fragment link may leave the page: scroll by hand
    event.preventDefault();
    const heading = document.getElementById(link.hash.slice(1));
    const folded = heading.closest("details");
    if (folded) folded.open = true;
    heading.scrollIntoView();
  }
});

// Two buttons only: the others are a drag or a double click as well, and one of plotly's own would send the data away.
const CONFIG = {
  responsive: true,
  displaylogo: false,
  showSendToCloud: false,
  displayModeBar: matchMedia("(hover: hover) and (min-width: 600px)").matches ? "hover" : false,
  modeBarButtons: [["toImage", "resetScale2d"]],
};

function narrow({ data, layout }) {
  return {
    data: data.map((trace) => (trace.type === "heatmap" ? { ...trace, showscale: false } : trace)),
    layout: {
      ...layout,
      font: { ...layout.font, size: 10 },
      margin: { ...layout.margin, l: 28, r: 4 },
      legend: { ...layout.legend, font: { size: 10 } },
      dragmode: false, // a finger that scrolls the page must not zoom
    },
  };
}

async function unpackPlotly() {
  const packed = atob(document.getElementById("plotly-gz").textContent.trim());
  const bytes = Uint8Array.from(packed, (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  script.remove();
}

const isFolded = (div) => div.closest("details:not([open])") !== null;

async function drawFigures() {
  const figures = [...document.querySelectorAll(".figure")];
  if (!figures.length) return;
  let drawn = 0;
  try {
    await unpackPlotly();
    // Those in folded sections come last and are given a width, since they have none of their own: a print shows them too.
    for (const div of figures.sort((a, b) => isFolded(a) - isFolded(b))) {
      const figure = JSON.parse(div.querySelector("script").textContent);
      div.textContent = "";
      div.classList.remove("waiting");
      const width = div.closest("section").clientWidth;
      const { data, layout } = width < 560 ? narrow(figure) : figure;
      await Plotly.newPlot(div, data, isFolded(div) ? { ...layout, width } : layout, CONFIG);
      drawn += 1;
    }
  } catch (error) {
    for (const div of document.querySelectorAll(".figure.waiting p")) {
      div.textContent = `This browser could not draw the figure (${error}). Browsers from 2023 on can; the tables are complete.`;
    }
  }
  document.documentElement.dataset.figures = `${drawn}/${figures.length}`;
}

const plots = (within) => [...within.querySelectorAll(".js-plotly-plot")];

for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", () => {
    if (details.open) plots(details).forEach((div) => Plotly.relayout(div, { autosize: true }));
  });
}
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    details.dataset.folded = "";
  }
  plots(document).forEach((div) => Plotly.Plots.resize(div));
});
window.addEventListener("afterprint", () => {
  for (const details of document.querySelectorAll("details[data-folded]")) {
    details.open = false;
    delete details.dataset.folded;
  }
});

drawFigures();
