// The text on screen and the tree next to it: what the buttons do. It follows tree.js and script.js in one script.

const tools = () => document.getElementById("tools");
const branches = () => document.getElementById("branches");
const shownIn = () => element.querySelector(".run");
const seenRuns = new Set();
// What the server made of a text: its tokens with their alternatives. Too much for the browser's storage.
const views = new Map();
const folded = new Set();
let tree = new Tree(null);
let asked = null; // the prompt that a text was asked for with, and the id of the text that it came from
let removed = null; // the tree before the last texts were deleted

const say = (...parts) => branches().querySelector(".say").replaceChildren(...parts);

const save = () => {
  try {
    localStorage.setItem(KEY, tree.toString());
  } catch {
    say("The browser's storage is full: download the texts, and delete some.");
  }
};

const button = (text, act, label) => {
  const made = make("button", "act", text);
  made.type = "button";
  made.dataset.do = act;
  if (label) made.setAttribute("aria-label", label);
  return made;
};

const facts = (node) => {
  if (!("tokens" in node)) return "";
  const parts = [`${node.tokens} token${node.tokens === 1 ? "" : "s"}`];
  if (node.seed !== null) parts.push(`seed ${node.seed}`);
  if (node.perplexity !== null) parts.push(`perplexity ${node.perplexity.toFixed(2)}`);
  return parts.join(" · ");
};

// The settings of a text that not all texts have.
const differing = () => {
  const shown = (node) => Object.entries(node.settings).map(([name, value]) => `${name.replaceAll("_", "-")}=${value}`);
  const written = [...tree.nodes.values()].filter((node) => "tokens" in node);
  let shared = null;
  for (const node of written) {
    const own = new Set(shown(node));
    shared = new Set([...(shared || own)].filter((each) => own.has(each)));
  }
  return (node) => ("tokens" in node ? shown(node).filter((each) => !shared.has(each)) : []);
};

const drawTree = () => {
  const list = branches().querySelector(".list");
  const focused = document.activeElement && list.contains(document.activeElement) ? document.activeElement.dataset : null;
  const drawn = document.createDocumentFragment();
  const own = differing();
  let hiddenBelow = null;
  for (const { node, depth, children } of tree.depths()) {
    if (hiddenBelow !== null && isBelow(node, hiddenBelow)) continue;
    hiddenBelow = folded.has(node.id) ? node.id : null;
    const row = make("li", node === tree.current ? "branch here" : "branch");
    row.dataset.id = node.id;
    row.style.setProperty("--depth", Math.min(depth, 8));
    const go = button(node.name, "go");
    go.className = "name";
    if (node === tree.current) go.setAttribute("aria-current", "true");
    const about = [facts(node), ...own(node)].filter(Boolean).join(" · ");
    go.title = about || "a prompt, or an edited text";
    if (children) {
      const fold = button(folded.has(node.id) ? "▸" : "▾", "fold", `${folded.has(node.id) ? "unfold" : "fold"} ${node.name}`);
      fold.setAttribute("aria-expanded", String(!folded.has(node.id)));
      row.append(fold);
    } else row.append(make("span", "leaf"));
    row.append(go);
    const side = button("compare", "compare", `compare with ${node.name}`);
    side.classList.add("side");
    row.append(make("small", "", about));
    if (tree.current && node !== tree.current) row.append(side);
    if (node === tree.current) {
      const more = make("span", "more");
      more.append(button("rename", "rename", `rename ${node.name}`), button("delete", "delete", `delete ${node.name}`));
      row.append(more);
    }
    drawn.append(row);
  }
  list.replaceChildren(drawn);
  requestAnimationFrame(() => {
    const here = list.querySelector(".here");
    if (!here) return;
    const [top, end] = [here.offsetTop - list.offsetTop, here.offsetTop - list.offsetTop + here.offsetHeight];
    if (top < list.scrollTop) list.scrollTop = top;
    else if (end > list.scrollTop + list.clientHeight) list.scrollTop = end - list.clientHeight;
  });
  if (focused && focused.do) {
    const again = list.querySelector(".here .name");
    if (again) again.focus();
  }
  for (const [name, able] of [
    ["undo", tree.position > 0],
    ["redo", tree.position < tree.history.length - 1],
    ["more", tree.current],
    ["retry", tree.current],
    ["download", tree.nodes.size],
  ])
    for (const each of document.querySelectorAll(`[data-do="${name}"]`)) each.disabled = !able;
};

const isBelow = (node, id) => {
  while (node && node.parent !== null) {
    if (node.parent === id) return true;
    node = tree.nodes.get(node.parent);
  }
  return false;
};

// Show the current text: as the server made it, or plain where that is not known any more.
const draw = () => {
  const run = make("div", "run");
  const node = tree.current;
  if (!node) run.append(make("p", "empty", "What the model writes appears here."));
  else if (views.has(node.id)) {
    run.innerHTML = views.get(node.id); // made by the server, where all text was escaped
  } else {
    const see = make("section", "see");
    const text = make("p", "text");
    text.append(make("span", "prompt", tree.prompt(node)), node.completion);
    see.append(text, make("p", "foot", facts(node)));
    if ("tokens" in node) see.append(button("Show the probabilities: write it again with its settings", "again"));
    run.append(see);
  }
  const place = shownIn() || element.querySelector(".empty, .cards, .restore");
  if (place) place.replaceWith(run);
  else element.append(run);
  apply();
  drawTree();
};

const move = () => {
  save();
  draw();
  const node = tree.current;
  if (node) trigger("moved", { prompt: tree.prompt(node), seed: node.seed ?? null, settings: node.settings || {}, written: "tokens" in node });
};

// A result of the server: its texts become branches, and the first of them the current one.
const take = (run) => {
  const sections = [...run.querySelectorAll(".see[data-node]")];
  const nodes = [];
  for (const see of sections) {
    const { prompt, completion, ...known } = JSON.parse(see.dataset.node);
    const comes = asked !== null && asked.prompt === prompt && tree.nodes.has(asked.above);
    const above = comes ? asked.above : tree.addPrompt(prompt).id;
    const twin = tree.children(above).find(
      (node) => "tokens" in node && node.completion === completion && tree.prompt(node) === prompt && node.seed === known.seed
        && JSON.stringify(node.settings) === JSON.stringify(known.settings));
    const node = twin || tree.add(above, prompt, completion, known);
    nodes.push(node);
    see.dataset.id = node.id;
  }
  const legend = run.querySelector(".legend");
  sections.forEach((see, index) => views.set(nodes[index].id, see.outerHTML + (legend ? legend.outerHTML : "")));
  if (nodes.length) tree.go(nodes[0].id);
  // The button that was pressed went away with the text that it belonged to.
  const first = run.querySelector(".tok");
  if (asked && first && document.activeElement === document.body) first.focus({ preventScroll: true });
  asked = null;
  save();
  drawTree();
};

const ask = (data, above) => {
  asked = { prompt: data.prompt, above };
  trigger("ask", data);
};

const nextSeed = (node) => {
  const prompt = tree.prompt(node);
  const seeds = tree.children(node.parent).filter((each) => tree.prompt(each) === prompt && Number.isInteger(each.seed));
  return seeds.length ? Math.max(...seeds.map((each) => each.seed)) + 1 : null;
};

const edit = () => {
  const before = tree.current ? tree.text(tree.current) : "";
  const form = make("div", "run editing");
  const area = make("textarea", "text");
  area.value = before;
  area.setAttribute("aria-label", "the text");
  const keep = button("Keep", "keep");
  form.append(area, keep, button("Cancel", "cancel"));
  shownIn().replaceWith(form);
  area.style.height = `${Math.max(160, area.scrollHeight)}px`;
  area.focus();
};

const keep = () => {
  const after = element.querySelector(".editing textarea").value;
  const node = tree.current;
  const before = node ? tree.text(node) : "";
  if (after === before) return draw();
  const changed = compare(before, after).filter(([sign]) => sign === "+").map(([, text]) => text).join("");
  tree.go(tree.add(node ? node.id : null, after, "", {}, firstWords(changed)).id);
  move();
};

const showDifferences = (id) => {
  const other = tree.nodes.get(id);
  const run = make("div", "run");
  const see = make("section", "see differences");
  see.append(make("h3", "", `${tree.current.name} → ${other.name}`));
  const text = make("p", "text");
  for (const [sign, part] of compare(tree.text(tree.current), tree.text(other)))
    text.append(sign === "=" ? document.createTextNode(part) : make(sign === "-" ? "del" : "ins", "", part));
  see.append(text, button("Close", "cancel"));
  run.append(see);
  shownIn().replaceWith(run);
  see.querySelector("button").focus();
};

const download = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([tree.toString()], { type: "application/json" }));
  link.download = "texts.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

const acts = {
  undo: () => tree.step(-1) && move(),
  redo: () => tree.step(1) && move(),
  go: (id) => { tree.go(id); move(); },
  fold: (id) => { folded.has(id) ? folded.delete(id) : folded.add(id); drawTree(); },
  compare: (id) => showDifferences(id),
  cancel: () => {
    draw();
    const here = branches().querySelector(".here .name");
    if (here) here.focus({ preventScroll: true });
  },
  keep,
  edit: () => shownIn() && edit(),
  more: () => ask({ prompt: tree.text(tree.current), continues: true }, tree.current.id),
  retry: () => {
    const node = tree.current;
    if (!("tokens" in node)) return acts.more();
    ask({ prompt: tree.prompt(node), seed: nextSeed(node) }, node.parent);
  },
  again: () => {
    const node = tree.current;
    ask({ prompt: tree.prompt(node), seed: node.seed, settings: node.settings }, node.parent);
  },
  rename: (id) => {
    const node = tree.nodes.get(id);
    const field = make("input", "rename");
    field.value = node.name;
    field.setAttribute("aria-label", "name of the text");
    const done = (renames) => {
      if (renames && field.value.trim()) node.name = field.value.trim();
      save();
      drawTree();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") done(true);
      if (event.key === "Escape") done(false);
    });
    field.addEventListener("blur", () => field.isConnected && done(true));
    branches().querySelector(`[data-id="${id}"] .name`).replaceWith(field);
    field.focus();
    field.select();
  },
  delete: (id) => {
    removed = tree.toString();
    const count = tree.nodes.size;
    tree.remove(id);
    move();
    say(`${count - tree.nodes.size} deleted. `, button("Bring back", "restore"));
  },
  restore: () => {
    tree = Tree.read(removed);
    say();
    move();
  },
  download,
  upload: () => branches().querySelector("input[type=file]").click(),
};

document.addEventListener("click", (event) => {
  const pressed = event.target.closest && event.target.closest("[data-do]");
  if (!pressed || !element.isConnected || !(pressed.dataset.do in acts)) return;
  const row = pressed.closest("[data-id]");
  acts[pressed.dataset.do](row ? +row.dataset.id : null);
});

document.addEventListener("change", (event) => {
  const field = event.target;
  if (!field.closest("#branches") || field.type !== "file" || !field.files.length) return;
  field.files[0].text().then((text) => trigger("opened", { text, name: field.files[0].name }));
});

document.addEventListener("fundamentallm-texts", (event) => {
  tree = Tree.read(event.detail);
  views.clear();
  move();
});

document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return;
  if (event.target.closest("textarea, input")) return;
  event.preventDefault();
  acts[event.shiftKey ? "redo" : "undo"]();
});

element.addEventListener("click", (event) => {
  const go = event.target.closest(".go");
  if (!go) return;
  const see = go.closest(".see");
  const tokens = see.parsed || JSON.parse(see.dataset.tokens);
  const known = JSON.parse(see.dataset.node);
  const before = tokens.slice(0, +see.dataset.at).map((token) => token[4]).join("");
  const text = tokens[+see.dataset.at][3][+go.dataset.choice][4];
  const node = tree.nodes.get(+see.dataset.id);
  ask({ prompt: known.prompt + before + text, branches: true }, node ? node.id : null);
});

// A text of the server has arrived, or the page has.
const arrived = () => {
  const run = element.querySelector(".run[data-run]");
  if (run && !seenRuns.has(run.dataset.run)) {
    seenRuns.add(run.dataset.run);
    take(run);
    apply();
    return;
  }
  if (element.querySelector(".restore")) draw();
  const start = element.querySelector("[data-start]");
  if (!start || seenRuns.has("start")) return;
  seenRuns.add("start");
  tree.model = start.dataset.model || null;
  try {
    const saved = localStorage.getItem(KEY);
    if (saved) tree = Tree.read(saved);
  } catch {
    say("The texts that were kept in this browser cannot be read.");
  }
  // Who comes by a link sees its text, and whoever was here before sees theirs.
  if (start.dataset.start === "write" || !tree.current) setTimeout(() => trigger("first", {}), 0);
  else move();
};

watch("value", arrived);
