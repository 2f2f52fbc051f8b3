// What the driver and the readouts share. All user text goes through textContent.

const COLOURS = {
  draft: ["#6b7280", "#9ca3af"], changed: ["#a2487f", "#d987b5"], deploying: ["#2b7fb0", "#56b4e9"],
  running: ["#00805d", "#2fc295"], idle: ["#64748b", "#94a3b8"], stalled: ["#b26a00", "#f0a52c"],
  failed: ["#c2410c", "#ff7a45"], finished: ["#0b62a8", "#6aaef0"], stopped: ["#4b5563", "#a3aab6"],
};

function isDark() {
  const light = document.body.dataset.jpThemeLight;
  if (light !== undefined) return light === "false";
  return window.matchMedia?.("(prefers-color-scheme: dark)").matches ?? false;
}

const colourOf = (state) => (COLOURS[state] ?? COLOURS.draft)[isDark() ? 1 : 0];

// Calls back when the theme changes; returns how to stop.
function onTheme(callback) {
  const observer = new MutationObserver(callback);
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });
  const media = window.matchMedia?.("(prefers-color-scheme: dark)");
  media?.addEventListener("change", callback);
  return () => { observer.disconnect(); media?.removeEventListener("change", callback); };
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// A model by its reference. After a page is loaded again, models come back in any order: ask again for a while.
async function modelOf(model, trait) {
  const id = model.get(trait).replace("IPY_MODEL_", "");
  for (let i = 0; ; i++) {
    try {
      const found = await model.widget_manager.get_model(id);
      if (found) return found;
    } catch (error) {
      if (i >= 40) throw error;
    }
    if (i >= 40) throw new Error(`no widget model ${id}`);
    await pause(250);
  }
}

function make(tag, className, parent) {
  const el = document.createElement(tag);
  if (className) el.className = className;
  parent?.append(el);
  return el;
}

function say(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

