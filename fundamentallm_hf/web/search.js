// Shows the settings whose name or help contains what is typed.
element.addEventListener("input", (event) => {
  const typed = event.target.value.trim().toLowerCase();
  const more = document.getElementById("more");
  for (const field of more.querySelectorAll("[id^='field-']")) {
    field.classList.toggle("not-found", Boolean(typed) && !field.textContent.toLowerCase().includes(typed));
  }
  for (const heading of more.querySelectorAll(".group")) heading.classList.toggle("not-found", Boolean(typed));
});
