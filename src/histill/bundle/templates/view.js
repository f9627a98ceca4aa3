"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const plot = document.getElementById("plot");
const root = document.documentElement;
const HEAT = 0, OUTLINE = 1, TOPS = [2, 3]; // traces
const cache = {};

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;
const ticked = (id) => document.getElementById(id)?.checked ?? false;
const level = () => data.levels[chosen("level") ?? data.order[0]];
const map = () => level().maps[chosen("map") ?? ""];

// Values of tiles, as rows of cells of the tiles' grid.
const cells = (tiles, values) => tiles.grid.map((row) => row.map((tile) => (tile < 0 ? null : values[tile])));

function told(tiles) {
  return tiles.boxes.map(([x, y, width], tile) => {
    const head = `<b>${tiles.level} tile ${tiles.rows[tile]}</b><br>x ${x}, y ${y}, side ${width} px`;
    const values = Object.values(tiles.maps).map((one) => `${one.title} ${one.values[tile].toFixed(2)}`);
    return [head, `tissue ${tiles.tissue[tile].toFixed(2)}`, ...values].join("<br>");
  });
}

const texts = (tiles) => (cache[tiles.level] ??= cells(tiles, told(tiles)));

// Outlines of boxes as one line with gaps, and a number in the corner of each.
function frames(boxes) {
  const line = { x: [], y: [], text: [] };
  boxes.forEach(([x, y, width, height], index) => {
    line.x.push(x, x + width, x + width, x, x, null);
    line.y.push(y, y, y + height, y + height, y, null);
    line.text.push(String(index + 1), "", "", "", "", "");
  });
  return line;
}

function draw() {
  const tiles = level();
  const one = map();
  const opacity = one ? Number(document.getElementById("opacity").value) / 100 : 0;
  const shown = one ?? { values: tiles.boxes.map(() => 0), ramp: [[0, "#fff"], [1, "#fff"]], most: 1 };
  // Without a map the cells stay, unseen: pointing at them still tells the tile.
  const heat = {
    x: [tiles.x], y: [tiles.y], z: [cells(tiles, shown.values)], text: [texts(tiles)],
    colorscale: [shown.ramp], zmin: 0, zmax: shown.most, opacity: opacity,
  };
  Plotly.restyle(plot, heat, [HEAT]);
  Plotly.restyle(plot, { visible: ticked("outline") }, [OUTLINE]);
  const line = frames(one && ticked("tops") ? one.top.map((tile) => tiles.boxes[tile]) : []);
  Plotly.restyle(plot, { x: [line.x], y: [line.y], text: [line.text] }, TOPS);
  plot.classList.toggle("grey", ticked("grey"));
  legend(tiles, one);
}

function legend(tiles, one) {
  const box = document.getElementById("legend");
  if (!box) return;
  box.hidden = !one;
  if (!one) return;
  box.querySelector("b").textContent = `${one.title}, ${tiles.level}`;
  box.querySelector("i").style.background = `linear-gradient(to right, ${one.ramp.map(([at, colour]) => `${colour} ${100 * at}%`)})`;
  document.getElementById("unit").textContent = one.unit;
  document.getElementById("most").textContent = one.clipped ? `≥ ${one.most.toFixed(1)}` : one.most.toFixed(0);
}

// The longest of 1, 2, 5, 10, ... µm that takes up to 160 pixels of the screen.
function scaleBar() {
  const [low, high] = plot._fullLayout.xaxis.range;
  const perPixel = (Math.abs(high - low) * data.mpp) / plot.clientWidth;
  const most = 160 * perPixel;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((value) => value * power).find((value) => value <= most);
  const bar = document.getElementById("bar");
  bar.querySelector("i").style.width = `${length / perPixel}px`;
  bar.querySelector("span").textContent = length >= 1000 ? `${length / 1000} mm` : `${Number(length.toPrecision(1))} µm`;
}

function goTo(button) {
  const { map: key, level: name, tile } = button.dataset;
  document.querySelector(`input[name="map"][value="${key}"]`).checked = true;
  const input = document.querySelector(`input[name="level"][value="${name}"]`);
  if (input) input.checked = true;
  draw();
  const [x, y, width, height] = data.levels[name].boxes[Number(tile)];
  const margin = 2 * width;
  Plotly.relayout(plot, {
    "xaxis.range": [x - margin, x + width + margin],
    "yaxis.range": [y + height + margin, y - margin],
  });
  plot.scrollIntoView({ block: "nearest" });
}

document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
document.querySelectorAll(".controls input").forEach((input) => input.addEventListener("input", draw));
document.querySelectorAll(".tiles button").forEach((button) => button.addEventListener("click", () => goTo(button)));

// Buttons by name: by itself the library also offers to send the figure, slide and all, to its makers' server.
const config = {
  scrollZoom: true, displaylogo: false, responsive: true, plotlyServerURL: "", showSendToCloud: false,
  modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
  toImageButtonOptions: { filename: data.name, scale: 2 },
};
Plotly.newPlot(plot, data.figure.data, data.figure.layout, config).then(() => {
  draw();
  scaleBar();
  plot.on("plotly_relayout", scaleBar);
  plot.on("plotly_relayouting", scaleBar);
  addEventListener("resize", () => requestAnimationFrame(scaleBar));
  root.dataset.ready = "yes"; // for tests of the page
});
