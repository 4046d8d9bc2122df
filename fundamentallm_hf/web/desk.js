// The text on screen and the tree next to it: what the buttons do. The scripts before it in panels.py are in one with it.

const tools = () => document.getElementById("tools");
const branches = () => document.getElementById("branches");
const shownIn = () => element.querySelector(".run");
const seenRuns = new Set();
const views = new Views();
const folded = new Set();
const kept = new KeptTree({
  getItem: (key) => localStorage.getItem(key), // where it is blocked, even naming it fails
  setItem: (key, text) => localStorage.setItem(key, text),
});
let tree = kept.tree;
let asked = null; // the prompt or messages that a text was asked for with, and the id of the text that it came from
let canChat = false; // whether the model has a chat template
let removed = null; // the tree before the last texts were deleted
let grows = false; // whether a text is shown while it is generated

const say = (...parts) => branches().querySelector(".say").replaceChildren(...parts);

const save = () => {
  kept.tree = tree;
  try {
    kept.write();
    // Which text is shown is a matter of each tab.
    sessionStorage.setItem(KEY, JSON.stringify([tree.history, tree.position]));
  } catch {
    say("The browser's storage is full: download the texts, and delete some.");
  }
};

// Another tab has saved.
window.addEventListener("storage", (event) => {
  if (event.key !== KEY || !element.isConnected) return;
  const shown = tree.current;
  try {
    if (kept.read()) kept.write();
  } catch {
    return; // another version of this page
  }
  tree = kept.tree;
  if (tree.current === shown || !shownIn() || element.querySelector(".editing")) drawTree();
  else draw();
});

const button = (text, act, label) => {
  const made = make("button", "act", text);
  made.type = "button";
  made.dataset.do = act;
  if (label) made.setAttribute("aria-label", label);
  return made;
};

// Show the current text: as the server made it, or plain where that is not known any more.
const draw = () => {
  const run = make("div", "run");
  const node = tree.current;
  const chat = node && tree.asked(node);
  if (!node) run.append(make("p", "empty", canChat ? "A chat begins with your message." : "What the model writes appears here."));
  else if (views.at(views.key(tree, node))) {
    run.innerHTML = views.at(views.key(tree, node)); // made by the server, where all text was escaped
    run.querySelector(".see").dataset.id = node.id;
  } else {
    const see = make("section", "see");
    see.dataset.id = node.id;
    const text = make("p", "text");
    text.append(make("span", "prompt", chat ? startedReply(chat) : tree.prompt(node)), node.completion);
    if (chat) see.append(showTurns(turnsOf(chat)));
    see.append(text, make("p", "foot", facts(node)));
    if ("tokens" in node) see.append(button("Show the probabilities: write it again with its settings", "again"));
    run.append(see);
    if ("tokens" in node)
      views.fetch(views.key(tree, node)).then((found) => found && tree.current === node && run.isConnected && draw());
  }
  const place = shownIn() || element.querySelector(".empty, .cards, .restore");
  if (place) place.replaceWith(run);
  else element.append(run);
  for (const see of run.querySelectorAll(".see")) markEarlier(see, node);
  offerSettings();
  apply();
  drawTree();
};

// What the model was given for a text.
const askedFor = (node) => {
  const messages = tree.asked(node);
  return messages ? { messages } : { prompt: tree.prompt(node) };
};

// What the model is given for more of a text.
const moreOf = (node) => {
  const messages = tree.chat(node);
  return messages ? { messages } : { prompt: tree.text(node) };
};

const move = () => {
  unfold(tree.current);
  save();
  draw();
  const node = tree.current;
  if (node) trigger("moved", { ...askedFor(node), seed: node.seed ?? null, settings: node.settings || {}, written: "tokens" in node, facts: facts(node) });
  else trigger("moved", { written: false, facts: "" });
};

// A result of the server: its texts become branches, and the first of them the current one.
const take = (run) => {
  const sections = [...run.querySelectorAll(".see[data-node]")];
  const nodes = [];
  const count = tree.nodes.size;
  for (const see of sections) {
    const { prompt, completion, messages, ...known } = JSON.parse(see.dataset.node);
    const isAsked = asked !== null && (messages ? sameChat(asked.messages, messages) : asked.prompt === prompt);
    const comes = isAsked && tree.nodes.has(asked.above);
    const above = comes ? asked.above : messages ? tree.turn(messages, prompt) : tree.addPrompt(prompt).id;
    // More of a reply belongs to the chat of the text before it.
    const isMore = comes && asked.continues && tree.text(tree.nodes.get(above)) === prompt;
    if (messages && !isMore) known.messages = messages;
    const twin = tree.children(above).find(
      (node) => "tokens" in node && node.completion === completion && tree.prompt(node) === prompt && node.seed === known.seed
        && JSON.stringify(node.settings) === JSON.stringify(known.settings));
    const node = twin || tree.add(above, prompt, completion, known);
    nodes.push(node);
    see.dataset.id = node.id;
  }
  const legend = run.querySelector(".legend");
  sections.forEach((see, index) => views.keep(views.key(tree, nodes[index]), see.outerHTML + (legend ? legend.outerHTML : "")));
  sections.forEach((see, index) => markEarlier(see, nodes[index]));
  if (nodes.length) tree.go(nodes[0].id);
  offerSettings();
  unfold(tree.current);
  say(tree.nodes.size > count ? "" : "This text was here already: the same settings and seed write the same text. Retry takes another seed.");
  // The button that was pressed went away with the text that it belonged to.
  const first = run.querySelector(".tok");
  if (asked && first && document.activeElement === document.body) first.focus({ preventScroll: true });
  asked = null;
  save();
  drawTree();
};

const ask = (data, above) => {
  asked = { ...data, above };
  trigger("ask", data);
};

const nextSeed = (node) => {
  const prompt = tree.prompt(node);
  const seeds = tree.children(node.parent).filter((each) => tree.prompt(each) === prompt && Number.isInteger(each.seed));
  return seeds.length ? Math.max(...seeds.map((each) => each.seed)) + 1 : null;
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
    const area = element.querySelector(".editing textarea");
    draft = area && area.value !== asTyped(editable(tree.current)) ? { id: tree.current && tree.current.id, text: area.value } : null;
    if (draft !== null) say("The changes were not kept. ", button("Edit them again", "draft"));
    draw();
    const here = branches().querySelector(".here .name");
    if (here) here.focus({ preventScroll: true });
  },
  keep,
  edit: () => shownIn() && edit(editable(tree.current)),
  draft: () => {
    if (!shownIn() || draft === null) return;
    const { id, text } = draft;
    const node = tree.nodes.get(id) || null; // the text that was edited, wherever the visitor went since
    if (node !== tree.current) {
      tree.go(node && node.id);
      move();
    }
    say();
    edit(text);
  },
  settings: (id) => fill(tree.nodes.get(id)),
  afresh: () => {
    removed = tree.toString();
    tree = new Tree(tree.model);
    folded.clear();
    move();
    trigger("filled", { chat: null, prompt: null, system: "", seed: null, settings: null });
    say("All texts were put away, and the settings are those of the page again. ", button("Bring the texts back", "restore"));
  },
  more: () => ask({ ...moreOf(tree.current), continues: true }, tree.current.id),
  chat: () => {
    const chat = document.querySelector("#field-chat input");
    if (!chat.checked) chat.click();
    tree.go(null);
    move();
    document.querySelector("#field-prompt textarea").focus();
  },
  retry: () => {
    const node = tree.current;
    if (!("tokens" in node)) return acts.more();
    ask({ ...askedFor(node), seed: nextSeed(node) }, node.parent);
  },
  again: () => {
    const node = tree.current;
    ask({ ...askedFor(node), seed: node.seed, settings: node.settings }, node.parent);
  },
  rename: (id) => {
    const node = tree.nodes.get(id);
    const field = make("input", "rename");
    field.value = node.name;
    field.setAttribute("aria-label", "name of the text");
    let ended = false; // a field that is taken away loses the focus once more
    const done = (renames) => {
      if (ended) return;
      ended = true;
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
    const [before, isAll] = [Tree.read(removed), !tree.nodes.size];
    tree.adopt(before);
    // Ids are those of before, as long as no other text has taken one.
    if (before.history.every((id) => id === null || tree.nodes.has(id))) [tree.history, tree.position] = [before.history, before.position];
    say();
    move();
    if (isAll && tree.current) fill(tree.current);
  },
  download,
  upload: () => branches().querySelector("input[type=file]").click(),
};

// While a text is written, its place is taken: these leave the text on screen as it is.
const ALWAYS = ["fold", "rename", "download"];
const act = (name, id) => {
  if (!ALWAYS.includes(name) && document.getElementById("write").disabled) say("A text is being written: wait for its end, or stop it.");
  else acts[name](id);
};

document.addEventListener("click", (event) => {
  const pressed = event.target.closest && event.target.closest("[data-do]");
  if (!pressed || !element.isConnected || !(pressed.dataset.do in acts)) return;
  const row = pressed.closest("[data-id]");
  act(pressed.dataset.do, row ? +row.dataset.id : null);
});

document.addEventListener("change", (event) => {
  const field = event.target;
  if (!field.closest("#branches") || field.type !== "file" || !field.files.length) return;
  field.files[0].text().then((text) => trigger("opened", { text, name: field.files[0].name }));
});

document.addEventListener("fundamentallm-texts", (event) => {
  removed = tree.nodes.size ? tree.toString() : null;
  tree = Tree.read(event.detail);
  move();
  const notes = removed ? ["The texts of the file took the place of those that were here. ", button("Bring back", "restore")] : [];
  if (!canChat && [...tree.nodes.values()].some((node) => node.messages))
    notes.push(" The file has chats, but this model has no chat template: they can be read here, not answered.");
  say(...notes);
});

document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return;
  if (event.target.closest("textarea, input")) return;
  event.preventDefault();
  act(event.shiftKey ? "redo" : "undo");
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
  const given = known.messages ? { messages: withReply(known.messages, before + text) } : { prompt: known.prompt + before + text };
  ask({ ...given, branches: true }, node ? node.id : null);
});

// What is typed is sent as a message of the chat on screen.
document.addEventListener("fundamentallm-message", (event) => {
  if (!element.isConnected) return;
  const { message, system, orLast, writes } = event.detail;
  const chat = tree.current && tree.chat(tree.current);
  if (writes) asked = null;
  event.detail.messages = JSON.stringify(orLast && chat && !message.trim() ? tree.asked(tree.current) : nextTurn(chat, message, system));
});

// A text of the server has arrived, or the page has.
const arrived = () => {
  const growing = Boolean(element.querySelector(".cards"));
  if (growing && !grows) bringIntoView();
  if (grows && !growing) stayAnchored();
  grows = growing;
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
  canChat = Boolean(start.dataset.canChat);
  views.version = start.dataset.version;
  try {
    kept.read();
    tree = kept.tree;
    const [history, position] = JSON.parse(sessionStorage.getItem(KEY) || "[[], 0]");
    if (history.length && history.every((id) => id === null || tree.nodes.has(id))) [tree.history, tree.position] = [history, position];
  } catch {
    say("The texts that were kept in this browser cannot be read.");
  }
  // Who comes by a link sees its text, and whoever was here before sees theirs.
  if (start.dataset.chat) setTimeout(() => ask({ messages: JSON.parse(start.dataset.chat) }, null), 0);
  else if (start.dataset.start === "write" || !(tree.current || (canChat && tree.nodes.size))) setTimeout(() => trigger("first", {}), 0);
  else {
    move();
    if (tree.current) fill(tree.current, "");
  }
};

watch("value", arrived);
