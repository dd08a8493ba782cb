"use strict";
// The pictures are plain data whose colours are roles ("@best"); the theme's colours are the page's CSS variables.
(async () => {
  const packed = document.getElementById("plotly");
  if (packed) {
    try {
      const bytes = Uint8Array.from(atob(packed.textContent), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(stream).text();
      document.head.append(script);
      packed.remove();
      draw();
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    } catch (error) {
      document.querySelectorAll(".canvas").forEach((canvas) => {
        canvas.textContent = "This browser cannot draw the picture: " + error;
      });
      throw error;
    }
  }

  function draw() {
    const theme = getComputedStyle(document.documentElement);
    const painted = (value) => {
      if (typeof value === "string") return value[0] === "@" ? theme.getPropertyValue("--" + value.slice(1)).trim() : value;
      if (Array.isArray(value)) return value.map(painted);
      if (value && typeof value === "object")
        return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, painted(inner)]));
      return value;
    };
    const touch = matchMedia("(pointer: coarse)").matches;
    for (const [key, figure] of Object.entries(JSON.parse(document.getElementById("figures").textContent))) {
      const canvas = document.getElementById("figure-" + key);
      const common = {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: "@text", family: "system-ui, sans-serif", size: 12 },
        margin: { t: 16, r: 12, b: 76, l: 52 }, hoverlabel: { bgcolor: "@card", font: { color: "@text" } },
        legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 }, dragmode: touch ? false : "zoom",
      };
      const layout = painted({ ...common, ...figure.layout });
      canvas.querySelector("noscript")?.remove();
      Plotly.react(canvas, painted(figure.data), layout, { responsive: true, displayModeBar: false });
    }
    document.documentElement.dataset.drawn = "yes";
  }

  // A heading's button sorts its table: numbers by value, what has none last, then the other way round.
  for (const button of document.querySelectorAll("th > button"))
    button.addEventListener("click", () => {
      const head = button.parentElement, body = head.closest("table").tBodies[0];
      const rising = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentElement.children) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const keyed = [...body.rows].map((row) => {
        const cell = row.cells[head.cellIndex], text = cell.dataset.sort ?? cell.textContent.trim();
        return [text === "–" || text === "" ? null : text, parseFloat(text), row];
      });
      keyed.sort(([a, x], [b, y]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
        return rising ? order : -order;
      });
      body.append(...keyed.map(([, , row]) => row));
    });
})();
