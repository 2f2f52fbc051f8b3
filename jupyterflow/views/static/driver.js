// Reaches the cytoscape instances of the target's views and draws the channel's frames into them: cards as HTML over
// the canvas, edges and hit areas on it. One Scene a view; a view that appears later is found by the timer.

const WIDTH = 180, HEIGHT = 78, HEAD = 36, MARGIN = 18;
const FILLS = [["#7f9f97", "#5d857b"], ["#c98a00", "#f0a52c"], ["#c2410c", "#ff7a45"]];

function themed() {
  const css = getComputedStyle(document.body), dark = isDark() ? 1 : 0;
  const read = (name, otherwise) => css.getPropertyValue(name).trim() || otherwise;
  return {
    dark,
    paper: ["#fafbfc", "#14181d"][dark],
    card: read("--jp-layout-color1", ["#ffffff", "#20262e"][dark]),
    line: ["#d5dae1", "#434d59"][dark],
    soft: ["#4b5563", "#b4bdc9"][dark], // cytoscape ignores the alpha of the theme's own
    select: read("--jp-brand-color1", "#2196f3"),
    font: read("--jp-ui-font-family", "system-ui, sans-serif"),
  };
}

function stylesheet() {
  const t = themed();
  const sheet = [
    { selector: "node", style: {
      shape: "round-rectangle", width: WIDTH, height: HEIGHT, "background-color": t.dark ? "#20262e" : t.card,
      "border-width": 1, "border-color": t.line, label: "data(label)", "text-opacity": 0,
      "overlay-opacity": 0, "overlay-padding": 4 } },
    { selector: "node:selected", style: { "border-width": 2, "border-color": t.select } },
    { selector: "edge[weights]", style: {
      "curve-style": "unbundled-bezier", "edge-distances": "node-position",
      "source-endpoint": `${WIDTH / 2}px 0px`, "target-endpoint": `${-WIDTH / 2 - 2}px 0px`,
      "control-point-distances": "data(distances)", "control-point-weights": "data(weights)" } },
    { selector: "edge[weights]", style: {
      width: 1.8, "arrow-scale": 0.9, "target-arrow-shape": "triangle",
      label: "data(label)", "font-size": 12, "font-family": t.font, color: t.soft, "text-wrap": "wrap",
      "line-height": 1.6, "text-outline-color": t.paper, "text-outline-width": 2.5, "overlay-opacity": 0,
      "min-zoomed-font-size": 5 } }, // smaller ones cannot be read and cost a large graph the most
    { selector: "edge[alone = 1]", style: { "text-margin-y": -10 } }, // the rate above the line, what is queued below
    { selector: "edge:selected", style: { width: 3 } },
  ];
  FILLS.forEach((colour, level) => sheet.push({
    selector: `edge[level = ${level}]`,
    style: { "line-color": colour[t.dark], "target-arrow-color": colour[t.dark] },
  }));
  return sheet;
}

// An S that leaves to the right and arrives from the left, as weights and distances along the line between the nodes.
function bend(source, target) {
  const dx = target.x - source.x, dy = target.y - source.y, length = Math.hypot(dx, dy) || 1;
  const from = source.x + WIDTH / 2, to = target.x - WIDTH / 2 - 2, reach = Math.max(Math.abs(to - from) * 0.344, 30);
  // The two quadratic curves nearest to the cubic one with its handles half-way.
  const points = [[from + reach - source.x, dy * 0.0625], [to - reach - source.x, dy * 0.9375]];
  return {
    weights: points.map(([x, y]) => (x * dx + y * dy) / (length * length)),
    distances: points.map(([x, y]) => (y * dx - x * dy) / length),
  };
}

class Scene {
  constructor(driver, view) {
    this.driver = driver;
    this.view = view;
    this.cy = view.cytoscape_obj;
    this.faces = new Map();
    this.touched = false;
    const el = (this.el = view.el);
    el.classList.add("jf-graph");
    this.layer = make("div", "jf-faces", el);
    this.bar = make("div", "jf-bar", el);
    make("span", "jf-dot", this.bar);
    this.head = make("span", "jf-head", this.bar);
    this.button("M8 3.5v9M3.5 8h9", "zoom in", () => this.zoom(1.25));
    this.button("M3.5 8h9", "zoom out", () => this.zoom(0.8));
    this.button("M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10", "fit to view", () => {
      this.touched = false;
      this.size();
      this.fit();
    });
    const cy = this.cy;
    cy.userZoomingEnabled(false); // the wheel scrolls the notebook; with Ctrl or Cmd it zooms
    cy.off("click"); // ipycytoscape's tooltip handler: HTML, and it fails on the background
    this.onWheel = (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      const box = el.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY / 300), { x: event.clientX - box.left, y: event.clientY - box.top });
    };
    el.addEventListener("wheel", this.onWheel, { passive: false, capture: true });
    this.handlers = [
      ["dragpan", undefined, () => { this.touched = true; }],
      ["pan zoom resize", undefined, () => this.place()],
      ["position", "node", (event) => this.moved(event.target)],
      ["add remove", undefined, () => this.rebuildSoon()],
      ["dragfree", "node", (event) => this.dragged(event.target)],
      ["mouseover", "node", () => { el.style.cursor = "grab"; }],
      ["mouseout", "node", () => { el.style.cursor = ""; }],
    ];
    for (const [events, selector, fn] of this.handlers) selector ? cy.on(events, selector, fn) : cy.on(events, fn);
    this.sizes = new ResizeObserver(() => {
      cy.resize();
      if (cy.width() !== this.width) this.size();
      if (!this.touched) this.fit();
    });
    this.rebuild();
    this.theme();
    this.sizes.observe(el);
  }

  button(path, title, fn) {
    const button = make("button", "", this.bar), ns = "http://www.w3.org/2000/svg";
    button.type = "button";
    button.title = title;
    button.setAttribute("aria-label", title);
    const icon = document.createElementNS(ns, "svg"), line = document.createElementNS(ns, "path");
    icon.setAttribute("viewBox", "0 0 16 16");
    line.setAttribute("d", path);
    icon.append(line);
    button.append(icon);
    button.addEventListener("click", fn);
    button.addEventListener("mousedown", (event) => event.stopPropagation());
  }

  theme() {
    this.el.style.background = themed().paper;
    this.size();
    this.cy.style(stylesheet());
    this.draw(this.last);
  }

  rebuildSoon() {
    if (this.due) return;
    this.due = requestAnimationFrame(() => { this.due = 0; this.rebuild(); this.size(); if (!this.touched) this.fit(); });
  }

  // The cards and the curves of all elements that there are now.
  rebuild() {
    const seen = new Set();
    this.cy.nodes().forEach((node) => {
      const id = node.id();
      seen.add(id);
      if (!this.faces.has(id)) this.faces.set(id, this.card(node));
      this.moved(node);
    });
    for (const [id, face] of this.faces) if (!seen.has(id)) { face.root.remove(); this.faces.delete(id); }
    this.cy.edges().forEach((edge) => this.route(edge));
    this.place();
    this.draw(this.last);
  }

  card(node) {
    const root = make("div", "jf-face", this.layer);
    const first = make("div", "", root), second = make("div", "", root), third = make("div", "", root);
    const face = { root, node, name: make("span", "jf-name", first) };
    const what = make("span", "jf-what", second);
    make("span", "jf-dot", what);
    face.state = make("span", "jf-state", what);
    face.kind = make("span", "", what);
    face.errors = make("span", "jf-bad", second);
    face.numbers = make("span", "jf-num", third);
    face.p95 = make("span", "jf-num jf-soft", third);
    say(face.name, node.data("name") ?? "");
    say(face.kind, ` · ${node.data("kind") ?? ""}`);
    say(face.state, node.data("state") ?? "");
    return face;
  }

  route(edge) {
    const { weights, distances } = bend(edge.source().position(), edge.target().position());
    edge.data({ weights, distances, level: edge.data("level") ?? 0, alone: edge.data("label")?.includes("\n") ? 0 : 1 });
  }

  moved(node) {
    const face = this.faces.get(node.id());
    if (!face) return;
    const { x, y } = node.position();
    face.root.style.transform = `translate(${x - WIDTH / 2}px, ${y - HEIGHT / 2}px)`;
    node.connectedEdges().forEach((edge) => this.route(edge));
  }

  place() {
    const { x, y } = this.cy.pan();
    this.layer.style.transform = `translate(${x}px, ${y}px) scale(${this.cy.zoom()})`;
  }

  zoom(factor, at) {
    this.touched = true;
    const level = Math.min(Math.max(this.cy.zoom() * factor, 0.1), 3);
    this.cy.zoom({ level, renderedPosition: at ?? { x: this.cy.width() / 2, y: this.cy.height() / 2 } });
  }

  box() {
    return this.cy.nodes().boundingBox({ includeLabels: false, includeOverlays: false });
  }

  // As high as the graph needs at this width; a person may drag the corner to another height.
  size() {
    this.width = this.cy.width();
    if (!this.width || this.cy.nodes().empty()) return;
    const box = this.box(), zoom = Math.min((this.width - 2 * MARGIN) / box.w, 1);
    this.el.style.height = `${Math.round(Math.min(Math.max(box.h * zoom + HEAD + 2 * MARGIN + 8, 170), 640))}px`;
  }

  // All of it, never larger than life, below the bar.
  fit() {
    const cy = this.cy;
    if (!cy.width() || !cy.height() || cy.nodes().empty()) return;
    const box = this.box(), width = cy.width() - 2 * MARGIN, height = cy.height() - HEAD - 2 * MARGIN;
    const zoom = Math.max(Math.min(width / box.w, height / box.h, 1), 0.1);
    cy.viewport({ zoom, pan: {
      x: MARGIN + (width - box.w * zoom) / 2 - box.x1 * zoom,
      y: HEAD + MARGIN + (height - box.h * zoom) / 2 - box.y1 * zoom } });
  }

  dragged(node) {
    const { x, y } = node.position();
    if (!this.moves) {
      this.moves = {};
      queueMicrotask(() => { this.driver.model.send({ moved: this.moves }); this.moves = null; });
    }
    this.moves[node.data("name")] = [x, y];
  }

  draw(frame) {
    if (!frame) return;
    this.last = frame;
    say(this.head, frame.head);
    this.bar.style.setProperty("--jf-colour", colourOf(frame.state));
    const edges = new Map(frame.edges.map(([up, down, label, level]) => [`${up}\n${down}`, [label, level]]));
    this.cy.batch(() => {
      for (const face of this.faces.values()) {
        const now = frame.nodes[face.node.data("name")];
        if (!now) continue;
        face.root.style.setProperty("--jf-colour", colourOf(now.state));
        face.kind.hidden = Boolean(now.errors);
        for (const part of ["state", "numbers", "p95", "errors"]) say(face[part], now[part]);
        const parts = [now.state, now.numbers, now.p95, now.errors].filter(Boolean);
        face.node.data("label", `${face.node.data("title")}\n${parts.join(" · ")}`);
      }
      this.cy.edges().forEach((edge) => {
        const now = edges.get(`${edge.data("up")}\n${edge.data("down")}`);
        if (now && (edge.data("label") !== now[0] || edge.data("level") !== now[1])) {
          edge.data({ label: now[0], level: now[1], alone: now[0].includes("\n") ? 0 : 1 });
        }
      });
    });
  }

  stop() {
    this.sizes.disconnect();
    cancelAnimationFrame(this.due ?? 0);
    this.el.removeEventListener("wheel", this.onWheel, { capture: true });
    for (const [events, selector, fn] of this.handlers) selector ? this.cy.off(events, selector, fn) : this.cy.off(events, fn);
    this.layer.remove();
    this.bar.remove();
  }
}

class Driver {
  constructor(model) {
    this.model = model;
    this.scenes = new Map();
    this.told = false;
    this.stopped = false;
  }

  async start() {
    [this.target, this.channel] = await Promise.all([modelOf(this.model, "target"), modelOf(this.model, "channel")]);
    if (this.stopped) return;
    this.tick = () => this.draw();
    this.restyle = () => { for (const scene of this.scenes.values()) scene.theme(); };
    this.channel.on("change:frame", this.tick);
    // A style sent as the fallback replaces ours: put it back. Later than ipycytoscape's own handler.
    this.target.on("change:cytoscape_style", () => setTimeout(this.restyle));
    this.unTheme = onTheme(() => setTimeout(this.restyle, 60));
    for (let i = 0; !this.stopped; i++) {
      await this.attach();
      await pause(i < 50 ? 100 : 1000);
    }
  }

  async attach() {
    const views = this.target.views ?? {};
    for (const id of Object.keys(views)) {
      const view = await views[id];
      const old = this.scenes.get(id);
      if (!view.cytoscape_obj || old?.cy === view.cytoscape_obj) continue;
      // The view adds its elements after it is shown, all at once.
      if (!old && view.cytoscape_obj.nodes().length < this.target.get("graph").get("nodes").length) continue;
      old?.stop();
      const layout = this.target.get("cytoscape_layout");
      this.target.set("cytoscape_layout", { ...layout, fit: false }, { silent: true });
      const scene = new Scene(this, view);
      this.scenes.set(id, scene);
      scene.fit();
      this.draw();
      if (!this.told) this.model.send({ hooked: true });
      this.told = true;
    }
    for (const [id, scene] of this.scenes) if (!(id in views)) { scene.stop(); this.scenes.delete(id); }
  }

  draw() {
    const frame = this.channel.get("frame")?.flows?.[this.model.get("flow")];
    for (const scene of this.scenes.values()) scene.draw(frame);
  }

  stop() {
    this.stopped = true;
    this.channel?.off("change:frame", this.tick);
    this.unTheme?.();
    for (const scene of this.scenes.values()) scene.stop();
  }
}

// Not awaited: anywidget gives up on a model that takes two seconds to initialize.
function initialize({ model }) {
  const driver = new Driver(model);
  driver.start().catch((error) => {
    console.warn("jupyterflow: the graph goes on without its driver:", error);
    model.send({ hooked: false });
  });
  return () => driver.stop();
}

export default { initialize };
