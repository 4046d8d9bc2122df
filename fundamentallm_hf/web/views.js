// What the server made of the texts: their tokens with the alternatives. Too much for the browser's storage, so the latest
// are kept in its database, where a reload finds them.

const VIEWS = "fundamentallm-views";
const VIEWS_KEPT = 250;
const VIEWS_AT_HAND = 30;

class Views {
  // `version`: of the page that can show them.
  constructor() {
    this.version = "";
    this.atHand = new Map();
    this.database = null;
  }

  // What identifies a text, whichever id it has in a tree.
  key(tree, node) {
    return JSON.stringify([this.version, tree.model, tree.prompt(node), node.completion, node.seed ?? null, node.settings ?? null]);
  }

  at(key) {
    return this.atHand.get(key);
  }

  open() {
    this.database ??= new Promise((resolve, reject) => {
      const asked = indexedDB.open(VIEWS, 1);
      asked.onupgradeneeded = () => asked.result.createObjectStore("views", { keyPath: "key" }).createIndex("kept", "kept");
      asked.onsuccess = () => resolve(asked.result);
      asked.onerror = () => reject(asked.error);
    });
    return this.database;
  }

  hold(key, html) {
    this.atHand.delete(key);
    this.atHand.set(key, html);
    if (this.atHand.size > VIEWS_AT_HAND) this.atHand.delete(this.atHand.keys().next().value);
  }

  // Without a database, a view is at hand until others have taken its place.
  async keep(key, html) {
    this.hold(key, html);
    try {
      const views = (await this.open()).transaction("views", "readwrite").objectStore("views");
      views.put({ key, html, kept: Date.now() });
      const count = views.count();
      count.onsuccess = () => {
        let left = count.result - VIEWS_KEPT;
        if (left <= 0) return;
        views.index("kept").openCursor().onsuccess = (event) => {
          const cursor = event.target.result;
          if (!cursor || left <= 0) return;
          cursor.delete();
          left -= 1;
          cursor.continue();
        };
      };
    } catch {
      // a private window, or no room: the text can be written again
    }
  }

  // Fetch a view. Returns whether it is at hand now.
  async fetch(key) {
    try {
      const asked = (await this.open()).transaction("views").objectStore("views").get(key);
      const found = await new Promise((resolve, reject) => {
        asked.onsuccess = () => resolve(asked.result);
        asked.onerror = () => reject(asked.error);
      });
      if (found) this.hold(key, found.html);
      return Boolean(found);
    } catch {
      return false;
    }
  }
}
