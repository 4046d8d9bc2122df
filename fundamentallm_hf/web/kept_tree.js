// A tree in the browser's storage, which several tabs share. A tab may write before it has seen what another one wrote, so
// every tab takes over what it finds, and writes again what it finds missing. Texts that were deleted are noted apart.

const GONE = `${KEY}-deleted`;
const GONE_KEPT = 5000;

class KeptTree {
  constructor(storage) {
    this.storage = storage;
    this.tree = new Tree(null);
    this.agreed = null; // the stored tree as this tab knows it
    this.names = new Map(); // its texts and their names, by their marks
    // How often each text was deleted or brought back, by its mark: an odd number of times, and it is gone.
    this.gone = new Map();
  }

  isGone(mark) {
    return (this.gone.get(mark) || 0) % 2 === 1;
  }

  turn(mark) {
    this.gone.set(mark, (this.gone.get(mark) || 0) + 1);
  }

  // Take over what is in the storage. Returns whether there is more here than there.
  read() {
    const found = this.storage.getItem(KEY);
    if (found === null || found === this.agreed) return found === null && this.tree.nodes.size > 0;
    this.note();
    this.agreed = found; // also if it cannot be read: then it is reported once, and replaced
    const theirs = Tree.read(found);
    const gone = new Map(JSON.parse(this.storage.getItem(GONE) || "[]"));
    for (const [mark, times] of gone) this.gone.set(mark, Math.max(times, this.gone.get(mark) || 0));
    if (!this.tree.nodes.size) [this.tree.settings, this.tree.history, this.tree.position] = [theirs.settings, theirs.history, theirs.position];
    const their = this.tree.adopt(theirs, (mark) => !this.isGone(mark));
    this.tree.model ??= theirs.model;
    const marks = this.tree.marks();
    this.drop(marks);
    this.rename(theirs, marks);
    const more = [...marks].some(([id, mark]) => this.tree.nodes.has(id) && !their.has(mark));
    this.know();
    return more || [...this.gone].some(([mark, times]) => times > (gone.get(mark) || 0));
  }

  // Remove what is gone. What something else came from stays.
  drop(marks) {
    for (const { node } of this.tree.depths().reverse()) {
      if (!this.isGone(marks.get(node.id))) continue;
      if (this.tree.children(node.id).length) this.turn(marks.get(node.id));
      else this.tree.remove(node.id);
    }
  }

  rename(theirs, marks) {
    const names = new Map([...theirs.marks()].map(([id, mark]) => [mark, theirs.nodes.get(id).name]));
    for (const [id, mark] of marks) {
      const [node, name] = [this.tree.nodes.get(id), names.get(mark)];
      if (node && name !== undefined && this.names.has(mark) && this.names.get(mark) !== name) node.name = name;
    }
  }

  // Note what was deleted or brought back here.
  note() {
    const now = new Set(this.tree.marks().values());
    for (const mark of this.names.keys()) if (!now.has(mark) && !this.isGone(mark)) this.turn(mark);
    for (const mark of now) if (this.isGone(mark)) this.turn(mark);
    this.know();
  }

  know() {
    this.names = new Map([...this.tree.marks()].map(([id, mark]) => [mark, this.tree.nodes.get(id).name]));
  }

  write() {
    this.note();
    this.read();
    const text = this.tree.toString();
    if (this.gone.size) this.storage.setItem(GONE, JSON.stringify([...this.gone].slice(-GONE_KEPT)));
    this.storage.setItem(KEY, text);
    this.agreed = text;
  }
}
