// Draws each figure of class chart from the JSON in it: panels of error over iterations, with a cursor that reads them.
"use strict";
(() => {
  const W = 460, H = 290, L = 36, R = 10, T = 8, B = 30;

  const svg = (name, attributes, parent) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    parent.append(element);
    return element;
  };
  const html = (name, parent, text = "", attributes = {}) => {
    const element = document.createElement(name);
    element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    parent.append(element);
    return element;
  };

  // Round numbers from 0 to `end`, about `count` of them.
  const ticks = (end, count) => {
    const raw = end / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
    return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, i) => i * step);
  };
  const count = (n) => (n >= 10000 ? `${+(n / 1000).toFixed(1)}k` : `${n}`);

  // Index of the step that is nearest to `step`.
  const nearest = (steps, step) => {
    let low = 0, high = steps.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] < step) low = middle; else high = middle;
    }
    return step - steps[low] <= steps[high] - step ? low : high;
  };

  function drawPanel(box, chart, panel, state) {
    box.replaceChildren();
    html("h4", box, panel.title);
    const x = (step) => L + (step / chart.end) * (W - L - R);
    const y = (error) => T + (1 - error / state.limit) * (H - T - B);
    const label = `${panel.title}: ${panel.lines.map((line) => `${line.label} ${line.kind}`).join(", ")}`;
    const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: 0, "aria-label": label }, box);
    const id = `clip${Math.random().toString(36).slice(2)}`;
    svg("rect", { x: L, y: T, width: W - L - R, height: H - T - B }, svg("clipPath", { id }, root));
    for (const tick of ticks(state.limit, 5)) {
      svg("line", { class: "axis", x1: L, x2: W - R, y1: y(tick), y2: y(tick) }, root);
      svg("text", { x: L - 6, y: y(tick) + 4, "text-anchor": "end" }, root).textContent = tick;
    }
    for (const tick of ticks(chart.end, 6)) {
      svg("text", { x: x(tick), y: H - B + 15, "text-anchor": "middle" }, root).textContent = count(tick);
    }
    svg("text", { x: W - R, y: H - 2, "text-anchor": "end" }, root).textContent = "iterations; error in %";
    const plot = svg("g", { "clip-path": `url(#${id})` }, root);
    const shown = panel.lines.filter((line) => line.steps.length && !state.hidden.has(line.label));
    for (const line of shown) {
      const colour = `var(--c${line.colour})`;
      if (line.std.length) {
        const up = line.steps.map((s, i) => `${x(s).toFixed(1)},${y(line.mean[i] + line.std[i]).toFixed(1)}`);
        const down = line.steps.map((s, i) => `${x(s).toFixed(1)},${y(line.mean[i] - line.std[i]).toFixed(1)}`);
        svg("path", { class: "band", d: `M${up.join("L")}L${down.reverse().join("L")}Z`, style: `fill:${colour}` }, plot);
      }
      const points = line.steps.map((s, i) => `${x(s).toFixed(1)},${y(line.mean[i]).toFixed(1)}`);
      const stroke = { bold: "stroke-width:2.2", thin: "stroke-width:0.9", dashed: "stroke-width:1;stroke-dasharray:4 3" };
      // A run that was evaluated once has a point, which no line shows.
      const once = points.length === 1;
      const look = once ? "stroke-width:7;stroke-linecap:round" : stroke[line.style];
      svg("path", { d: once ? `M${points[0]}h0.01` : `M${points.join("L")}`, style: `stroke:${colour};${look}` }, plot);
    }
    const cursor = svg("line", { class: "cursor", y1: T, y2: H - B, visibility: "hidden" }, root);
    const tip = html("div", box, "", { class: "tip", hidden: "" });
    let at = chart.end;

    const show = (step) => {
      at = Math.min(chart.end, Math.max(0, step));
      cursor.setAttribute("x1", x(at));
      cursor.setAttribute("x2", x(at));
      cursor.setAttribute("visibility", "visible");
      tip.replaceChildren();
      html("div", tip, `iteration ${Math.round(at)}`);
      for (const line of shown) {
        const i = nearest(line.steps, at);
        const spread = line.std.length ? ` \u00b1 ${line.std[i].toFixed(2)}` : "";
        html("div", tip, `${line.label}, ${line.kind}: ${line.mean[i].toFixed(2)}${spread}`, { style: `color:var(--c${line.colour})` });
      }
      const left = at < chart.end / 2;
      tip.style.left = left ? `${(x(at) / W) * 100 + 2}%` : "auto";
      tip.style.right = left ? "auto" : `${(1 - x(at) / W) * 100 + 2}%`;
      tip.hidden = false;
    };
    const hide = () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); };
    root.addEventListener("pointermove", (event) => {
      const place = root.getBoundingClientRect();
      show((((event.clientX - place.left) / place.width) * W - L) / (W - L - R) * chart.end);
    });
    root.addEventListener("pointerleave", hide);
    root.addEventListener("focus", () => show(at));
    root.addEventListener("blur", hide);
    root.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (move) { event.preventDefault(); show(at + (move * chart.end) / 50); }
    });
  }

  for (const figure of document.querySelectorAll("figure.chart")) {
    const chart = JSON.parse(figure.querySelector("script").textContent);
    const state = { limit: chart.limits[0], hidden: new Set() };
    const keys = html("div", figure, "", { class: "keys" });
    const panels = html("div", figure, "", { class: "panels" });
    const boxes = chart.panels.map(() => html("div", panels, "", { class: "panel" }));
    const draw = () => chart.panels.forEach((panel, i) => drawPanel(boxes[i], chart, panel, state));

    const lines = new Map(chart.panels.flatMap((panel) => panel.lines).map((line) => [line.label, line.colour]));
    for (const [label, colour] of lines) {
      const button = html("button", keys, "", { type: "button", "aria-pressed": "true" });
      html("i", button, "", { style: `background:var(--c${colour})` });
      button.append(label);
      button.addEventListener("click", () => {
        if (!state.hidden.delete(label)) state.hidden.add(label);
        button.setAttribute("aria-pressed", String(!state.hidden.has(label)));
        draw();
      });
    }
    for (const limit of chart.limits.length > 1 ? chart.limits : []) {
      html("button", keys, `0 to ${limit} %`, { type: "button" }).addEventListener("click", () => {
        state.limit = limit;
        draw();
      });
    }
    draw();
  }
})();
