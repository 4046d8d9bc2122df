// Repeats an error next to its field. This runs in the browser, because gradio would recreate all fields for every
// request that may change one of them.
watch("value", () => {
  for (const field of document.querySelectorAll(".wrong")) {
    field.classList.remove("wrong");
    for (const message of field.querySelectorAll(".field-error")) message.remove();
  }
  const alert = element.querySelector("[data-field]");
  const field = alert && document.getElementById("field-" + alert.dataset.field);
  if (!field) return;
  const message = document.createElement("p");
  message.className = "field-error";
  message.textContent = alert.textContent;
  field.classList.add("wrong");
  field.append(message);
});
