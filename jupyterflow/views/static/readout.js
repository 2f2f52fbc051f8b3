function build(el, role) {
  const root = make("div", "jf-readout", el);
  const strip = make("div", "jf-strip", root);
  const part = {};
  part.dot = make("span", "jf-dot", strip);
  part.state = make("span", "jf-state", strip);
  part.name = make("span", "jf-name", strip);
  part.version = make("span", "jf-soft", strip);
  part.numbers = make("span", "jf-num", strip);
  part.p95 = make("span", "jf-num jf-soft", strip);
  part.errors = make("span", "jf-bad", strip);
  part.sample = make("code", "jf-sample", strip);
  part.sample.title = "the latest sample";
  part.prints = make("pre", "jf-prints", root);
  part.prints.hidden = true;
  root.dataset.role = role;
  return { root, ...part };
}

async function render({ model, el }) {
  const part = build(el, model.get("role"));
  const flow = model.get("flow"), node = model.get("node");
  say(part.name, node);
  let shown = null;

  function draw() {
    const nodes = channel.get("frame")?.flows?.[flow]?.nodes, face = nodes?.[node];
    if (nodes && !face) {
      part.root.style.setProperty("--jf-colour", colourOf("stopped"));
      say(part.state, "removed");
    } else if (face) {
      part.root.style.setProperty("--jf-colour", colourOf(face.state));
      say(part.state, face.state);
      say(part.version, face.version);
      say(part.numbers, face.numbers);
      say(part.p95, face.p95 ? `p95 ${face.p95}` : "");
      say(part.errors, face.errors);
      say(part.sample, face.sample ?? "");
    }
    const lines = (channel.get("prints")?.[flow]?.[node] ?? []).join("\n");
    if (lines !== shown) {
      const pre = part.prints, atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 8;
      shown = lines;
      say(pre, lines);
      pre.hidden = !lines;
      if (atEnd) pre.scrollTop = pre.scrollHeight;
    }
  }

  let channel = null;
  try {
    channel = await modelOf(model, "channel");
  } catch {
    say(part.state, "not connected");
    return;
  }
  channel.on("change:frame", draw);
  channel.on("change:prints", draw);
  const unTheme = onTheme(draw);
  draw();
  return () => {
    channel.off("change:frame", draw);
    channel.off("change:prints", draw);
    unTheme();
  };
}

export default { render };
