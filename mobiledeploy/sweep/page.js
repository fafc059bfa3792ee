// The chart, filters and sorting of a sweep's page. `Plotly` is defined by the script before.
"use strict";

const { axes, rows } = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#3b82f6", "#d97706", "#0f9d76", "#d4548f", "#8b6cf0", "#8a8f98", "#dc4a41"];
const SYMBOLS = [["circle", "\u25cf"], ["square", "\u25a0"], ["diamond", "\u25c6"]];
const chart = document.getElementById("chart");

if (chart) {
  const families = [...new Set(rows.map((row) => row.family))];
  const formats = [...new Set(rows.map((row) => row.format))];
  const select = (id) => document.getElementById(id);
  const colour = (row) => COLOURS[families.indexOf(row.family) % COLOURS.length];
  const symbol = (row) => SYMBOLS[formats.indexOf(row.format) % SYMBOLS.length][0];
  const axis = (name) => axes.find((each) => each.name === name);

  function checked(name) {
    return [...document.querySelectorAll(`input[name=${name}]`)]
      .filter((box) => box.checked).map((box) => box.value);
  }

  function shown() {
    const [someFamilies, someFormats] = [checked("family"), checked("format")];
    const device = select("device") ? select("device").value : "";
    return rows.filter((row) => someFamilies.includes(row.family) &&
      someFormats.includes(row.format) && (!device || row.values[device] !== null));
  }

  // Returns the points that no other one beats in both values, from left to right.
  function front(points, x, y) {
    const sign = (one) => (one.better === "low" ? 1 : -1);
    const cost = (row, one) => sign(one) * row.values[one.name];
    const ordered = [...points].sort((a, b) => cost(a, x) - cost(b, x) || cost(a, y) - cost(b, y));
    let least = Infinity;
    return ordered.filter((row) => {
      const better = cost(row, y) < least;
      least = Math.min(least, cost(row, y));
      return better;
    });
  }

  // Names are foreign text, and plotly reads tags in its texts.
  function escaped(text) {
    return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }

  function described(row) {
    const known = axes.filter((each) => row.values[each.name] !== null)
      .map((each) => `${each.title}: ${Number(row.values[each.name].toPrecision(4))}`);
    const missed = row.missed ? [`misses the budget: ${row.missed}`] : [];
    return [row.name, ...known, ...missed].map(escaped).join("<br>");
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const css = (name) => style.getPropertyValue(`--${name}`).trim();
    const [x, y] = [axis(select("x").value), axis(select("y").value)];
    const points = shown().filter((row) => row.values[x.name] !== null && row.values[y.name] !== null);
    const at = (some, one) => some.map((row) => row.values[one.name]);
    const line = front(points, x, y);
    const picked = points.filter((row) => row.pick);
    const traces = [
      { x: at(line, x), y: at(line, y), mode: "lines", hoverinfo: "skip",
        line: { color: css("soft"), width: 1.5, dash: "dot" } },
      { x: at(picked, x), y: at(picked, y), mode: "markers", hoverinfo: "skip",
        marker: { size: 22, symbol: "circle-open", color: css("ink"), line: { width: 2 } } },
      { x: at(points, x), y: at(points, y), mode: "markers", text: points.map(described),
        hovertemplate: "%{text}<extra></extra>",
        marker: { size: 11, color: points.map(colour), line: { width: 1 },
          symbol: points.map((row) => symbol(row) + (row.missed ? "-open" : "")) } },
    ];
    const axisLayout = (one) => ({
      title: { text: escaped(one.title), standoff: 10 }, automargin: true, zeroline: false,
      gridcolor: css("line"), linecolor: css("line"), nticks: 6,
    });
    const layout = {
      xaxis: axisLayout(x), yaxis: axisLayout(y), showlegend: false, hovermode: "closest",
      margin: { l: 8, r: 16, t: 16, b: 8 }, dragmode: window.innerWidth < 768 ? false : "zoom",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 13, color: css("ink") },
      hoverlabel: { bgcolor: css("panel"), bordercolor: css("soft"), font: { color: css("ink") },
        align: "left" },
    };
    const options = { responsive: true, displaylogo: false, displayModeBar: false };
    Plotly.react(chart, traces, layout, options);
  }

  function arrange() {
    const body = document.querySelector("#table tbody");
    const visible = new Set(shown());
    const by = axis(select("sort").value);
    const order = [...rows.keys()];
    if (by) {
      const cost = (index) => {
        const value = rows[index].values[by.name];
        return value === null ? Infinity : (by.better === "low" ? value : -value);
      };
      order.sort((a, b) => (cost(a) === cost(b) ? a - b : cost(a) - cost(b)));
      if (select("sort").dataset.reversed) order.reverse();
    }
    for (const index of order) {
      const line = body.querySelector(`tr[data-row="${index}"]`);
      line.hidden = !visible.has(rows[index]);
      body.append(line);
    }
    for (const head of document.querySelectorAll("#table th[data-axis]")) {
      const isBy = by && head.dataset.axis === by.name;
      const rising = isBy && (by.better === "low") === !select("sort").dataset.reversed;
      head.setAttribute("aria-sort", isBy ? (rising ? "ascending" : "descending") : "none");
    }
  }

  function update() {
    draw();
    arrange();
  }

  // A click on a heading sorts by it, the best first; a second click reverses the order.
  for (const head of document.querySelectorAll("#table th[data-axis]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sort = select("sort");
      const again = sort.value === head.dataset.axis && !sort.dataset.reversed;
      sort.dataset.reversed = again ? "yes" : "";
      sort.value = head.dataset.axis;
      arrange();
    });
  }
  select("sort").addEventListener("change", () => {
    select("sort").dataset.reversed = "";
    arrange();
  });
  document.querySelectorAll(".swatch").forEach((mark, number) => {
    mark.style.background = COLOURS[number % COLOURS.length];
  });
  document.querySelectorAll(".symbol").forEach((mark, number) => {
    mark.textContent = SYMBOLS[number % SYMBOLS.length][1];
  });
  const first = (kind) => axes.find((each) => each.name.startsWith(kind));
  const cost = first("latency_") || first("instructions_");
  select("x").value = (cost || axis("size_mb") || axes[0]).name;
  select("y").value = (axis("top1") || axis("agreement") || axis("sqnr_db") || axes[0]).name;
  const form = document.querySelector("form.controls");
  form.addEventListener("change", (event) => {
    if (event.target.id === "device" && event.target.value) select("x").value = event.target.value;
    update();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  for (const control of document.querySelectorAll(".controls")) control.hidden = false;
  update();
}
