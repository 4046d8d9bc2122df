// The given part of a text: what was typed, and what texts before it wrote.

const commonLength = (one, other) => {
  if (other.startsWith(one)) return one.length;
  let length = 0;
  while (length < other.length && one[length] === other[length]) length += 1;
  return length;
};

// The parts of what a text was given, in order: [start, end, the text that wrote it], null for what was typed or chosen.
const origins = (node) => {
  const given = tree.prompt(node);
  const parts = [];
  let end = given.length;
  for (let above = tree.nodes.get(node.parent); above && end; above = tree.nodes.get(above.parent)) {
    const begin = tree.prompt(above).length;
    const same = Math.min(end, commonLength(tree.text(above), given));
    if (!("tokens" in above) || same <= begin) continue;
    if (same < end) parts.unshift([same, end, null]);
    parts.unshift([begin, same, above]);
    end = begin;
  }
  return end ? [[0, end, null], ...parts] : parts;
};

// What texts before it wrote is paler than what was typed.
const markEarlier = (see, node) => {
  const shown = see.querySelector(".text .prompt");
  const [given, own] = [tree.prompt(node), shown ? shown.textContent : ""];
  if (!own || !given.endsWith(own)) return;
  const from = given.length - own.length; // of a chat, the start of the reply alone is shown
  const parts = origins(node).filter(([, end]) => end > from);
  shown.replaceChildren(...parts.map(([start, end, above]) => {
    const part = make("span", above ? "earlier" : "typed", given.slice(Math.max(start, from), end));
    if (above) part.dataset.above = above.id;
    return part;
  }));
  const key = parts.some(([, , above]) => above) && element.querySelector(".legend .key:has(.prompt)");
  if (!key || element.querySelector(".legend .earlier")) return;
  const pale = make("span", "key");
  pale.append(make("span", "earlier", "pale"), ": written in an earlier text");
  key.after(pale);
};

// Whoever chooses a part that was given is told why nothing is shown for it.
const showGiven = (see, part) => {
  unchoose(see);
  const above = tree.nodes.get(+part.dataset.above);
  const head = make("p", "head", above
    ? "This part was written in an earlier text, which has its alternatives. "
    : "This part was given: the model chose nothing here, so it has no alternatives.");
  if (above) {
    head.dataset.id = above.id;
    head.append(button("Go to that text", "go"));
  }
  see.querySelector(".panel").replaceChildren(head, closeButton());
};

element.addEventListener("click", (event) => {
  const part = event.target.closest(".prompt, .earlier");
  const see = part && part.closest(".see");
  // Not where it was only marked with the mouse, and a text that was typed has no alternatives at all.
  if (see && see.querySelector(".tok") && getSelection().isCollapsed) showGiven(see, part);
});
