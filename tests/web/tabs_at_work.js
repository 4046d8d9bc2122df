// Tabs write, branch, rename, delete and undo in turn. Events of the storage arrive later, in the order of the writes.
// Where the storage is `late`, a tab does not even see what others have written until the event comes.
([seed, steps, late]) => {
  let state = seed;
  const chance = (below) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor((state / 2147483648) * below);
  };
  const shared = {};
  const seen = [{}, {}, {}];
  const tabs = seen.map((own, tab) => new KeptTree({
    getItem: (key) => (late ? seen[tab] : shared)[key] ?? null,
    setItem: (key, text) => { shared[key] = seen[tab][key] = text; },
  }));
  const waiting = [false, false, false];
  const written = [];
  const deleted = new Set();
  const own = (node) => (node.prompt ?? "") + node.completion;
  const save = (tab) => {
    tabs[tab].write();
    for (const other of [0, 1, 2]) if (other !== tab) waiting[other] = true;
  };
  const hear = (tab) => {
    if (!waiting[tab]) return;
    waiting[tab] = false;
    seen[tab] = { ...shared };
    if (tabs[tab].read()) save(tab);
  };
  const write = (tree, parent, text) => {
    const facts = { seed: 1, tokens: 1, settings: {}, perplexity: null, finish_reason: "length" };
    const node = parent ? tree.add(parent.id, tree.text(parent), text, facts) : tree.add(null, text, "");
    tree.go(node.id);
    written.push(text);
  };
  const remove = (tree, node) => {
    const isBelow = (each) => each && (each === node || isBelow(tree.nodes.get(each.parent)));
    for (const each of tree.nodes.values()) if (isBelow(each)) deleted.add(own(each));
    tree.remove(node.id);
  };
  for (let step = 0; step < steps; step += 1) {
    const tab = chance(3);
    const tree = tabs[tab].tree;
    const nodes = [...tree.nodes.values()];
    const node = nodes[chance(nodes.length || 1)];
    const action = chance(10);
    if (action > 7) hear(tab);
    else if (action === 7) tree.step(-1);
    else {
      if (action < 5 || !node) write(tree, chance(4) ? node : null, `t${step} `);
      else if (action === 5) remove(tree, node);
      else node.name = `name ${step}`;
      save(tab);
    }
  }
  for (let round = 0; round < 6; round += 1) for (const tab of [0, 1, 2]) hear(tab);
  const listed = (tree) => JSON.stringify([...tree.nodes.values()].map(own).sort());
  const end = listed(tabs[0].tree);
  const isSound = ({ nodes, history }) =>
    history.every((id) => id === null || nodes.has(id)) &&
    [...nodes.values()].every((node) => node.parent === null || nodes.has(node.parent));
  const there = new Set([...tabs[0].tree.nodes.values()].map(own));
  return {
    lost: written.filter((text) => !deleted.has(text) && !there.has(text)),
    same: tabs.every(({ tree }) => listed(tree) === end),
    stored: listed(Tree.read(shared["fundamentallm-tree"])) === end,
    sound: tabs.every(({ tree }) => isSound(tree)),
    count: tabs[0].tree.nodes.size,
  };
}
