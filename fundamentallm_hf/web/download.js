(text) => {
  // The file is made in the browser, so that the server stores none.
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  link.download = "fundamentallm.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
