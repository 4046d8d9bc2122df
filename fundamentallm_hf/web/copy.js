(text) => {
  // Returns what the button says. Without https, a browser copies only what is selected.
  if (!text) return "Nothing to copy yet";
  const bySelection = () => {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied ? "Copied ✓" : "Select it to copy";
  };
  if (!navigator.clipboard) return bySelection();
  return navigator.clipboard.writeText(text).then(() => "Copied ✓", bySelection);
}
