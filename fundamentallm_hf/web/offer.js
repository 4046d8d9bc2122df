// An offer below the text in view, where it was written with other settings than the fields show: to use those of the text.

// The names of the settings that differ between a text and the fields. Nothing where a field holds what is refused.
const differsFromFields = (node) => {
  const shown = document.querySelector("#chips [data-settings]");
  if (!shown || !("tokens" in node)) return [];
  const fields = JSON.parse(shown.dataset.settings);
  const { settings = {} } = node;
  return Object.keys(fields).filter((name) => JSON.stringify(fields[name]) !== JSON.stringify(settings[name] ?? null));
};

const offerSettings = () => {
  for (const old of element.querySelectorAll(".offer")) old.remove();
  const see = tree.current && element.querySelector(`.see[data-id="${tree.current.id}"]`);
  const foot = see && see.querySelector(".foot");
  const names = foot ? differsFromFields(tree.current) : [];
  if (!names.length) return;
  const listed = names.map((name) => name.replaceAll("_", "-")).join(", ");
  const offer = make("p", "offer", `The fields show other settings than those of this text: ${listed}. `);
  offer.append(button("Use those of the text", "settings"));
  foot.after(offer);
};

document.addEventListener("fundamentallm-fields", () => element.isConnected && offerSettings());
