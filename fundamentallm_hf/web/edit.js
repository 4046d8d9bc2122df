// A text that is edited by hand, and what one text has and another does not: views that take the place of the text on screen.

let draft = null; // an edited text that was not kept, and the id of the one that it was made of

// The part of a text that is edited: all of it; of a chat the reply.
const editable = (node) => {
  const chat = node && tree.chat(node);
  return chat ? startedReply(chat) : node ? tree.text(node) : "";
};

// A field has no carriage returns.
const asTyped = (text) => text.replace(/\r\n?/g, "\n");

const edit = (before) => {
  const form = make("div", "run editing");
  const area = make("textarea", "text");
  area.value = before;
  area.setAttribute("aria-label", "the text");
  const ends = make("div", "ends");
  ends.append(button("Keep", "keep"), button("Cancel", "cancel"));
  form.append(area, ends);
  area.addEventListener("keydown", (event) => event.key === "Escape" && act("cancel"));
  shownIn().replaceWith(form);
  area.style.height = `${Math.max(160, area.scrollHeight)}px`;
  area.focus();
};

const keep = () => {
  const after = element.querySelector(".editing textarea").value.replace(/\p{Surrogate}/gu, "\ufffd"); // half a character
  const node = tree.current;
  const before = editable(node);
  if (after === asTyped(before)) return draw();
  const changed = compare(before, after).filter(([sign]) => sign === "+").map(([, text]) => text).join("");
  const chat = node && tree.chat(node);
  const given = chat ? tree.text(node).slice(0, tree.text(node).length - before.length) : "";
  const own = chat ? { messages: withReply(turnsOf(chat), after) } : {};
  tree.go(tree.add(node ? node.id : null, given + after, "", own, firstWords(changed)).id);
  draft = null;
  say();
  move();
};

const showDifferences = (id) => {
  const other = tree.nodes.get(id);
  const run = make("div", "run");
  const see = make("section", "see differences");
  see.append(make("h3", "", `${tree.current.name} → ${other.name}`));
  const text = make("p", "text");
  const [one, two] = [tree.current, other].map((node) => (tree.chat(node) ? readable(tree.chat(node)) : tree.text(node)));
  for (const [sign, part] of compare(one, two))
    text.append(sign === "=" ? document.createTextNode(part) : make(sign === "-" ? "del" : "ins", "", part));
  see.append(text, button("Close", "cancel"));
  run.append(see);
  shownIn().replaceWith(run);
  see.querySelector("button").focus();
};
