// Runs in the browser alone: moving over the tokens of a text, and the bars of the chosen token's alternatives.
// Text of the model becomes text of the page, never markup.

const make = (name, cls, text) => {
  const made = document.createElement(name);
  if (cls) made.className = cls;
  if (text !== undefined) made.textContent = text;
  return made;
};

const percent = (number) => {
  if (number === 0) return "0%";
  if (number < 0.001) return "<0.1%";
  return (number * 100).toFixed(number < 0.1 ? 1 : 0) + "%";
};

const bar = (cls, number) => {
  const made = make("div", "bar " + cls);
  const inside = make("div", "inside");
  inside.style.width = Math.max(number * 100, number > 0 ? 1 : 0) + "%";
  made.append(inside);
  return made;
};

const effect = (control, factor) => {
  if (factor < 0.005) return `${control} took it away`;
  return `${control} made it ${factor < 1 ? `${+(1 / factor).toPrecision(2)} times less likely` : `${+factor.toPrecision(2)} times likelier`}`;
};

const counts = ([, factor]) => factor < 0.9 || factor > 1.1;

// What made the probability of the raw model the final one: controls, and what is left for temperature, top-p and the like.
const effects = (raw, final, controls) => {
  const found = controls.filter(counts);
  const rest = final / raw / found.reduce((product, [, factor]) => product * factor, 1);
  return found.length && rest > 0 && Number.isFinite(rest) ? [...found, ["the other settings", rest]].filter(counts) : found;
};

const closeButton = () => {
  const close = make("button", "close", "✕");
  close.type = "button";
  close.setAttribute("aria-label", "close the alternatives");
  return close;
};

const unchoose = (see) => {
  for (const token of see.querySelectorAll(".tok.chosen")) token.classList.remove("chosen");
};

// Without the alternatives of a character.
const hide = (see) => {
  const token = see.querySelector(".tok.chosen") || see.querySelector(".tok[tabindex='0']");
  see.querySelector(".panel").replaceChildren();
  unchoose(see);
  if (token) token.focus({ preventScroll: true });
};

const show = (see, index, focus) => {
  const tokens = see.querySelectorAll(".tok");
  if (index < 0 || index >= tokens.length) return;
  unchoose(see);
  for (const token of tokens) token.tabIndex = -1;
  tokens[index].classList.add("chosen");
  tokens[index].tabIndex = 0;
  if (focus) tokens[index].focus();

  see.parsed = see.parsed || JSON.parse(see.dataset.tokens);
  const [label, after, before, alternatives, , shifts] = see.parsed[index];
  const panel = see.querySelector(".panel");
  panel.replaceChildren();
  const head = make("p", "head");
  head.append(make("b", "", label), " was chosen with a probability of ", make("b", "", percent(after)),
    "; the raw model gives it ", make("b", "", percent(before)), ".");
  panel.append(head);
  for (const [control, entry, away, towards] of shifts)
    panel.append(make("p", "why", `${control} changed the text here${entry ? ` for “${entry}”` : ""}: away from ${away}, towards ${towards}.`));
  const list = make("ul", "bars");
  alternatives.forEach(([name, final, raw, same, text, controls], choice) => {
    // The long tail is not informative, but a few tokens are always shown.
    if (choice > 3 && !same && Math.max(raw, final) < 0.001) return;
    const row = make("li", same ? "row same" : final === 0 ? "row masked" : "row");
    row.append(make("code", "name", name));
    const bars = make("div", "pair");
    bars.append(bar("raw", raw), bar("final", final));
    row.append(bars);
    const numbers = make("span", "numbers");
    numbers.append(make("span", "raw", percent(raw)), make("span", "arrow", " → "), make("span", "final", percent(final)));
    numbers.setAttribute("aria-label", "before " + percent(raw) + ", after " + percent(final));
    numbers.setAttribute("role", "img");
    row.append(numbers);
    if (same) {
      row.append(make("span", "took", "chosen"));
    } else if (text === "") {
      row.append(make("span", "took", "ends"));
    } else {
      const go = make("button", "go", "go on");
      go.type = "button";
      go.dataset.choice = choice;
      go.setAttribute("aria-label", "go on with " + name);
      go.append(make("span", "with", ` with ${name.replace(/^".*" \((.+)\)$/s, "$1")}`));
      row.append(go);
    }
    const did = effects(raw, final, controls);
    if (did.length) row.append(make("span", "did", did.map(([control, factor]) => effect(control, factor)).join(", ")));
    list.append(row);
  });
  panel.append(list);
  const key = make("p", "foot");
  key.append(make("span", "dot raw"), " raw model  ", make("span", "dot final"), " after the settings");
  if (alternatives.some(([, final]) => final === 0)) key.append(" · struck out: the settings leave it out here; it can be chosen all the same");
  panel.append(key, closeButton()); // at the end for the Tab key: the choices come first
  see.dataset.at = index;
  // On a phone, the panel covers the end of the text.
  const covered = tokens[index].getBoundingClientRect().bottom + 8 - panel.getBoundingClientRect().top;
  if (getComputedStyle(panel).position === "sticky" && covered > 0) window.scrollBy(0, covered);
};

element.addEventListener("click", (event) => {
  const see = event.target.closest(".see");
  if (!see) return;
  const token = event.target.closest(".tok");
  if (event.target.closest(".close") || (token && token.matches(".chosen"))) hide(see);
  else if (token) show(see, +token.dataset.i, true);
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !element.isConnected || event.target.closest("input, textarea")) return;
  for (const panel of element.querySelectorAll(".panel:not(:empty)")) hide(panel.closest(".see"));
});

element.addEventListener("mouseover", (event) => {
  const token = event.target.closest(".tok");
  if (token) token.title = token.getAttribute("aria-label");
});

element.addEventListener("keydown", (event) => {
  const token = event.target.closest && event.target.closest(".tok");
  if (!token) return;
  const see = token.closest(".see");
  const at = +token.dataset.i;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 };
  const last = see.querySelectorAll(".tok").length - 1;
  let to = null;
  if (event.key in steps) to = Math.min(last, Math.max(0, at + steps[event.key]));
  if (event.key === "Home") to = 0;
  if (event.key === "End") to = last;
  if (event.key === "Enter" || event.key === " ") to = at;
  if (to === null) return;
  event.preventDefault();
  if (to === at && token.matches(".chosen") && !(event.key in steps)) return hide(see);
  show(see, to, true);
});

// gradio applies no style of a page to the document itself: its width is the same whether or not it is scrolled.
document.documentElement.style.scrollbarGutter = "stable";

// Show what is generated, which on a phone is far above the button, and wherever another tab is open.
const bringIntoView = () => {
  if (!element.offsetParent) document.querySelector("#views button[role=tab]").click();
  const { top } = element.getBoundingClientRect();
  if (top >= 0 && top <= 0.6 * window.innerHeight) return;
  document.documentElement.style.overflowAnchor = "none"; // or the browser follows what the growing text pushes down
  document.getElementById("answer").scrollIntoView();
};

const stayAnchored = () => setTimeout(() => document.documentElement.style.removeProperty("overflow-anchor"), 300);

// How texts are shown, as it was chosen before.
const LOOK = "fundamentallm-look";
const look = () => {
  try {
    return JSON.parse(localStorage.getItem(LOOK)) || {};
  } catch {
    return {};
  }
};

const apply = () => {
  const chosen = look();
  for (const name of ["plain", "spaces", "raw"]) element.classList.toggle(name, Boolean(chosen[name]));
  for (const box of element.querySelectorAll("[data-switch]")) {
    const on = element.classList.contains(box.dataset.switch);
    box.checked = box.dataset.switch === "plain" ? !on : on;
  }
};

element.addEventListener("change", (event) => {
  const name = event.target.dataset && event.target.dataset.switch;
  if (!name) return;
  const on = name === "plain" ? !event.target.checked : event.target.checked;
  try {
    localStorage.setItem(LOOK, JSON.stringify({ ...look(), [name]: on }));
  } catch {
    element.classList.toggle(name, on); // for this visit alone
    return;
  }
  apply();
});

// What an item of the list of words is about is marked in the text, also while the text grows.
let shownItem = null;
const nameOf = (item) => item.parentElement.className + item.querySelector("b").textContent;
const markItem = (item) => {
  for (const each of element.querySelectorAll(".marked")) each.classList.remove("marked");
  shownItem = item && [nameOf(item), document.activeElement === item];
  if (!item) return;
  const places = new Set(item.dataset.at.split(" "));
  for (const each of item.closest(".see, .card").querySelectorAll("[data-c]")) each.classList.toggle("marked", places.has(each.dataset.c));
};
for (const [begins, ends] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
  element.addEventListener(begins, (event) => event.target.closest(".show") && markItem(event.target.closest(".show")));
  element.addEventListener(ends, (event) => event.target.isConnected && event.target.closest(".show") && markItem(null));
}
element.addEventListener("click", (event) => {
  const item = event.target.closest(".show");
  const see = item && item.closest(".see");
  const first = see && [...see.querySelectorAll(".tok")].findLast((each) => +each.dataset.c <= +item.dataset.to);
  if (first) show(see, +first.dataset.i, true);
});
const markAgain = () => {
  if (!shownItem) return;
  const again = [...element.querySelectorAll(".show")].find((each) => nameOf(each) === shownItem[0]);
  if (!again) return;
  if (shownItem[1]) again.focus({ preventScroll: true });
  markItem(again);
};

watch("value", () => { apply(); markAgain(); });
