// Repeats an error next to the field that it is about. It is done in the browser, because gradio would make all fields
// anew for every request that may change one of them.
watch("value", () => {
  for (const field of document.querySelectorAll(".wrong")) {
    field.classList.remove("wrong");
    for (const said of field.querySelectorAll(".said")) said.remove();
  }
  const told = element.querySelector("[data-field]");
  const field = told && document.getElementById("field-" + told.dataset.field);
  if (!field) return;
  const said = document.createElement("p");
  said.className = "said";
  said.textContent = told.textContent;
  field.classList.add("wrong");
  field.append(said);
});
