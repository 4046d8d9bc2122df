// The list of branches next to the text, as desk.js has them.

const facts = (node) => {
  if (!("tokens" in node)) return "";
  const unit = node.tokens === Array.from(node.completion).length ? "character" : "token";
  const parts = [`${node.tokens} ${unit}${node.tokens === 1 ? "" : "s"}`];
  if (node.seed !== null) parts.push(`seed ${node.seed}`);
  if (node.perplexity !== null) parts.push(`perplexity ${node.perplexity.toFixed(2)}`);
  return parts.join(" · ");
};

// Fill the fields with the settings of a text, and with the prompt at the root of its branches. Of a chat, fill in the
// system message, and the message that waits for a reply, or otherwise the one given; null leaves what is typed.
const fill = (node, message = null) => {
  let [root, made] = [node, node];
  while (root.parent !== null) root = tree.nodes.get(root.parent);
  while (made && !("tokens" in made)) made = tree.nodes.get(made.parent);
  const known = { seed: made?.seed ?? null, settings: made?.settings ?? null };
  const chat = tree.chat(node);
  if (!chat) trigger("filled", { chat: false, prompt: root.prompt, ...known });
  else if (!canChat) trigger("filled", known);
  else trigger("filled", { chat: true, prompt: isReply(chat.at(-1)) ? message : chat.at(-1).content, system: systemOf(chat), ...known });
};

// The settings of a text that not all texts have.
const differing = () => {
  const shown = (node) => Object.entries(node.settings).map(([name, value]) => `${name.replaceAll("_", "-")}=${value}`);
  const written = [...tree.nodes.values()].filter((node) => "tokens" in node);
  let shared = null;
  for (const node of written) {
    const ofNode = new Set(shown(node));
    shared = new Set([...(shared || ofNode)].filter((each) => ofNode.has(each)));
  }
  return (node) => ("tokens" in node ? shown(node).filter((each) => !shared.has(each)) : []);
};

const drawRow = ({ id, name, about, depth, children, isFolded, isHere, hides, compares, fills }) => {
  const row = make("li", `branch${isHere ? " here" : hides ? " hides" : ""}`);
  row.dataset.id = id;
  row.style.setProperty("--depth", depth);
  const go = button(name, "go");
  go.className = "name";
  if (isHere) go.setAttribute("aria-current", "true");
  go.title = [name, ...(about.length ? about : ["a prompt, or an edited text"])].join("\n");
  if (children) {
    const fold = button(isFolded ? "▸" : "▾", "fold", `${isFolded ? "unfold" : "fold"} ${name}`);
    fold.setAttribute("aria-expanded", String(!isFolded));
    row.append(fold);
  } else row.append(make("span", "leaf"));
  const under = make("small");
  about.forEach((each, index) => under.append(make("span", "", each + (index < about.length - 1 ? " ·" : "")), " "));
  const below = make("span", "more");
  if (compares) below.append(button("compare", "compare", `compare with ${name}`));
  if (isHere) below.append(button("rename", "rename", `rename ${name}`), button("delete", "delete", `delete ${name}`));
  if (fills) below.append(button("use settings", "settings", `use the settings of ${name}`));
  row.append(go, under, below);
  return row;
};

// The rows of the list as they were drawn, so that only what differs is drawn again.
const drawnRows = new Map();

let scrolledTo = null; // the text that the list was scrolled to

// Scroll the list to the text on screen, with its neighbours. Rows have their height only once they were seen, so this may
// take some frames.
const scrollToHere = (list, frames = 6) =>
  requestAnimationFrame(() => {
    const here = list.querySelector(".here, .hides");
    if (!here || !frames) return;
    const top = here.offsetTop - list.offsetTop;
    if (top < list.scrollTop || top + here.offsetHeight > list.scrollTop + list.clientHeight)
      list.scrollTop = top - (list.clientHeight - here.offsetHeight) / 2;
    scrollToHere(list, frames - 1);
  });

// Unfold what hides a text.
const unfold = (node) => {
  for (let above = node && node.parent; above; above = tree.nodes.get(above).parent) folded.delete(above);
};

const drawTree = () => {
  const list = branches().querySelector(".list");
  const focused = document.activeElement && list.contains(document.activeElement) ? document.activeElement.dataset : null;
  const settingsOf = differing();
  let hiddenBelow = null;
  let at = list.firstElementChild;
  const seen = new Set();
  for (const { node, depth, children } of tree.depths()) {
    if (hiddenBelow !== null && isBelow(node, hiddenBelow)) continue;
    const isFolded = folded.has(node.id);
    hiddenBelow = isFolded ? node.id : null;
    const about = [...facts(node).split(" · "), ...settingsOf(node)].filter(Boolean);
    const isHere = node === tree.current;
    const shows = { id: node.id, name: node.name, about, depth: Math.min(depth, 6), children: children > 0, isFolded, isHere };
    shows.hides = isFolded && isBelow(tree.current, node.id);
    shows.compares = Boolean(tree.current) && !isHere;
    shows.fills = isHere && "tokens" in node;
    const [before, what] = [drawnRows.get(node.id), JSON.stringify(shows)];
    const isSame = before && before.what === what && before.row.querySelector(".name");
    const row = isSame ? before.row : drawRow(shows);
    drawnRows.set(node.id, { what, row });
    seen.add(node.id);
    if (row === at) at = at.nextElementSibling;
    else list.insertBefore(row, at);
  }
  for (const id of drawnRows.keys()) if (!seen.has(id)) drawnRows.delete(id);
  const rows = new Set([...drawnRows.values()].map(({ row }) => row));
  for (const row of [...list.children]) if (!rows.has(row)) row.remove();
  if (scrolledTo !== tree.current) scrollToHere(list); // otherwise it stays where the visitor has scrolled it to
  scrolledTo = tree.current;
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
    ["afresh", tree.nodes.size],
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
