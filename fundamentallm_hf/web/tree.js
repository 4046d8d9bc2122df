// The texts of a visitor, as a tree with a history. They are kept in this browser alone, in the form of
// fundamentallm_hf/generation/tree_file.py, which a download contains and the prompt loop reads.

const KEY = "fundamentallm-tree";
const STEPS = 1000;
const MARKS = new WeakMap(); // of texts, once computed: what a mark follows from never changes

// Texts whose names start with that many equal letters look alike in the list.
const ALIKE = 16;
const LETTER = "[\\p{L}\\p{N}\\p{M}_]";
const WORD = new RegExp(`${LETTER}+(?:['\u2019]${LETTER}+)*`, "gu");

// This and the next two are those of fundamentallm_hf/generation/text_names.py.
const oneLine = (text, length = 40) => {
  const line = text.split(/\s+/u).filter(Boolean).join(" ");
  const letters = Array.from(line);
  if (letters.length <= length) return line;
  const cut = letters.slice(0, length).join("");
  return (cut.includes(" ") ? cut.slice(0, cut.lastIndexOf(" ")) : letters.slice(0, length - 1).join("")) + "…";
};

const firstWords = (text) => {
  const start = text.search(WORD);
  return start < 0 ? "" : oneLine(text.slice(start));
};

const wordsAdded = (before, added) => {
  const start = Array.from(before.slice(-160)).slice(-80).join("");
  const near = start + added.slice(0, 80);
  const amid = [...near.matchAll(WORD)].find((word) => word.index < start.length && word.index + word[0].length > start.length);
  return firstWords(start.slice(amid ? amid.index : start.length) + added);
};

class Tree {
  constructor(model) {
    this.model = model;
    this.settings = {};
    this.nodes = new Map();
    this.history = [null];
    this.position = 0;
  }

  static read(text) {
    const saved = JSON.parse(text);
    if (saved.format !== KEY || saved.version !== 1) throw new Error("another format");
    const tree = new Tree(saved.model);
    tree.settings = saved.settings;
    for (const node of saved.nodes) tree.nodes.set(node.id, node);
    tree.history = saved.history;
    tree.position = saved.position;
    return tree;
  }

  get current() {
    return this.nodes.get(this.history[this.position]) || null;
  }

  toString() {
    const { model, settings, history, position } = this;
    return JSON.stringify({ format: KEY, version: 1, model, settings, history, position, nodes: [...this.nodes.values()] });
  }

  prompt(node) {
    return node.prompt === null ? this.text(this.nodes.get(node.parent)) : node.prompt;
  }

  text(node) {
    const parts = [];
    while (node.prompt === null) {
      parts.unshift(node.completion);
      node = this.nodes.get(node.parent);
    }
    return node.prompt + node.completion + parts.join("");
  }

  children(id) {
    return [...this.nodes.values()].filter((node) => node.parent === id);
  }

  depths() {
    const below = new Map();
    for (const node of this.nodes.values()) {
      if (!below.has(node.parent)) below.set(node.parent, []);
      below.get(node.parent).push(node);
    }
    const found = [];
    const waiting = (below.get(null) || []).map((node) => [node, 0]).reverse();
    while (waiting.length) {
      const [node, depth] = waiting.pop();
      const children = below.get(node.id) || [];
      found.push({ node, depth, children: children.length });
      for (const child of [...children].reverse()) waiting.push([child, depth + 1]);
    }
    return found;
  }

  addPrompt(prompt) {
    const known = this.children(null).find((node) => node.prompt === prompt && !node.completion && !node.messages);
    return known || this.add(null, prompt, "");
  }

  add(parent, prompt, completion, facts = {}, name = "") {
    const id = Math.max(0, ...this.nodes.keys()) + 1;
    const same = parent !== null && this.text(this.nodes.get(parent)) === prompt;
    const called = name || this.nameFor(parent, prompt, completion);
    const node = { id, parent, name: called, prompt: same ? null : prompt, completion, ...facts };
    this.nodes.set(id, node);
    return node;
  }

  // A name that tells a text from those next to it: its first words, or those with which it departs from one that looks alike.
  nameFor(parent, prompt, completion) {
    const name = completion ? wordsAdded(prompt, completion) : firstWords(prompt);
    const text = prompt + completion;
    const head = (called) => Array.from(called).slice(0, ALIKE).join("");
    let same = 0;
    for (const other of this.children(parent)) {
      if (head(other.name) !== head(name)) continue;
      const theirs = this.text(other);
      let length = 0;
      while (length < text.length && text[length] === theirs[length]) length += 1;
      same = Math.max(same, length);
    }
    if (same && /[\udc00-\udfff]/.test(text[same] || "")) same -= 1; // never half of a character
    const departs = same ? wordsAdded(text.slice(0, same), text.slice(same)) : "";
    return departs || name || firstWords(prompt) || oneLine(text) || "empty text";
  }

  // The messages that the prompt of a text was made of; null where it is no chat.
  asked(node) {
    const parts = [];
    while (!node.messages && node.prompt === null) {
      node = this.nodes.get(node.parent);
      parts.unshift(node.completion);
    }
    return node.messages ? withReply(node.messages, parts.join("")) : null;
  }

  // The messages of a chat up to the reply of a text; null where it is no chat.
  chat(node) {
    const asked = this.asked(node);
    return asked && withReply(asked, node.completion);
  }

  // The id of the text that a reply to these messages comes from: the reply before it, or the first message.
  turn(messages, prompt) {
    const turns = turnsOf(messages);
    const before = turns.slice(0, -1);
    const told = [...(this.current ? [this.current] : []), ...[...this.nodes.values()].reverse()];
    const above = isReply(before.at(-1)) ? told.find((node) => sameChat(this.chat(node), before)) : null;
    if (above) return above.id;
    const start = startedReply(messages);
    const given = start ? prompt.slice(0, -start.length) : prompt;
    const known = this.children(null).find((node) => node.prompt === given && !node.completion && sameChat(node.messages, turns));
    const { content } = turns.at(-1);
    return (known || this.add(null, given, "", { messages: turns }, firstWords(content) || oneLine(content))).id;
  }

  go(id) {
    if (this.history[this.position] === id) return;
    this.history = [...this.history.slice(0, this.position + 1), id].slice(-STEPS - 1);
    this.position = this.history.length - 1;
  }

  step(by) {
    const to = this.position + by;
    if (to < 0 || to >= this.history.length) return false;
    this.position = to;
    return true;
  }

  remove(id) {
    const parent = this.nodes.get(id).parent;
    const gone = new Set([id]);
    for (const node of this.nodes.values()) if (gone.has(node.parent)) gone.add(node.id);
    for (const each of gone) this.nodes.delete(each);
    const history = [];
    let position = 0;
    this.history.forEach((entry, index) => {
      const shown = gone.has(entry) ? parent : entry;
      if (!history.length || history[history.length - 1] !== shown) history.push(shown);
      if (index === this.position) position = history.length - 1;
    });
    [this.history, this.position] = [history, position];
  }

  // A mark for each text, which is the same in every tab: it follows from the text and those that it came from.
  marks() {
    const found = new Map([[null, 0]]);
    for (const { node } of this.depths()) {
      const [above, last] = [found.get(node.parent), MARKS.get(node)];
      if (!last || last.above !== above) {
        const { prompt, completion, seed = null, settings = null, messages = null } = node;
        MARKS.set(node, { above, mark: digest(JSON.stringify([above, prompt, completion, seed, settings, messages])) });
      }
      found.set(node.id, MARKS.get(node).mark);
    }
    found.delete(null);
    return found;
  }

  // Add the texts of another tree that are missing here, if they are `wanted`, and those that they came from.
  adopt(theirs, wanted = () => true) {
    const their = theirs.marks();
    const here = new Map([...this.marks()].map(([id, mark]) => [mark, id]));
    const bring = (node) => {
      if (node === undefined) return null;
      const mark = their.get(node.id);
      if (!here.has(mark)) {
        const parent = bring(theirs.nodes.get(node.parent ?? undefined));
        const id = this.nodes.has(node.id) ? Math.max(...this.nodes.keys(), ...theirs.nodes.keys()) + 1 : node.id;
        here.set(mark, id);
        this.nodes.set(id, { ...node, id, parent });
      }
      return here.get(mark);
    };
    for (const node of theirs.nodes.values()) if (wanted(their.get(node.id))) bring(node);
    return new Set(their.values());
  }
}

// 53 bits of a text.
const digest = (text) => {
  let [one, other] = [0xdeadbeef, 0x41c6ce57];
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    one = Math.imul(one ^ code, 2654435761);
    other = Math.imul(other ^ code, 1597334677);
  }
  one = Math.imul(one ^ (one >>> 16), 2246822507) ^ Math.imul(other ^ (other >>> 13), 3266489909);
  other = Math.imul(other ^ (other >>> 16), 2246822507) ^ Math.imul(one ^ (one >>> 13), 3266489909);
  return 4294967296 * (2097151 & other) + (one >>> 0);
};

// Pairs of words that are compared: more would take the browser's time and memory.
const COMPARED = 4e6;

// The differences between two texts by words: [sign, text], as text_tree.compare returns them. Of long texts that have
// little in common, what lies between their common start and end is taken as a whole.
const compare = (first, second) => {
  const words = (text) => text.match(/\s*[\p{L}\p{N}_]+|\s*[^\s\p{L}\p{N}_]|\s+/gu) || [];
  let [one, other] = [words(first), words(second)];
  const parts = [];
  const push = (sign, text) => {
    if (!text) return;
    const last = parts[parts.length - 1];
    if (last && last[0] === sign) last[1] += text;
    else parts.push([sign, text]);
  };
  let same = 0;
  while (same < one.length && same < other.length && one[same] === other[same]) same += 1;
  let last = 0;
  while (same + last < Math.min(one.length, other.length) && one.at(-1 - last) === other.at(-1 - last)) last += 1;
  const end = one.slice(one.length - last).join("");
  push("=", one.slice(0, same).join(""));
  [one, other] = [one, other].map((all) => all.slice(same, all.length - last));
  if (one.length * other.length > COMPARED) {
    for (const [sign, text] of [["-", one.join("")], ["+", other.join("")], ["=", end]]) push(sign, text);
    return parts;
  }
  // The length of the longest common part of what is left, from every pair of words on.
  const longest = Array.from({ length: one.length + 1 }, () => new Uint16Array(other.length + 1));
  for (let i = one.length - 1; i >= 0; i -= 1)
    for (let j = other.length - 1; j >= 0; j -= 1)
      longest[i][j] = one[i] === other[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
  let [i, j] = [0, 0];
  while (i < one.length || j < other.length) {
    if (i < one.length && j < other.length && one[i] === other[j]) {
      push("=", one[i]);
      [i, j] = [i + 1, j + 1];
    } else if (j >= other.length || (i < one.length && longest[i + 1][j] >= longest[i][j + 1])) {
      push("-", one[i]);
      i += 1;
    } else {
      push("+", other[j]);
      j += 1;
    }
  }
  push("=", end);
  return parts;
};
