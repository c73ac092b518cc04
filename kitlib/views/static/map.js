// The cluster map's front end: draws `scene` (see kitlib/views/scene.py) and sends what a button asks for.
// Elements are kept by key from one scene to the next, so that focus, hover and transitions survive a change.

const LEGEND = [
  ["R", "run", "Running, ready"], ["N", "warn", "Running, not ready"], ["P", "wait", "Pending, no node yet"],
  ["C", "wait", "being created"], ["S", "done", "Succeeded"], ["F", "fail", "Failed"],
  ["!", "fail", "in trouble"], ["T", "end", "Terminating"], ["U", "warn", "Unknown, node lost"],
];

const ENDED = "the kernel of this map has ended: run the set-up cell, then this cell again";

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Makes `parent` hold one child per item, in order: known keys are updated, new ones created, others removed. */
function keyed(parent, items, keyOf, create, update) {
  const known = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const key = keyOf(item);
    let child = known.get(key);
    known.delete(key);
    if (!child) {
      child = create(item);
      child.dataset.key = key;
    }
    update(child, item);
    if (parent.children[index] !== child) moveTo(parent, child, index);
  });
  known.forEach((child) => child.remove());
}

function moveTo(parent, child, index) {
  const focused = child.contains(document.activeElement) ? document.activeElement : null;
  parent.insertBefore(child, parent.children[index] || null);
  if (focused) focused.focus();
}

function part(parent, name) {
  return parent.querySelector(`.kit-${name}`);
}

function plural(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

function localTime(moment) {
  const date = new Date(`${moment}Z`);
  return Number.isNaN(date.getTime()) ? "--:--:--" : date.toLocaleTimeString([], { hour12: false });
}

function podSentence(pod) {
  const words = [`Pod ${pod.name} in namespace ${pod.namespace}`, pod.status, `ready ${pod.ready}`, plural(pod.restarts, "restart"), `image tag ${pod.tag}`];
  if (pod.gpus) words.push(plural(pod.gpus, "GPU"));
  if (pod.node) words.push(`on ${pod.node}`);
  if (pod.reason) words.push(pod.reason);
  return words.join(", ");
}

function createTile(pod, select) {
  const tile = make("button", "kit-tile");
  tile.type = "button";
  tile.append(make("span", "kit-letter"), make("span", "kit-name"), make("span", "kit-meta"));
  part(tile, "name").append(make("span", "kit-head", pod.name.slice(0, -5)), make("span", "kit-tail", pod.name.slice(-5)));
  tile.addEventListener("click", () => select(tile.dataset.key));
  return tile;
}

function updateTile(tile, pod, selected) {
  const meta = [pod.ready];
  if (pod.restarts) meta.push(`↻${pod.restarts}`);
  if (pod.gpus) meta.push(`${pod.gpus} GPU`);
  meta.push(pod.tag);
  if (tile.dataset.letter && tile.dataset.letter !== pod.letter) {
    tile.classList.remove("kit-changed");
    void tile.offsetWidth; // restarts the animation
    tile.classList.add("kit-changed");
  }
  Object.assign(tile.dataset, { tone: pod.tone, letter: pod.letter, name: pod.name, status: pod.status });
  setText(part(tile, "letter"), pod.letter);
  setText(part(tile, "meta"), ["Running", "Completed"].includes(pod.status) ? meta.join(" · ") : `${pod.status} · ${meta.join(" · ")}`);
  tile.setAttribute("aria-label", podSentence(pod));
  tile.setAttribute("aria-pressed", String(selected === pod.uid));
  tile.title = podSentence(pod);
}

function createNode(node, act) {
  const box = make("section", "kit-node");
  const bar = make("div", "kit-bar");
  const button = make("button", "kit-power");
  button.type = "button";
  button.addEventListener("click", () => act({ do: button.dataset.verb, name: node.name }));
  bar.append(make("span", "kit-node-name", node.name), make("span", "kit-state"), make("span", "kit-room"), button);
  box.append(bar, make("div", "kit-gpus"), make("div", "kit-capacity"), make("div", "kit-tiles"));
  return box;
}

function updateNode(box, node, view) {
  const lost = node.ready === false;
  box.dataset.ready = String(node.ready);
  box.dataset.name = node.name;
  setText(part(box, "state"), `${node.ready ? "✓ " : lost ? "✗ " : ""}${node.status || "not readable"}`);
  const capacity = node.cpu ? `${node.cpu} CPU · ${node.memory} GiB` : "";
  setText(part(box, "capacity"), [capacity, plural(node.pods.length, "Pod"), node.hollow ? "hollow: nothing runs here" : ""].filter(Boolean).join(" · "));
  const gpuWords = node.gpus ? `, ${node.gpusUsed} of ${node.gpus} in use: ${node.gpuKind}` : "";
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", `Node ${node.name}, ${node.status}, ${plural(node.pods.length, "Pod")}${gpuWords}`);
  updateGpus(part(box, "gpus"), node);
  const button = part(box, "power");
  button.hidden = !view.canAct || node.hollow || node.ready === null;
  button.dataset.verb = lost ? "start" : "kill";
  setText(button, lost ? "Start" : "Power off");
  button.title = `kit node ${button.dataset.verb} ${node.name}`;
  button.setAttribute("aria-label", `${button.textContent} ${node.name}`);
  updateTiles(part(box, "tiles"), node.pods, view);
}

function updateGpus(row, node) {
  row.hidden = !node.gpus;
  if (!node.gpus) return;
  if (row.childElementCount !== node.gpus + 1) {
    row.replaceChildren(...Array.from({ length: node.gpus }, () => make("span", "kit-slot")), make("span", "kit-kind"));
    row.setAttribute("role", "img");
  }
  Array.from(row.querySelectorAll(".kit-slot")).forEach((slot, index) => {
    slot.dataset.used = String(index < node.gpusUsed);
    setText(slot, index < node.gpusUsed ? "■" : "□");
  });
  setText(part(row, "kind"), `${node.gpusUsed}/${node.gpus} ${node.gpuKind}`);
  row.setAttribute("aria-label", `${node.gpusUsed} of ${node.gpus} in use: ${node.gpuKind}`);
}

function updateTiles(parent, pods, view) {
  parent.classList.toggle("kit-many", view.dense || pods.length > 24);
  keyed(parent, pods, (pod) => pod.uid, (pod) => createTile(pod, view.select), (tile, pod) => updateTile(tile, pod, view.selected));
}

function updateServices(parent, services, view) {
  keyed(parent, services, (service) => `${service.namespace}/${service.name}`,
    () => {
      const chip = make("button", "kit-service");
      chip.type = "button";
      chip.append(make("span", "kit-service-name"), make("span", "kit-meta"));
      ["pointerenter", "focus"].forEach((name) => chip.addEventListener(name, () => view.point(chip.dataset.key)));
      ["pointerleave", "blur"].forEach((name) => chip.addEventListener(name, () => view.point(null)));
      return chip;
    },
    (chip, service) => {
      const ready = Object.values(service.pods).filter(Boolean).length;
      const words = `${service.type} ${service.ip} ${service.ports} → ${plural(ready, "ready Pod")}`;
      setText(part(chip, "service-name"), service.name);
      setText(part(chip, "meta"), words);
      chip.setAttribute("aria-label", `Service ${service.name}, ${words}`);
    });
}

/** Draws a line from each Service to each of its Pods: solid where ready, dashed where not. */
function drawLinks(svg, root, scene, pointed) {
  const origin = root.getBoundingClientRect();
  const lines = [];
  root.querySelectorAll(".kit-service").forEach((chip, index) => {
    const service = scene.services.find((each) => `${each.namespace}/${each.name}` === chip.dataset.key);
    const start = chip.getBoundingClientRect();
    for (const [uid, ready] of Object.entries(service ? service.pods : {})) {
      const tile = root.querySelector(`.kit-tile[data-key="${CSS.escape(uid)}"]`);
      if (!tile) continue;
      const { way, end } = route(start, tile, part(root, "nodes").getBoundingClientRect().top, index % 3, origin);
      const tone = `${ready ? "" : " kit-unready"}${pointed && pointed !== chip.dataset.key ? " kit-dim" : ""}`;
      lines.push(shape("path", { d: way, class: `kit-link${tone}` }));
      lines.push(shape("circle", { cx: end[0], cy: end[1], r: 2.5, class: `kit-end${tone}` }));
    }
  });
  svg.replaceChildren(...lines);
}

/** Leads a line beside the names: down the right margin of the node's box, then to the tile's side or along its top. */
function route(start, tile, top, lane, origin) {
  const [side, box] = [tile, tile.closest(".kit-node")].map((element) => element.getBoundingClientRect());
  const [x1, y1] = [start.left + start.width / 2 - origin.left, start.bottom - origin.top];
  const [margin, bend] = [box.right - 2.5 - 2 * lane - origin.left, top - origin.top];
  const outermost = box.right - side.right < 20;
  const end = [(outermost ? side.right : side.right - 8) - origin.left, (outermost ? side.top + 9 + 6 * lane : side.top - 2) - origin.top];
  return { way: `M${x1},${y1} C${x1},${bend} ${margin},${y1} ${margin},${bend} V${end[1]} H${end[0]}`, end };
}

function shape(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  return element;
}

function updateLog(list, events) {
  keyed(list, events, (event) => String(event.order),
    () => {
      const line = make("li", "kit-event");
      line.append(make("time", ""), make("b", "kit-reason"), make("span", "kit-words"));
      return line;
    },
    (line, event) => {
      line.dataset.type = event.type;
      setText(line.querySelector("time"), localTime(event.time));
      setText(part(line, "reason"), `${event.type === "Warning" ? "⚠ " : ""}${event.reason}`);
      setText(part(line, "words"), `${event.object} ${event.message}${event.count > 1 ? ` (×${event.count})` : ""}`);
    });
}

function skeleton() {
  const root = make("div", "kit-map");
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab's one-letter shortcuts must not act on the cell
  const top = make("div", "kit-top");
  const toggle = make("label", "kit-toggle");
  const box = make("input", "kit-services-on");
  box.type = "checkbox";
  toggle.append(box, " Services");
  top.append(make("strong", "kit-title"), make("span", "kit-summary"), toggle);
  const waiting = make("section", "kit-waiting");
  waiting.append(make("div", "kit-waiting-title", "Waiting for a node"), make("div", "kit-tiles"), make("ul", "kit-reasons"));
  const legend = make("div", "kit-legend");
  LEGEND.forEach(([letter, tone, words]) => {
    const entry = make("span", "kit-legend-entry");
    const mark = make("span", "kit-letter", letter);
    mark.dataset.tone = tone;
    entry.append(mark, ` ${words}`);
    legend.append(entry);
  });
  const log = make("ol", "kit-log");
  log.setAttribute("role", "log");
  log.setAttribute("aria-label", "last events");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "kit-links");
  svg.setAttribute("aria-hidden", "true");
  root.append(top, make("div", "kit-problems"), waiting, make("div", "kit-services"), make("div", "kit-nodes"),
    make("div", "kit-details"), legend, log, svg);
  part(root, "problems").setAttribute("role", "alert");
  part(root, "details").setAttribute("aria-live", "polite");
  root.setAttribute("role", "region");
  return root;
}

function updateDetails(panel, pod, scene, act) {
  panel.hidden = !pod && !scene.notice;
  const words = make("span", "kit-sentence", pod ? podSentence(pod) + (pod.ip ? `, address ${pod.ip}` : "") : "");
  const key = `${words.textContent}|${scene.notice}`;
  if (panel.dataset.shown === key) return;
  const hadFocus = panel.contains(document.activeElement);
  panel.dataset.shown = key;
  panel.replaceChildren(words);
  if (pod) {
    const button = make("button", "kit-delete", "Delete Pod");
    button.type = "button";
    button.setAttribute("aria-label", `Delete Pod ${pod.name}`);
    button.addEventListener("click", () => act({ do: "delete", name: pod.name, namespace: pod.namespace }));
    panel.append(button);
    if (hadFocus) button.focus();
  }
  if (scene.notice) panel.append(make("span", "kit-notice", scene.notice));
}

function summary(scene) {
  const pods = scene.nodes.flatMap((node) => node.pods).concat(scene.waiting);
  const ready = scene.nodes.filter((node) => node.ready).length;
  return `${plural(scene.nodes.length, "node")}, ${ready} ready · ${plural(pods.length, "Pod")}, ${pods.filter((pod) => pod.letter === "R").length} running`;
}

function moveFocus(root, event) {
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const tiles = Array.from(root.querySelectorAll(".kit-tile"));
  const here = tiles.indexOf(document.activeElement);
  if (here < 0 || !(event.key in steps)) return;
  event.preventDefault();
  event.stopPropagation();
  tiles[(here + steps[event.key] + tiles.length) % tiles.length].focus();
}

function render({ model, el }) {
  const root = skeleton();
  const view = { selected: null, pointed: null, select, point, canAct: false, dense: false };
  const act = (message) => model.send(message);
  let ended = false; // a picture that outlives its kernel must not look alive
  el.append(root);

  function draw() {
    const scene = model.get("scene");
    if (!scene || !scene.nodes) return;
    const pods = scene.nodes.flatMap((node) => node.pods).concat(scene.waiting);
    view.canAct = scene.canActOnNodes && !ended;
    view.dense = scene.nodes.length > 12;
    part(root, "nodes").classList.toggle("kit-dense", view.dense);
    part(root, "nodes").classList.toggle("kit-stale", scene.stale || ended);
    root.setAttribute("aria-label", scene.title);
    setText(part(root, "title"), scene.title);
    setText(part(root, "summary"), summary(scene));
    setText(part(root, "problems"), (ended ? [ENDED] : scene.problems).join(" · "));
    part(root, "services-on").checked = model.get("services");
    part(root, "services").classList.toggle("kit-on", model.get("services"));
    updateServices(part(root, "services"), scene.services, view);
    drawWaiting(scene.waiting);
    keyed(part(root, "nodes"), scene.nodes, (node) => node.name, (node) => createNode(node, act), (box, node) => updateNode(box, node, view));
    updateDetails(part(root, "details"), ended ? undefined : pods.find((pod) => pod.uid === view.selected), scene, act);
    updateLog(part(root, "log"), scene.events);
    links();
  }

  function drawWaiting(waiting) {
    const row = part(root, "waiting");
    row.hidden = !waiting.length;
    updateTiles(part(row, "tiles"), waiting, view);
    const reasons = new Map();
    waiting.forEach((pod) => reasons.set(pod.reason, (reasons.get(pod.reason) || []).concat(pod.name)));
    keyed(part(row, "reasons"), Array.from(reasons), ([reason]) => reason, () => make("li", ""),
      (line, [reason, names]) => setText(line, `${names.length > 3 ? plural(names.length, "Pod") : names.join(", ")}: ${reason}`));
  }

  function links() {
    drawLinks(part(root, "links"), root, model.get("scene"), view.pointed);
  }

  function select(uid) {
    view.selected = view.selected === uid ? null : uid;
    draw();
  }

  function point(key) {
    view.pointed = key;
    links();
  }

  part(root, "services-on").addEventListener("change", (event) => {
    model.set("services", event.target.checked);
    model.save_changes();
  });
  root.addEventListener("keydown", (event) => moveFocus(root, event));
  part(root, "nodes").addEventListener("scroll", links);
  const sizes = new ResizeObserver(() => model.get("scene").nodes && links());
  sizes.observe(root);
  const follow = () => { ended = false; draw(); };
  const stop = () => { ended = true; draw(); };
  model.on("change:scene", follow);
  model.on("comm_live_update", stop); // JupyterLab cuts its widgets off when a kernel restarts
  model.on("change:services", draw);
  draw();
  return () => {
    sizes.disconnect();
    model.off("change:scene", follow);
    model.off("comm_live_update", stop);
    model.off("change:services", draw);
  };
}

export default { render };
